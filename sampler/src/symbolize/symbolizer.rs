//! The handle on the threads that name addresses.
//!
//! Each has its own files, so that no file is parsed twice, and its own child.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::isolation::{niceness, rights};

use super::debuginfod;
use super::names::Names;
use super::options::Options;
use super::place::{PlaceKey, Query};
use super::waiting::{Waiting, wait};
use super::worker::{Shared, Worker};

/// A handle on the threads that name addresses.
#[derive(Debug)]
pub struct Symbolizer {
    /// Never empty.
    shards: Vec<Shard>,
    /// Nothing is ever sent: it is closed when all threads have ended.
    ended: Receiver<()>,
    max_wait: Duration,
    on_wait: fn(Waiting),
}

/// One thread, for the places that are its own.
#[derive(Debug)]
struct Shard {
    queue: Sender<Vec<Query>>,
    shared: Arc<Shared>,
    submitted: AtomicU64,
    thread: JoinHandle<()>,
}

impl Symbolizer {
    /// Starts the threads. It fails only if the system refuses one.
    pub fn spawn(options: Options) -> io::Result<Self> {
        let (ends, ended) = mpsc::channel();
        let for_servers = options.debug_servers.as_ref().map(|_| debuginfod::MAX_RUN);
        let max_wait = options.max_wait + for_servers.unwrap_or_default();
        let on_wait = options.on_wait;
        let shards = options.at_a_time.get();
        let options = Options {
            max_parser_bytes: options.max_parser_bytes / shards as u64,
            ..options
        };
        // Few files are all that many recordings have; the others wait for theirs.
        let starts_child = |number| number == 0;
        let shards: io::Result<Vec<Shard>> = (0..shards)
            .map(|number| Shard::spawn(options.clone(), starts_child(number), ends.clone()))
            .collect();
        Ok(Self {
            shards: shards?,
            ended,
            max_wait,
            on_wait,
        })
    }

    /// Asks for names. Returns at once; what was asked for before costs nothing
    /// but the look-up.
    pub fn submit(&self, queries: Vec<Query>) {
        let mut parts: Vec<Vec<Query>> = vec![Vec::new(); self.shards.len()];
        for query in queries {
            parts[shard_of(query.place.key(), self.shards.len())].push(query);
        }
        for (shard, part) in self.shards.iter().zip(parts) {
            if !part.is_empty() {
                shard.submit(part);
            }
        }
    }

    /// Waits until everything asked for is answered, but no longer than
    /// [`Options::max_wait`] says. What has no answer then has no name; a thread
    /// ends by itself once it is done with the file that it is at.
    pub fn finish(mut self) -> Names {
        for shard in &mut self.shards {
            shard.hang_up();
        }
        let mut was_told = false;
        let waited = wait(&self.ended, self.max_wait, |waited| {
            was_told = true;
            (self.on_wait)(self.waiting(waited));
        });
        if was_told {
            (self.on_wait)(Waiting::Over);
        }
        let is_late = waited == Err(RecvTimeoutError::Timeout);
        let mut names = Names::default();
        for shard in self.shards {
            let (found, keeper) = shard.finish();
            names.add(found);
            if !is_late {
                names.add_keeper(keeper);
            }
        }
        let unanswered = names.stats().unanswered;
        if is_late {
            tracing::warn!(
                unanswered,
                waited_s = self.max_wait.as_secs(),
                "naming takes too long; the remaining addresses stay without names"
            );
        } else if unanswered > 0 {
            tracing::error!(
                unanswered,
                "the symbolizer died; addresses stay without names"
            );
        }
        names
    }

    /// How far all of them are after so long.
    fn waiting(&self, waited: Duration) -> Waiting {
        let progress = self.shards.iter().map(Shard::progress);
        let (answered, asked) = progress.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Waiting::For {
            waited,
            answered,
            asked,
        }
    }
}

impl Shard {
    fn spawn(options: Options, starts_child: bool, ends: Sender<()>) -> io::Result<Self> {
        let (queue, queries) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let worker_shared = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("symbolize".to_owned())
            .spawn(move || {
                niceness::set(niceness::NAMES);
                let mut worker = {
                    // Dropped when all is answered, and by a panic too.
                    let _ends: Sender<()> = ends;
                    let kept_rights = options.kept_rights;
                    let mut worker = Worker::new(options, worker_shared);
                    if starts_child {
                        worker.prepare();
                    }
                    if let Err(error) = rights::keep_only(kept_rights) {
                        tracing::debug!(%error, "rights cannot be given up");
                    }
                    worker.run(&queries)
                };
                worker.keep_names();
            })?;
        Ok(Self {
            queue,
            shared,
            submitted: AtomicU64::new(0),
            thread,
        })
    }

    fn submit(&self, queries: Vec<Query>) {
        self.submitted
            .fetch_add(queries.len() as u64, Ordering::Relaxed);
        // Fails only if the thread has died, which `finish` reports.
        let _ = self.queue.send(queries);
    }

    /// Nothing more is asked.
    fn hang_up(&mut self) {
        let (nobody, _) = mpsc::channel();
        self.queue = nobody;
    }

    /// Distinct addresses with an answer, and all that were asked for.
    fn progress(&self) -> (u64, u64) {
        self.shared.progress(self.submitted.load(Ordering::Relaxed))
    }

    /// What it has found until now, and its thread.
    fn finish(self) -> (Names, JoinHandle<()>) {
        let (mut names, settled) = self.shared.leave();
        let submitted = self.submitted.into_inner();
        names.stats_mut().unanswered = submitted.saturating_sub(settled);
        (names, self.thread)
    }
}

/// Which of so many threads a place belongs to: the first one if no file has to be
/// opened for it.
fn shard_of(place: PlaceKey, shards: usize) -> usize {
    match place {
        PlaceKey::Kernel | PlaceKey::Vdso => 0,
        PlaceKey::File(_) | PlaceKey::DebugFile(_) | PlaceKey::Jit(_) => {
            let mut hasher = DefaultHasher::new();
            place.hash(&mut hasher);
            (hasher.finish() % shards as u64) as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::FileId;

    #[test]
    fn files_are_spread_and_each_stays_where_it_is() {
        let file = |inode| PlaceKey::File(FileId { device: 1, inode });
        let mut files = [0; 4];
        for inode in 0..400 {
            files[shard_of(file(inode), 4)] += 1;
            assert_eq!(shard_of(file(inode), 4), shard_of(file(inode), 4));
            assert_eq!(shard_of(file(inode), 1), 0);
        }
        // Of 100 expected in each, with a deviation of 9.
        assert!(
            files.iter().all(|files| (60..140).contains(files)),
            "{files:?}"
        );
        assert_eq!(shard_of(PlaceKey::Kernel, 4), 0);
    }
}
