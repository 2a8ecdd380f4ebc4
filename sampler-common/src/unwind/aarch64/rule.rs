//! The rules: each variant's comment is the equation it stands for.
//!
//! `cfa` is the caller's stack pointer. Unless a variant says otherwise:
//!
//! ```text
//! ip, sp, fp = lr, cfa, fp      with fp and lr as saved
//! ```
//!
//! where `saved` is what [`Saved`] says.

use super::fields::{
    Fields, KIND_FP, KIND_SP, KIND_SPECIAL, SAVED_IN_REGISTERS, SAVED_LINK_BELOW_CFA,
    SAVED_PAIR_ABOVE_BASE, SAVED_PAIR_BELOW_CFA, TAG_END_OF_STACK, TAG_GAP_FRAME_POINTER,
    TAG_GAP_STUB, TAG_SIGNAL_FRAME, TAG_UNSUPPORTED,
};
use crate::unwind::PackedRule;

/// Where the caller's `x29` and the return address are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Saved {
    /// fp, lr = fp, lr, in interrupted code only
    InRegisters,
    /// fp, lr = *(cfa - 8 k), *(cfa - 8 k + 8), with k = 2..512
    PairBelowCfa(u16),
    /// fp, lr = fp, *(cfa - 8 k), with k = 1..512
    LinkBelowCfa(u16),
    /// fp, lr = *(base + 8 k), *(base + 8 k + 8), with k < 512: the bottom of
    /// frames that are too large for the distance from the CFA
    PairAboveBase(u16),
}

/// The register that an address is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// `sp`
    StackPointer,
    /// `x29`
    FramePointer,
}

/// How to get from a frame to its caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// cfa = base + 16 o, with o < 2^11
    Offset {
        /// `sp` or `x29`.
        base: Base,
        /// o
        cfa_pairs: u16,
        /// `x29` and the return address.
        saved: Saved,
    },
    /// ip, sp, fp, lr = those that the kernel left on the stack for a signal:
    /// sp points at a `struct rt_sigframe`.
    SignalFrame,
    /// No caller: the outermost frame of the program or of a thread.
    EndOfStack,
    /// The file describes this code, in a way that no rule here expresses.
    Unsupported,
    /// cfa = x29 + 16, fp, lr = *x29, *(x29 + 8): code without rows that keeps
    /// a frame pointer.
    GapFramePointer,
    /// Interrupted: cfa = sp, fp, lr as they are; else as
    /// [`GapFramePointer`](Self::GapFramePointer): a stub or assembly in a file
    /// whose other code has rows.
    GapStub,
}

const fn special(tag: u32) -> PackedRule {
    PackedRule::from_bits(KIND_SPECIAL | tag << 13)
}

impl Saved {
    /// Bits 2..13 of a rule.
    const fn pack(self) -> Option<u32> {
        let (how, words, least) = match self {
            Self::InRegisters => (SAVED_IN_REGISTERS, 0, 0),
            Self::PairBelowCfa(words) => (SAVED_PAIR_BELOW_CFA, words, 2),
            Self::LinkBelowCfa(words) => (SAVED_LINK_BELOW_CFA, words, 1),
            Self::PairAboveBase(words) => (SAVED_PAIR_ABOVE_BASE, words, 0),
        };
        if words < least || words >= 512 {
            return None;
        }
        Some(how << 2 | (words as u32) << 4)
    }

    const fn unpack(fields: Fields) -> Self {
        let words = (fields.slot_bytes() / 8) as u16;
        match fields.saved() {
            SAVED_PAIR_BELOW_CFA => Self::PairBelowCfa(words),
            SAVED_LINK_BELOW_CFA => Self::LinkBelowCfa(words),
            SAVED_PAIR_ABOVE_BASE => Self::PairAboveBase(words),
            _ => Self::InRegisters,
        }
    }
}

impl Rule {
    /// [`Rule::Unsupported`], packed: what a rule that does not fit becomes.
    pub const UNSUPPORTED: PackedRule = special(TAG_UNSUPPORTED);
    /// [`Rule::GapFramePointer`], packed: also the rule for code that belongs to
    /// no file.
    pub const GAP_FRAME_POINTER: PackedRule = special(TAG_GAP_FRAME_POINTER);

    /// In its 24 bits; `None` if a number is larger than its field.
    pub const fn pack(self) -> Option<PackedRule> {
        Some(match self {
            Self::Offset {
                base,
                cfa_pairs,
                saved,
            } => match saved.pack() {
                Some(saved) if cfa_pairs < 1 << 11 => {
                    let kind = match base {
                        Base::StackPointer => KIND_SP,
                        Base::FramePointer => KIND_FP,
                    };
                    PackedRule::from_bits(kind | saved | (cfa_pairs as u32) << 13)
                }
                _ => return None,
            },
            Self::SignalFrame => special(TAG_SIGNAL_FRAME),
            Self::EndOfStack => special(TAG_END_OF_STACK),
            Self::Unsupported => Self::UNSUPPORTED,
            Self::GapFramePointer => Self::GAP_FRAME_POINTER,
            Self::GapStub => special(TAG_GAP_STUB),
        })
    }

    /// What packed bits mean; those that nothing packs to are unsupported.
    pub const fn unpack(packed: PackedRule) -> Self {
        let fields = Fields::of(packed);
        match fields.kind() {
            kind @ (KIND_SP | KIND_FP) => Self::Offset {
                base: if kind == KIND_FP {
                    Base::FramePointer
                } else {
                    Base::StackPointer
                },
                cfa_pairs: (fields.cfa_bytes() / 16) as u16,
                saved: Saved::unpack(fields),
            },
            KIND_SPECIAL => match fields.tag() {
                TAG_END_OF_STACK => Self::EndOfStack,
                TAG_SIGNAL_FRAME => Self::SignalFrame,
                TAG_GAP_FRAME_POINTER => Self::GapFramePointer,
                TAG_GAP_STUB => Self::GapStub,
                _ => Self::Unsupported,
            },
            _ => Self::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Base, Rule, Saved};

    #[test]
    fn what_fits_comes_back_as_it_was() {
        let check = |rule: Rule| {
            assert_eq!(rule.pack().map(Rule::unpack), Some(rule));
        };
        for saved in [
            Saved::InRegisters,
            Saved::PairBelowCfa(2),
            Saved::PairBelowCfa(511),
            Saved::LinkBelowCfa(1),
            Saved::PairAboveBase(0),
            Saved::PairAboveBase(511),
        ] {
            for base in [Base::StackPointer, Base::FramePointer] {
                for cfa_pairs in [0, 1, 2047] {
                    check(Rule::Offset {
                        base,
                        cfa_pairs,
                        saved,
                    });
                }
            }
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
        for (cfa_pairs, saved) in [
            (2048, Saved::InRegisters),
            (2, Saved::PairBelowCfa(1)),
            (2, Saved::PairBelowCfa(512)),
            (2, Saved::LinkBelowCfa(0)),
            (2, Saved::PairAboveBase(512)),
        ] {
            assert_eq!(
                Rule::Offset {
                    base,
                    cfa_pairs,
                    saved
                }
                .pack(),
                None
            );
        }
    }
}
