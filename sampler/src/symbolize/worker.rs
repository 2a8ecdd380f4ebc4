//! The thread that has files parsed.
//!
//! It parses nothing itself: a child does, and the thread asks it. Nobody who asks
//! for names ever waits for it before the end, and then for a bounded time only.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::isolation::{self, niceness, rights};
use crate::object::{FileId, PinnedFile};

use super::debug_files::DebugFiles;
use super::debuginfod::{self, DebugServers};
use super::kept::KeptNames;
use super::kept_kernel::KeptKernel;
use super::names::{Named, Names};
use super::native::AddressKind;
use super::place::{Place, PlaceKey, Query};
use super::remote::{Bounds, KernelSymbols, Parsers};
use super::vdso;
use super::waiting::{Waiting, wait};

/// How long [`Symbolizer::finish`] waits. Hundreds of large files take seconds.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// What open parsers may hold together where nothing else is said.
const MAX_PARSER_BYTES: u64 = 512 << 20;
/// Memory is looked at after a parser that may take this much has answered.
const NOTICEABLE_BYTES: u64 = 1 << 20;

/// Addresses of a file that are asked for before its parser's memory is looked at,
/// at first; more where it hardly grows.
const FIRST_ADDRESSES: usize = 64;
/// The share of the memory that there is by which a parser may grow between two
/// looks, as a divisor.
const GROWTH: u64 = 16;
/// A file whose parser finds no room to stay open is asked again when so many
/// times as long has passed as it took.
const PATIENCE: u32 = 10;

/// How long a child may be at one file. The largest debug files take seconds.
const FILE_DEADLINE: Duration = Duration::from_secs(15);
/// What a child may hold in any case, so that a small budget costs time and no
/// names; and at most.
const MIN_CHILD_BYTES: u64 = 256 << 20;
const MAX_CHILD_BYTES: u64 = 4 << 30;

/// Where names are looked for, and at what cost.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories with separate debug files, in order of preference.
    pub debug_dirs: Vec<PathBuf>,
    /// Servers that are asked for debug files that are in none of them.
    pub debug_servers: Option<DebugServers>,
    /// Where names that were found are kept for the next time.
    pub cache: Option<Arc<Cache>>,
    /// The kernel's symbol table.
    pub kallsyms: PathBuf,
    /// The boot that it is of, if that is known and it is the kernel's own: the part
    /// that does not change is then kept, too.
    pub boot_id: Option<String>,
    /// How long [`Symbolizer::finish`] waits for answers, besides the time that
    /// servers may take.
    pub max_wait: Duration,
    /// Is told once a second while [`Symbolizer::finish`] waits, and at its end.
    pub on_wait: fn(Waiting),
    /// How long a child may be at one file before it is ended.
    pub file_deadline: Duration,
    /// Measures the memory of the profiler in bytes, for
    /// [`super::Stats::peak_rss_bytes`].
    pub rss_bytes: fn() -> u64,
    /// The capabilities that the thread keeps, one bit each, after it has opened
    /// what it needs more for.
    pub kept_rights: u64,
    /// What open parsers may hold together, in bytes. A file that takes more
    /// alone goes without what has to be inflated.
    pub max_parser_bytes: u64,
    /// When the profiler takes more, in bytes, no parser stays open.
    pub max_rss_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
            debug_servers: None,
            cache: None,
            kallsyms: PathBuf::from("/proc/kallsyms"),
            boot_id: None,
            max_wait: MAX_WAIT,
            on_wait: |_| (),
            file_deadline: FILE_DEADLINE,
            rss_bytes: || 0,
            kept_rights: u64::MAX,
            max_parser_bytes: MAX_PARSER_BYTES,
            max_rss_bytes: u64::MAX,
        }
    }
}

/// What the thread and the handle on it share.
#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<Answers>,
    /// Nobody waits for answers any more.
    is_left_behind: AtomicBool,
}

#[derive(Debug, Default)]
struct Answers {
    names: Names,
    /// Queries that need nothing more, those asked twice included.
    settled: u64,
}

impl Answers {
    /// How far it is after so long, of so many queries.
    fn waiting(&self, waited: Duration, submitted: u64) -> Waiting {
        let stats = self.names.stats();
        let answered = stats.named + stats.unnamed;
        Waiting::For {
            waited,
            answered,
            asked: answered + submitted.saturating_sub(self.settled),
        }
    }
}

impl Shared {
    /// A thread that died in between has left whole answers.
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on the thread that names addresses.
#[derive(Debug)]
pub struct Symbolizer {
    queue: Sender<Vec<Query>>,
    /// Nothing is ever sent: it is closed when the thread has ended.
    ended: Receiver<()>,
    shared: Arc<Shared>,
    submitted: AtomicU64,
    max_wait: Duration,
    on_wait: fn(Waiting),
    thread: JoinHandle<()>,
}

impl Symbolizer {
    /// Starts the thread. It fails only if the system refuses a thread.
    pub fn spawn(options: Options) -> io::Result<Self> {
        let (queue, queries) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let for_servers = options.debug_servers.as_ref().map(|_| debuginfod::MAX_RUN);
        let max_wait = options.max_wait + for_servers.unwrap_or_default();
        let on_wait = options.on_wait;
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
                    worker.parsers.prepare();
                    if let Err(error) = rights::keep_only(kept_rights) {
                        tracing::debug!(%error, "rights cannot be given up");
                    }
                    worker.run(&queries)
                };
                worker.parsers.keep_names();
            })?;
        Ok(Self {
            queue,
            ended,
            shared,
            submitted: AtomicU64::new(0),
            max_wait,
            on_wait,
            thread,
        })
    }

    /// Asks for names. Returns at once; what was asked for before costs nothing
    /// but the look-up.
    pub fn submit(&self, queries: Vec<Query>) {
        self.submitted
            .fetch_add(queries.len() as u64, Ordering::Relaxed);
        // Fails only if the thread has died, which `finish` reports.
        let _ = self.queue.send(queries);
    }

    /// Waits until everything asked for is answered, but no longer than
    /// [`Options::max_wait`] says. What has no answer then has no name; the thread
    /// ends by itself once it is done with the file that it is at.
    pub fn finish(self) -> Names {
        drop(self.queue);
        let submitted = self.submitted.into_inner();
        let mut was_told = false;
        let waited = wait(&self.ended, self.max_wait, |waited| {
            was_told = true;
            (self.on_wait)(self.shared.answers().waiting(waited, submitted));
        });
        if was_told {
            (self.on_wait)(Waiting::Over);
        }
        self.shared.is_left_behind.store(true, Ordering::Relaxed);
        let Answers { mut names, settled } = std::mem::take(&mut *self.shared.answers());
        let unanswered = submitted.saturating_sub(settled);
        names.stats_mut().unanswered = unanswered;
        if waited == Err(RecvTimeoutError::Timeout) {
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
        if waited != Err(RecvTimeoutError::Timeout) {
            names.set_keeper(self.thread);
        }
        names
    }
}

/// The vDSO is read when the first address in it turns up.
enum Vdso {
    NotAsked,
    Unreadable,
    Open(Arc<PinnedFile>),
}

struct Worker {
    rss_bytes: fn() -> u64,
    max_rss_bytes: u64,
    parsers: Parsers,
    vdso: Vdso,
    /// Files whose parsers did not stay open, and when they may be asked again.
    costly: HashMap<FileId, Instant>,
    /// What is asked of them until then.
    put_off: HashMap<PlaceKey, (Place, BTreeSet<u64>)>,
    shared: Arc<Shared>,
}

impl Worker {
    fn new(options: Options, shared: Arc<Shared>) -> Self {
        let bounds = Bounds {
            file_deadline: options.file_deadline,
            max_parser_bytes: options.max_parser_bytes,
            max_bytes: options
                .max_rss_bytes
                .clamp(MIN_CHILD_BYTES, MAX_CHILD_BYTES),
        };
        let debug_files = DebugFiles::new(options.debug_dirs, options.debug_servers);
        Self {
            rss_bytes: options.rss_bytes,
            max_rss_bytes: options.max_rss_bytes,
            parsers: Parsers::new(
                bounds,
                debug_files,
                KeptNames::new(options.cache.clone()),
                KernelSymbols::open(
                    &options.kallsyms,
                    KeptKernel::new(options.cache, options.boot_id.as_deref()),
                ),
            ),
            vdso: Vdso::NotAsked,
            costly: HashMap::new(),
            put_off: HashMap::new(),
            shared,
        }
    }

    /// Answers until nobody asks any more.
    fn run(mut self, queries: &Receiver<Vec<Query>>) -> Self {
        while let Ok(first) = queries.recv() {
            // Whatever has queued up meanwhile makes the batches larger.
            let batch = first.into_iter().chain(queries.try_iter().flatten());
            for (place, addresses) in self.unanswered(batch) {
                if self.shared.is_left_behind.load(Ordering::Relaxed) {
                    return self;
                }
                if self.can_wait(&place) {
                    self.put_off.insert(place.key(), (place, addresses));
                } else {
                    self.answer(&place, addresses);
                }
            }
            self.measure_memory();
            self.publish_stats();
        }
        for (place, addresses) in std::mem::take(&mut self.put_off).into_values() {
            if self.shared.is_left_behind.load(Ordering::Relaxed) {
                return self;
            }
            self.answer(&place, addresses);
            self.publish_stats();
        }
        self
    }

    /// Whether it would cost too much to ask now.
    fn can_wait(&self, place: &Place) -> bool {
        let (Place::File(pin) | Place::DebugFile(pin)) = place else {
            return false;
        };
        let until = self.costly.get(&pin.id);
        until.is_some_and(|until| Instant::now() < *until)
    }

    /// The distinct addresses without an answer, by place, those that were put off
    /// included: those first that no hostile file can hold up, then those in files
    /// that have taken the least time.
    fn unanswered(&mut self, queries: impl Iterator<Item = Query>) -> Vec<(Place, BTreeSet<u64>)> {
        let mut wanted = std::mem::take(&mut self.put_off);
        let mut answers = self.shared.answers();
        for Query { place, address } in queries {
            let key = place.key();
            let is_new = !answers.names.knows(&key, address) && {
                let entry = wanted.entry(key).or_insert((place, BTreeSet::new()));
                entry.1.insert(address)
            };
            answers.settled += u64::from(!is_new);
        }
        drop(answers);
        let mut wanted: Vec<_> = wanted.into_values().collect();
        wanted.sort_by_key(|(place, _)| match place {
            Place::Kernel | Place::Vdso => (0, Duration::ZERO),
            Place::File(pin) | Place::DebugFile(pin) => (1, self.parsers.spent(pin.id)),
            Place::Jit(_) => (2, Duration::ZERO),
        });
        wanted
    }

    fn answer(&mut self, place: &Place, addresses: BTreeSet<u64>) {
        let addresses: Vec<u64> = addresses.into_iter().collect();
        let named: Vec<Named> = match place {
            Place::Kernel => self.parsers.name_kernel(&addresses),
            Place::Vdso => match self.vdso() {
                Some(vdso) => self
                    .parsers
                    .name(&vdso, &addresses, AddressKind::FileOffset),
                None => Vec::new(),
            },
            Place::File(pin) => self.name_in(pin, &addresses, AddressKind::FileOffset),
            Place::DebugFile(pin) => self.name_in(pin, &addresses, AddressKind::Virtual),
            Place::Jit(source) => self.parsers.name_jit(source, &addresses),
        };
        let unnamed = std::iter::repeat_with(|| Named::from([]));
        let mut answers = self.shared.answers();
        answers.settled += addresses.len() as u64;
        for (address, named) in addresses.iter().zip(named.into_iter().chain(unnamed)) {
            answers.names.insert(place.key(), *address, named);
        }
    }

    fn name_in(
        &mut self,
        pin: &Arc<PinnedFile>,
        mut addresses: &[u64],
        kind: AddressKind,
    ) -> Vec<Named> {
        let begun = Instant::now();
        let mut named = Vec::with_capacity(addresses.len());
        let (mut at_once, mut before_bytes) = (FIRST_ADDRESSES, u64::MAX);
        let mut has_closed = false;
        while !addresses.is_empty() {
            let (now, later) = addresses.split_at(at_once.min(addresses.len()));
            addresses = later;
            named.extend(self.parsers.name(pin, now, kind));
            if later.is_empty() && self.parsers.parser_bytes(pin.id) < NOTICEABLE_BYTES {
                break;
            }
            let held_bytes = self.measure_memory();
            let growth_bytes = held_bytes.saturating_sub(before_bytes);
            at_once = if growth_bytes > self.max_rss_bytes / GROWTH {
                at_once.div_ceil(2)
            } else {
                at_once * 2
            };
            before_bytes = held_bytes;
            // It may grow as much again, and a bit more.
            let ahead_bytes = growth_bytes + self.max_rss_bytes / GROWTH;
            if held_bytes.saturating_add(ahead_bytes) > self.max_rss_bytes {
                self.parsers.close_parsers();
                has_closed = true;
            }
        }
        if has_closed {
            let ended = Instant::now();
            self.costly
                .insert(pin.id, ended + (ended - begun) * PATIENCE);
        } else {
            self.costly.remove(&pin.id);
        }
        named
    }

    fn vdso(&mut self) -> Option<Arc<PinnedFile>> {
        if let Vdso::NotAsked = self.vdso {
            self.vdso = match vdso::pin() {
                Ok(pin) => Vdso::Open(pin),
                Err(error) => {
                    tracing::debug!(%error, "the vDSO cannot be read");
                    Vdso::Unreadable
                }
            };
        }
        match &self.vdso {
            Vdso::Open(file) => Some(Arc::clone(file)),
            Vdso::NotAsked | Vdso::Unreadable => None,
        }
    }

    fn measure_memory(&self) -> u64 {
        let rss_bytes = (self.rss_bytes)();
        let mut answers = self.shared.answers();
        let peak_bytes = &mut answers.names.stats_mut().peak_rss_bytes;
        *peak_bytes = rss_bytes.max(*peak_bytes);
        rss_bytes
    }

    fn publish_stats(&self) {
        let mut answers = self.shared.answers();
        let stats = answers.names.stats_mut();
        self.parsers.count(stats);
        stats.cpu_ns += isolation::thread_cpu_ns();
    }
}
