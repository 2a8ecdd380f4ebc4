//! The two halves of a stack trace, written straight to where they may stay.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_get_stack, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_user,
    bpf_task_pt_regs,
};
use sampler_common::unwind::x86_64::{Registers, pt_regs_word, step};
use sampler_common::unwind::{Interrupted, PackedRule, Stop};
use sampler_common::{
    CpuState, Ending, Full, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, Memory, NO_STACK, RegionWriter,
    RegisterLayout, RuleCache, RuleKey, StackHash, Step, WALKING, space_number,
};

use crate::mapping::{self, Found};
use crate::maps::CPUS;
use crate::settings::setting;
use crate::tables;
use crate::task::{Task, read_kernel};
use crate::window::{self, Window};

/// An ending that is none: the stack has to be copied.
const TO_BE_COPIED: u32 = WALKING - 1;
/// Says that there is an ending in the place of a rule.
const NO_RULE: u64 = 1 << 32;

/// The memory of the current process, a word at a time.
struct UserMemory;

impl Memory for UserMemory {
    #[inline(always)]
    fn read_word(&mut self, address: u64) -> Option<u64> {
        window::read_word(address)
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
    cpu: *mut CpuState,
    frames: *mut u64,
}

/// The user half of a stack trace.
pub enum UserHalf {
    /// There is none.
    None,
    /// It was walked: a reference to it.
    Walked(u32),
    /// It was walked before the memory went away: likewise.
    Kept(u32),
    /// It has to be copied, since something is not known here. Should there be
    /// no room for a copy, what was walked of it is kept with
    /// [`without_copy`].
    ToBeCopied,
}

/// Where user code was interrupted.
pub struct Start {
    program_counter: u64,
    frame_pointer: u64,
    stack_pointer: u64,
    /// Whether it is a 32-bit program.
    narrow: bool,
}

/// How a walk came out.
pub enum Walk {
    /// There is no program to walk.
    NoProgram,
    /// Something is not known here.
    ToBeCopied,
    /// The frames and their hash are there.
    Ended(Ending),
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

/// The rule for an address that the cache does not hold: its bits, or
/// [`NO_RULE`] and the ending that it leads to.
///
/// A function with a name of its own is verified once, and not for each path
/// that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_up_rule(address: u64, departing: u32) -> u64 {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    let first = if departing == 0 {
        0
    } else {
        setting!(departing_states)
    };
    let Some(cpu) = CPUS.get_ptr_mut(first + cpu) else {
        return NO_RULE | u64::from(TO_BE_COPIED);
    };
    // SAFETY: the state is this CPU's, in whose tick or departure this runs.
    let rule = unsafe {
        match mapping::find(cpu, address) {
            Found::Mapping(position) => {
                tables::rule(&*mapping::at(&raw mut (*cpu).walk, position), address)
            }
            Found::Unknown => None,
            Found::Nothing => return NO_RULE | Ending::UnmappedAddress as u64,
        }
    };
    match rule {
        Some(rule) => u64::from(rule.bits()),
        None => NO_RULE | u64::from(TO_BE_COPIED),
    }
}

/// One step of a walk by tables: 0 to go on, 1 to stop.
unsafe extern "C" fn table_step(_: u32, stepping: *mut c_void) -> i64 {
    // SAFETY: `walk` below hands over its own `Stepping`, whose state is this
    // CPU's and whose frames have the room that is masked to.
    unsafe {
        let stepping = &*stepping.cast::<Stepping>();
        let cpu = stepping.cpu;
        let state = &mut (*cpu).walk;
        let address = state.registers.lookup_address();
        let key = if state.space == 0 {
            None
        } else {
            RuleKey::new(address, state.space)
        };
        let cache = &raw mut (*cpu).rules;
        let cached = match key {
            Some(key) => RuleCache::find(cache, key, state.expected_rule),
            None => None,
        };
        let rule = match cached {
            Some((rule, next)) => {
                state.expected_rule = next;
                rule
            }
            None => {
                let found = look_up_rule(address, state.departing);
                if found & NO_RULE != 0 {
                    state.ending = found as u32;
                    return 1;
                }
                let rule = PackedRule::from_bits(found as u32);
                if let Some(key) = key {
                    state.expected_rule = RuleCache::insert(cache, key, rule);
                }
                rule
            }
        };
        let saved = SavedRegisters((&raw const (*cpu).scratch).cast());
        match step(rule, &mut state.registers, &mut Window(cpu), &saved) {
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
                    Stop::EndOfStack | Stop::EndOfChain | Stop::ZeroReturnAddress => {
                        Ending::Complete
                    }
                    Stop::Unsupported | Stop::RegisterLost => Ending::UnsupportedRule,
                    Stop::Unreadable => Ending::UnreadableStack,
                    Stop::NotOutwards => Ending::NotOutwards,
                    Stop::BrokenChain => Ending::BrokenChain,
                } as u32;
                1
            }
        }
    }
}

/// One step of a walk by frame pointers: 0 to go on, 1 to stop.
unsafe extern "C" fn frame_pointer_step(_: u32, stepping: *mut c_void) -> i64 {
    // SAFETY: `walk` below hands over its own `Stepping`, whose state is this
    // CPU's and whose frames have the room that is masked to.
    unsafe {
        let stepping = &*stepping.cast::<Stepping>();
        let state = &mut (*stepping.cpu).walk;
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

/// Prepares a walk by tables.
///
/// # Safety
/// `cpu` is this CPU's state.
#[inline(always)]
unsafe fn start_by_tables(task: Task, cpu: *mut CpuState, registers: Registers) {
    let memory = task.memory();
    let at = setting!(memory.lock_sequence);
    let sequence = if at == 0 {
        1
    } else {
        read_kernel::<u32>(memory + u64::from(at)).unwrap_or(1)
    };
    // While mappings change, and where their changes are not counted, no rule
    // may be remembered.
    let space = if sequence & 1 == 0 {
        let leader = task.group_leader();
        space_number([
            memory,
            leader.start_boottime_ns(),
            leader.exec_id(),
            u64::from(sequence),
        ])
    } else {
        0
    };
    // SAFETY: the state is this CPU's.
    unsafe {
        let state = &raw mut (*cpu).walk;
        (*state).registers = registers;
        (*state).space = space;
        (*state).expected_rule = 0;
        (*state).window_address = 0;
        (*state).window_bytes = 0;
        (*state).memory = memory;
        (*state).mappings_found = 0;
        (*state).unknown.file = 0;
        (*state).unknown.bias = 0;
    }
}

/// Whether the kernel has yet to say where the code of a program begins: it
/// does so last of all before it starts it.
#[inline(always)]
pub fn is_between_programs(memory: u64) -> bool {
    let at = setting!(memory.start_code);
    at != 0 && read_kernel::<u64>(memory + u64::from(at)) == Some(0)
}

/// Where the current task's user code was interrupted; its registers go to the
/// scratch. `None` if it has no user half.
///
/// # Safety
/// `cpu` is this CPU's state.
#[inline(always)]
pub unsafe fn interrupted(task: Task, cpu: *mut CpuState) -> Option<Start> {
    let words = setting!(registers.words);
    if words > RegisterLayout::MAX_WORDS as u32 || task.is_kernel_thread() {
        return None;
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
        return None;
    }
    Some(Start {
        program_counter: word(setting!(registers.program_counter)),
        frame_pointer: word(setting!(registers.frame_pointer)),
        stack_pointer: word(setting!(registers.stack_pointer)),
        narrow,
    })
}

/// Walks the current task's stack.
///
/// # Safety
/// `cpu` is this CPU's state, whose scratch holds the registers; `frames` has
/// room for [`MAX_USER_FRAMES`].
#[inline(always)]
pub unsafe fn walk(task: Task, cpu: *mut CpuState, frames: *mut u64, start: &Start) -> Walk {
    let callers = setting!(limits.user_frames) - 1;
    let seed = [setting!(seed_low), setting!(seed_high)];
    let by_tables = setting!(tables) != 0 && !start.narrow;
    // SAFETY: the caller gives the room; the state is this CPU's, and the
    // callback takes what is handed over here.
    unsafe {
        let state = &raw mut (*cpu).walk;
        *frames = start.program_counter;
        (*state).hash = StackHash::new(seed);
        (*state).hash.add(start.program_counter);
        (*state).length = 1;
        (*state).ending = WALKING;
        let mut stepping = Stepping { cpu, frames };
        let stepping = (&raw mut stepping).cast::<c_void>();
        Walk::Ended(if by_tables {
            let registers = Registers::interrupted(
                start.program_counter,
                start.stack_pointer,
                start.frame_pointer,
            );
            start_by_tables(task, cpu, registers);
            bpf_loop(callers, table_step as *mut c_void, stepping, 0);
            // An exec has thrown away the program that called it, and not
            // begun the next: the registers belong to neither stack.
            let nothing_walked = (*state).length == 1 && (*state).ending != Ending::Complete as u32;
            if nothing_walked && is_between_programs((*state).memory) {
                return Walk::NoProgram;
            }
            match (*state).ending {
                TO_BE_COPIED => return Walk::ToBeCopied,
                0 => Ending::Complete,
                2 => Ending::UnreadableStack,
                3 => Ending::BrokenChain,
                6 => Ending::UnmappedAddress,
                8 => Ending::UnsupportedRule,
                9 => Ending::NotOutwards,
                _ => Ending::DepthLimit,
            }
        } else {
            (*state).walk.frame_pointer = start.frame_pointer;
            (*state).walk.above = start.stack_pointer;
            (*state).walk.narrow = u64::from(start.narrow);
            bpf_loop(callers, frame_pointer_step as *mut c_void, stepping, 0);
            match (*state).ending {
                // A zero in the innermost frame already is hardly the mark.
                0 if (*state).length > 1 => Ending::Complete,
                0 | 3 => Ending::BrokenChain,
                2 => Ending::UnreadableStack,
                _ if (*state).walk.frame_pointer == 0 => Ending::Complete,
                _ => Ending::DepthLimit,
            }
        })
    }
}

/// The user half of the current stack trace.
///
/// # Safety
/// `cpu` is this CPU's state.
#[inline(always)]
pub unsafe fn user(task: Task, region: RegionWriter, cpu: *mut CpuState) -> Result<UserHalf, Full> {
    // SAFETY: as above; `next_frames` gives room for the greatest stack.
    unsafe {
        let Some(start) = interrupted(task, cpu) else {
            return Ok(UserHalf::None);
        };
        let frames = region.next_frames()?;
        match walk(task, cpu, frames, &start) {
            Walk::NoProgram => Ok(UserHalf::None),
            Walk::ToBeCopied => Ok(UserHalf::ToBeCopied),
            Walk::Ended(ending) => keep(region, cpu, ending).map(UserHalf::Walked),
        }
    }
}

/// Keeps what was walked of a stack for which there is no room to copy it.
///
/// # Safety
/// `cpu` is this CPU's state.
#[inline(always)]
pub unsafe fn without_copy(region: RegionWriter, cpu: *mut CpuState) -> Result<u32, Full> {
    // SAFETY: the state is this CPU's.
    unsafe { keep(region, cpu, Ending::CopiesFull) }
}

#[inline(always)]
unsafe fn keep(region: RegionWriter, cpu: *mut CpuState, ending: Ending) -> Result<u32, Full> {
    // SAFETY: the state is this CPU's.
    let (hash, length) = unsafe { ((*cpu).walk.hash, (*cpu).walk.length) };
    let length = length & (2 * MAX_USER_FRAMES - 1);
    region.stack(setting!(limits.words), hash, length, ending)
}

/// Takes the kernel's stack into `frames`, which has room for one more than
/// [`MAX_KERNEL_FRAMES`]; returns how many were there, or a negative error.
#[inline(always)]
pub fn kernel_frames(context: *mut c_void, frames: *mut u64) -> i64 {
    let wanted = setting!(limits.kernel_frames);
    if wanted > MAX_KERNEL_FRAMES || setting!(fault_kernel_stack) != 0 {
        return -1;
    }
    if interrupts_user_code(context) {
        return 0;
    }
    // One more than wanted tells a deep stack from one that just fits.
    // SAFETY: the caller gives the room.
    let bytes = unsafe { bpf_get_stack(context, frames.cast(), (wanted + 1) * 8, 0) };
    if bytes < 0 { bytes } else { bytes >> 3 }
}

/// Word of `cs` in the registers of an event on `x86_64`.
const X86_64_MODE: usize = 17;

/// Whether the tick came while user code ran, so that the kernel has no stack;
/// `false` also where that cannot be told.
///
/// The context can be read at offsets that stand in the program only: no
/// setting will do.
#[inline(always)]
fn interrupts_user_code(context: *mut c_void) -> bool {
    if setting!(registers.mode) != X86_64_MODE as u32 {
        return false;
    }
    // SAFETY: the context of a perf-event program begins with the registers.
    let word = unsafe { core::ptr::read_volatile(context.cast::<u64>().add(X86_64_MODE)) };
    let mode = word & setting!(registers.mode_mask);
    mode == setting!(registers.mode_user) || mode == setting!(registers.mode_user_narrow)
}

/// One frame of a kernel stack into its hash.
unsafe extern "C" fn kernel_step(index: u32, stepping: *mut c_void) -> i64 {
    // SAFETY: `kernel` below hands over its own `Stepping`, and the index is
    // masked to the room that its frames have.
    unsafe {
        let stepping = &*stepping.cast::<Stepping>();
        let frame = *stepping.frames.add((index & 127) as usize);
        (*stepping.cpu).walk.hash.add(frame);
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
        (*cpu).walk.hash = StackHash::new(seed);
        let mut stepping = Stepping { cpu, frames };
        bpf_loop(
            length,
            kernel_step as *mut c_void,
            (&raw mut stepping).cast::<c_void>(),
            0,
        );
        region.stack(words_limit, (*cpu).walk.hash, length, ending)
    }
}
