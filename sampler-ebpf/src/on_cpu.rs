//! The sampling timer: one tick in, one outcome out.

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_smp_processor_id, bpf_ktime_get_ns,
};
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use sampler_common::{
    CpuState, Full, MAX_KERNEL_FRAMES, NO_STACK, Outcome, RegionWriter, ThreadKey,
};

use crate::barrier::exchange;
use crate::copy::{self, Wanted};
use crate::departure;
use crate::maps::{CPUS, GENERATION, REGIONS};
use crate::scope;
use crate::settings::setting;
use crate::task::Task;
use crate::unwind::{self, UserHalf};

/// One tick in this many is timed, the first among them.
const CLOCKED_EVERY: u64 = 16;

/// Called at each tick, on the CPU that it interrupts.
#[perf_event]
pub fn on_cpu(context: PerfEventContext) -> u32 {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    let Some(state) = CPUS.get_ptr_mut(cpu) else {
        return 0;
    };
    // SAFETY: this CPU alone writes its state, and its ticks do not nest.
    unsafe {
        (*state).ticks += 1;
        (*state).clock_start_ns = if (*state).ticks % CLOCKED_EVERY == 1 {
            bpf_ktime_get_ns()
        } else {
            0
        };
        let outcome = tick(context.as_ptr(), cpu, state);
        count(state, outcome);
        // Read back from memory, of which the verifier knows nothing: it would
        // look at the whole tick twice, once for each way here.
        let start_ns = read_volatile(&raw const (*state).clock_start_ns);
        if start_ns != 0 {
            (*state).clocked_ns += bpf_ktime_get_ns() - start_ns;
            (*state).clocked_ticks += 1;
        }
    }
    0
}

/// # Safety
/// `state` is this CPU's.
#[inline(always)]
unsafe fn count(state: *mut CpuState, outcome: Outcome) {
    // SAFETY: an outcome's number is an index into the array.
    unsafe {
        let outcomes = (&raw mut (*state).outcomes).cast::<u64>();
        *outcomes.add((outcome as usize) & 7) += 1;
    }
}

/// Decides the outcome.
#[inline(always)]
fn tick(context: *mut c_void, cpu: u32, state: *mut CpuState) -> Outcome {
    let task = Task::current();
    let pid_tgid = bpf_get_current_pid_tgid();
    // Only the idle tasks have the thread ID 0.
    if pid_tgid as u32 == 0 && is_idle_loop(context, state) {
        return Outcome::Idle;
    }
    if !scope::holds(task) {
        return Outcome::OutOfScope;
    }
    if cpu >= setting!(limits.regions) {
        return Outcome::NoRegion;
    }
    // SAFETY: this CPU alone writes its state. The exchanges are full
    // barriers: the generation is read after the number became odd, and all
    // writes to the region are done before it becomes even.
    unsafe {
        let sequence = &raw mut (*state).sequence;
        let odd = (*state).sequence + 1;
        exchange(sequence, odd);
        let outcome = match GENERATION.get_ptr(0) {
            Some(generation) => sample(
                context,
                task,
                pid_tgid,
                state,
                cpu * 2 + (core::ptr::read_volatile(generation) & 1) as u32,
            ),
            None => Outcome::NoRegion,
        };
        exchange(sequence, odd + 1);
        outcome
    }
}

/// Whether the idle loop, and no interrupt on top of it, was interrupted: no
/// return address on its stack lies in the kernel's entry code.
#[inline(always)]
fn is_idle_loop(context: *mut c_void, state: *mut CpuState) -> bool {
    let (start, end) = (setting!(entry_text_start), setting!(entry_text_end));
    if end == 0 {
        return true;
    }
    // SAFETY: this CPU alone writes its state.
    let frames = unsafe { (&raw mut (*state).scratch).cast::<u64>() };
    let found = unwind::kernel_frames(context, frames);
    let mut index = 0;
    while index < i64::from(MAX_KERNEL_FRAMES) && index < found {
        // SAFETY: below the length of the array.
        let address = unsafe { *frames.add((index & 127) as usize) };
        if address >= start && address < end {
            return false;
        }
        index += 1;
    }
    true
}

/// Records one sample.
#[inline(always)]
fn sample(
    context: *mut c_void,
    task: Task,
    pid_tgid: u64,
    state: *mut CpuState,
    region_number: u32,
) -> Outcome {
    let Some(region) = REGIONS.get_ptr_mut(region_number) else {
        return Outcome::NoRegion;
    };
    // SAFETY: this CPU alone writes this region in this generation.
    let writer = unsafe { RegionWriter::new(region) };
    // SAFETY: this CPU alone writes its state.
    let departed = unsafe { departure::of(task, state) };
    let Ok(thread) = thread(writer, task, pid_tgid, departed.is_some(), state) else {
        return Outcome::ThreadsFull;
    };
    let kernel = if setting!(kernel_frames) == 0 {
        Ok(NO_STACK)
    } else {
        // SAFETY: this CPU alone writes its state.
        unsafe { unwind::kernel(context, writer, state) }
    };
    let Ok(kernel) = kernel else {
        return Outcome::StacksFull;
    };
    let half = if setting!(user_frames) == 0 {
        Ok(UserHalf::None)
    } else if let Some(departed) = departed {
        // SAFETY: as above.
        unsafe { departure::user_half(departed, task, writer, state) }
            .map(|kept| kept.map_or(UserHalf::None, UserHalf::Kept))
    } else {
        // SAFETY: as above.
        unsafe { unwind::user(task, writer, state) }
    };
    let Ok(half) = half else {
        return Outcome::StacksFull;
    };
    let mut wanted = Wanted {
        region,
        region_number,
        thread,
        kernel_stack: kernel,
        checked_stack: NO_STACK,
    };
    let user = match half {
        UserHalf::None => NO_STACK,
        UserHalf::Kept(stack) => stack,
        UserHalf::Walked(stack) => {
            let every = u64::from(setting!(check_every));
            // SAFETY: this CPU alone writes its state.
            if every != 0 && unsafe { (*state).ticks } % every == 0 {
                wanted.checked_stack = stack;
                // SAFETY: as above. Without room there is nothing to check.
                let _unchecked = unsafe { copy::ship(state, &wanted) };
            }
            stack
        }
        // SAFETY: as above.
        UserHalf::ToBeCopied => match unsafe { copy::ship(state, &wanted) } {
            Ok(()) => return Outcome::Counted,
            // SAFETY: as above.
            Err(Full) => match unsafe { unwind::without_copy(writer, state) } {
                Ok(stack) => stack,
                Err(Full) => return Outcome::StacksFull,
            },
        },
    };
    match writer.count(setting!(limits.counts), thread, user, kernel) {
        Err(Full) => Outcome::CountsFull,
        Ok(()) => Outcome::Counted,
    }
}

/// The position of the current thread; of one that departs, as what it was.
#[inline(always)]
fn thread(
    writer: RegionWriter,
    task: Task,
    pid_tgid: u64,
    departs: bool,
    state: *const CpuState,
) -> Result<u32, Full> {
    // SAFETY: this CPU alone writes its state.
    let departed = unsafe { &raw const (*state).departed };
    let mut key = ThreadKey {
        pid_tgid,
        start_boottime_ns: task.start_boottime_ns(),
        exec_id: task.exec_id(),
        comm: [0; 2],
    };
    // SAFETY: the destination is ours and 16 bytes long.
    unsafe { bpf_get_current_comm((&raw mut key.comm).cast(), 16) };
    if departs {
        // SAFETY: as above.
        unsafe {
            key.exec_id = (*departed).exec_id;
            key.comm = (*departed).comm;
        }
    }
    writer.thread(setting!(limits.threads), &key, |entry| {
        let leader = task.group_leader();
        let nested = setting!(pid_namespace_level) != 0;
        // SAFETY: the writer hands over an entry of its table.
        unsafe {
            (*entry).process_start_boottime_ns = leader.start_boottime_ns();
            if departs {
                (*entry).first_seen_ns = (*departed).time_ns;
                (*entry).process_comm = (*departed).process_comm;
            } else {
                (*entry).first_seen_ns = bpf_ktime_get_ns();
                (*entry).process_comm = leader.comm();
            }
            (*entry).kernel_thread = u32::from(task.is_kernel_thread());
            if nested {
                (*entry).caller_pid = leader.caller_id();
                (*entry).caller_tid = task.caller_id();
            } else {
                (*entry).caller_pid = (pid_tgid >> 32) as u32;
                (*entry).caller_tid = pid_tgid as u32;
            }
        }
    })
}

const _: () = assert!(Outcome::COUNT <= 8, "an outcome's number is masked with 7");
