//! The two halves of a stack trace, written straight to where they may stay.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_stack, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user, bpf_task_pt_regs,
};
use sampler_common::unwind::x86_64::{Registers, Rule, pt_regs_word, step};
use sampler_common::unwind::{Interrupted, Stop};
use sampler_common::{
    CpuState, Ending, Full, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, Memory, NO_STACK, RegionWriter,
    RegisterLayout, SpaceMapping, StackHash, Step, WALKING, WalkState,
};

use crate::settings::setting;
use crate::task::Task;
use crate::{scope, space};

/// The memory of the current process.
struct UserMemory;

impl Memory for UserMemory {
    #[inline(always)]
    fn read_word(&mut self, address: u64) -> Option<u64> {
        let mut word = 0_u64;
        // SAFETY: the destination is ours; a fault is an error.
        let status = unsafe {
            bpf_probe_read_user(
                (&raw mut word).cast::<c_void>(),
                size_of::<u64>() as u32,
                address as *const c_void,
            )
        };
        (status == 0).then_some(word)
    }

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

/// What `bpf_loop` hands to each step.
struct Stepping {
    state: *mut WalkState,
    frames: *mut u64,
    /// The registers of the user half, as the kernel saved them.
    saved: *const u64,
    /// The mappings of all processes; null in a walk by frame pointers.
    mappings: *const SpaceMapping,
}

/// The registers of the interrupted user half.
struct SavedRegisters(*const u64);

impl Interrupted for SavedRegisters {
    #[inline(always)]
    fn register(&self, dwarf_number: u32) -> Option<u64> {
        let at = (pt_regs_word(dwarf_number) & 15) as usize;
        // SAFETY: masked to the room of the scratch.
        Some(unsafe { *self.0.add(at) })
    }
}

/// One step of a walk by tables: 0 to go on, 1 to stop.
unsafe extern "C" fn table_step(_: u32, stepping: *mut c_void) -> i64 {
    // SAFETY: `user` below hands over its own `Stepping`, whose state is this
    // CPU's and whose frames have the room that is masked to.
    unsafe {
        let stepping = &*stepping.cast::<Stepping>();
        let state = &mut *stepping.state;
        let address = state.registers.lookup_address();
        let mut position = state.last_mapping;
        if !space::holds(stepping.mappings, position, address) {
            let found = space::find_mapping(
                stepping.mappings,
                state.first_mapping,
                state.mappings,
                address,
            );
            let Some(found) = found else {
                state.ending = Ending::UnmappedAddress as u32;
                return 1;
            };
            position = found;
            state.last_mapping = found;
        }
        let mapping = &*stepping.mappings.add(space::masked(position));
        let rule = if mapping.table == SpaceMapping::FRAME_POINTER {
            Rule::GAP_FRAME_POINTER
        } else {
            match space::rule(mapping.table, mapping.bias, address) {
                Some(rule) => rule,
                None => {
                    state.ending = Ending::TableMissing as u32;
                    return 1;
                }
            }
        };
        let saved = SavedRegisters(stepping.saved);
        match step(rule, &mut state.registers, &mut UserMemory, &saved) {
            Ok(()) => {
                // What is kept of a caller is its return address, one more
                // than the address to look up; of code that a signal
                // interrupted the same is kept.
                let address = state.registers.lookup_address().wrapping_add(1);
                let at = state.length & (MAX_USER_FRAMES - 1);
                *stepping.frames.add(at as usize) = address;
                state.hash.add(address);
                state.length += 1;
                0
            }
            Err(stop) => {
                state.ending = match stop {
                    Stop::EndOfStack | Stop::EndOfChain => Ending::Complete,
                    Stop::Unsupported | Stop::RegisterLost => Ending::UnsupportedRule,
                    Stop::Unreadable => Ending::UnreadableStack,
                    Stop::NotOutwards => Ending::NotOutwards,
                    Stop::ZeroReturnAddress => Ending::BrokenChain,
                } as u32;
                1
            }
        }
    }
}

/// One step of a user walk: 0 to go on, 1 to stop.
unsafe extern "C" fn user_step(_: u32, stepping: *mut c_void) -> i64 {
    // SAFETY: `user` below hands over its own `Stepping`, whose state is this
    // CPU's and whose frames have the room that is masked to.
    unsafe {
        let stepping = &*stepping.cast::<Stepping>();
        let state = &mut *stepping.state;
        match state.walk.step(&mut UserMemory) {
            Step::Caller(address) => {
                let at = state.length & (MAX_USER_FRAMES - 1);
                *stepping.frames.add(at as usize) = address;
                state.hash.add(address);
                state.length += 1;
                0
            }
            Step::End(ending) => {
                state.ending = ending as u32;
                1
            }
        }
    }
}

/// Prepares a walk by tables, if all that it needs for the innermost frame is
/// there; returns the mappings of all processes.
///
/// # Safety
/// `state` is this CPU's.
#[inline(always)]
unsafe fn start_by_tables(
    task: Task,
    state: *mut WalkState,
    ip: u64,
    sp: u64,
    bp: u64,
) -> Option<*const SpaceMapping> {
    let (first, count) = space::mappings(scope::caller_pid(task))?;
    let mappings = space::mapping_table()?;
    let leaf = space::find_mapping(mappings, first, count, ip)?;
    // SAFETY: masked to the table's length.
    let mapping = unsafe { &*mappings.add(space::masked(leaf)) };
    if mapping.table != SpaceMapping::FRAME_POINTER && !space::is_loaded(mapping.table) {
        return None;
    }
    // SAFETY: the state is this CPU's.
    unsafe {
        (*state).registers = Registers::interrupted(ip, sp, bp);
        (*state).first_mapping = first;
        (*state).mappings = count;
        (*state).last_mapping = leaf;
    }
    Some(mappings)
}

/// The user half of the current stack trace: [`NO_STACK`] for a task that has
/// none.
///
/// # Safety
/// `cpu` is this CPU's state.
#[inline(always)]
pub unsafe fn user(task: Task, region: RegionWriter, cpu: *mut CpuState) -> Result<u32, Full> {
    let words = setting!(registers.words);
    if words > RegisterLayout::MAX_WORDS as u32 || task.is_kernel_thread() {
        return Ok(NO_STACK);
    }
    // SAFETY: the scratch has room for `MAX_WORDS`; the kernel keeps the
    // registers of a task's user half where the helper says.
    let (registers, status) = unsafe {
        let registers = (&raw mut (*cpu).scratch).cast::<u64>();
        let saved = bpf_task_pt_regs(task.as_ptr().cast_mut().cast());
        let status = bpf_probe_read_kernel(registers.cast(), words * 8, saved as *const c_void);
        (registers, status)
    };
    let word = |index: u32| {
        // SAFETY: masked to the room of the scratch.
        unsafe { *registers.add((index & 63) as usize) }
    };
    let mode = word(setting!(registers.mode)) & setting!(registers.mode_mask);
    let narrow = mode == setting!(registers.mode_user_narrow);
    if status != 0 || !(narrow || mode == setting!(registers.mode_user)) {
        return Ok(NO_STACK);
    }

    let program_counter = word(setting!(registers.program_counter));
    let frame_pointer = word(setting!(registers.frame_pointer));
    let stack_pointer = word(setting!(registers.stack_pointer));
    let frames = region.next_frames()?;
    let callers = setting!(limits.user_frames) - 1;
    let seed = [setting!(seed_low), setting!(seed_high)];
    let words_limit = setting!(limits.words);
    let tables = setting!(tables) != 0;
    // SAFETY: `next_frames` gives room for at least one frame; the state is
    // this CPU's, and the callback takes what is handed over here.
    unsafe {
        let state = &raw mut (*cpu).walk;
        *frames = program_counter;
        (*state).walk.frame_pointer = frame_pointer;
        (*state).walk.above = stack_pointer;
        (*state).walk.narrow = u64::from(narrow);
        (*state).hash = StackHash::new(seed);
        (*state).hash.add(program_counter);
        (*state).length = 1;
        (*state).ending = WALKING;
        let mut stepping = Stepping {
            state,
            frames,
            saved: registers,
            mappings: core::ptr::null(),
        };
        let by_tables = if tables && !narrow {
            start_by_tables(task, state, program_counter, stack_pointer, frame_pointer)
        } else {
            None
        };
        let ending = if let Some(mappings) = by_tables {
            stepping.mappings = mappings;
            bpf_loop(
                callers,
                table_step as *mut c_void,
                (&raw mut stepping).cast::<c_void>(),
                0,
            );
            match (*state).ending {
                0 => Ending::Complete,
                2 => Ending::UnreadableStack,
                3 => Ending::BrokenChain,
                6 => Ending::UnmappedAddress,
                7 => Ending::TableMissing,
                8 => Ending::UnsupportedRule,
                9 => Ending::NotOutwards,
                _ => Ending::DepthLimit,
            }
        } else {
            bpf_loop(
                callers,
                user_step as *mut c_void,
                (&raw mut stepping).cast::<c_void>(),
                0,
            );
            match (*state).ending {
                // A zero in the innermost frame already is hardly the mark.
                0 if (*state).length > 1 => Ending::Complete,
                0 | 3 => Ending::BrokenChain,
                2 => Ending::UnreadableStack,
                _ if (*state).walk.frame_pointer == 0 => Ending::Complete,
                _ => Ending::DepthLimit,
            }
        };
        let length = (*state).length & (2 * MAX_USER_FRAMES - 1);
        region.stack(words_limit, (*state).hash, length, ending)
    }
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

/// One frame of a kernel stack into its hash.
unsafe extern "C" fn kernel_step(index: u32, stepping: *mut c_void) -> i64 {
    // SAFETY: `kernel` below hands over its own `Stepping`, and the index is
    // masked to the room that its frames have.
    unsafe {
        let stepping = &*stepping.cast::<Stepping>();
        let frame = *stepping.frames.add((index & 127) as usize);
        (*stepping.state).hash.add(frame);
    }
    0
}

/// The kernel half of the current stack trace: [`NO_STACK`] when the tick
/// interrupted user code.
///
/// # Safety
/// `cpu` is this CPU's state.
#[inline(always)]
pub unsafe fn kernel(
    context: *mut c_void,
    region: RegionWriter,
    cpu: *mut CpuState,
) -> Result<u32, Full> {
    let frames = region.next_frames()?;
    let found = kernel_frames(context, frames);
    if found == 0 {
        return Ok(NO_STACK);
    }
    let limit = setting!(limits.kernel_frames);
    let (length, ending) = if found < 0 {
        (0, Ending::KernelStackUnavailable)
    } else if found > i64::from(limit) {
        (limit, Ending::KernelDepthLimit)
    } else {
        (found as u32, Ending::Complete)
    };
    let seed = [setting!(seed_high), setting!(seed_low)];
    let words_limit = setting!(limits.words);
    // SAFETY: the state is this CPU's, and the callback takes what is handed
    // over here and nothing else.
    unsafe {
        let state = &raw mut (*cpu).walk;
        (*state).hash = StackHash::new(seed);
        let mut stepping = Stepping {
            state,
            frames,
            saved: frames,
            mappings: core::ptr::null(),
        };
        bpf_loop(
            length,
            kernel_step as *mut c_void,
            (&raw mut stepping).cast::<c_void>(),
            0,
        );
        region.stack(words_limit, (*state).hash, length, ending)
    }
}
