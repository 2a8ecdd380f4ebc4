//! How far around an address a symbol table's answer holds.
//!
//! What a symbol table says about an address depends on which symbols begin at or
//! before it, and on which of them end before it. So it changes at the boundaries
//! of symbols, and nowhere else: whatever was found for one address holds as far as
//! the nearest boundary on either side.

use std::ops::Range;

use super::headers::word;

/// How an entry of a symbol table is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SymbolLayout {
    /// `Elf64_Sym`
    #[default]
    Wide,
    /// `Elf32_Sym`
    Narrow,
}

impl SymbolLayout {
    /// The size of an entry.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Wide => 24,
            Self::Narrow => 16,
        }
    }
}

/// The addresses, ascending, each with the range in which no boundary was met.
#[derive(Debug)]
pub(super) struct Extents {
    addresses: Vec<u64>,
    starts: Vec<u64>,
    ends: Vec<u64>,
}

impl Extents {
    /// Around addresses that ascend, as long as no boundary is known.
    pub(super) fn around(addresses: Vec<u64>) -> Self {
        Self {
            starts: vec![0; addresses.len()],
            ends: vec![u64::MAX; addresses.len()],
            addresses,
        }
    }

    /// Whether there is nothing to find.
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Answers may change from this address on.
    pub(super) fn cut_at(&mut self, boundary: u64) {
        let after = self.addresses.partition_point(|at| *at < boundary);
        self.cut_before(after, boundary);
    }

    /// The same, where it is known which address is the first behind it.
    fn cut_before(&mut self, after: usize, boundary: u64) {
        // Others on the same side learn of it in the end.
        if let Some(start) = self.starts.get_mut(after) {
            *start = boundary.max(*start);
        }
        if let Some(before) = after.checked_sub(1) {
            self.ends[before] = boundary.min(self.ends[before]);
        }
    }

    /// Cuts at the boundaries of all symbols of a table of whole entries.
    pub(super) fn cut_at_symbols(&mut self, table: &[u8], layout: SymbolLayout) {
        let (value, size, width) = match layout {
            SymbolLayout::Wide => (8, 16, 8),
            SymbolLayout::Narrow => (4, 8, 4),
        };
        for symbol in table.chunks_exact(layout.bytes()) {
            let start = word(symbol, value, width);
            // One without a size may hold at its first byte alone.
            let bytes = word(symbol, size, width).max(1);
            let end = start.saturating_add(bytes);
            let mut after = self.addresses.partition_point(|at| *at < start);
            self.cut_before(after, start);
            // Few hold any.
            if self.addresses.get(after).is_some_and(|at| *at < end) {
                after += self.addresses[after..].partition_point(|at| *at < end);
            }
            self.cut_before(after, end);
        }
    }

    /// The range of each address.
    pub(super) fn finish(mut self) -> impl Iterator<Item = (u64, Range<u64>)> {
        for at in 1..self.starts.len() {
            self.starts[at] = self.starts[at].max(self.starts[at - 1]);
        }
        for at in (1..self.ends.len()).rev() {
            self.ends[at - 1] = self.ends[at - 1].min(self.ends[at]);
        }
        let ranges = self.starts.into_iter().zip(self.ends);
        let ranges = ranges.map(|(start, end)| start..end);
        self.addresses.into_iter().zip(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(addresses: &[u64], boundaries: &[u64]) -> Vec<(u64, u64)> {
        let mut extents = Extents::around(addresses.to_vec());
        for boundary in boundaries {
            extents.cut_at(*boundary);
        }
        let ranges = extents.finish().map(|(_, range)| range);
        ranges.map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn an_answer_holds_to_the_nearest_boundaries() {
        let expected = [(10, 20), (10, 20), (20, 30)];
        assert_eq!(ranges(&[11, 19, 20], &[30, 20, 10, 40, 5]), expected);
        assert_eq!(ranges(&[10, 15], &[10, 16]), [(10, 16), (10, 16)]);
        assert_eq!(ranges(&[7], &[]), [(0, u64::MAX)]);
        assert_eq!(ranges(&[], &[1]), []);
    }

    #[test]
    fn every_symbol_has_two_boundaries() {
        let wide = |start: u64, bytes: u64| {
            let mut symbol = [0; 8].to_vec();
            symbol.extend(start.to_le_bytes());
            symbol.extend(bytes.to_le_bytes());
            symbol
        };
        let table = [wide(0x100, 0x40), wide(0x140, 0)].concat();
        let mut extents = Extents::around(vec![0x120, 0x140, 0x150]);
        extents.cut_at_symbols(&table, SymbolLayout::Wide);
        let ranges: Vec<_> = extents.finish().map(|(_, range)| range).collect();
        assert_eq!(ranges, [0x100..0x140, 0x140..0x141, 0x141..u64::MAX]);

        let mut narrow = [0; 16];
        narrow[4..6].copy_from_slice(&[0, 1]);
        narrow[8] = 0x40;
        let mut extents = Extents::around(vec![0x120, 0x160]);
        extents.cut_at_symbols(&narrow, SymbolLayout::Narrow);
        let ranges: Vec<_> = extents.finish().map(|(_, range)| range).collect();
        assert_eq!(ranges, [0x100..0x140, 0x140..u64::MAX]);
    }
}
