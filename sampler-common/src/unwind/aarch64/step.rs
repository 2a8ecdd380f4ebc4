//! One frame outwards.

use super::Registers;
use super::fields::{
    Fields, KIND_FP, KIND_SP, SAVED_IN_REGISTERS, SAVED_LINK_BELOW_CFA, SAVED_PAIR_ABOVE_BASE,
    TAG_END_OF_STACK, TAG_GAP_FRAME_POINTER, TAG_GAP_STUB, TAG_SIGNAL_FRAME,
};
use super::registers::{SIGCONTEXT_FP, SIGCONTEXT_OFFSET_BYTES, SIGCONTEXT_SP, without_signature};
use crate::Memory;
use crate::unwind::{Origin, PackedRule, Stop};

/// Makes of a frame's registers those of its caller, by the rule for
/// [`Registers::lookup_address`].
///
/// A stack pointer that does not move outwards stops the walk, but for a
/// signal, which may have left an alternate stack, and for interrupted code
/// that has no frame. After an error the registers are as they were.
#[inline(always)]
pub fn step(
    rule: PackedRule,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Stop> {
    let fields = Fields::of(rule);
    let base = match fields.kind() {
        KIND_SP => registers.sp,
        KIND_FP => registers.fp,
        _ => return special(fields, registers, memory),
    };
    let cfa = base.wrapping_add(fields.cfa_bytes());
    if cfa < registers.sp || (cfa == registers.sp && !registers.origin.is_interrupted()) {
        return Err(Stop::NotOutwards);
    }
    let (fp, return_address) = match fields.saved() {
        SAVED_IN_REGISTERS => {
            if !registers.origin.is_interrupted() {
                return Err(Stop::RegisterLost);
            }
            (registers.fp, registers.lr)
        }
        SAVED_LINK_BELOW_CFA => {
            let slot = cfa.wrapping_sub(fields.slot_bytes());
            (
                registers.fp,
                memory.read_word(slot).ok_or(Stop::Unreadable)?,
            )
        }
        pair => {
            let slot = if pair == SAVED_PAIR_ABOVE_BASE {
                base.wrapping_add(fields.slot_bytes())
            } else {
                cfa.wrapping_sub(fields.slot_bytes())
            };
            let [fp, lr] = memory.read_pair(slot).ok_or(Stop::Unreadable)?;
            (fp, lr)
        }
    };
    arrive(return_address, cfa, fp, registers)
}

#[inline(always)]
fn arrive(return_address: u64, cfa: u64, fp: u64, registers: &mut Registers) -> Result<(), Stop> {
    let ip = without_signature(return_address);
    if ip == 0 {
        return Err(Stop::ZeroReturnAddress);
    }
    *registers = Registers {
        ip,
        sp: cfa,
        fp,
        lr: 0,
        origin: Origin::CALLER,
    };
    Ok(())
}

#[inline(always)]
fn special(
    fields: Fields,
    registers: &mut Registers,
    memory: &mut impl Memory,
) -> Result<(), Stop> {
    match fields.tag() {
        TAG_END_OF_STACK => Err(Stop::EndOfStack),
        TAG_GAP_FRAME_POINTER => by_frame_pointer(registers, memory),
        TAG_GAP_STUB => {
            if registers.origin.is_interrupted() {
                arrive(registers.lr, registers.sp, registers.fp, registers).map_err(guessed)
            } else {
                by_frame_pointer(registers, memory)
            }
        }
        TAG_SIGNAL_FRAME => out_of_signal(registers, memory),
        _ => Err(Stop::Unsupported),
    }
}

/// cfa = x29 + 16; zero is the chain's end.
#[inline(always)]
fn by_frame_pointer(registers: &mut Registers, memory: &mut impl Memory) -> Result<(), Stop> {
    if registers.fp == 0 {
        return Err(Stop::EndOfChain);
    }
    // The frame that `x29` points at may not be left yet by the stack pointer.
    if registers.fp < registers.sp {
        return Err(Stop::NotOutwards);
    }
    let [fp, return_address] = memory.read_pair(registers.fp).ok_or(Stop::Unreadable)?;
    arrive(return_address, registers.fp.wrapping_add(16), fp, registers).map_err(guessed)
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
    let [fp, lr] = memory
        .read_pair(saved.wrapping_add(SIGCONTEXT_FP * 8))
        .ok_or(Stop::Unreadable)?;
    let [sp, ip] = memory
        .read_pair(saved.wrapping_add(SIGCONTEXT_SP * 8))
        .ok_or(Stop::Unreadable)?;
    if ip == 0 {
        return Err(Stop::BrokenChain);
    }
    *registers = Registers {
        ip,
        sp,
        fp,
        lr,
        origin: Origin::signal(saved),
    };
    Ok(())
}
