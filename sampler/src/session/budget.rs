//! One memory budget for everything, divided among the rooms.
//!
//! What counts is the memory of this process that no file backs, and the maps
//! in the kernel. Each room gets what it cannot do without, and of what is left
//! a share by its weight; a room that needs no more leaves the rest of its share
//! to the recording itself: processes, samples, names, profiles.

use std::fmt;

use crate::probe::{MapSizes, TABLE_CHUNK_BYTES};

/// The budget of a recording of which nothing else is asked, in bytes.
pub const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;

const MIB: u64 = 1 << 20;

/// What a room gets.
struct Claim {
    /// In any case, in bytes.
    floor: u64,
    /// Of what is left then.
    weight: u64,
}

impl Claim {
    const fn new(floor_mib: u64, weight: u64) -> Self {
        Self {
            floor: floor_mib * MIB,
            weight,
        }
    }
}

/// Unwind tables in the kernel.
const TABLES: Claim = Claim::new(1, 5);
/// Copies of stacks in the kernel: at least one chunk for each CPU and
/// generation, which depends on the host.
const COPIES: Claim = Claim::new(0, 1);
/// Building tables. The weight is that of the largest compilers.
const BUILDERS: Claim = Claim::new(12, 5);
/// Tables that found no room in the kernel.
const KEPT_TABLES: Claim = Claim::new(1, 1);
/// Copies that wait for tables. At 999 Hz a compiler makes tens of MiB of them
/// until the table of its largest library is there.
const WAITING_COPIES: Claim = Claim::new(1, 5);
/// The second walk, if walks are to be checked.
const CHECKS: Claim = Claim::new(4, 4);
/// The parsers of symbols and debug information.
const PARSERS: Claim = Claim::new(8, 3);
/// The program, processes, samples, names, the profile that is written.
const RECORDING: Claim = Claim::new(24, 3);

/// Chunks of copies that a CPU has for each generation, at most.
const MAX_COPY_CHUNKS: u64 = 8;
/// Bytes of all chunks of copies, at most, but for one for each.
const MAX_COPY_BYTES: u64 = 32 * MIB;

/// What a recording needs room for.
#[expect(clippy::struct_excessive_bools, reason = "each is a room of its own")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Possible CPUs.
    pub cpus: u32,
    /// Whether processes are in scope one by one.
    pub tracks_processes: bool,
    /// Whether their children come in.
    pub follows_forks: bool,
    /// Whether stacks are walked by tables.
    pub tables: bool,
    /// Whether walks are checked.
    pub checks: bool,
}

/// What each room may take, in bytes where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// All of it.
    pub budget_bytes: u64,
    /// The sizes of the maps in the kernel.
    pub maps: MapSizes,
    /// Building tables.
    pub builders_bytes: u64,
    /// Tables that found no room in the kernel.
    pub kept_tables_bytes: u64,
    /// Copies that wait for tables.
    pub waiting_copies_bytes: u64,
    /// The second walk.
    pub checks_bytes: u64,
    /// The parsers of symbols and debug information.
    pub parsers_bytes: u64,
    /// What is left for all else.
    pub recording_bytes: u64,
}

/// The budget is too small to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a memory budget of {} is too small: this recording on this host needs {} at least",
    Size(*.asked_bytes), Size(*.smallest_bytes)
)]
pub struct TooSmall {
    /// What was asked for.
    pub asked_bytes: u64,
    /// The smallest that works, a whole number of MiB.
    pub smallest_bytes: u64,
}

/// Bytes, as people write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(MIB) => write!(f, "{}M", bytes / MIB),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

impl Needs {
    /// The smallest budget that works, a whole number of MiB.
    pub fn smallest_bytes(self) -> u64 {
        let floors: u64 = self.claims().map(|claim| claim.floor).sum();
        (self.smallest_maps().bytes() + floors).next_multiple_of(MIB)
    }

    /// Divides the budget that was asked for, or one that is as small as can be
    /// where a host needs more than is taken unasked.
    pub fn divide(self, asked_bytes: Option<u64>) -> Result<Shares, TooSmall> {
        let smallest_bytes = self.smallest_bytes();
        let budget_bytes = asked_bytes.unwrap_or(DEFAULT_MEMORY_BYTES.max(smallest_bytes));
        if budget_bytes < smallest_bytes {
            return Err(TooSmall {
                asked_bytes: budget_bytes,
                smallest_bytes,
            });
        }
        let floors: u64 = self.claims().map(|claim| claim.floor).sum();
        let left = budget_bytes - self.smallest_maps().bytes() - floors;
        let weights: u64 = self.claims().map(|claim| claim.weight).sum();
        let share = |claim: &Claim| {
            let of_rest = u128::from(left) * u128::from(claim.weight) / u128::from(weights);
            claim.floor + of_rest as u64
        };
        let if_wanted = |wanted: bool, claim: &Claim| if wanted { share(claim) } else { 0 };
        let mut maps = self.smallest_maps();
        if self.tables {
            let chunks = share(&TABLES) / TABLE_CHUNK_BYTES;
            maps.table_chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
            let one_each = MapSizes::copy_chunk_bytes(self.cpus);
            let more = share(&COPIES) / one_each;
            let fitting = (MAX_COPY_BYTES / one_each).clamp(1, MAX_COPY_CHUNKS);
            maps.copy_chunks = (1 + more).min(fitting) as u32;
        }
        let mut shares = Shares {
            budget_bytes,
            maps,
            builders_bytes: if_wanted(self.tables, &BUILDERS),
            kept_tables_bytes: if_wanted(self.tables, &KEPT_TABLES),
            waiting_copies_bytes: if_wanted(self.tables, &WAITING_COPIES),
            checks_bytes: if_wanted(self.checks, &CHECKS),
            parsers_bytes: share(&PARSERS),
            recording_bytes: 0,
        };
        shares.recording_bytes = budget_bytes.saturating_sub(shares.rooms_bytes());
        Ok(shares)
    }

    /// The rooms that there are.
    fn claims(self) -> impl Iterator<Item = &'static Claim> {
        let tables = [&TABLES, &COPIES, &BUILDERS, &KEPT_TABLES, &WAITING_COPIES];
        let tables = tables.into_iter().filter(move |_| self.tables);
        let checks = self.checks.then_some(&CHECKS);
        tables.chain(checks).chain([&PARSERS, &RECORDING])
    }

    /// The maps without the rooms that have a claim.
    fn smallest_maps(self) -> MapSizes {
        MapSizes {
            cpus: self.cpus,
            tracks_processes: self.tracks_processes,
            follows_forks: self.follows_forks,
            table_chunks: 0,
            copy_chunks: u32::from(self.tables),
        }
    }
}

impl Shares {
    /// All rooms but what is left.
    fn rooms_bytes(&self) -> u64 {
        self.maps.bytes()
            + self.builders_bytes
            + self.kept_tables_bytes
            + self.waiting_copies_bytes
            + self.checks_bytes
            + self.parsers_bytes
    }
}

impl fmt::Display for Shares {
    /// For the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        let maps = &self.maps;
        write!(
            f,
            "memory {:.1} MiB: {:.1} of maps (unwind tables {:.1}, stack copies {:.1}), building tables {:.1}, tables kept {:.1}, copies waiting {:.1}, checks {:.1}, parsers {:.1}, recording {:.1}",
            mib(self.budget_bytes),
            mib(maps.bytes()),
            mib(u64::from(maps.table_chunks) * TABLE_CHUNK_BYTES),
            mib(u64::from(maps.copy_chunks) * MapSizes::copy_chunk_bytes(maps.cpus)),
            mib(self.builders_bytes),
            mib(self.kept_tables_bytes),
            mib(self.waiting_copies_bytes),
            mib(self.checks_bytes),
            mib(self.parsers_bytes),
            mib(self.recording_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use super::*;

    const SMALL_HOST: Needs = Needs {
        cpus: 2,
        tracks_processes: false,
        follows_forks: false,
        tables: true,
        checks: false,
    };

    fn hosts() -> impl Iterator<Item = Needs> {
        [1, 2, 16, 64, 512].into_iter().flat_map(|cpus| {
            (0..16).map(move |bits| Needs {
                cpus,
                tracks_processes: bits & 1 != 0,
                follows_forks: bits & 2 != 0,
                tables: bits & 4 != 0,
                checks: bits & 0b1100 == 0b1100,
            })
        })
    }

    #[test]
    fn the_rooms_together_are_the_budget_and_none_is_below_its_floor() {
        for needs in hosts() {
            let smallest = needs.smallest_bytes();
            for more in [0, 1, 50 * MIB, 4 << 30, 1 << 40] {
                let shares = needs.divide(Some(smallest + more)).unwrap();
                assert_eq!(
                    shares.rooms_bytes() + shares.recording_bytes,
                    smallest + more,
                    "{needs:?}"
                );
                assert!(shares.recording_bytes >= RECORDING.floor, "{needs:?}");
                assert!(shares.parsers_bytes >= PARSERS.floor, "{needs:?}");
                if needs.tables {
                    assert!(shares.maps.table_chunks >= 4, "{needs:?}");
                    assert!(shares.maps.copy_chunks >= 1, "{needs:?}");
                    assert!(shares.builders_bytes >= BUILDERS.floor, "{needs:?}");
                } else {
                    assert_eq!(shares.maps.table_chunks, 0, "{needs:?}");
                    assert_eq!(shares.builders_bytes, 0, "{needs:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_small_is_refused_and_the_smallest_that_works_is_named() {
        for needs in hosts() {
            let smallest = needs.smallest_bytes();
            let refused = needs.divide(Some(smallest - 1)).unwrap_err();
            assert_eq!(refused.smallest_bytes, smallest);
            assert!(needs.divide(Some(smallest)).is_ok());
        }
        let said = SMALL_HOST.divide(Some(MIB)).unwrap_err().to_string();
        let smallest = SMALL_HOST.smallest_bytes() / MIB;
        assert!(said.contains("of 1M is"), "{said}");
        assert!(said.contains(&format!("needs {smallest}M")), "{said}");
    }

    #[test]
    fn a_host_that_needs_more_than_the_default_gets_it_unasked() {
        let shares = SMALL_HOST.divide(None).unwrap();
        assert_eq!(shares.budget_bytes, DEFAULT_MEMORY_BYTES);
        let large = Needs {
            cpus: 512,
            ..SMALL_HOST
        };
        let shares = large.divide(None).unwrap();
        assert_eq!(shares.budget_bytes, large.smallest_bytes());
        assert!(shares.budget_bytes > DEFAULT_MEMORY_BYTES);
    }

    #[test]
    fn a_larger_budget_makes_no_room_smaller() {
        for needs in hosts() {
            let smallest = needs.smallest_bytes();
            let mut before = needs.divide(Some(smallest)).unwrap();
            for step in 1..40 {
                let now = needs.divide(Some(smallest + step * 23 * MIB)).unwrap();
                assert!(now.maps.table_chunks >= before.maps.table_chunks);
                assert!(now.maps.copy_chunks >= before.maps.copy_chunks);
                assert!(now.builders_bytes >= before.builders_bytes);
                assert!(now.parsers_bytes >= before.parsers_bytes);
                assert!(now.waiting_copies_bytes >= before.waiting_copies_bytes);
                before = now;
            }
        }
    }

    #[test]
    fn copies_take_no_more_than_they_can_use() {
        let shares = SMALL_HOST.divide(Some(64 << 30)).unwrap();
        assert_eq!(u64::from(shares.maps.copy_chunks), MAX_COPY_CHUNKS);
        let large = Needs {
            cpus: 512,
            ..SMALL_HOST
        };
        let shares = large.divide(Some(64 << 30)).unwrap();
        assert_eq!(shares.maps.copy_chunks, 1);
    }
}
