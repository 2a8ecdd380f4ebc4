//! One row of call frame information to one rule.

use gimli::{CfaRule, EndianSlice, LittleEndian, Register, RegisterRule};
use sampler_common::unwind::{PackedRule, aarch64, x86_64};

use super::expression::{self, Known};
use super::{Machine, Unsupported};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Why a row has no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    CfaExpression,
    CfaRegister,
    FramePointer,
    ReturnAddress,
}

impl Unsupported {
    pub(super) fn count(&mut self, cause: Cause) {
        *match cause {
            Cause::CfaExpression => &mut self.cfa_expression,
            Cause::CfaRegister => &mut self.cfa_register,
            Cause::FramePointer => &mut self.frame_pointer,
            Cause::ReturnAddress => &mut self.return_address,
        } += 1;
    }
}

/// What rows are converted with.
pub(super) struct Converter<'s, S> {
    pub section: &'s S,
    pub machine: Machine,
    pub encoding: gimli::Encoding,
    /// The entry describes a signal's trampoline.
    pub signal: bool,
}

impl<'a, S: gimli::UnwindSection<Slice<'a>>> Converter<'_, S> {
    /// The rule of a row, or why there is none.
    pub fn rule(&self, row: &gimli::UnwindTableRow<usize>) -> Result<PackedRule, Cause> {
        match self.machine {
            Machine::X86_64 => self.x86_64(row),
            Machine::Aarch64 => self.aarch64(row),
        }
    }

    fn expression(&self, place: &gimli::UnwindExpression<usize>) -> Option<Known> {
        expression::of(self.section, place, self.encoding)
    }

    /// The value that a rule for a register's place computes, where that is an
    /// address counted from a register.
    fn address(&self, rule: Option<&RegisterRule<usize>>) -> Option<Known> {
        match rule {
            Some(RegisterRule::Expression(place)) => self.expression(place),
            _ => None,
        }
    }

    fn x86_64(&self, row: &gimli::UnwindTableRow<usize>) -> Result<PackedRule, Cause> {
        use x86_64::{Base, Rule};
        const RBP: Register = gimli::X86_64::RBP;
        const RSP: Register = gimli::X86_64::RSP;
        const RA: Register = gimli::X86_64::RA;
        const R11: u8 = gimli::X86_64::R11.0 as u8;

        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => Known::Sum {
                register: register.0,
                offset: *offset,
            },
            CfaRule::Expression(place) => self.expression(place).ok_or(Cause::CfaExpression)?,
        };
        let (bp, sp, ra) = (row.register(RBP), row.register(RSP), row.register(RA));

        if self.signal && self.restores_what_a_signal_saved(cfa, bp.as_ref(), ra.as_ref()) {
            return Rule::SignalFrame.pack().ok_or(Cause::CfaRegister);
        }
        // A caller's stack pointer that is not the CFA: a context switch.
        if !matches!(sp, None | Some(RegisterRule::ValOffset(0))) {
            return Err(Cause::CfaRegister);
        }
        let return_address_in = match ra {
            Some(RegisterRule::Undefined) => {
                return Rule::EndOfStack.pack().ok_or(Cause::ReturnAddress);
            }
            Some(RegisterRule::Offset(-8)) => None,
            Some(RegisterRule::Register(register)) => Some(register.0),
            _ => return Err(Cause::ReturnAddress),
        };
        let saved = self.saved_rbp(bp.as_ref()).ok_or(Cause::FramePointer)?;

        let rule = match (cfa, return_address_in) {
            (Known::Sum { register, offset }, Some(holder)) if register == RSP.0 => {
                Rule::ReturnAddressIn {
                    register: narrow(holder).ok_or(Cause::ReturnAddress)?,
                    cfa_words: words(offset).ok_or(Cause::CfaRegister)?,
                    saved,
                }
            }
            (_, Some(_)) => return Err(Cause::ReturnAddress),
            (Known::Sum { register, offset }, None) if register == RSP.0 || register == RBP.0 => {
                Rule::Offset {
                    base: if register == RBP.0 {
                        Base::FramePointer
                    } else {
                        Base::StackPointer
                    },
                    cfa_words: words(offset).ok_or(Cause::CfaRegister)?,
                    saved,
                }
            }
            (Known::Sum { register, offset }, None) => {
                let register = narrow(register).ok_or(Cause::CfaRegister)?;
                let cfa_words = words(offset).ok_or(Cause::CfaRegister)?;
                if register == R11 {
                    Rule::Probe { cfa_words, saved }
                } else {
                    Rule::Register {
                        register,
                        cfa_words,
                        saved,
                    }
                }
            }
            (
                Known::Dereferenced {
                    register,
                    offset,
                    add,
                },
                None,
            ) => Rule::Dereferenced {
                base: match register {
                    7 => Base::StackPointer,
                    6 => Base::FramePointer,
                    _ => return Err(Cause::CfaExpression),
                },
                slot_words: words(offset).ok_or(Cause::CfaExpression)?,
                add_words: i64::try_from(add)
                    .ok()
                    .and_then(words)
                    .ok_or(Cause::CfaExpression)?,
                saved,
            },
            (Known::Plt { threshold }, None) => Rule::Plt { threshold },
        };
        rule.pack().ok_or(Cause::CfaRegister)
    }

    /// The caller's `rbp`; nothing if no rule says where it is.
    fn saved_rbp(&self, rule: Option<&RegisterRule<usize>>) -> Option<x86_64::Saved> {
        use x86_64::Saved;
        match rule {
            None | Some(RegisterRule::SameValue) => Some(Saved::Unchanged),
            Some(RegisterRule::Offset(offset)) => {
                let below: u8 = words(offset.checked_neg()?)?;
                Some(Saved::BelowCfa(below))
            }
            Some(RegisterRule::Expression(_)) => {
                let at_itself = Known::Sum {
                    register: gimli::X86_64::RBP.0,
                    offset: 0,
                };
                (self.address(rule) == Some(at_itself)).then_some(Saved::AtFramePointer)
            }
            Some(_) => None,
        }
    }

    /// Whether the row takes rsp, rbp and rip from where the kernel's
    /// `struct ucontext` has them, at rsp.
    fn restores_what_a_signal_saved(
        &self,
        cfa: Known,
        bp: Option<&RegisterRule<usize>>,
        ra: Option<&RegisterRule<usize>>,
    ) -> bool {
        let at = |offset| {
            Some(Known::Sum {
                register: gimli::X86_64::RSP.0,
                offset,
            })
        };
        let sp_at = Known::Dereferenced {
            register: gimli::X86_64::RSP.0,
            offset: 160,
            add: 0,
        };
        cfa == sp_at && self.address(bp) == at(120) && self.address(ra) == at(168)
    }

    fn aarch64(&self, row: &gimli::UnwindTableRow<usize>) -> Result<PackedRule, Cause> {
        use aarch64::{Base, Rule, Saved};

        if self.signal {
            return Rule::SignalFrame.pack().ok_or(Cause::CfaRegister);
        }
        let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
            return Err(Cause::CfaExpression);
        };
        let base = match *register {
            gimli::AArch64::SP => Base::StackPointer,
            gimli::AArch64::X29 => Base::FramePointer,
            _ => return Err(Cause::CfaRegister),
        };
        let cfa_words: u16 = words(*offset).ok_or(Cause::CfaRegister)?;
        if !cfa_words.is_multiple_of(2) {
            return Err(Cause::CfaRegister);
        }
        let below = |offset: i64| offset.checked_neg().and_then(words::<u16>);
        let unchanged = |rule: &Option<_>| matches!(rule, None | Some(RegisterRule::SameValue));
        let (fp, lr) = (
            row.register(gimli::AArch64::X29),
            row.register(gimli::AArch64::X30),
        );
        let saved = match (fp, lr) {
            (_, Some(RegisterRule::Undefined)) => {
                return Rule::EndOfStack.pack().ok_or(Cause::ReturnAddress);
            }
            (fp, lr) if unchanged(&fp) && unchanged(&lr) => Saved::InRegisters,
            (fp, Some(RegisterRule::Offset(lr))) if unchanged(&fp) => {
                Saved::LinkBelowCfa(below(lr).ok_or(Cause::ReturnAddress)?)
            }
            (Some(RegisterRule::Offset(fp)), Some(RegisterRule::Offset(lr)))
                if fp.checked_add(8) == Some(lr) =>
            {
                match below(fp).ok_or(Cause::FramePointer)? {
                    words @ 0..512 => Saved::PairBelowCfa(words),
                    // Counted from the other end, where the base is.
                    words => Saved::PairAboveBase(
                        cfa_words.checked_sub(words).ok_or(Cause::FramePointer)?,
                    ),
                }
            }
            (_, Some(RegisterRule::Offset(_))) => return Err(Cause::FramePointer),
            _ => return Err(Cause::ReturnAddress),
        };
        Rule::Offset {
            base,
            cfa_pairs: cfa_words / 2,
            saved,
        }
        .pack()
        .ok_or(Cause::CfaRegister)
    }
}

/// Bytes as words, if they are a whole number of them that fits.
pub(super) fn words<T: TryFrom<i64>>(bytes: i64) -> Option<T> {
    (bytes % 8 == 0)
        .then(|| T::try_from(bytes / 8).ok())
        .flatten()
}

/// A DWARF number as that of a general register.
fn narrow(register: u16) -> Option<u8> {
    u8::try_from(register)
        .ok()
        .filter(|register| *register < 16)
}
