//! Waiting for names, and saying so.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What [`super::Symbolizer::finish`] says of itself while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It waits, and has waited for so long; said once a second.
    For {
        /// How long.
        waited: Duration,
        /// Distinct addresses that have their answer, named or not.
        answered: u64,
        /// All addresses; one that was asked for twice may still count twice.
        asked: u64,
    },
    /// It does not wait any more. Said only if it had to.
    Over,
}

/// Waits until the other side is closed, for so long at most, and says with each
/// full second how long it has waited.
pub(super) fn wait(
    ended: &Receiver<()>,
    max_wait: Duration,
    mut say: impl FnMut(Duration),
) -> Result<(), RecvTimeoutError> {
    let begun = Instant::now();
    loop {
        let waited = begun.elapsed();
        match ended.recv_timeout(until_next(waited, max_wait)) {
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < max_wait => say(begun.elapsed()),
            over => return over,
        }
    }
}

/// How long it is until the next full second, or the end.
fn until_next(waited: Duration, max_wait: Duration) -> Duration {
    let next = Duration::from_secs(waited.as_secs() + 1).min(max_wait);
    next.saturating_sub(waited)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_slice_ends_with_a_second_or_with_the_wait() {
        let next = |waited_ms, max_ms| {
            let [waited, max] = [waited_ms, max_ms].map(Duration::from_millis);
            until_next(waited, max).as_millis()
        };
        assert_eq!(next(0, 30_000), 1000);
        assert_eq!(next(1002, 30_000), 998);
        assert_eq!(next(2999, 30_000), 1);
        assert_eq!(next(0, 300), 300);
        assert_eq!(next(29_900, 29_950), 50);
        assert_eq!(next(31_000, 30_000), 0);
    }

    #[test]
    fn who_has_ended_is_not_waited_for() {
        let (ends, ended) = mpsc::channel();
        drop(ends);
        let waited = wait(&ended, Duration::from_secs(60), |_| unreachable!("no wait"));
        assert_eq!(waited, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn each_second_is_told_and_the_wait_ends() {
        let (ends, ended) = mpsc::channel();
        let mut told = Vec::new();
        let waited = wait(&ended, Duration::from_millis(2300), |waited| {
            told.push(waited.as_secs());
        });
        assert_eq!(waited, Err(RecvTimeoutError::Timeout));
        assert!(!told.is_empty() && told.iter().all(|second| (1..=2).contains(second)));

        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(ends);
        });
        let waited = wait(&ended, Duration::from_secs(60), |_| ());
        assert_eq!(waited, Err(RecvTimeoutError::Disconnected));
        assert!(thread.join().is_ok());
    }
}
