//! Reading the kernel's `task_struct` by the offsets that user space found in
//! the running kernel's BTF.
//!
//! A pointer from `bpf_get_current_task_btf` may be read directly: the
//! verifier knows its type and the offsets are constants to it.

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel};

use crate::settings::setting;

/// `PF_IO_WORKER | PF_USER_WORKER | PF_KTHREAD`: tasks that never return to
/// user space.
const NEVER_IN_USER_SPACE: u32 = 0x10 | 0x4000 | 0x0020_0000;

/// A task that the verifier knows to be one.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

impl Task {
    /// The one that runs on this CPU.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }

    #[inline(always)]
    pub fn as_ptr(self) -> *const u8 {
        self.0
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the offset is that of a member of this type; a fault reads
        // as zero.
        unsafe { read_volatile(self.0.add(offset as usize).cast()) }
    }

    #[inline(always)]
    pub fn group_leader(self) -> Self {
        Self(self.read(setting!(task.group_leader)))
    }

    #[inline(always)]
    pub fn start_boottime_ns(self) -> u64 {
        self.read(setting!(task.start_boottime))
    }

    #[inline(always)]
    pub fn exec_id(self) -> u64 {
        if setting!(task.self_exec_id_bytes) == 8 {
            self.read(setting!(task.self_exec_id))
        } else {
            u64::from(self.read::<u32>(setting!(task.self_exec_id)))
        }
    }

    /// Whether it has no user half.
    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.read::<u32>(setting!(task.flags)) & NEVER_IN_USER_SPACE != 0
            || self.read::<u64>(setting!(task.mm)) == 0
    }

    /// The address of its `mm_struct`, as a number; 0 if it has none.
    #[inline(always)]
    pub fn memory(self) -> u64 {
        read_kernel(self.0 as u64 + u64::from(setting!(task.mm))).unwrap_or(0)
    }

    #[inline(always)]
    pub fn comm(self) -> [u64; 2] {
        read_kernel(self.0 as u64 + u64::from(setting!(task.comm))).unwrap_or([0; 2])
    }

    /// The task's ID as the caller's pid namespace numbers it: of the thread,
    /// or of the process when asked of a group leader. 0 if it has none there.
    #[inline(always)]
    pub fn caller_id(self) -> u32 {
        caller_id_at(self.0 as u64)
    }
}

/// [`Task::caller_id`] for a task given by its address.
#[inline(always)]
pub fn caller_id_at(task: u64) -> u32 {
    let level = setting!(pid_namespace_level);
    let Some(pid) = read_kernel::<u64>(task + u64::from(setting!(task.thread_pid))) else {
        return 0;
    };
    let Some(own_level) = read_kernel::<u32>(pid + u64::from(setting!(task.pid_level))) else {
        return 0;
    };
    if own_level < level {
        return 0;
    }
    let numbers = pid
        + u64::from(setting!(task.pid_numbers))
        + u64::from(level) * u64::from(setting!(task.upid_bytes));
    match read_kernel::<u64>(numbers + u64::from(setting!(task.upid_ns))) {
        Some(namespace) if namespace == setting!(pid_namespace) => {
            read_kernel::<u32>(numbers + u64::from(setting!(task.upid_nr))).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Copies a value from kernel memory.
#[inline(always)]
pub fn read_kernel<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the destination is ours and as large as said; a fault is an error.
    let status = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast::<c_void>(),
            size_of::<T>() as u32,
            address as *const c_void,
        )
    };
    (status == 0).then_some(value)
}
