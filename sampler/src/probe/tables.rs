//! Handing unwind tables to the walk in the kernel.
//!
//! The arrays are shared memory, so this is plain writing, in an order that a
//! tick on another CPU may see at any point: a place becomes valid after its
//! table is there, and words that were taken back are reused only after every
//! CPU has left the tick that may have read them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sampler_common::unwind::{BUCKET_SHIFT, PackedRule, Row, find_rule};
use sampler_common::{CHUNK_WORDS, PLACE_PROBES, PLACE_SEGMENTS, PLACES, TablePlace, place_slot};

use super::mapped::MappedArray;

/// No room is left for what was to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room is left")]
pub struct NoRoom;

/// A table among the words that both sides share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedTable {
    words: Words,
    index_words: u32,
    /// What it covers of the file.
    parts: [Part; PLACE_SEGMENTS as usize],
}

/// An executable segment of a file, as its table covers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// The lowest file offset, a multiple of 256.
    pub first_offset: u64,
    /// Buckets of 256 bytes; none of a part that is not there.
    pub buckets: u32,
    /// The number of the first of them in the table's index.
    pub first_bucket: u32,
}

impl Part {
    /// The bucket of an offset, in the table's index.
    fn bucket(&self, file_offset: u64) -> Option<usize> {
        let from_first = file_offset.checked_sub(self.first_offset)?;
        let bucket = u32::try_from(from_first >> BUCKET_SHIFT).ok()?;
        (bucket < self.buckets).then_some((self.first_bucket + bucket) as usize)
    }
}

impl LoadedTable {
    /// What it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.words.length) * 4
    }
}

/// Consecutive words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    first: u32,
    length: u32,
}

/// What the code of a file is walked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkedBy {
    /// A table.
    Table(LoadedTable),
    /// Its frame pointers.
    FramePointers,
}

/// The writing side of the walk's arrays.
#[derive(Debug)]
pub struct Tables {
    places: MappedArray<[TablePlace; PLACES]>,
    chunks: MappedArray<[u32; CHUNK_WORDS]>,
    /// Free words, by address, no two of them adjacent.
    free: Vec<Words>,
    /// Words that a tick may still be reading.
    resting: Vec<Words>,
    /// Of those, the ones that were taken back before the CPUs were last asked
    /// to leave their ticks.
    passing: Vec<Words>,
    /// The same for places that were taken back.
    resting_places: Vec<usize>,
    passing_places: Vec<usize>,
}

impl Tables {
    pub(super) fn new(
        places: MappedArray<[TablePlace; PLACES]>,
        chunks: MappedArray<[u32; CHUNK_WORDS]>,
    ) -> Self {
        let all = Words {
            first: 0,
            length: (chunks.len() * CHUNK_WORDS).min(u32::MAX as usize) as u32,
        };
        Self {
            places,
            chunks,
            free: vec![all],
            resting: Vec::new(),
            passing: Vec::new(),
            resting_places: Vec::new(),
            passing_places: Vec::new(),
        }
    }

    /// Bytes that there are for tables.
    pub fn room_bytes(&self) -> u64 {
        (self.chunks.len() * CHUNK_WORDS * 4) as u64
    }

    /// Bytes that no table takes, or that are about to be free; not all of them
    /// need to lie together.
    pub fn free_bytes(&self) -> u64 {
        let all = [&self.free, &self.resting, &self.passing];
        let words = all.into_iter().flatten();
        words.map(|words| u64::from(words.length) * 4).sum()
    }

    /// Loads a table: its bucket index, with one word more than it has
    /// buckets, and its rows. `parts` says what it covers of the file; those
    /// that are too many are walked by frame pointers. No walk uses it before
    /// it is [bound].
    ///
    /// [bound]: Self::bind
    pub fn load(
        &mut self,
        parts: &[Part],
        index: &[u32],
        rows: &[u32],
    ) -> Result<LoadedTable, NoRoom> {
        let length = u32::try_from(index.len() + rows.len()).map_err(|_| NoRoom)?;
        let words = self.take(length)?;
        // SAFETY: the words lie in the array, and nobody reads them yet.
        unsafe {
            let to = self.chunks.entry(0).cast::<u32>().add(words.first as usize);
            to.copy_from_nonoverlapping(index.as_ptr(), index.len());
            to.add(index.len())
                .copy_from_nonoverlapping(rows.as_ptr(), rows.len());
        }
        let buckets = (index.len() as u32).saturating_sub(1);
        let mut table = LoadedTable {
            words,
            index_words: index.len() as u32,
            parts: [Part::default(); PLACE_SEGMENTS as usize],
        };
        let inside = |part: &&Part| {
            part.first_bucket
                .checked_add(part.buckets)
                .is_some_and(|end| end <= buckets)
        };
        for (to, from) in table.parts.iter_mut().zip(parts.iter().filter(inside)) {
            *to = *from;
        }
        Ok(table)
    }

    /// Takes a table's words back. It must not be bound any more.
    pub fn unload(&mut self, table: LoadedTable) {
        self.resting.push(table.words);
    }

    /// The rule at an offset of a file, from its loaded table.
    pub fn rule_at(&self, table: LoadedTable, file_offset: u64) -> Option<PackedRule> {
        let bucket = table
            .parts
            .iter()
            .find_map(|part| part.bucket(file_offset))?;
        // SAFETY: the words are the table's as long as it is loaded, and only
        // this side writes them.
        let words = unsafe {
            let from = self.chunks.entry(0).cast::<u32>().cast_const();
            let from = from.add(table.words.first as usize);
            std::slice::from_raw_parts(from, table.words.length as usize)
        };
        let (index, rows) = words.split_at(table.index_words as usize);
        let (first, end) = (index[bucket], index[bucket + 1]);
        find_rule(
            |number| rows.get(number as usize).copied().map(Row),
            first,
            end.checked_sub(first)?,
            file_offset as u8,
        )
    }

    /// Says how the code of a file that is not bound is walked. `file` is what
    /// the kernel's side knows it by; it must be held open until it is unbound.
    pub fn bind(&mut self, file: u64, by: WalkedBy) -> Result<(), NoRoom> {
        // One that was just taken back may still be in use.
        if (file..file + PLACE_SEGMENTS).any(|name| self.place(name, name).is_some()) {
            return Err(NoRoom);
        }
        let WalkedBy::Table(table) = by else {
            return self.fill_place(
                file,
                TablePlace {
                    file,
                    buckets: TablePlace::FRAME_POINTER,
                    segments: 1,
                    ..TablePlace::default()
                },
            );
        };
        let parts = table.parts.iter().filter(|part| part.buckets > 0);
        let segments = parts.clone().count() as u32;
        // The first one last: it leads to the others.
        for (number, part) in (0..).zip(parts).collect::<Vec<_>>().into_iter().rev() {
            let filled = self.fill_place(
                file + number,
                TablePlace {
                    file: file + number,
                    first_offset: part.first_offset,
                    buckets: part.buckets,
                    index_word: table.words.first + part.first_bucket,
                    rows_word: table.words.first + table.index_words,
                    segments,
                },
            );
            if filled.is_err() {
                self.unbind(file);
                return filled;
            }
        }
        Ok(())
    }

    fn fill_place(&mut self, name: u64, filled: TablePlace) -> Result<(), NoRoom> {
        let place = self.place(name, 0).ok_or(NoRoom)?;
        let place = self.place_at(place);
        // SAFETY: the place lies in the array, and only this side writes it;
        // `buckets` is what makes it valid, and stored after everything else.
        unsafe {
            (&raw mut (*place).first_offset).write_volatile(filled.first_offset);
            (&raw mut (*place).index_word).write_volatile(filled.index_word);
            (&raw mut (*place).rows_word).write_volatile(filled.rows_word);
            (&raw mut (*place).segments).write_volatile(filled.segments);
            AtomicU64::from_ptr(&raw mut (*place).file).store(name, Ordering::SeqCst);
            AtomicU32::from_ptr(&raw mut (*place).buckets).store(filled.buckets, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Makes the kernel's side forget a file.
    pub fn unbind(&mut self, file: u64) {
        for name in file..file + PLACE_SEGMENTS {
            if let Some(slot) = self.place(name, name) {
                let place = self.place_at(slot);
                // SAFETY: the place lies in the array, and only this side
                // writes it.
                unsafe { AtomicU32::from_ptr(&raw mut (*place).buckets) }
                    .store(TablePlace::NOT_LOADED, Ordering::SeqCst);
                self.resting_places.push(slot);
            }
        }
    }

    /// From now on it is waited until every CPU has left the tick it is in.
    pub fn wait_for_cpus(&mut self) {
        self.passing.append(&mut self.resting);
        self.passing_places.append(&mut self.resting_places);
    }

    /// Every CPU has left the tick it was in when it began to be waited: what
    /// was taken back before that is free.
    pub fn all_cpus_passed(&mut self) {
        for words in std::mem::take(&mut self.passing) {
            self.give_back(words);
        }
        for slot in std::mem::take(&mut self.passing_places) {
            let place = self.place_at(slot);
            // SAFETY: the place lies in the array, and only this side writes it.
            unsafe { AtomicU64::from_ptr(&raw mut (*place).file) }.store(0, Ordering::SeqCst);
        }
    }

    /// The one of `file`'s slots that is `holder`'s; of 0, a free one.
    fn place(&self, file: u64, holder: u64) -> Option<usize> {
        (0..PLACE_PROBES)
            .map(|probe| place_slot(file, probe))
            // SAFETY: the place lies in the array, which only this side writes.
            .find(|slot| unsafe { (*self.place_at(*slot)).file } == holder)
    }

    fn place_at(&self, slot: usize) -> *mut TablePlace {
        // SAFETY: slots come from `place_slot`, which is below the length.
        unsafe { self.places.entry(0).cast::<TablePlace>().add(slot) }
    }

    fn take(&mut self, length: u32) -> Result<Words, NoRoom> {
        let position = self
            .free
            .iter()
            .position(|words| words.length >= length)
            .ok_or(NoRoom)?;
        let words = &mut self.free[position];
        let first = words.first;
        words.first += length;
        words.length -= length;
        if words.length == 0 {
            self.free.remove(position);
        }
        Ok(Words { first, length })
    }

    fn give_back(&mut self, words: Words) {
        if words.length == 0 {
            return;
        }
        let at = self.free.partition_point(|free| free.first < words.first);
        self.free.insert(at, words);
        // With the one behind it, then with the one before.
        for at in [at, at.wrapping_sub(1)] {
            if let Some(&[before, behind]) = self.free.get(at..).and_then(|rest| rest.first_chunk())
                && before.first + before.length == behind.first
            {
                self.free[at].length += behind.length;
                self.free.remove(at + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

    use super::*;

    /// Memory that is shared as an array map is.
    fn array<T>(entries: usize) -> MappedArray<T> {
        // SAFETY: the name is terminated; the descriptor is new and ours; the
        // file is made as large as the array.
        unsafe {
            let fd = OwnedFd::from_raw_fd(libc::memfd_create(c"array".as_ptr(), 0));
            let file = std::fs::File::from(fd);
            file.set_len((entries * size_of::<T>()) as u64).unwrap();
            MappedArray::new(file.as_fd(), entries).unwrap()
        }
    }

    fn tables() -> Tables {
        Tables::new(array(1), array(2))
    }

    /// The place of a file as a tick would find it.
    fn seen(tables: &Tables, file: u64) -> Option<TablePlace> {
        (0..PLACE_PROBES)
            // SAFETY: slots lie in the array, which nobody else writes.
            .map(|probe| unsafe {
                *tables
                    .places
                    .entry(0)
                    .cast::<TablePlace>()
                    .add(place_slot(file, probe))
            })
            .find(|place| place.file == file && place.buckets != TablePlace::NOT_LOADED)
    }

    /// One row for each of the buckets.
    fn small(tables: &mut Tables, buckets: u32) -> LoadedTable {
        let index: Vec<u32> = (0..=buckets).collect();
        let rows: Vec<u32> = (0..buckets)
            .map(|bucket| Row::new(0, PackedRule::from_bits(bucket)).0)
            .collect();
        let whole = Part {
            first_offset: 0x1000,
            buckets,
            first_bucket: 0,
        };
        tables.load(&[whole], &index, &rows).unwrap()
    }

    #[test]
    fn a_table_is_seen_once_its_file_is_bound_and_until_it_is_unbound() {
        let mut tables = tables();
        let table = small(&mut tables, 3);
        let file = 0xffff_8880_0123_4560;
        assert_eq!(seen(&tables, file), None);
        tables.bind(file, WalkedBy::Table(table)).unwrap();
        let place = seen(&tables, file).unwrap();
        assert_eq!((place.first_offset, place.buckets), (0x1000, 3));
        assert_eq!(place.rows_word, place.index_word + 4);
        tables.unbind(file);
        assert_eq!(seen(&tables, file), None);
        // A tick may still be using the place.
        assert_eq!(tables.bind(file, WalkedBy::FramePointers), Err(NoRoom));
        tables.wait_for_cpus();
        tables.all_cpus_passed();
        tables.bind(file, WalkedBy::FramePointers).unwrap();
        assert_eq!(
            seen(&tables, file).unwrap().buckets,
            TablePlace::FRAME_POINTER
        );
    }

    #[test]
    fn both_sides_find_the_same_rule() {
        let mut tables = tables();
        let table = small(&mut tables, 3);
        for (offset, bits) in [
            (0xfff, None),
            (0x1000, Some(0)),
            (0x11ff, Some(1)),
            (0x1200, Some(2)),
            (0x1300, None),
        ] {
            let rule = tables.rule_at(table, offset);
            assert_eq!(rule.map(PackedRule::bits), bits, "{offset:#x}");
        }
    }

    #[test]
    fn segments_that_are_shifted_differently_have_places_of_their_own() {
        let mut tables = tables();
        let index: Vec<u32> = (0..=10).collect();
        let rows: Vec<u32> = (0..10)
            .map(|bucket| Row::new(0, PackedRule::from_bits(bucket)).0)
            .collect();
        let part = |first_offset, buckets, first_bucket| Part {
            first_offset,
            buckets,
            first_bucket,
        };
        // The last one reaches beyond the table.
        let parts = [part(0x1000, 2, 0), part(0x9000, 3, 7), part(0xa000, 3, 8)];
        let table = tables.load(&parts, &index, &rows).unwrap();
        for (offset, bits) in [
            (0x1100, Some(1)),
            (0x1200, None),
            (0x9000, Some(7)),
            (0x92ff, Some(9)),
            (0xa000, None),
        ] {
            let rule = tables.rule_at(table, offset);
            assert_eq!(rule.map(PackedRule::bits), bits, "{offset:#x}");
        }
        let file = 0xffff_8880_0123_4560;
        tables.bind(file, WalkedBy::Table(table)).unwrap();
        let (first, second) = (
            seen(&tables, file).unwrap(),
            seen(&tables, file + 1).unwrap(),
        );
        assert_eq!((first.segments, first.first_offset), (2, 0x1000));
        assert_eq!(second.index_word, first.index_word + 7);
        assert_eq!(second.rows_word, first.rows_word);
        tables.unbind(file);
        assert_eq!((seen(&tables, file), seen(&tables, file + 1)), (None, None));
    }

    #[test]
    fn words_are_reused_only_after_every_cpu_has_passed() {
        let mut tables = tables();
        let room = 2 * CHUNK_WORDS as u32;
        let first = small(&mut tables, 100);
        let rest = room - first.words.length;
        let filler = tables.load(&[], &[], &vec![0; rest as usize]).unwrap();
        assert_eq!(tables.load(&[], &[0], &[]), Err(NoRoom));
        assert_eq!(tables.free_bytes(), 0);
        tables.unload(first);
        assert_eq!(tables.free_bytes(), first.bytes());
        assert_eq!(tables.load(&[], &[0], &[]), Err(NoRoom), "it may be read");
        tables.wait_for_cpus();
        tables.unload(filler);
        tables.all_cpus_passed();
        assert_eq!(small(&mut tables, 100).words, first.words);
        assert_eq!(tables.load(&[], &[0], &[]), Err(NoRoom), "it may be read");
    }

    #[test]
    fn what_comes_back_grows_together() {
        let mut tables = tables();
        let loaded: Vec<_> = (0..4).map(|_| small(&mut tables, 10)).collect();
        for at in [1, 3, 0, 2] {
            tables.unload(loaded[at]);
            tables.wait_for_cpus();
            tables.all_cpus_passed();
        }
        let all = Words {
            first: 0,
            length: 2 * CHUNK_WORDS as u32,
        };
        assert_eq!(tables.free, [all]);
    }

    #[test]
    fn files_that_share_a_slot_are_told_apart_until_there_is_no_room() {
        let mut tables = tables();
        let alike: Vec<u64> = (1_u64..)
            .map(|number| 0xffff_8880_0000_0000 + number * 8)
            .filter(|file| place_slot(*file, 0) == 77)
            .take(PLACE_PROBES as usize + 1)
            .collect();
        let (last, others) = alike.split_last().unwrap();
        for file in others {
            tables.bind(*file, WalkedBy::FramePointers).unwrap();
        }
        assert_eq!(tables.bind(*last, WalkedBy::FramePointers), Err(NoRoom));
        tables.unbind(others[3]);
        tables.wait_for_cpus();
        tables.all_cpus_passed();
        tables.bind(*last, WalkedBy::FramePointers).unwrap();
        assert!(seen(&tables, *last).is_some() && seen(&tables, others[4]).is_some());
    }

    #[test]
    fn a_table_may_lie_across_chunks() {
        let mut tables = tables();
        let rows: Vec<u32> = (0..CHUNK_WORDS as u32 + 5)
            .map(|_| Row::new(0, PackedRule::from_bits(9)).0)
            .collect();
        let whole = Part {
            first_offset: 0,
            buckets: 2,
            first_bucket: 0,
        };
        let table = tables
            .load(&[whole], &[0, 1, rows.len() as u32], &rows)
            .unwrap();
        assert_eq!(tables.rule_at(table, 0).map(PackedRule::bits), Some(9));
    }
}
