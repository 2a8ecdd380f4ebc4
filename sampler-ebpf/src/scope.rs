//! Whether what runs is what the recording asks for.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use sampler_common::ScopeKind;

use crate::maps::{CGROUP, DESCENDANTS, SCOPE};
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
        let start = clock_ticks(task.group_leader().start_boottime_ns());
        return is_descendant((bpf_get_current_pid_tgid() >> 32) as u32, start)
            || is_target(caller_pid(task), start);
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

/// Whether a process, by its ID for the caller and its start in clock ticks,
/// was asked for.
#[inline(always)]
pub fn is_target(caller_pid: u32, start: u64) -> bool {
    // SAFETY: the map's values are read once, as whole words.
    unsafe { SCOPE.get(&caller_pid) }.is_some_and(|found| *found == start)
}

/// Whether a process, by its ID in the initial pid namespace, is a descendant
/// of one that was asked for.
#[inline(always)]
pub fn is_descendant(pid: u32, start: u64) -> bool {
    if setting!(follow_forks) == 0 {
        return false;
    }
    // SAFETY: the map's values are read once, as whole words.
    unsafe { DESCENDANTS.get(&pid) }.is_some_and(|found| *found == start)
}

/// A start time as `/proc/PID/stat` gives it.
#[inline(always)]
pub fn clock_ticks(boottime_ns: u64) -> u64 {
    match setting!(clock_tick_ns) {
        0 => 0,
        tick_ns => boottime_ns / tick_ns,
    }
}
