//! Children of processes in scope come into scope; processes that end leave it.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::maps::{CPUS, DESCENDANTS};
use crate::scope::{clock_ticks, is_descendant, is_target};
use crate::settings::setting;
use crate::task::{caller_id_at, read_kernel};

/// The process of a task, as the initial pid namespace knows it.
struct Process {
    pid: u32,
    start_clock_ticks: u64,
    /// Address of its group leader.
    leader: u64,
    /// Whether the task is that leader.
    led: bool,
}

impl Process {
    /// The process of the task at this address.
    #[inline(always)]
    fn of(task: u64) -> Option<Self> {
        let tgid = read_kernel::<u32>(task + u64::from(setting!(task.tgid)))?;
        let tid = read_kernel::<u32>(task + u64::from(setting!(task.pid)))?;
        let leader = read_kernel::<u64>(task + u64::from(setting!(task.group_leader)))?;
        let start = read_kernel::<u64>(leader + u64::from(setting!(task.start_boottime)))?;
        Some(Self {
            pid: tgid,
            start_clock_ticks: clock_ticks(start),
            leader,
            led: tid == tgid,
        })
    }

    /// Its ID as the caller's pid namespace has it.
    #[inline(always)]
    fn caller_pid(&self) -> u32 {
        if setting!(pid_namespace_level) == 0 {
            self.pid
        } else {
            caller_id_at(self.leader)
        }
    }

    /// Whether it is in scope.
    #[inline(always)]
    fn is_in_scope(&self) -> bool {
        is_descendant(self.pid, self.start_clock_ticks)
            || is_target(self.caller_pid(), self.start_clock_ticks)
    }
}

/// `sched_process_fork(parent, child)`.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn on_fork(context: RawTracePointContext) -> i32 {
    let (parent, child): (u64, u64) = (context.arg(0), context.arg(1));
    let (Some(parent), Some(child)) = (Process::of(parent), Process::of(child)) else {
        return 0;
    };
    if child.led
        && setting!(follow_forks) != 0
        && parent.is_in_scope()
        && DESCENDANTS
            .insert(&child.pid, &child.start_clock_ticks, 0)
            .is_err()
    {
        // SAFETY: the helper has no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        if let Some(state) = CPUS.get_ptr_mut(cpu as u32) {
            // SAFETY: ticks of this CPU do not write this field.
            unsafe { (*state).scope_overflows += 1 };
        }
    }
    0
}

/// `sched_process_free(task)`: a group leader is freed last of its process. It
/// has no ID in any pid namespace any more, but keeps its number in the initial
/// one.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn on_free(context: RawTracePointContext) -> i32 {
    if let Some(process) = Process::of(context.arg(0))
        && process.led
        && is_descendant(process.pid, process.start_clock_ticks)
    {
        let _gone_already = DESCENDANTS.remove(&process.pid);
    }
    0
}
