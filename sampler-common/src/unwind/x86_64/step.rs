//! One frame outwards.

use super::Registers;
use super::fields::{
    Fields, KIND_BP, KIND_DEREF, KIND_SP, PROBE_REGISTER, SAVED_AT_BP, SAVED_UNCHANGED,
    TAG_END_OF_STACK, TAG_GAP_FRAME_POINTER, TAG_GAP_STUB, TAG_PLT, TAG_PROBE_BIT, TAG_REGISTER,
    TAG_RETURN_ADDRESS_IN, TAG_SIGNAL_FRAME,
};
use super::registers::{SIGCONTEXT_BP, SIGCONTEXT_OFFSET_BYTES, SIGCONTEXT_SP, sigcontext_word};
use crate::Memory;
use crate::unwind::{Interrupted, Origin, PackedRule, Stop};

/// Makes of a frame's registers those of its caller, by the rule for
/// [`Registers::lookup_address`].
///
/// A stack pointer that does not move outwards stops the walk, but for a
/// signal, which may have left an alternate stack. After an error the
/// registers are as they were.
#[inline(always)]
pub fn step(
    rule: PackedRule,
    registers: &mut Registers,
    memory: &mut impl Memory,
    interrupted: &impl Interrupted,
) -> Result<(), Stop> {
    let fields = Fields::of(rule);
    let cfa = match fields.kind() {
        KIND_SP => registers.sp.wrapping_add(fields.cfa_bytes()),
        KIND_BP => registers.bp.wrapping_add(fields.cfa_bytes()),
        KIND_DEREF => {
            let base = if fields.deref_base_is_bp() {
                registers.bp
            } else {
                registers.sp
            };
            memory
                .read_word(base.wrapping_add(fields.deref_slot_bytes()))
                .ok_or(Stop::Unreadable)?
                .wrapping_add(fields.deref_add_bytes())
        }
        _ => return special(fields, registers, memory, interrupted),
    };
    to_caller(cfa, fields.saved(), registers, memory)
}

/// The common end: ip = *(cfa - 8), sp = cfa, bp as saved.
#[inline(always)]
fn to_caller(
    cfa: u64,
    saved: u32,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Stop> {
    if cfa <= registers.sp {
        return Err(Stop::NotOutwards);
    }
    let return_address = memory
        .read_word(cfa.wrapping_sub(8))
        .ok_or(Stop::Unreadable)?;
    arrive(return_address, cfa, saved, registers, memory)
}

/// As [`to_caller`], the return address found already.
#[inline(always)]
fn arrive(
    return_address: u64,
    cfa: u64,
    saved: u32,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Stop> {
    if return_address == 0 {
        return Err(Stop::ZeroReturnAddress);
    }
    if saved != SAVED_UNCHANGED {
        let slot = if saved == SAVED_AT_BP {
            registers.bp
        } else {
            cfa.wrapping_sub(u64::from(saved) * 8)
        };
        registers.bp = memory.read_word(slot).ok_or(Stop::Unreadable)?;
    }
    registers.ip = return_address;
    registers.sp = cfa;
    registers.origin = Origin::CALLER;
    Ok(())
}

#[inline(always)]
fn special(
    fields: Fields,
    registers: &mut Registers,
    memory: &mut impl Memory,
    interrupted: &impl Interrupted,
) -> Result<(), Stop> {
    if fields.tag() & TAG_PROBE_BIT != 0 {
        let value = register(PROBE_REGISTER, registers, memory, interrupted)?;
        let cfa = value.wrapping_add(fields.probe_cfa_bytes());
        return to_caller(cfa, fields.saved(), registers, memory);
    }
    match fields.tag() {
        TAG_END_OF_STACK => Err(Stop::EndOfStack),
        TAG_GAP_FRAME_POINTER => by_frame_pointer(registers, memory),
        TAG_GAP_STUB => {
            if registers.origin.is_interrupted() {
                let cfa = registers.sp.wrapping_add(8);
                to_caller(cfa, SAVED_UNCHANGED, registers, memory).map_err(guessed)
            } else {
                by_frame_pointer(registers, memory)
            }
        }
        TAG_PLT => {
            let pushed = registers.ip & 15 >= u64::from(fields.low_parameter());
            let cfa = registers.sp.wrapping_add(8 + u64::from(pushed) * 8);
            to_caller(cfa, SAVED_UNCHANGED, registers, memory)
        }
        TAG_SIGNAL_FRAME => out_of_signal(registers, memory),
        TAG_REGISTER => {
            let value = register(fields.low_parameter(), registers, memory, interrupted)?;
            let cfa = value.wrapping_add(fields.special_cfa_bytes());
            to_caller(cfa, fields.saved(), registers, memory)
        }
        TAG_RETURN_ADDRESS_IN => {
            let return_address = register(fields.low_parameter(), registers, memory, interrupted)?;
            let cfa = registers.sp.wrapping_add(fields.special_cfa_bytes());
            arrive(return_address, cfa, fields.saved(), registers, memory)
        }
        _ => Err(Stop::Unsupported),
    }
}

/// cfa = rbp + 16; zero is the chain's end.
#[inline(always)]
fn by_frame_pointer(registers: &mut Registers, memory: &mut impl Memory) -> Result<(), Stop> {
    if registers.bp == 0 {
        return Err(Stop::EndOfChain);
    }
    // The frame that `rbp` points at may not be left yet by the stack pointer.
    if registers.bp < registers.sp {
        return Err(Stop::NotOutwards);
    }
    let [bp, return_address] = memory.read_pair(registers.bp).ok_or(Stop::Unreadable)?;
    if return_address == 0 {
        return Err(Stop::BrokenChain);
    }
    *registers = Registers {
        ip: return_address,
        sp: registers.bp.wrapping_add(16),
        bp,
        origin: Origin::CALLER,
    };
    Ok(())
}

/// What a zero return address means where no row says that it is one.
#[inline(always)]
const fn guessed(stop: Stop) -> Stop {
    match stop {
        Stop::ZeroReturnAddress => Stop::BrokenChain,
        stop => stop,
    }
}

/// Takes back what the kernel pushed for a signal (`struct rt_sigframe`).
#[inline(always)]
fn out_of_signal(registers: &mut Registers, memory: &mut impl Memory) -> Result<(), Stop> {
    let saved = registers.sp.wrapping_add(SIGCONTEXT_OFFSET_BYTES);
    let bp = memory
        .read_word(saved.wrapping_add(SIGCONTEXT_BP * 8))
        .ok_or(Stop::Unreadable)?;
    let [sp, ip] = memory
        .read_pair(saved.wrapping_add(SIGCONTEXT_SP * 8))
        .ok_or(Stop::Unreadable)?;
    if ip == 0 {
        // A call through a null pointer: the handler runs for a frame that has
        // no code.
        return Err(Stop::BrokenChain);
    }
    *registers = Registers {
        ip,
        sp,
        bp,
        origin: Origin::signal(saved),
    };
    Ok(())
}

/// A register that a callee need not keep.
#[inline(always)]
fn register(
    dwarf_number: u32,
    registers: &Registers,
    memory: &mut impl Memory,
    interrupted: &impl Interrupted,
) -> Result<u64, Stop> {
    match registers.origin {
        Origin::CALLER => Err(Stop::RegisterLost),
        Origin::INTERRUPTED => interrupted.register(dwarf_number).ok_or(Stop::RegisterLost),
        Origin(saved) => memory
            .read_word(saved.wrapping_add(u64::from(sigcontext_word(dwarf_number)) * 8))
            .ok_or(Stop::Unreadable),
    }
}
