//! Which symbol of a file holds from where on, in eight bytes each.
//!
//! All that the symbol tables of a file say of its code, for less than a tenth of
//! their size: with it, and the text at one offset of the file, an address has its
//! name, and nothing of the file has to be parsed.

mod build;

use std::ops::Range;

pub(super) use build::{SymbolLayout, SymbolTables};

/// An offset into the file, and one of a text in it; 32 bits each, little-endian.
const ROW_BYTES: usize = 8;
/// In the place of a text: no symbol holds here.
const NO_SYMBOL: u32 = 0;
/// In the place of a text: nothing is known here.
const NOT_CODE: u32 = u32::MAX;

/// Behind the last offset that a row can tell.
const END_OF_OFFSETS: u64 = 1 << 32;

/// Rows of which the first one is in the index.
const ROWS_A_BLOCK: usize = 64;

/// Rows by ascending offsets, each of which holds up to the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SymbolRows {
    bytes: Vec<u8>,
    /// Where each block of rows starts. It is small enough to stay near the CPU, and
    /// leads to a few neighbouring lines of memory. Empty while rows are added.
    index: Vec<u32>,
}

/// What holds at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// No symbol.
    Nothing,
    /// The one whose name, up to a NUL, is at this offset of the file.
    NamedAt(u32),
}

impl SymbolRows {
    /// Of bytes that came from elsewhere. Whatever they are, nothing worse than
    /// wrong names comes of them.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        let (rows, _) = bytes.as_chunks::<ROW_BYTES>();
        let blocks = rows.chunks(ROWS_A_BLOCK);
        let index = blocks.map(|block| start_and_name(block[0]).0).collect();
        Self { bytes, index }
    }

    /// As they are kept.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What holds at an offset of the file; `None` if that is not known.
    pub(super) fn find(&self, offset: u64) -> Option<Held> {
        self.look_up(offset).1
    }

    /// What holds at each of these offsets. Those that follow each other in a row are
    /// looked up once.
    pub(super) fn find_all(&self, offsets: &[u64]) -> impl Iterator<Item = Option<Held>> {
        let mut last = (0..0, None);
        offsets.iter().map(move |offset| {
            if !last.0.contains(offset) {
                last = self.look_up(*offset);
            }
            last.1
        })
    }

    /// What holds at an offset, and where it does.
    pub(super) fn look_up(&self, offset: u64) -> (Range<u64>, Option<Held>) {
        let (rows, _) = self.bytes.as_chunks::<ROW_BYTES>();
        let block = self
            .index
            .partition_point(|start| u64::from(*start) <= offset);
        let first = block.saturating_sub(1) * ROWS_A_BLOCK;
        let end = if self.index.is_empty() {
            rows.len()
        } else {
            rows.len().min(first + ROWS_A_BLOCK)
        };
        let in_block = &rows[first..end];
        let starts_before = |row: &[u8; ROW_BYTES]| u64::from(start_and_name(*row).0) <= offset;
        let after = first + in_block.partition_point(starts_before);
        let end = rows.get(after).map(|row| start_and_name(*row).0.into());
        let Some(before) = after.checked_sub(1) else {
            return (0..end.unwrap_or(u64::MAX), None);
        };
        let (start, name) = start_and_name(rows[before]);
        let held = match name {
            NOT_CODE => None,
            NO_SYMBOL => Some(Held::Nothing),
            name => Some(Held::NamedAt(name)),
        };
        // An offset has 32 bits, and whatever is behind is not known.
        match end {
            Some(end) => (start.into()..end, held),
            None if offset > u32::MAX.into() => (END_OF_OFFSETS..u64::MAX, None),
            None => (start.into()..END_OF_OFFSETS, held),
        }
    }

    /// Adds a row behind all others. One with the same start takes the place of the
    /// last one; one that says the same is not needed.
    pub(super) fn push(&mut self, start: u32, name: u32) {
        self.index.clear();
        let (rows, _) = self.bytes.as_chunks::<ROW_BYTES>();
        let last = rows.last().map(|row| start_and_name(*row));
        if last.is_some_and(|(last_start, _)| last_start == start) {
            self.bytes.truncate(self.bytes.len() - ROW_BYTES);
            return self.push(start, name);
        }
        if last.is_none_or(|(_, last_name)| last_name != name) {
            self.bytes.extend(start.to_le_bytes());
            self.bytes.extend(name.to_le_bytes());
        }
    }
}

fn start_and_name(row: [u8; ROW_BYTES]) -> (u32, u32) {
    let row = u64::from_le_bytes(row);
    (row as u32, (row >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_up_to_the_next_one() {
        let mut rows = SymbolRows::default();
        for (start, name) in [
            (16, 5),
            (32, 9),
            (32, NO_SYMBOL),
            (40, 7),
            (44, 7),
            (48, NOT_CODE),
        ] {
            rows.push(start, name);
        }
        assert_eq!(rows.as_bytes().len(), 4 * ROW_BYTES);
        let rows = SymbolRows::from_bytes(rows.as_bytes().to_vec());
        for (offset, held) in [
            (0, None),
            (15, None),
            (16, Some(Held::NamedAt(5))),
            (31, Some(Held::NamedAt(5))),
            (32, Some(Held::Nothing)),
            (47, Some(Held::NamedAt(7))),
            (48, None),
            (u64::MAX, None),
        ] {
            assert_eq!(rows.find(offset), held, "{offset}");
            let around = [offset, offset, 40, offset];
            let found: Vec<_> = rows.find_all(&around).collect();
            assert_eq!(
                found,
                [held, held, Some(Held::NamedAt(7)), held],
                "{offset}"
            );
        }
    }

    #[test]
    fn rows_are_found_in_every_block() {
        let mut pushed = SymbolRows::default();
        for number in 1..1000 {
            pushed.push(10 * number, number);
        }
        let loaded = SymbolRows::from_bytes(pushed.as_bytes().to_vec());
        for offset in 0..10_000 {
            let number = (offset / 10) as u32;
            let held = (number > 0).then_some(Held::NamedAt(number));
            assert_eq!(loaded.find(offset), held, "{offset}");
            assert_eq!(loaded.look_up(offset), pushed.look_up(offset), "{offset}");
        }
    }

    #[test]
    fn whatever_bytes_are_they_are_looked_through() {
        for length in 0..40 {
            let rows = SymbolRows::from_bytes(vec![0xa5; length]);
            for offset in [0, 0xa5a5_a5a4, 0xa5a5_a5a5, u64::from(u32::MAX)] {
                let found = rows.find(offset);
                assert_eq!(found.is_some(), length >= 8 && offset >= 0xa5a5_a5a5);
            }
        }
        assert_eq!(SymbolRows::default().find(7), None);
    }
}
