//! Children of processes in scope come into scope; processes that end leave it.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::maps::{CPUS, SCOPE};
use crate::scope::clock_ticks;
use crate::settings::setting;
use crate::space;
use crate::task::{caller_id_at, read_kernel};

/// A process, as the map of processes in scope knows it.
struct Process {
    pid: u32,
    start_clock_ticks: u64,
}

/// The process of the task at this address, with whether the task leads it.
#[inline(always)]
fn process(task: u64) -> Option<(Process, bool)> {
    let tgid = read_kernel::<u32>(task + u64::from(setting!(task.tgid)))?;
    let tid = read_kernel::<u32>(task + u64::from(setting!(task.pid)))?;
    let leader = read_kernel::<u64>(task + u64::from(setting!(task.group_leader)))?;
    let start = read_kernel::<u64>(leader + u64::from(setting!(task.start_boottime)))?;
    let pid = if setting!(pid_namespace_level) == 0 {
        tgid
    } else {
        caller_id_at(leader)
    };
    let process = Process {
        pid,
        start_clock_ticks: clock_ticks(start),
    };
    Some((process, tid == tgid))
}

#[inline(always)]
fn is_in_scope(process: &Process) -> bool {
    // SAFETY: the map's values are read once, as whole words.
    unsafe { SCOPE.get(&process.pid) }.is_some_and(|start| *start == process.start_clock_ticks)
}

/// `sched_process_fork(parent, child)`.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn on_fork(context: RawTracePointContext) -> i32 {
    let (parent, child): (u64, u64) = (context.arg(0), context.arg(1));
    let (Some((parent, _)), Some((child, is_process))) = (process(parent), process(child)) else {
        return 0;
    };
    if is_process && setting!(tables) != 0 {
        space::void(child.pid);
    }
    if is_process
        && child.pid != 0
        && setting!(follow_forks) != 0
        && is_in_scope(&parent)
        && SCOPE
            .insert(&child.pid, &child.start_clock_ticks, 0)
            .is_err()
    {
        // SAFETY: the helper has no preconditions.
        let cpu = unsafe { aya_ebpf::helpers::generated::bpf_get_smp_processor_id() };
        if let Some(state) = CPUS.get_ptr_mut(cpu as u32) {
            // SAFETY: ticks of this CPU do not write this field.
            unsafe { (*state).scope_overflows += 1 };
        }
    }
    0
}

/// `sched_process_exec(task, old_pid, bprm)`.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn on_exec(context: RawTracePointContext) -> i32 {
    if let Some((process, _)) = process(context.arg(0)) {
        space::void(process.pid);
    }
    0
}

/// `sched_process_free(task)`: a group leader is freed last of its process.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn on_free(context: RawTracePointContext) -> i32 {
    if let Some((process, true)) = process(context.arg(0))
        && is_in_scope(&process)
    {
        let _gone_already = SCOPE.remove(&process.pid);
    }
    0
}
