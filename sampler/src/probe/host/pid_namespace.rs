//! Which processes the caller can see, and by which numbers.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::small_file;

/// The inode of the first pid namespace (`PROC_PID_INIT_INO`).
const INITIAL: u64 = 0xEFFF_FFFC;

/// The caller's pid namespace and the `/proc` it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidNamespace {
    /// Inode of the namespace: `bpf_get_ns_current_pid_tgid` wants it.
    pub inode: u64,
    /// Device of that inode.
    pub device: u64,
    /// Whether it is the host's own.
    pub initial: bool,
    /// Whether `/proc` shows this namespace, not one around it: only then do
    /// its numbers mean the same processes as ours.
    pub proc_is_ours: bool,
}

impl PidNamespace {
    /// Reads `/proc/self`; an error when there is no `/proc` to read.
    pub fn read() -> io::Result<Self> {
        let namespace = std::fs::metadata("/proc/self/ns/pid")?;
        let status = small_file::read_text("/proc/self/status")?;
        Ok(Self {
            inode: namespace.ino(),
            device: namespace.dev(),
            initial: namespace.ino() == INITIAL,
            proc_is_ours: proc_is_ours(&status, std::process::id()),
        })
    }
}

/// `NSpid` lists the caller's pid in each namespace from that of `/proc`
/// inwards to its own: one number means that they are the same.
fn proc_is_ours(status: &str, own_pid: u32) -> bool {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_ascii_whitespace())
    };
    // A kernel without pid namespaces prints no NSpid line.
    let Some(mut pids) = field("NSpid:").or_else(|| field("Pid:")) else {
        return false;
    };
    pids.next() == Some(own_pid.to_string().as_str()) && pids.next().is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    #[test]
    fn one_number_means_that_proc_shows_our_namespace() {
        assert!(proc_is_ours("Pid:\t12\nNSpid:\t12\n", 12));
        assert!(proc_is_ours("Name:\tx\nPid:\t12\n", 12));
    }

    #[test]
    fn a_proc_of_the_host_seen_from_a_container_is_not_ours() {
        assert!(!proc_is_ours("Pid:\t4711\nNSpid:\t4711\t12\n", 12));
        // By chance the same number in both.
        assert!(!proc_is_ours("Pid:\t12\nNSpid:\t12\t12\n", 12));
        assert!(!proc_is_ours("", 12));
    }

    #[test]
    fn this_test_sees_itself_in_proc() {
        let namespace = PidNamespace::read().unwrap();
        assert!(namespace.proc_is_ours);
        let link = std::fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(link.to_str().unwrap(), format!("pid:[{}]", namespace.inode));
    }
}
