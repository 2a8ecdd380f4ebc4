//! Rows to the two arrays that look-ups read.

use sampler_common::unwind::{BUCKET_BYTES, BUCKET_SHIFT, PackedRule, Row, find_rule};

use super::rows::RuleFrom;
use super::{Machine, Segment, Tally};

/// The table of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Whose rules the rows hold.
    pub machine: Machine,
    /// The lowest virtual address that the table covers, a multiple of 256.
    pub lowest: u64,
    /// For each 256 bytes of code the number of its first row; then, once, the
    /// number of rows. A bucket's rows are never none and never more than 256.
    pub index: Vec<u32>,
    /// The rows, each a [`Row`]; every bucket starts with one at offset 0.
    pub rows: Vec<u32>,
    /// The executable segments: what is mapped where.
    pub segments: Vec<Segment>,
    /// What was met on the way.
    pub tally: Tally,
}

impl Table {
    /// The rule for the code at a virtual address; `None` outside the table.
    pub fn rule_at(&self, address: u64) -> Option<PackedRule> {
        let from_lowest = address.checked_sub(self.lowest)?;
        let bucket = usize::try_from(from_lowest >> BUCKET_SHIFT).ok()?;
        let (first, end) = (*self.index.get(bucket)?, *self.index.get(bucket + 1)?);
        find_rule(
            |number| self.rows.get(number as usize).copied().map(Row),
            first,
            end.checked_sub(first)?,
            address as u8,
        )
    }

    /// Buckets of 256 bytes of code.
    pub fn buckets(&self) -> usize {
        self.index.len().saturating_sub(1)
    }

    /// What index and rows take, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.index.len() + self.rows.len()) as u64 * 4
    }
}

/// The most bytes that index and rows of such a table take.
pub(super) fn max_bytes(rows: &[RuleFrom], span_bytes: u64) -> u64 {
    let buckets = span_bytes.div_ceil(BUCKET_BYTES);
    4 * (2 * buckets + 1 + rows.len() as u64)
}

/// Cuts rows into buckets: index and rows. `rows` starts at 0; `span_bytes` is
/// what the buckets cover.
pub(super) fn buckets(rows: &[RuleFrom], span_bytes: u64) -> (Vec<u32>, Vec<u32>) {
    let count = span_bytes.div_ceil(BUCKET_BYTES);
    let mut index = Vec::with_capacity(count as usize + 1);
    let mut packed: Vec<u32> = Vec::with_capacity(rows.len() + count as usize);
    let mut rows = rows.iter().peekable();
    let mut holds = None;
    for bucket in 0..count {
        index.push(packed.len() as u32);
        let start = bucket * BUCKET_BYTES;
        let end = start + BUCKET_BYTES;
        // What holds at its start, unless a row of its own starts there.
        if rows.peek().is_none_or(|row| u64::from(row.at) != start)
            && let Some(rule) = holds
        {
            packed.push(Row::new(0, rule).0);
        }
        while let Some(row) = rows.next_if(|row| u64::from(row.at) < end) {
            packed.push(Row::new(row.at as u8, row.rule).0);
            holds = Some(row.rule);
        }
    }
    index.push(packed.len() as u32);
    (index, packed)
}
