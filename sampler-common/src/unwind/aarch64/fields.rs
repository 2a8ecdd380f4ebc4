//! The 24 bits of a rule, and its fields as the walk reads them.
//!
//! ```text
//! bits  0..2    kind: 0 sp, 1 x29, 2 special
//! bits  2..4    saved: 0 in registers, 1 pair, 2 lr alone, 3 pair at the base
//! bits  4..13   k
//! bits  13..24  o, CFA = base + 16 o; special: tag
//! ```

use crate::unwind::PackedRule;

/// Kinds, as the packed rule has them.
pub(super) const KIND_SP: u32 = 0;
pub(super) const KIND_FP: u32 = 1;
pub(super) const KIND_SPECIAL: u32 = 2;

pub(super) const SAVED_IN_REGISTERS: u32 = 0;
pub(super) const SAVED_PAIR_BELOW_CFA: u32 = 1;
pub(super) const SAVED_LINK_BELOW_CFA: u32 = 2;
pub(super) const SAVED_PAIR_ABOVE_BASE: u32 = 3;

pub(super) const TAG_UNSUPPORTED: u32 = 0;
pub(super) const TAG_END_OF_STACK: u32 = 1;
pub(super) const TAG_SIGNAL_FRAME: u32 = 2;
pub(super) const TAG_GAP_FRAME_POINTER: u32 = 3;
pub(super) const TAG_GAP_STUB: u32 = 4;

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
        self.0 >> 2 & 3
    }

    /// 8 k
    #[inline(always)]
    pub(super) const fn slot_bytes(self) -> u64 {
        ((self.0 >> 4 & 511) << 3) as u64
    }

    /// 16 o
    #[inline(always)]
    pub(super) const fn cfa_bytes(self) -> u64 {
        (self.0 >> 13 << 4) as u64
    }

    #[inline(always)]
    pub(super) const fn tag(self) -> u32 {
        self.0 >> 13
    }
}
