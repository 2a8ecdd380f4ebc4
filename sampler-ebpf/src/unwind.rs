//! The two halves of a stack trace, written straight to where they may stay.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_stack, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user, bpf_task_pt_regs,
};
use sampler_common::{
    Ending, FrameWalk, Full, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, Memory, NO_STACK, RegionWriter,
    RegisterLayout, StackHash, Step,
};

use crate::settings::setting;
use crate::task::Task;

/// The memory of the current process.
struct UserMemory;

impl Memory for UserMemory {
    #[inline(always)]
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        let mut pair = [0_u64; 2];
        // SAFETY: the destination is ours; a fault is an error.
        let status = unsafe {
            bpf_probe_read_user(
                (&raw mut pair).cast::<c_void>(),
                size_of::<[u64; 2]>() as u32,
                address as *const c_void,
            )
        };
        (status == 0).then_some(pair)
    }
}

/// What the steps of a user walk share.
struct UserWalk {
    walk: FrameWalk,
    frames: *mut u64,
    length: u32,
    ending: u32,
    hash: StackHash,
}

/// An ending that no walk has: it goes on.
const WALKING: u32 = u32::MAX;

/// One step, as `bpf_loop` calls it: 0 to go on, 1 to stop.
unsafe extern "C" fn user_step(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: `user` below hands over its own `UserWalk`.
    let walk = unsafe { &mut *walk.cast::<UserWalk>() };
    match walk.walk.step(&mut UserMemory) {
        Step::Caller(address) => {
            let at = (walk.length & (MAX_USER_FRAMES - 1)) as usize;
            // SAFETY: masked to the room that `next_frames` gives.
            unsafe { *walk.frames.add(at) = address };
            walk.hash.add(address);
            walk.length += 1;
            0
        }
        Step::End(ending) => {
            walk.ending = ending as u32;
            1
        }
    }
}

/// The user half of the current stack trace: [`NO_STACK`] for a task that has
/// none.
#[inline(always)]
pub fn user(task: Task, region: RegionWriter, registers: *mut u64) -> Result<u32, Full> {
    let words = setting!(registers.words);
    if words > RegisterLayout::MAX_WORDS as u32 || task.is_kernel_thread() {
        return Ok(NO_STACK);
    }
    // SAFETY: the caller gives room for `MAX_WORDS`; the kernel keeps the
    // registers of a task's user half where the helper says.
    let status = unsafe {
        let saved = bpf_task_pt_regs(task.as_ptr().cast_mut().cast());
        bpf_probe_read_kernel(registers.cast(), words * 8, saved as *const c_void)
    };
    let word = |index: u32| {
        // SAFETY: masked to the room of the caller's buffer.
        unsafe { *registers.add((index & 63) as usize) }
    };
    let mode = word(setting!(registers.mode)) & setting!(registers.mode_mask);
    let narrow = mode == setting!(registers.mode_user_narrow);
    if status != 0 || !(narrow || mode == setting!(registers.mode_user)) {
        return Ok(NO_STACK);
    }

    let program_counter = word(setting!(registers.program_counter));
    let mut walk = UserWalk {
        walk: FrameWalk {
            frame_pointer: word(setting!(registers.frame_pointer)),
            narrow,
        },
        frames: region.next_frames()?,
        length: 1,
        ending: WALKING,
        hash: StackHash::new([setting!(seed_low), setting!(seed_high)]),
    };
    // SAFETY: `next_frames` gives room for at least one.
    unsafe { *walk.frames = program_counter };
    walk.hash.add(program_counter);
    let callers = setting!(limits.user_frames) - 1;
    // SAFETY: the callback takes what is handed over here and nothing else.
    unsafe {
        bpf_loop(
            callers,
            user_step as *mut c_void,
            (&raw mut walk).cast::<c_void>(),
            0,
        );
    }
    let ending = match walk.ending {
        0 => Ending::Complete,
        2 => Ending::UnreadableStack,
        3 => Ending::BrokenChain,
        _ if walk.walk.frame_pointer == 0 => Ending::Complete,
        _ => Ending::DepthLimit,
    };
    region.stack(setting!(limits.words), walk.hash, walk.length, ending)
}

/// Takes the kernel's stack into `frames`, which has room for one more than
/// [`MAX_KERNEL_FRAMES`]; returns how many were there, or a negative error.
#[inline(always)]
pub fn kernel_frames(context: *mut c_void, frames: *mut u64) -> i64 {
    let wanted = setting!(limits.kernel_frames);
    if wanted > MAX_KERNEL_FRAMES || setting!(fault_kernel_stack) != 0 {
        return -1;
    }
    // One more than wanted tells a deep stack from one that just fits.
    // SAFETY: the caller gives the room.
    let bytes = unsafe { bpf_get_stack(context, frames.cast(), (wanted + 1) * 8, 0) };
    if bytes < 0 { bytes } else { bytes >> 3 }
}

/// What the steps of hashing a kernel stack share.
struct KernelHash {
    frames: *const u64,
    hash: StackHash,
}

unsafe extern "C" fn kernel_step(index: u32, state: *mut c_void) -> i64 {
    // SAFETY: `kernel` below hands over its own `KernelHash`, and the index is
    // masked to the room that its frames have.
    unsafe {
        let state = &mut *state.cast::<KernelHash>();
        state.hash.add(*state.frames.add((index & 127) as usize));
    }
    0
}

/// The kernel half of the current stack trace: [`NO_STACK`] when the tick
/// interrupted user code.
#[inline(always)]
pub fn kernel(context: *mut c_void, region: RegionWriter) -> Result<u32, Full> {
    let frames = region.next_frames()?;
    let found = kernel_frames(context, frames);
    if found == 0 {
        return Ok(NO_STACK);
    }
    let limit = setting!(limits.kernel_frames);
    let (length, ending) = if found < 0 {
        (0, Ending::KernelStackUnavailable)
    } else if found > i64::from(limit) || found >= i64::from(MAX_KERNEL_FRAMES) {
        ((found as u32).min(limit), Ending::KernelDepthLimit)
    } else {
        (found as u32, Ending::Complete)
    };
    let mut state = KernelHash {
        frames,
        hash: StackHash::new([setting!(seed_high), setting!(seed_low)]),
    };
    // SAFETY: the callback takes what is handed over here and nothing else.
    unsafe {
        bpf_loop(
            length,
            kernel_step as *mut c_void,
            (&raw mut state).cast::<c_void>(),
            0,
        );
    }
    region.stack(setting!(limits.words), state.hash, length, ending)
}
