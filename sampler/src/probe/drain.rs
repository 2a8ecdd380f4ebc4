//! Taking what was counted out of the kernel, without stopping the counting.
//!
//! Two generations: ticks write to one while the other is read. A tick makes
//! its CPU's sequence number odd, then reads which generation is on; so once
//! the generation has been stored, a CPU whose number is even, or has changed
//! since, can no longer be writing to the one that went off.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use sampler_common::{COPY_CHUNK_WORDS, CopyChunk, CpuState, Region};

use super::mapped::MappedArray;

/// The reading side of the tables.
#[derive(Debug)]
pub struct Drain {
    generation: MappedArray<u64>,
    cpus: MappedArray<CpuState>,
    regions: MappedArray<Region>,
    copies: MappedArray<CopyChunk>,
    /// Chunks of copies of one region; 0 if none are taken.
    copy_chunks: usize,
    on: u64,
}

/// The counters of one CPU, copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuCounters {
    /// Ticks seen.
    pub ticks: u64,
    /// Ticks by outcome.
    pub outcomes: [u64; sampler_common::Outcome::COUNT],
    /// Ticks that were timed, and how long they took together.
    pub clocked_ticks: u64,
    /// In nanoseconds.
    pub clocked_ns: u64,
    /// Forks in scope that found its map full.
    pub scope_overflows: u64,
    /// How the frames of walks by tables found their rules.
    pub rules: RuleCounters,
}

/// Frames by how their rule was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// In the CPU's cache, where the last walk left it.
    pub in_order: u64,
    /// In the cache, by its index.
    pub by_index: u64,
    /// Not in the cache: in the file's table, or nowhere.
    pub missed: u64,
}

impl Drain {
    pub(super) fn new(
        generation: MappedArray<u64>,
        cpus: MappedArray<CpuState>,
        regions: MappedArray<Region>,
        copies: MappedArray<CopyChunk>,
    ) -> Self {
        let copy_chunks = copies.len() / regions.len().max(1);
        Self {
            generation,
            cpus,
            regions,
            copies,
            copy_chunks,
            on: 0,
        }
    }

    /// Turns the other generation on, waits until no CPU writes to the old
    /// one, hands each non-empty region of it, with its chunks of copies, to
    /// `visit`, and empties it.
    pub fn drain(&mut self, mut visit: impl FnMut(&Region, &[&CopyChunk])) {
        let off = self.flip();
        for cpu in 0..self.regions.len() / 2 {
            let number = cpu * 2 + off;
            // SAFETY: `flip` has seen every CPU leave this generation, and
            // none enters it again before the next flip.
            let region = unsafe { &mut *self.regions.entry(number) };
            if region.threads_used == 0 && region.words_used == 0 {
                continue;
            }
            let filled = (region.copy_chunk as usize + 1).min(self.copy_chunks);
            let first = number * self.copy_chunks;
            let chunks: Vec<&CopyChunk> = (first..first + filled)
                // SAFETY: as for the region.
                .map(|chunk| unsafe { &*self.copies.entry(chunk) })
                .collect();
            visit(region, &chunks);
            for chunk in first..first + filled {
                // SAFETY: as for the region; nothing borrows it any more.
                unsafe { (*self.copies.entry(chunk)).used_words = 0 };
            }
            region.clear();
        }
    }

    /// The largest share, 0 to 1, of any table of the generation that is on:
    /// how close it is to losing samples.
    pub fn fullest(&self) -> f64 {
        (0..self.regions.len() / 2)
            .map(|cpu| {
                let region = self.regions.entry(cpu * 2 + self.on as usize);
                // SAFETY: the entry lives as long as `self`. The CPU may write
                // meanwhile, so each word is read on its own, once.
                let (tables, copy_chunk) = unsafe {
                    let tables = fill(
                        ptr::read_volatile(&raw const (*region).threads_used),
                        ptr::read_volatile(&raw const (*region).counts_used),
                        ptr::read_volatile(&raw const (*region).words_used),
                    );
                    (tables, ptr::read_volatile(&raw const (*region).copy_chunk))
                };
                tables.max(self.copies_fill(cpu * 2 + self.on as usize, copy_chunk as usize))
            })
            .fold(0.0, f64::max)
    }

    /// Whether there are copies in the generation that is on. The sooner they
    /// are read, the sooner the kernel's side learns of the files that it could
    /// not walk through.
    pub fn has_copies(&self) -> bool {
        let regions = (0..self.regions.len() / 2).map(|cpu| cpu * 2 + self.on as usize);
        let mut chunks = regions.map(|region| region * self.copy_chunks);
        self.copy_chunks > 0
            && chunks.any(|chunk| {
                let chunk = self.copies.entry(chunk);
                // SAFETY: as in `fullest`.
                unsafe { ptr::read_volatile(&raw const (*chunk).used_words) != 0 }
            })
    }

    /// The share of a region's room for copies that is in use.
    fn copies_fill(&self, region: usize, copy_chunk: usize) -> f64 {
        if copy_chunk >= self.copy_chunks {
            return 0.0;
        }
        let chunk = self.copies.entry(region * self.copy_chunks + copy_chunk);
        // SAFETY: the entry lives as long as `self`; the word is read once.
        let used = unsafe { ptr::read_volatile(&raw const (*chunk).used_words) };
        let used = copy_chunk as f64 + used as f64 / COPY_CHUNK_WORDS as f64;
        used / self.copy_chunks as f64
    }

    /// Returns the generation that went off.
    fn flip(&mut self) -> usize {
        let off = self.on;
        self.on = 1 - off;
        // SAFETY: the entry lives as long as `self`; the kernel reads it whole.
        unsafe { AtomicU64::from_ptr(self.generation.entry(0)) }.store(self.on, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        for cpu in 0..self.possible_cpus() {
            // SAFETY: as above; the field is eight bytes, aligned.
            let sequence =
                unsafe { AtomicU64::from_ptr(&raw mut (*self.cpus.entry(cpu)).sequence) };
            let seen = sequence.load(Ordering::SeqCst);
            while seen % 2 == 1 && sequence.load(Ordering::SeqCst) == seen {
                std::thread::yield_now();
            }
        }
        off as usize
    }

    /// A state for the ticks of each, and one for its departures.
    fn possible_cpus(&self) -> usize {
        self.cpus.len() / 2
    }

    /// How many stacks were walked before their program ended, and how long that
    /// took, in nanoseconds.
    pub fn departures(&self) -> (u64, u64) {
        let states = (self.possible_cpus()..self.cpus.len()).map(|state| self.cpus.entry(state));
        // SAFETY: the entries live as long as `self`; each word is read once.
        let words = states.map(|state| unsafe {
            (
                ptr::read_volatile(&raw const (*state).clocked_ticks),
                ptr::read_volatile(&raw const (*state).clocked_ns),
            )
        });
        words.fold((0, 0), |sum, (count, ns)| (sum.0 + count, sum.1 + ns))
    }

    /// The counters of each possible CPU.
    pub fn counters(&self) -> Vec<CpuCounters> {
        (0..self.possible_cpus())
            .map(|cpu| {
                let state = self.cpus.entry(cpu);
                // SAFETY: the entry lives as long as `self`. The CPU may write
                // meanwhile, so each word is read on its own, once.
                unsafe {
                    CpuCounters {
                        ticks: ptr::read_volatile(&raw const (*state).ticks),
                        outcomes: ptr::read_volatile(&raw const (*state).outcomes),
                        clocked_ticks: ptr::read_volatile(&raw const (*state).clocked_ticks),
                        clocked_ns: ptr::read_volatile(&raw const (*state).clocked_ns),
                        scope_overflows: ptr::read_volatile(&raw const (*state).scope_overflows),
                        rules: RuleCounters {
                            in_order: ptr::read_volatile(&raw const (*state).rules.in_order),
                            by_index: ptr::read_volatile(&raw const (*state).rules.by_index),
                            missed: ptr::read_volatile(&raw const (*state).rules.missed),
                        },
                    }
                }
            })
            .collect()
    }
}

/// The share of a region's fullest table that is in use.
fn fill(threads: u32, counts: u32, words: u32) -> f64 {
    let share = |used: u32, room: usize| f64::from(used) / room as f64;
    share(threads, sampler_common::THREADS)
        .max(share(counts, sampler_common::COUNTS))
        .max(share(words, sampler_common::ARENA_WORDS))
}
