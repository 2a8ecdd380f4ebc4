//! The 24 bits of a rule, and its fields as the walk reads them.
//!
//! ```text
//! bits  0..2    kind: 0 rsp, 1 rbp, 2 special, 3 dereferenced
//! bits  2..7    saved: 0 unchanged, k = 1..=30 below the CFA, 31 at rbp
//! bits  7..24   rsp, rbp: o, CFA = base + 8 o
//!               dereferenced: base 1, k 10 (signed), add 6
//!               special: tag 4, parameter 13 (register or n 4, o 9); a tag
//!               of 8 and more: its low bits are the high ones of o, 16 in all
//! ```

use crate::unwind::PackedRule;

/// Kinds, as the packed rule has them.
pub(super) const KIND_SP: u32 = 0;
pub(super) const KIND_BP: u32 = 1;
pub(super) const KIND_SPECIAL: u32 = 2;
pub(super) const KIND_DEREF: u32 = 3;

pub(super) const SAVED_UNCHANGED: u32 = 0;
pub(super) const SAVED_AT_BP: u32 = 31;

pub(super) const TAG_UNSUPPORTED: u32 = 0;
pub(super) const TAG_END_OF_STACK: u32 = 1;
pub(super) const TAG_SIGNAL_FRAME: u32 = 2;
pub(super) const TAG_GAP_FRAME_POINTER: u32 = 3;
pub(super) const TAG_GAP_STUB: u32 = 4;
pub(super) const TAG_PLT: u32 = 5;
pub(super) const TAG_REGISTER: u32 = 6;
pub(super) const TAG_RETURN_ADDRESS_IN: u32 = 7;
/// This bit of a tag makes it a [`Rule::Probe`](super::Rule::Probe).
pub(super) const TAG_PROBE_BIT: u32 = 8;
/// DWARF number of the register that compilers probe with.
pub(super) const PROBE_REGISTER: u32 = 11;

/// The fields of a packed rule.
#[derive(Clone, Copy)]
pub(super) struct Fields(u32);

impl Fields {
    #[inline(always)]
    pub(super) const fn of(rule: PackedRule) -> Self {
        Self(rule.bits())
    }

    #[inline(always)]
    pub(super) const fn kind(self) -> u32 {
        self.0 & 3
    }

    #[inline(always)]
    pub(super) const fn saved(self) -> u32 {
        self.0 >> 2 & 31
    }

    /// 8 o: the distance of the CFA in bytes.
    #[inline(always)]
    pub(super) const fn cfa_bytes(self) -> u64 {
        (self.0 >> 7 << 3) as u64
    }

    #[inline(always)]
    pub(super) const fn deref_base_is_bp(self) -> bool {
        self.0 >> 7 & 1 != 0
    }

    /// 8 k, as a number to add with wrap-around.
    #[inline(always)]
    pub(super) const fn deref_slot_bytes(self) -> u64 {
        // Bits 8..18, their sign carried upwards.
        let words = ((self.0 << 14) as i32) >> 22;
        (words * 8) as i64 as u64
    }

    /// 8 a
    #[inline(always)]
    pub(super) const fn deref_add_bytes(self) -> u64 {
        (self.0 >> 18 << 3) as u64
    }

    #[inline(always)]
    pub(super) const fn tag(self) -> u32 {
        self.0 >> 7 & 15
    }

    /// 8 o of a probe.
    #[inline(always)]
    pub(super) const fn probe_cfa_bytes(self) -> u64 {
        ((self.tag() & 7) << 13 | self.0 >> 11) as u64 * 8
    }

    /// n of a PLT, or a register's DWARF number.
    #[inline(always)]
    pub(super) const fn low_parameter(self) -> u32 {
        self.0 >> 11 & 15
    }

    /// 8 o of a special rule.
    #[inline(always)]
    pub(super) const fn special_cfa_bytes(self) -> u64 {
        (self.0 >> 15 << 3) as u64
    }
}
