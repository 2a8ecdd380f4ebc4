//! Whether what runs is what the recording asks for.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use sampler_common::ScopeKind;

use crate::maps::{CGROUP, SCOPE};
use crate::settings::setting;
use crate::task::Task;

/// Whether the current task is in scope.
#[inline(always)]
pub fn holds(task: Task) -> bool {
    let kind = setting!(scope);
    if kind == ScopeKind::Host as u32 {
        return true;
    }
    if kind == ScopeKind::Processes as u32 {
        return holds_process(caller_pid(task), task.group_leader());
    }
    if kind == ScopeKind::Comm as u32 {
        let comm = task.group_leader().comm();
        return comm[0] == setting!(comm_low) && comm[1] == setting!(comm_high);
    }
    CGROUP.current_task_under_cgroup(0).unwrap_or(false)
}

/// The process ID of the current task, as the caller numbers it.
#[inline(always)]
pub fn caller_pid(task: Task) -> u32 {
    if setting!(pid_namespace_level) == 0 {
        (bpf_get_current_pid_tgid() >> 32) as u32
    } else {
        task.group_leader().caller_id()
    }
}

#[inline(always)]
fn holds_process(pid: u32, leader: Task) -> bool {
    // SAFETY: the map's values are read once, as whole words.
    let Some(start) = (unsafe { SCOPE.get(&pid) }) else {
        return false;
    };
    *start == clock_ticks(leader.start_boottime_ns())
}

/// A start time as `/proc/PID/stat` gives it.
#[inline(always)]
pub fn clock_ticks(boottime_ns: u64) -> u64 {
    match setting!(clock_tick_ns) {
        0 => 0,
        tick_ns => boottime_ns / tick_ns,
    }
}
