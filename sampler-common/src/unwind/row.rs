//! One row: where it starts in its bucket, and the rule that holds from there.
//!
//! ```text
//! bits  0..8    offset of the row's first pc within its 256-byte bucket
//! bits  8..32   the rule, whose 24 bits each architecture cuts as it needs
//! ```

/// Bits of a [`PackedRule`].
pub const RULE_BITS: u32 = 24;
/// log2 of the bytes of code in a bucket.
pub const BUCKET_SHIFT: u32 = 8;
/// Bytes of code in a bucket.
pub const BUCKET_BYTES: u64 = 1 << BUCKET_SHIFT;
/// The most rows that one bucket can hold: one for each byte.
pub const MAX_BUCKET_ROWS: u32 = 1 << BUCKET_SHIFT;

/// A rule in its 24 bits. What they mean is the architecture's:
/// [`x86_64::Rule`](super::x86_64::Rule) or
/// [`aarch64::Rule`](super::aarch64::Rule).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct PackedRule(u32);

impl PackedRule {
    /// The rule with these bits; those above the 24th are cut off.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << RULE_BITS) - 1))
    }

    /// Its 24 bits.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// A row as tables hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Row(pub u32);

impl Row {
    /// The row that starts `offset` bytes into its bucket.
    #[inline(always)]
    pub const fn new(offset: u8, rule: PackedRule) -> Self {
        Self(offset as u32 | rule.bits() << BUCKET_SHIFT)
    }

    /// Offset of its first pc within its bucket, in bytes.
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 & 0xff
    }

    /// What holds from there to the next row.
    #[inline(always)]
    pub const fn rule(self) -> PackedRule {
        PackedRule(self.0 >> BUCKET_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::{PackedRule, Row};

    #[test]
    fn a_row_is_four_bytes_and_gives_back_what_it_was_made_of() {
        assert_eq!(size_of::<Row>(), 4);
        for (offset, bits) in [(0, 0), (255, 0xff_ffff), (1, 0x80_0000), (128, 1)] {
            let row = Row::new(offset, PackedRule::from_bits(bits));
            assert_eq!((row.offset(), row.rule().bits()), (u32::from(offset), bits));
        }
    }
}
