//! The offsets that the eBPF programs need to know a thread.

use std::io;

pub use sampler_common::TaskLayout;

use super::btf::{self, Btf, BtfError};
use super::cpus;
use super::memory_layout::{MemoryLayout, memory_layout};

/// A member that this kernel's structures do not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this kernel's types hold no {structure}.{member}")]
pub struct MissingMember {
    /// The structure.
    pub structure: &'static str,
    /// The member.
    pub member: &'static str,
}

/// Why the running kernel's layout is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The kernel shows no types, or not to this caller.
    #[error("cannot read {path}: {0}", path = btf::KERNEL_BTF)]
    Unreadable(io::ErrorKind),
    /// It shows something else.
    #[error("{path}: {0}", path = btf::KERNEL_BTF)]
    Damaged(#[from] BtfError),
    /// Its structures are unlike any that is known.
    #[error(transparent)]
    Missing(#[from] MissingMember),
}

/// What the programs need to know of a kernel's structures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelLayout {
    /// Of tasks.
    pub task: TaskLayout,
    /// Of mappings.
    pub memory: MemoryLayout,
}

/// The layout of the running kernel.
pub fn read() -> Result<KernelLayout, LayoutError> {
    let bytes = btf::read_kernel().map_err(|error| LayoutError::Unreadable(error.kind()))?;
    let btf = Btf::parse(&bytes)?;
    Ok(KernelLayout {
        task: task_layout(&btf)?,
        memory: memory_layout(&btf, cpus::page_bytes()),
    })
}

/// Looks all of them up.
pub fn task_layout(btf: &Btf<'_>) -> Result<TaskLayout, MissingMember> {
    let missing = |structure, member| MissingMember { structure, member };
    let offset = |structure, member| {
        btf.member_offset_bytes(structure, member)
            .ok_or(missing(structure, member))
    };
    let task = |member| offset("task_struct", member);
    Ok(TaskLayout {
        start_boottime: task("start_boottime").or_else(|_| task("real_start_time"))?,
        group_leader: task("group_leader")?,
        self_exec_id: task("self_exec_id")?,
        self_exec_id_bytes: btf
            .member_size_bytes("task_struct", "self_exec_id")
            .ok_or(missing("task_struct", "self_exec_id"))?,
        comm: task("comm")?,
        pid: task("pid")?,
        tgid: task("tgid")?,
        mm: task("mm")?,
        flags: task("flags")?,
        thread_pid: task("thread_pid")?,
        pid_level: offset("pid", "level")?,
        pid_numbers: offset("pid", "numbers")?,
        upid_bytes: btf
            .struct_size_bytes("upid")
            .ok_or(missing("upid", "(size)"))?,
        upid_nr: offset("upid", "nr")?,
        upid_ns: offset("upid", "ns")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    #[test]
    fn the_running_kernel_has_every_member() {
        let layout = match read() {
            Err(LayoutError::Unreadable(_)) => {
                eprintln!("skipped: this kernel shows no BTF");
                return;
            }
            layout => layout.unwrap().task,
        };
        // `pid` and `tgid` are neighbours of four bytes, and a `upid` is a
        // number, its padding and a pointer.
        assert_eq!(layout.tgid, layout.pid + 4);
        assert_eq!(
            (layout.upid_nr, layout.upid_ns, layout.upid_bytes),
            (0, 8, 16)
        );
        assert!(matches!(layout.self_exec_id_bytes, 4 | 8));
    }

    #[test]
    fn a_kernel_without_the_member_is_told_by_its_name() {
        // BTF with no types at all.
        let mut bytes = vec![0u8; 24];
        bytes[..2].copy_from_slice(&0xEB9F_u16.to_ne_bytes());
        bytes[2] = 1;
        bytes[4..8].copy_from_slice(&24u32.to_ne_bytes());
        let error = task_layout(&Btf::parse(&bytes).unwrap()).unwrap_err();
        assert_eq!(error.structure, "task_struct");
        assert!(error.to_string().contains("task_struct.real_start_time"));
    }
}
