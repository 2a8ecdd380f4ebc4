//! The rules: each variant's comment is the equation it stands for.
//!
//! `cfa` is the caller's stack pointer. Unless a variant says otherwise:
//!
//! ```text
//! ip, sp, bp = *(cfa - 8), cfa, saved
//! ```
//!
//! where `saved` is what [`Saved`] says.

use super::fields::{
    Fields, KIND_BP, KIND_DEREF, KIND_SP, KIND_SPECIAL, SAVED_AT_BP, SAVED_UNCHANGED,
    TAG_END_OF_STACK, TAG_GAP_FRAME_POINTER, TAG_GAP_STUB, TAG_PLT, TAG_PROBE_BIT, TAG_REGISTER,
    TAG_RETURN_ADDRESS_IN, TAG_SIGNAL_FRAME, TAG_UNSUPPORTED,
};
use crate::unwind::PackedRule;

/// Where the caller's `rbp` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Saved {
    /// bp = bp
    Unchanged,
    /// bp = *(cfa - 8 k), with k = 1..=30
    BelowCfa(u8),
    /// bp = *bp
    AtFramePointer,
}

/// The register that an address is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// `rsp`
    StackPointer,
    /// `rbp`
    FramePointer,
}

/// How to get from a frame to its caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// cfa = base + 8 o, with o < 2^17: frames of up to 1 MiB, and compilers
    /// have some of 540 KB on each of their stacks
    Offset {
        /// `rsp` or `rbp`.
        base: Base,
        /// o
        cfa_words: u32,
        /// The caller's `rbp`.
        saved: Saved,
    },
    /// cfa = *(base + 8 k) + 8 a, with k = -512..512 and a < 64: the frame was
    /// realigned, and where it began is kept in a slot of it.
    Dereferenced {
        /// `rsp` or `rbp`.
        base: Base,
        /// k
        slot_words: i16,
        /// a
        add_words: u8,
        /// The caller's `rbp`.
        saved: Saved,
    },
    /// cfa = register + 8 o, with o < 512, in interrupted code only: callees
    /// need not keep the register.
    Register {
        /// DWARF number, below 16.
        register: u8,
        /// o
        cfa_words: u16,
        /// The caller's `rbp`.
        saved: Saved,
    },
    /// cfa = r11 + 8 o, with o < 2^16, in interrupted code only: a loop that
    /// touches each page of a large frame.
    Probe {
        /// o
        cfa_words: u16,
        /// The caller's `rbp`.
        saved: Saved,
    },
    /// cfa = rsp + 8 o, with o < 512; ip = register, in interrupted code only:
    /// `vfork` keeps its return address where the child cannot write over it.
    ReturnAddressIn {
        /// DWARF number, below 16.
        register: u8,
        /// o
        cfa_words: u16,
        /// The caller's `rbp`.
        saved: Saved,
    },
    /// cfa = rsp + 8 + (8 if (ip & 15) >= n else 0), with n < 16: the entry of
    /// a lazily bound PLT pushes its number n bytes in.
    Plt {
        /// n
        threshold: u8,
    },
    /// ip, sp, bp = those that the kernel left on the stack for a signal:
    /// rsp points at a `struct ucontext`.
    SignalFrame,
    /// No caller: the outermost frame of the program or of a thread.
    EndOfStack,
    /// The file describes this code, in a way that no rule here expresses.
    Unsupported,
    /// cfa = rbp + 16, saved below it at -16: code without rows that keeps a
    /// frame pointer.
    GapFramePointer,
    /// Interrupted: cfa = rsp + 8, rbp unchanged; else as
    /// [`GapFramePointer`](Self::GapFramePointer): a stub or assembly in a file
    /// whose other code has rows.
    GapStub,
}

const fn special(tag: u32, low: u32, high: u32, saved: u32) -> PackedRule {
    PackedRule::from_bits(KIND_SPECIAL | saved << 2 | tag << 7 | low << 11 | high << 15)
}

impl Saved {
    const fn pack(self) -> Option<u32> {
        match self {
            Self::Unchanged => Some(SAVED_UNCHANGED),
            Self::BelowCfa(words @ 1..=30) => Some(words as u32),
            Self::BelowCfa(_) => None,
            Self::AtFramePointer => Some(SAVED_AT_BP),
        }
    }

    const fn unpack(field: u32) -> Self {
        match field {
            SAVED_UNCHANGED => Self::Unchanged,
            SAVED_AT_BP => Self::AtFramePointer,
            words => Self::BelowCfa(words as u8),
        }
    }
}

impl Rule {
    /// [`Rule::Unsupported`], packed: what a rule that does not fit becomes.
    pub const UNSUPPORTED: PackedRule = special(TAG_UNSUPPORTED, 0, 0, SAVED_UNCHANGED);
    /// [`Rule::GapFramePointer`], packed: also the rule for code that belongs to
    /// no file.
    pub const GAP_FRAME_POINTER: PackedRule = special(TAG_GAP_FRAME_POINTER, 0, 0, SAVED_UNCHANGED);

    /// In its 24 bits; `None` if a number is larger than its field.
    pub const fn pack(self) -> Option<PackedRule> {
        Some(match self {
            Self::Offset {
                base,
                cfa_words,
                saved,
            } => {
                let Some(saved) = saved.pack() else {
                    return None;
                };
                if cfa_words >= 1 << 17 {
                    return None;
                }
                let kind = match base {
                    Base::StackPointer => KIND_SP,
                    Base::FramePointer => KIND_BP,
                };
                PackedRule::from_bits(kind | saved << 2 | cfa_words << 7)
            }
            Self::Dereferenced {
                base,
                slot_words,
                add_words,
                saved,
            } => {
                let Some(saved) = saved.pack() else {
                    return None;
                };
                if slot_words < -512 || slot_words > 511 || add_words >= 64 {
                    return None;
                }
                let slot = (slot_words as u32) & 0x3ff;
                PackedRule::from_bits(
                    KIND_DEREF
                        | saved << 2
                        | (matches!(base, Base::FramePointer) as u32) << 7
                        | slot << 8
                        | (add_words as u32) << 18,
                )
            }
            Self::Register {
                register,
                cfa_words,
                saved,
            } => match saved.pack() {
                Some(saved) if register < 16 && cfa_words < 512 => {
                    special(TAG_REGISTER, register as u32, cfa_words as u32, saved)
                }
                _ => return None,
            },
            Self::ReturnAddressIn {
                register,
                cfa_words,
                saved,
            } => match saved.pack() {
                Some(saved) if register < 16 && cfa_words < 512 => special(
                    TAG_RETURN_ADDRESS_IN,
                    register as u32,
                    cfa_words as u32,
                    saved,
                ),
                _ => return None,
            },
            Self::Probe { cfa_words, saved } => match saved.pack() {
                Some(saved) => {
                    let words = cfa_words as u32;
                    PackedRule::from_bits(
                        KIND_SPECIAL
                            | saved << 2
                            | (TAG_PROBE_BIT | words >> 13) << 7
                            | (words & 0x1fff) << 11,
                    )
                }
                None => return None,
            },
            Self::Plt { threshold } => {
                if threshold >= 16 {
                    return None;
                }
                special(TAG_PLT, threshold as u32, 0, SAVED_UNCHANGED)
            }
            Self::SignalFrame => special(TAG_SIGNAL_FRAME, 0, 0, SAVED_UNCHANGED),
            Self::EndOfStack => special(TAG_END_OF_STACK, 0, 0, SAVED_UNCHANGED),
            Self::Unsupported => Self::UNSUPPORTED,
            Self::GapFramePointer => Self::GAP_FRAME_POINTER,
            Self::GapStub => special(TAG_GAP_STUB, 0, 0, SAVED_UNCHANGED),
        })
    }

    /// What packed bits mean; those that nothing packs to are unsupported.
    pub const fn unpack(packed: PackedRule) -> Self {
        let fields = Fields::of(packed);
        let saved = Saved::unpack(fields.saved());
        let register = fields.low_parameter() as u8;
        let special_words = (fields.special_cfa_bytes() / 8) as u16;
        match fields.kind() {
            kind @ (KIND_SP | KIND_BP) => Self::Offset {
                base: if kind == KIND_BP {
                    Base::FramePointer
                } else {
                    Base::StackPointer
                },
                cfa_words: (fields.cfa_bytes() / 8) as u32,
                saved,
            },
            KIND_DEREF => Self::Dereferenced {
                base: if fields.deref_base_is_bp() {
                    Base::FramePointer
                } else {
                    Base::StackPointer
                },
                slot_words: (fields.deref_slot_bytes() as i64 / 8) as i16,
                add_words: (fields.deref_add_bytes() / 8) as u8,
                saved,
            },
            _ if fields.tag() & TAG_PROBE_BIT != 0 => Self::Probe {
                cfa_words: (fields.probe_cfa_bytes() / 8) as u16,
                saved,
            },
            _ => match fields.tag() {
                TAG_END_OF_STACK => Self::EndOfStack,
                TAG_SIGNAL_FRAME => Self::SignalFrame,
                TAG_GAP_FRAME_POINTER => Self::GapFramePointer,
                TAG_GAP_STUB => Self::GapStub,
                TAG_PLT => Self::Plt {
                    threshold: register,
                },
                TAG_REGISTER => Self::Register {
                    register,
                    cfa_words: special_words,
                    saved,
                },
                TAG_RETURN_ADDRESS_IN => Self::ReturnAddressIn {
                    register,
                    cfa_words: special_words,
                    saved,
                },
                _ => Self::Unsupported,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Base, Rule, Saved};

    #[test]
    fn what_fits_comes_back_as_it_was() {
        let saved = [
            Saved::Unchanged,
            Saved::BelowCfa(1),
            Saved::BelowCfa(30),
            Saved::AtFramePointer,
        ];
        let check = |rule: Rule| {
            assert_eq!(rule.pack().map(Rule::unpack), Some(rule));
        };
        for saved in saved {
            for base in [Base::StackPointer, Base::FramePointer] {
                for cfa_words in [0, 1, 2, 511, 131_071] {
                    check(Rule::Offset {
                        base,
                        cfa_words,
                        saved,
                    });
                }
                for (slot_words, add_words) in [(-512, 0), (-1, 63), (0, 1), (68, 8), (511, 63)] {
                    check(Rule::Dereferenced {
                        base,
                        slot_words,
                        add_words,
                        saved,
                    });
                }
            }
            for (register, cfa_words) in [(0, 0), (10, 1), (15, 511)] {
                check(Rule::Register {
                    register,
                    cfa_words,
                    saved,
                });
                check(Rule::ReturnAddressIn {
                    register,
                    cfa_words,
                    saved,
                });
            }
        }
        for cfa_words in [0, 1, 8191, 8192, 8193, u16::MAX] {
            let saved = Saved::BelowCfa(2);
            check(Rule::Probe { cfa_words, saved });
        }
        for threshold in 0..16 {
            check(Rule::Plt { threshold });
        }
        for rule in [
            Rule::SignalFrame,
            Rule::EndOfStack,
            Rule::Unsupported,
            Rule::GapFramePointer,
            Rule::GapStub,
        ] {
            check(rule);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_packed() {
        let base = Base::StackPointer;
        let saved = Saved::Unchanged;
        for rule in [
            Rule::Offset {
                base,
                cfa_words: 1 << 17,
                saved,
            },
            Rule::Offset {
                base,
                cfa_words: 2,
                saved: Saved::BelowCfa(0),
            },
            Rule::Offset {
                base,
                cfa_words: 2,
                saved: Saved::BelowCfa(31),
            },
            Rule::Dereferenced {
                base,
                slot_words: 512,
                add_words: 0,
                saved,
            },
            Rule::Dereferenced {
                base,
                slot_words: -513,
                add_words: 0,
                saved,
            },
            Rule::Dereferenced {
                base,
                slot_words: 0,
                add_words: 64,
                saved,
            },
            Rule::Register {
                register: 16,
                cfa_words: 0,
                saved,
            },
            Rule::Register {
                register: 10,
                cfa_words: 512,
                saved,
            },
            Rule::ReturnAddressIn {
                register: 5,
                cfa_words: 512,
                saved,
            },
            Rule::Plt { threshold: 16 },
        ] {
            assert_eq!(rule.pack(), None, "{rule:?}");
        }
    }
}
