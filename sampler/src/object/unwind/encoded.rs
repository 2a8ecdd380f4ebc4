//! A table as bytes, to be kept or handed on, and back.
//!
//! ```text
//! u64 x 12   machine, lowest, segments, index words, row words, then the tally
//! u64 x 3    for each segment: file offset, address, size
//! u32        the index, then the rows
//! ```
//!
//! All in little-endian order. Whoever reads trusts nothing: what comes back is a
//! table that no look-up leaves, or none.

use sampler_common::unwind::{BUCKET_BYTES, MAX_BUCKET_ROWS, Row};

use super::pack::Table;
use super::{MAX_ROWS, MAX_SPAN_BYTES, Machine, Segment, Tally, Unsupported};

const HEADER_WORDS: usize = 13;
/// More than a file's headers may name.
const MAX_SEGMENTS: u64 = 1 << 16;

impl Table {
    /// The table as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Tally {
            entries,
            broken_sections,
            unsupported,
            gaps,
        } = self.tally;
        let header: [u64; HEADER_WORDS] = [
            match self.machine {
                Machine::X86_64 => 0,
                Machine::Aarch64 => 1,
            },
            self.lowest,
            self.segments.len() as u64,
            self.index.len() as u64,
            self.rows.len() as u64,
            entries,
            broken_sections,
            gaps,
            unsupported.cfa_expression,
            unsupported.cfa_register,
            unsupported.frame_pointer,
            unsupported.return_address,
            unsupported.malformed,
        ];
        let segments = self.segments.iter();
        let segments = segments.flat_map(|part| [part.file_offset, part.address, part.size]);
        let bytes = 8 * (HEADER_WORDS + 3 * self.segments.len()) + self.bytes() as usize;
        let mut encoded = Vec::with_capacity(bytes);
        for word in header.into_iter().chain(segments) {
            encoded.extend(word.to_le_bytes());
        }
        for words in [&self.index, &self.rows] {
            for word in words {
                encoded.extend(word.to_le_bytes());
            }
        }
        encoded
    }

    /// The table that such bytes are; `None` if they are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(8 * HEADER_WORDS)?;
        let (words, _) = header.as_chunks::<8>();
        let header: [u64; HEADER_WORDS] = std::array::from_fn(|at| u64::from_le_bytes(words[at]));
        let [machine, lowest, segments, index, rows, ..] = header;
        if segments > MAX_SEGMENTS
            || index > MAX_SPAN_BYTES / BUCKET_BYTES + 2
            || rows > MAX_ROWS as u64 + index
        {
            return None;
        }
        let (segments, rest) = rest.split_at_checked(24 * segments as usize)?;
        let (index, rows_bytes) = rest.split_at_checked(4 * index as usize)?;
        if rows_bytes.len() as u64 != 4 * rows {
            return None;
        }
        let table = Self {
            machine: match machine {
                0 => Machine::X86_64,
                1 => Machine::Aarch64,
                _ => return None,
            },
            lowest,
            index: narrow_words(index),
            rows: narrow_words(rows_bytes),
            segments: segments
                .as_chunks::<24>()
                .0
                .iter()
                .map(|segment| {
                    let word = |at: usize| u64::from_le_bytes(segment.as_chunks::<8>().0[at]);
                    Segment {
                        file_offset: word(0),
                        address: word(1),
                        size: word(2),
                    }
                })
                .collect(),
            tally: Tally {
                entries: header[5],
                broken_sections: header[6],
                gaps: header[7],
                unsupported: Unsupported {
                    cfa_expression: header[8],
                    cfa_register: header[9],
                    frame_pointer: header[10],
                    return_address: header[11],
                    malformed: header[12],
                },
            },
        };
        table.is_sound().then_some(table)
    }

    /// Whether every look-up stays in its bucket and every segment in the table.
    fn is_sound(&self) -> bool {
        let mut sound = self.index.first() == Some(&0)
            && self.index.last() == Some(&(self.rows.len() as u32))
            && self.lowest.is_multiple_of(BUCKET_BYTES);
        for bucket in self.index.windows(2) {
            let (first, end) = (bucket[0], bucket[1]);
            let held = end.checked_sub(first);
            sound &= held.is_some_and(|held| (1..=MAX_BUCKET_ROWS).contains(&held))
                && self
                    .rows
                    .get(first as usize)
                    .is_some_and(|row| Row(*row).offset() == 0);
        }
        let span = self.buckets() as u64 * BUCKET_BYTES;
        let Some(end) = self.lowest.checked_add(span) else {
            return false;
        };
        sound
            && self.segments.iter().all(|segment| {
                segment.address >= self.lowest
                    && segment
                        .address
                        .checked_add(segment.size)
                        .is_some_and(|to| to <= end)
                    && segment.file_offset.checked_add(segment.size).is_some()
            })
    }
}

fn narrow_words(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().copied().map(u32::from_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use super::super::build;
    use super::*;

    fn own_table() -> Table {
        build(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap()
    }

    fn small() -> Table {
        Table {
            machine: Machine::X86_64,
            lowest: 0x1000,
            index: vec![0, 1, 3],
            rows: vec![0x500, 0x700, 0x904],
            segments: vec![Segment {
                file_offset: 0x40,
                address: 0x1040,
                size: 0x180,
            }],
            tally: Tally {
                entries: 3,
                ..Tally::default()
            },
        }
    }

    #[test]
    fn a_table_survives_being_bytes() {
        for table in [own_table(), small()] {
            assert_eq!(Table::decode(&table.encode()).unwrap(), table);
        }
    }

    #[test]
    fn bytes_that_are_no_table_are_none() {
        let encoded = small().encode();
        for length in 0..encoded.len() {
            assert_eq!(Table::decode(&encoded[..length]), None, "{length}");
        }
        assert_eq!(Table::decode(&[&encoded[..], &[0]].concat()), None);
        assert_eq!(Table::decode(&[0xff; 4096]), None);
    }

    #[test]
    fn a_table_that_a_look_up_could_leave_is_none() {
        let broken: [fn(&mut Table); 9] = [
            |table| table.lowest += 1,
            |table| table.lowest = !0xff,
            |table| table.index[0] = 1,
            |table| table.index[1] = 0,
            |table| table.index[1] = 4,
            |table| table.index[2] = 4,
            |table| table.rows[1] = 0x701,
            |table| table.segments[0].address = 0xfff,
            |table| table.segments[0].size = 0x1000,
        ];
        for (at, damage) in broken.iter().enumerate() {
            let mut table = small();
            damage(&mut table);
            assert_eq!(Table::decode(&table.encode()), None, "{at}");
        }
    }

    #[test]
    fn counts_that_no_file_has_are_none() {
        let encoded = small().encode();
        // The numbers of segments, of words of the index, of rows: alone, and with
        // others that would make up for them if sums could overflow.
        for at in 2..5 {
            for count in [0, 4, 1 << 16, 1 << 32, 1 << 62, u64::MAX / 24, u64::MAX] {
                let mut changed = encoded.clone();
                changed[8 * at..][..8].copy_from_slice(&u64::to_le_bytes(count));
                assert_eq!(Table::decode(&changed), None, "{count} at {at}");
            }
        }
        let mut changed = encoded;
        for at in 2..5 {
            changed[8 * at..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
        }
        assert_eq!(Table::decode(&changed), None);
    }

    proptest::proptest! {
        /// Rows may lie about their own file, in whatever order they come, but a
        /// look-up ends, and with a rule of its own bucket.
        #[test]
        fn rows_in_any_order_have_rules_of_their_own_bucket(
            first in proptest::collection::vec(0u32.., 0..256),
            second in proptest::collection::vec(0u32.., 0..256),
        ) {
            let starts = Row(0x500).0 & !0xff;
            let index = vec![0, first.len() as u32 + 1, (first.len() + second.len()) as u32 + 2];
            let rows: Vec<u32> = [starts].iter().chain(&first).chain(&[starts]).chain(&second).copied().collect();
            let table = Table { index, rows, ..small() };
            let table = Table::decode(&table.encode()).unwrap();
            for low in 0..0x200 {
                let bucket = if low < 0x100 { &table.rows[..=first.len()] } else { &table.rows[first.len() + 1..] };
                let rule = table.rule_at(0x1000 + low).unwrap();
                assert!(bucket.iter().any(|row| Row(*row).rule() == rule));
            }
        }

        #[test]
        fn no_damage_makes_a_look_up_panic(at in 0usize..200, byte: u8, address: u64) {
            let mut encoded = small().encode();
            let at = at % encoded.len();
            encoded[at] = byte;
            if let Some(table) = Table::decode(&encoded) {
                table.rule_at(address);
                table.rule_at(0x1000 + address % 0x400);
            }
        }
    }
}
