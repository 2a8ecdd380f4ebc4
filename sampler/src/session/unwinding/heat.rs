//! Which tables go when there is no room for all.

use std::time::{Duration, Instant};

/// For how long a table must have been needed less than another to go for it.
const COLD: Duration = Duration::from_secs(2);
/// After how long a table that found no room anywhere is built again, if it is
/// needed; twice as long each time.
const RETRY: Duration = Duration::from_secs(10);
/// How often that is doubled, at most.
const MAX_DOUBLINGS: u32 = 5;

/// A table that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate<T> {
    /// Which.
    pub id: T,
    /// When a stack last needed it.
    pub used: Instant,
    /// What it takes.
    pub bytes: u64,
}

/// Those that are to go, the coldest first, so that `bytes` come free for a
/// table that was needed at `needed`; none if the cold ones are not enough.
pub(super) fn to_evict<T>(
    mut candidates: Vec<Candidate<T>>,
    needed: Instant,
    bytes: u64,
) -> Vec<Candidate<T>> {
    candidates.retain(|candidate| candidate.used + COLD <= needed);
    candidates.sort_unstable_by_key(|candidate| candidate.used);
    let mut freed = 0;
    let going = candidates
        .iter()
        .take_while(|candidate| {
            let more = freed < bytes;
            freed += candidate.bytes;
            more
        })
        .count();
    candidates.truncate(going);
    let freed: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
    if freed < bytes {
        candidates.clear();
    }
    candidates
}

/// Those that are too many for `max_bytes`: all but the ones that were needed
/// last and fit together.
pub(super) fn too_many<T>(mut kept: Vec<Candidate<T>>, max_bytes: u64) -> Vec<Candidate<T>> {
    kept.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.used));
    let mut held = 0;
    kept.retain(|candidate| {
        let fits = held + candidate.bytes <= max_bytes;
        held += if fits { candidate.bytes } else { 0 };
        !fits
    });
    kept
}

/// For how long a table is not built again that was dropped so many times.
pub(super) fn rest(drops: u32) -> Duration {
    RETRY * 2_u32.pow(drops.saturating_sub(1).min(MAX_DOUBLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbered tables: seconds after the start when each was used, and bytes.
    fn tables(start: Instant, all: &[(u64, u64)]) -> Vec<Candidate<usize>> {
        let each = all.iter().enumerate();
        each.map(|(id, (seconds, bytes))| Candidate {
            id,
            used: start + Duration::from_secs(*seconds),
            bytes: *bytes,
        })
        .collect()
    }

    fn ids(candidates: &[Candidate<usize>]) -> Vec<usize> {
        candidates.iter().map(|candidate| candidate.id).collect()
    }

    #[test]
    fn the_coldest_go_and_no_more_than_need_be() {
        let start = Instant::now();
        let needed = start + Duration::from_secs(100);
        let all = [(50, 10), (3, 10), (99, 1000), (20, 10), (98, 10)];
        let evicted = |bytes| ids(&to_evict(tables(start, &all), needed, bytes));
        assert_eq!(evicted(1), [1]);
        assert_eq!(evicted(11), [1, 3]);
        assert_eq!(evicted(40), [1, 3, 0, 4]);
        // In vain: none goes.
        assert_eq!(evicted(41), [] as [usize; 0]);
    }

    #[test]
    fn of_tables_that_are_too_many_those_stay_that_were_needed_last() {
        let start = Instant::now();
        let all = [(1, 10), (2, 10), (3, 30), (4, 10)];
        let dropped = |bytes| ids(&too_many(tables(start, &all), bytes));
        assert_eq!(dropped(60), [] as [usize; 0]);
        assert_eq!(dropped(45), [1, 0]);
        // One that is too large for what is left does not keep out smaller ones.
        assert_eq!(dropped(20), [2, 0]);
        assert_eq!(dropped(0), [3, 2, 1, 0]);
    }

    #[test]
    fn a_table_that_is_dropped_again_rests_longer_but_not_for_ever() {
        let rests: Vec<u64> = (1..9).map(|drops| rest(drops).as_secs()).collect();
        assert_eq!(rests, [10, 20, 40, 80, 160, 320, 320, 320]);
    }
}
