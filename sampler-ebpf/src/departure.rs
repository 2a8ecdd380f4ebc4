//! The last user half of tasks that exit or start another program: walked just
//! before their memory goes away, for the ticks that come meanwhile.

use core::ffi::c_void;
use core::ptr::{NonNull, read_volatile};

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns,
    bpf_probe_read_kernel,
};
use aya_ebpf::macros::{fentry, raw_tracepoint};
use aya_ebpf::programs::{FEntryContext, RawTracePointContext};
use sampler_common::{
    CpuState, Departure, Ending, Full, MAX_USER_FRAMES, RegionWriter, departure_slot,
};

use crate::barrier::exchange;
use crate::maps::{CPUS, DEPARTURES};
use crate::scope;
use crate::settings::setting;
use crate::task::Task;
use crate::unwind::{self, Walk};

/// Stands for a task in a slot that is being written: no address.
const BEING_WRITTEN: u64 = 1;

/// Two tracepoints, so that the kernel has one program to look through:
///
/// - `sched_process_exit(task, group_dead)`, from 6.16 on: before the task gives
///   up its memory. Of a process only the last thread takes the memory along.
/// - `sched_prepare_exec(task, program)`, from 6.10 on: before the point of no
///   return. The program's address is never 0.
#[raw_tracepoint]
pub fn on_departure(context: RawTracePointContext) -> i32 {
    let group_dead_or_program: u64 = context.arg(1);
    if group_dead_or_program != 0 {
        remember();
    }
    0
}

/// `acct_collect(code, group_dead)`: where older kernels pass before a task gives
/// up its memory.
#[fentry(function = "acct_collect")]
pub fn on_exit_call(context: FEntryContext) -> i32 {
    let group_dead: u64 = context.arg(1);
    if group_dead as u32 != 0 {
        remember();
    }
    0
}

/// `begin_new_exec(program)`: likewise, before an exec is past return.
#[fentry(function = "begin_new_exec")]
pub fn on_exec_call(_: FEntryContext) -> i32 {
    remember();
    0
}

/// Walks the current task's stack and keeps it.
#[inline(always)]
fn remember() {
    let task = Task::current();
    if task.is_kernel_thread() || !scope::holds(task) {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    // Ticks may come at any moment, and have a state of their own.
    let Some(state) = CPUS.get_ptr_mut(setting!(departing_states) + cpu) else {
        return;
    };
    // SAFETY: only departures on this CPU write this state, and where one may
    // interrupt another, the second finds the number odd and leaves.
    unsafe {
        if read_volatile(&raw const (*state).sequence) & 1 != 0 {
            return;
        }
        exchange(&raw mut (*state).sequence, (*state).sequence + 1);
        let start_ns = bpf_ktime_get_ns();
        (*state).ticks += 1;
        keep(task, state, start_ns);
        (*state).clocked_ns += bpf_ktime_get_ns() - start_ns;
        (*state).clocked_ticks += 1;
        exchange(&raw mut (*state).sequence, (*state).sequence + 1);
    }
}

/// # Safety
/// `state` is this departure's alone.
#[inline(always)]
unsafe fn keep(task: Task, state: *mut CpuState, time_ns: u64) {
    let Some(slot) = slot() else {
        return;
    };
    // SAFETY: the state is ours. Another task may write to the slot at the same
    // time: whoever reads it looks whose it is before and after.
    unsafe {
        // Two that write at once would mix their frames.
        if exchange(&raw mut (*slot).task, BEING_WRITTEN) == BEING_WRITTEN {
            return;
        }
        (*state).walk.departing = 1;
        let Some(start) = unwind::interrupted(task, state) else {
            exchange(&raw mut (*slot).task, 0);
            return;
        };
        let frames = (&raw mut (*slot).frames).cast::<u64>();
        let Walk::Ended(ending) = unwind::walk(task, state, frames, &start) else {
            exchange(&raw mut (*slot).task, 0);
            return;
        };
        (*slot).start_boottime_ns = task.start_boottime_ns();
        (*slot).memory = task.memory();
        (*slot).departed.time_ns = time_ns;
        (*slot).departed.exec_id = task.exec_id();
        bpf_get_current_comm((&raw mut (*slot).departed.comm).cast(), 16);
        (*slot).departed.process_comm = task.group_leader().comm();
        (*slot).hash = (*state).walk.hash;
        (*slot).length = (*state).walk.length;
        (*slot).ending = ending as u32;
        exchange(&raw mut (*slot).task, task_address());
    }
}

/// The current task, as a number to compute with.
#[inline(always)]
fn task_address() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

#[inline(always)]
fn slot() -> Option<*mut Departure> {
    let slots = setting!(departure_slots);
    if slots == 0 {
        return None;
    }
    DEPARTURES.get_ptr_mut(departure_slot(task_address(), slots))
}

/// The departure of the current task, if its memory is gone and that of another
/// program not there yet. What the task was is then in the state.
///
/// # Safety
/// `state` is this tick's.
#[inline(always)]
pub unsafe fn of(task: Task, state: *mut CpuState) -> Option<NonNull<Departure>> {
    let slot = slot()?;
    if !is_of(slot, task) {
        return None;
    }
    let memory = task.memory();
    // SAFETY: the slot is whole; one word is read once.
    if memory == unsafe { read_volatile(&raw const (*slot).memory) } {
        return None;
    }
    // SAFETY: as above; the state is this tick's.
    unsafe {
        if memory != 0 && !unwind::is_between_programs(memory) {
            // The next program runs.
            exchange(&raw mut (*slot).task, 0);
            return None;
        }
        let (from, to) = (&raw const (*slot).departed, &raw mut (*state).departed);
        (*to).time_ns = (*from).time_ns;
        (*to).exec_id = (*from).exec_id;
        (*to).comm = (*from).comm;
        (*to).process_comm = (*from).process_comm;
        if is_still_of(slot, task, state) {
            NonNull::new(slot)
        } else {
            None
        }
    }
}

/// Whether all that was read of the slot until now is this task's.
#[inline(always)]
unsafe fn is_still_of(slot: *mut Departure, task: Task, state: *mut CpuState) -> bool {
    // SAFETY: the state is this tick's, and no walk is under way.
    unsafe { exchange(&raw mut (*state).walk.space, 0) };
    is_of(slot, task)
}

#[inline(always)]
fn is_of(slot: *mut Departure, task: Task) -> bool {
    // SAFETY: the slot is whole; words are read once.
    unsafe {
        read_volatile(&raw const (*slot).task) == task_address()
            && read_volatile(&raw const (*slot).start_boottime_ns) == task.start_boottime_ns()
    }
}

/// The user half that was kept, as a stack of this region; `None` if another
/// task took the slot meanwhile.
///
/// # Safety
/// `departed` came from [`of`] for this task; `state` is this tick's.
#[inline(always)]
pub unsafe fn user_half(
    departed: NonNull<Departure>,
    task: Task,
    region: RegionWriter,
    state: *mut CpuState,
) -> Result<Option<u32>, Full> {
    let slot = departed.as_ptr();
    let frames = region.next_frames()?;
    // SAFETY: `next_frames` gives room for the greatest length.
    unsafe {
        let (hash, length) = ((*slot).hash, read_volatile(&raw const (*slot).length));
        let ending = read_volatile(&raw const (*slot).ending);
        if length > MAX_USER_FRAMES {
            return Ok(None);
        }
        let status = bpf_probe_read_kernel(
            frames.cast(),
            length * 8,
            (&raw const (*slot).frames).cast::<c_void>(),
        );
        if status != 0 || !is_still_of(slot, task, state) {
            return Ok(None);
        }
        let ending = match ending {
            0 => Ending::Complete,
            2 => Ending::UnreadableStack,
            3 => Ending::BrokenChain,
            6 => Ending::UnmappedAddress,
            8 => Ending::UnsupportedRule,
            9 => Ending::NotOutwards,
            _ => Ending::DepthLimit,
        };
        region
            .stack(setting!(limits.words), hash, length, ending)
            .map(Some)
    }
}
