//! Which pid namespace the process lives in that loads these programs.
//!
//! Run once, by hand, on its behalf: `/proc` does not tell a process in a
//! container at which level of nesting it is.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::maps::WHOAMI;
use crate::settings::setting;
use crate::task::{Task, read_kernel};

/// Writes the caller's pid namespace and its level to the map.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn whoami(_context: RawTracePointContext) -> i32 {
    if let Some([namespace, level]) = find()
        && let Some(answer) = WHOAMI.get_ptr_mut(0)
    {
        // SAFETY: nobody else writes the map.
        unsafe { *answer = [namespace, level] };
    }
    0
}

#[inline(always)]
fn find() -> Option<[u64; 2]> {
    let task = Task::current().as_ptr() as u64;
    let pid = read_kernel::<u64>(task + u64::from(setting!(task.thread_pid)))?;
    let level = read_kernel::<u32>(pid + u64::from(setting!(task.pid_level)))?;
    let number = pid
        + u64::from(setting!(task.pid_numbers))
        + u64::from(level) * u64::from(setting!(task.upid_bytes));
    let namespace = read_kernel::<u64>(number + u64::from(setting!(task.upid_ns)))?;
    Some([namespace, u64::from(level)])
}
