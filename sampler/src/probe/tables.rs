//! Publishing address spaces and unwind tables to the walk in the kernel.
//!
//! The arrays are shared memory, so this is plain writing, in an order that a
//! tick on another CPU may see at any point: a space is void while it is
//! changed, and mappings that were taken back are reused only after every CPU
//! has left the tick that may have read them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use sampler_common::{
    CHUNK_WORDS, SPACE_MAPPINGS, SPACE_PROBES, SPACES, Space, SpaceMapping, TABLES, TablePlace,
    space_slot,
};

use super::mapped::MappedArray;

/// Runs of mappings are powers of two, of at least this many.
const SMALLEST_RUN: u32 = 8;

/// The number of the table of files that have none: it is never loaded.
pub const NO_TABLE: u32 = 0;

/// What a process was published as.
#[derive(Debug, Clone, Copy)]
struct Published {
    slot: usize,
    run: Run,
}

/// Consecutive entries in the array of mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    length: u32,
}

/// How often a process's ID was forked into or its program replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u32);

/// No room is left for what was to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room is left")]
pub struct NoRoom;

/// The writing side of the walk's arrays.
#[derive(Debug)]
pub struct Tables {
    spaces: MappedArray<[Space; SPACES]>,
    mappings: MappedArray<[SpaceMapping; SPACE_MAPPINGS]>,
    places: MappedArray<[TablePlace; TABLES]>,
    chunks: MappedArray<[u32; CHUNK_WORDS]>,
    by_pid: HashMap<u32, Published>,
    /// Free runs by the logarithm of their length.
    free: HashMap<u32, Vec<Run>>,
    /// Runs that a tick may still be reading.
    resting: Vec<Run>,
    /// Of those, the ones that were taken back before the CPUs were last asked
    /// to leave their ticks.
    passing: Vec<Run>,
    next_mapping: u32,
    next_table: u32,
    next_word: u64,
}

impl Tables {
    pub(super) fn new(
        spaces: MappedArray<[Space; SPACES]>,
        mappings: MappedArray<[SpaceMapping; SPACE_MAPPINGS]>,
        places: MappedArray<[TablePlace; TABLES]>,
        chunks: MappedArray<[u32; CHUNK_WORDS]>,
    ) -> Self {
        Self {
            spaces,
            mappings,
            places,
            chunks,
            by_pid: HashMap::new(),
            free: HashMap::new(),
            resting: Vec::new(),
            passing: Vec::new(),
            next_mapping: 0,
            next_table: NO_TABLE + 1,
            next_word: 0,
        }
    }

    /// A number for the table of another file, which is not loaded yet.
    pub fn number(&mut self) -> Result<u32, NoRoom> {
        let number = self.next_table;
        if number as usize >= TABLES {
            return Err(NoRoom);
        }
        self.next_table += 1;
        Ok(number)
    }

    /// Loads a table: its bucket index, with one word more than it has
    /// buckets, and its rows. `first_offset` is the lowest file offset that it
    /// covers, a multiple of 256.
    pub fn load(
        &mut self,
        number: u32,
        first_offset: u64,
        index: &[u32],
        rows: &[u32],
    ) -> Result<(), NoRoom> {
        let Some(buckets) = index.len().checked_sub(1).filter(|buckets| *buckets > 0) else {
            return Ok(());
        };
        let end = self.next_word + (index.len() + rows.len()) as u64;
        if end > (self.chunks.len() * CHUNK_WORDS) as u64 {
            return Err(NoRoom);
        }
        let index_word = self.next_word;
        let rows_word = index_word + index.len() as u64;
        self.write_words(index_word, index);
        self.write_words(rows_word, rows);
        self.next_word = end;
        // SAFETY: the number is one that `number` gave out, below the length
        // of the array; `buckets` is the word that makes the place valid, and
        // it is stored after everything else.
        unsafe {
            let place = self
                .places
                .entry(0)
                .cast::<TablePlace>()
                .add(number as usize);
            (*place).first_offset = first_offset;
            (*place).index_word = index_word as u32;
            (*place).rows_word = rows_word as u32;
            AtomicU32::from_ptr(&raw mut (*place).buckets).store(buckets as u32, Ordering::Release);
        }
        Ok(())
    }

    /// Gives a process a slot, void until something is published.
    pub fn reserve(&mut self, pid: u32) -> Result<(), NoRoom> {
        if self.by_pid.contains_key(&pid) {
            return Ok(());
        }
        self.take_slot(pid).map(|_| ())
    }

    /// The epochs of all processes that have a slot, as they are now.
    pub fn epochs(&self, epochs: &mut HashMap<u32, Epoch>) {
        epochs.clear();
        epochs.extend(self.by_pid.iter().map(|(pid, published)| {
            let word = self.epoch_word(published.slot);
            (*pid, Epoch(word.load(Ordering::Acquire)))
        }));
    }

    /// Publishes the mappings of a process, sorted by address, as they were
    /// known at an epoch.
    pub fn publish(
        &mut self,
        pid: u32,
        epoch: Epoch,
        mappings: &[SpaceMapping],
    ) -> Result<(), NoRoom> {
        let Some(published) = self.by_pid.get(&pid).copied() else {
            return Err(NoRoom);
        };
        let run = if mappings.is_empty() {
            Run {
                first: 0,
                length: 0,
            }
        } else {
            self.take_run(mappings.len() as u32)?
        };
        let table = self.mappings.entry(0).cast::<SpaceMapping>();
        for (position, mapping) in (run.first..).zip(mappings) {
            // SAFETY: the run lies in the array, and nobody reads it yet.
            unsafe { table.add(position as usize).write_volatile(*mapping) };
        }
        let space = self.space(published.slot);
        // SAFETY: the slot lies in the array and is this process's.
        unsafe {
            let published_for = AtomicU32::from_ptr(&raw mut (*space).published);
            published_for.store(epoch.0.wrapping_sub(1), Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let word = u64::from(run.first) | (mappings.len() as u64) << 32;
            AtomicU64::from_ptr(&raw mut (*space).mappings).store(word, Ordering::SeqCst);
            published_for.store(epoch.0, Ordering::SeqCst);
        }
        self.rest(published.run);
        self.by_pid.insert(pid, Published { run, ..published });
        Ok(())
    }

    /// Takes back what was published for a process, and its slot.
    pub fn retire(&mut self, pid: u32) {
        if let Some(published) = self.by_pid.remove(&pid) {
            let space = self.space(published.slot);
            // SAFETY: the slot lies in the array and was this process's.
            unsafe { AtomicU32::from_ptr(&raw mut (*space).pid).store(0, Ordering::SeqCst) };
            self.rest(published.run);
        }
    }

    /// The processes whose mappings were published for an older epoch.
    pub fn void(&self) -> Vec<u32> {
        self.by_pid
            .iter()
            .filter(|(_, published)| {
                let space = self.space(published.slot);
                // SAFETY: the slot lies in the array.
                let for_epoch = unsafe { AtomicU32::from_ptr(&raw mut (*space).published) };
                for_epoch.load(Ordering::Relaxed)
                    != self.epoch_word(published.slot).load(Ordering::Relaxed)
            })
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// From now on it is waited until every CPU has left the tick it is in.
    pub fn wait_for_cpus(&mut self) {
        self.passing.append(&mut self.resting);
    }

    /// Every CPU has left the tick it was in when it began to be waited: what
    /// was taken back before that is free.
    pub fn all_cpus_passed(&mut self) {
        for run in std::mem::take(&mut self.passing) {
            self.free.entry(run.length.ilog2()).or_default().push(run);
        }
    }

    fn space(&self, slot: usize) -> *mut Space {
        // SAFETY: slots come from `space_slot`, which is below the length.
        unsafe { self.spaces.entry(0).cast::<Space>().add(slot) }
    }

    fn epoch_word(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: the slot lies in the array, which lives as long as `self`.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.space(slot)).epoch) }
    }

    fn take_slot(&mut self, pid: u32) -> Result<usize, NoRoom> {
        for probe in 0..SPACE_PROBES {
            let slot = space_slot(pid, probe);
            let space = self.space(slot);
            // SAFETY: the slot lies in the array; only this side writes IDs.
            unsafe {
                if (*space).pid != 0 {
                    continue;
                }
                let epoch = self.epoch_word(slot).load(Ordering::Acquire);
                AtomicU32::from_ptr(&raw mut (*space).published)
                    .store(epoch.wrapping_sub(1), Ordering::SeqCst);
                AtomicU32::from_ptr(&raw mut (*space).pid).store(pid, Ordering::SeqCst);
            }
            let run = Run {
                first: 0,
                length: 0,
            };
            self.by_pid.insert(pid, Published { slot, run });
            return Ok(slot);
        }
        Err(NoRoom)
    }

    fn take_run(&mut self, mappings: u32) -> Result<Run, NoRoom> {
        let length = mappings.next_power_of_two().max(SMALLEST_RUN);
        if let Some(run) = self.free.get_mut(&length.ilog2()).and_then(Vec::pop) {
            return Ok(run);
        }
        let first = self.next_mapping;
        if first as usize + length as usize > SPACE_MAPPINGS {
            return Err(NoRoom);
        }
        self.next_mapping += length;
        Ok(Run { first, length })
    }

    fn rest(&mut self, run: Run) {
        if run.length > 0 {
            self.resting.push(run);
        }
    }

    fn write_words(&mut self, from: u64, words: &[u32]) {
        let mut at = from as usize;
        let mut left = words;
        while !left.is_empty() {
            let (chunk, offset) = (at / CHUNK_WORDS, at % CHUNK_WORDS);
            let (now, later) = left.split_at(left.len().min(CHUNK_WORDS - offset));
            let target = self.chunks.entry(chunk).cast::<u32>();
            // SAFETY: `load` has checked that the words fit; no reader knows
            // of them before the place says so.
            unsafe {
                target
                    .add(offset)
                    .copy_from_nonoverlapping(now.as_ptr(), now.len());
            };
            at += now.len();
            left = later;
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
        Tables::new(array(1), array(1), array(1), array(2))
    }

    /// The mappings of a process as a tick would see them.
    fn seen(tables: &Tables, pid: u32) -> Option<Vec<SpaceMapping>> {
        let slot = (0..SPACE_PROBES)
            .map(|probe| space_slot(pid, probe))
            // SAFETY: slots lie in the array, which nobody else writes.
            .find(|slot| unsafe { (*tables.space(*slot)).pid } == pid)?;
        // SAFETY: as above; the run lies in the array.
        unsafe {
            let space = tables.space(slot);
            let current = (*space).published == (*space).epoch;
            let (run, count) = ((*space).mappings as u32, ((*space).mappings >> 32) as u32);
            let first = tables.mappings.entry(0).cast::<SpaceMapping>();
            current.then(|| {
                (0..count)
                    .map(|at| *first.add((run + at) as usize))
                    .collect()
            })
        }
    }

    fn mapping(start: u64) -> SpaceMapping {
        SpaceMapping {
            start,
            end: start + 0x1000,
            bias: start,
            table: 1,
            reserved: 0,
        }
    }

    fn epoch_of(tables: &Tables, pid: u32) -> Epoch {
        let mut epochs = HashMap::new();
        tables.epochs(&mut epochs);
        epochs[&pid]
    }

    /// What the programs do at an exec.
    fn exec(tables: &Tables, pid: u32) {
        tables
            .epoch_word(tables.by_pid[&pid].slot)
            .fetch_add(1, Ordering::SeqCst);
    }

    #[test]
    fn a_process_is_seen_once_it_is_published() {
        let mut tables = tables();
        tables.reserve(7).unwrap();
        assert_eq!(seen(&tables, 7), None);
        let epoch = epoch_of(&tables, 7);
        tables
            .publish(7, epoch, &[mapping(0x1000), mapping(0x5000)])
            .unwrap();
        assert_eq!(
            seen(&tables, 7).unwrap(),
            [mapping(0x1000), mapping(0x5000)]
        );
        assert!(tables.void().is_empty());
        tables.retire(7);
        assert_eq!(seen(&tables, 7), None);
    }

    #[test]
    fn an_exec_voids_what_was_published_and_what_was_known_before_it() {
        let mut tables = tables();
        tables.reserve(7).unwrap();
        let before = epoch_of(&tables, 7);
        tables.publish(7, before, &[mapping(0x1000)]).unwrap();
        exec(&tables, 7);
        assert_eq!(seen(&tables, 7), None);
        assert_eq!(tables.void(), [7]);
        // Known from before the exec: still void.
        tables.publish(7, before, &[mapping(0x1000)]).unwrap();
        assert_eq!(seen(&tables, 7), None);
        let after = epoch_of(&tables, 7);
        tables.publish(7, after, &[mapping(0x9000)]).unwrap();
        assert_eq!(seen(&tables, 7).unwrap(), [mapping(0x9000)]);
    }

    #[test]
    fn mappings_are_reused_only_after_every_cpu_has_passed() {
        let mut tables = tables();
        tables.reserve(7).unwrap();
        let epoch = epoch_of(&tables, 7);
        tables.publish(7, epoch, &[mapping(0x1000)]).unwrap();
        let first = tables.by_pid[&7].run;
        tables.publish(7, epoch, &[mapping(0x2000)]).unwrap();
        let second = tables.by_pid[&7].run;
        assert_ne!(first, second);
        tables.publish(7, epoch, &[mapping(0x3000)]).unwrap();
        let third = tables.by_pid[&7].run;
        assert_ne!(third, first, "a tick may still read it");
        tables.wait_for_cpus();
        tables.publish(7, epoch, &[mapping(0x4000)]).unwrap();
        let fourth = tables.by_pid[&7].run;
        assert!(![first, second].contains(&fourth), "it is not over yet");
        tables.all_cpus_passed();
        for _ in 0..2 {
            tables.publish(7, epoch, &[mapping(0x5000)]).unwrap();
            let run = tables.by_pid[&7].run;
            assert!([first, second].contains(&run), "{run:?} may still be read");
        }
    }

    #[test]
    fn processes_that_share_a_slot_are_told_apart_until_there_is_no_room() {
        let mut tables = tables();
        let alike = |at: u32| 7 + at * SPACES as u32;
        for at in 0..SPACE_PROBES {
            tables.reserve(alike(at)).unwrap();
        }
        assert_eq!(tables.reserve(alike(SPACE_PROBES)), Err(NoRoom));
        let epoch = epoch_of(&tables, alike(3));
        tables.publish(alike(3), epoch, &[mapping(0x1000)]).unwrap();
        assert_eq!(seen(&tables, alike(3)).unwrap(), [mapping(0x1000)]);
        assert_eq!(seen(&tables, alike(2)), None);
    }

    #[test]
    fn a_table_may_lie_across_chunks_and_too_large_a_one_is_refused() {
        let mut tables = tables();
        let number = tables.number().unwrap();
        let rows: Vec<u32> = (0..CHUNK_WORDS as u32 + 5).collect();
        tables.load(number, 0x1000, &[0, 3], &rows).unwrap();
        // SAFETY: the chunks are consecutive in memory, and nobody writes them.
        let words = unsafe {
            std::slice::from_raw_parts(tables.chunks.entry(0).cast::<u32>(), 2 * CHUNK_WORDS)
        };
        assert_eq!(&words[2..2 + rows.len()], &rows[..]);
        // SAFETY: the number lies in the array.
        let place = unsafe {
            *tables
                .places
                .entry(0)
                .cast::<TablePlace>()
                .add(number as usize)
        };
        assert_eq!(
            (place.first_offset, place.buckets, place.rows_word),
            (0x1000, 1, 2)
        );
        let other = tables.number().unwrap();
        assert_eq!(tables.load(other, 0, &[0, 3], &rows), Err(NoRoom));
        // SAFETY: as above.
        let place = unsafe {
            *tables
                .places
                .entry(0)
                .cast::<TablePlace>()
                .add(other as usize)
        };
        assert_eq!(place.buckets, 0);
    }
}
