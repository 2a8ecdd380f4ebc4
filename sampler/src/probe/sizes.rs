//! How large the maps are.

use sampler_common::{
    CHUNK_WORDS, CopyChunk, CpuState, Departure, PLACES, Region, TablePlace, departure_slots,
};

/// Processes that the map of processes in scope has room for.
const SCOPE_PROCESSES: u32 = 65_536;
/// What the kernel takes for an entry of a hash map of two words: its own
/// header of 48 bytes, and 16 of the table of buckets.
const HASH_ENTRY_BYTES: u64 = 48 + 16 + 16;
/// What the kernel takes for all maps beside their entries: some pages each.
const OVERHEAD_BYTES: u64 = 256 << 10;

/// Bytes of a chunk of unwind tables.
pub const TABLE_CHUNK_BYTES: u64 = 4 * CHUNK_WORDS as u64;

/// What decides on the sizes of the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSizes {
    /// Possible CPUs.
    pub cpus: u32,
    /// Whether processes are in scope one by one.
    pub tracks_processes: bool,
    /// Whether their children come in.
    pub follows_forks: bool,
    /// Chunks of unwind tables; 0 if there are to be none.
    pub table_chunks: u32,
    /// Chunks of stack copies that a CPU has for each generation.
    pub copy_chunks: u32,
}

impl MapSizes {
    /// Those of programs that are never to sample.
    pub const fn smallest() -> Self {
        Self {
            cpus: 1,
            tracks_processes: false,
            follows_forks: false,
            table_chunks: 0,
            copy_chunks: 0,
        }
    }

    /// Bytes of one chunk of stack copies for each CPU and generation.
    pub const fn copy_chunk_bytes(cpus: u32) -> u64 {
        2 * cpus as u64 * size_of::<CopyChunk>() as u64
    }

    /// Entries of `CPUS`: for the ticks of each, and for its departures.
    pub(super) const fn states(&self) -> u32 {
        2 * self.cpus
    }

    /// Entries of `DEPARTURES`.
    pub(super) const fn departures(&self) -> u32 {
        departure_slots(self.cpus)
    }

    /// Entries of `REGIONS`.
    pub(super) const fn regions(&self) -> u32 {
        2 * self.cpus
    }

    /// Entries of `COPIES`; no map is empty.
    pub(super) fn copies(&self) -> u32 {
        (2 * self.cpus * self.copy_chunks).max(1)
    }

    /// Entries of `CHUNKS`.
    pub(super) fn chunks(&self) -> u32 {
        self.table_chunks.max(1)
    }

    /// Entries of `SCOPE`.
    pub(super) const fn scope(&self) -> u32 {
        if self.tracks_processes {
            SCOPE_PROCESSES
        } else {
            1
        }
    }

    /// Entries of `DESCENDANTS`.
    pub(super) const fn descendants(&self) -> u32 {
        if self.follows_forks {
            SCOPE_PROCESSES
        } else {
            1
        }
    }

    /// What the kernel takes for all of them, about; the kernel's own account is
    /// [`Programs::map_bytes`](super::Programs::map_bytes).
    pub fn bytes(&self) -> u64 {
        let entries = |count: u32, bytes: usize| u64::from(count) * bytes as u64;
        entries(self.states(), size_of::<CpuState>())
            + entries(self.departures(), size_of::<Departure>())
            + entries(self.regions(), size_of::<Region>())
            + entries(self.copies(), size_of::<CopyChunk>())
            + u64::from(self.chunks()) * TABLE_CHUNK_BYTES
            + (PLACES * size_of::<TablePlace>()) as u64
            + u64::from(self.scope() + self.descendants()) * HASH_ENTRY_BYTES
            + OVERHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_costs_what_it_adds() {
        let small = MapSizes::smallest();
        let grown = |grow: fn(&mut MapSizes)| {
            let mut sizes = MapSizes {
                table_chunks: 1,
                copy_chunks: 1,
                ..small
            };
            let before = sizes.bytes();
            grow(&mut sizes);
            sizes.bytes() - before
        };
        assert_eq!(grown(|sizes| sizes.table_chunks += 3), 3 * 256 * 1024);
        assert_eq!(
            grown(|sizes| sizes.copy_chunks += 2),
            2 * MapSizes::copy_chunk_bytes(1)
        );
        assert!(grown(|sizes| sizes.tracks_processes = true) > 4 << 20);
        assert!(grown(|sizes| sizes.cpus = 2) > 2 * 480 * 1024);
    }
}
