//! The thread that owns all parsers.
//!
//! blazesym's parsers are not `Send`, so they are made and used on one thread;
//! nobody who asks ever waits for it before the end, and then for a bounded time
//! only: a parser cannot be interrupted, but it can be left behind.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::object::{FileId, FileOffset};

use super::debug_files::DebugFiles;
use super::debuginfod::{self, DebugServers};
use super::inflation::Allowance;
use super::kernel::Kernel;
use super::names::{Named, Names};
use super::native::NativeFile;
use super::parsers::OpenParsers;
use super::place::{Place, PlaceKey, Query};
use super::vdso;

/// How long [`Symbolizer::finish`] waits. Hundreds of large files take seconds.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// What open parsers may hold together where nothing else is said.
const MAX_PARSER_BYTES: u64 = 512 << 20;
/// Memory is looked at after a parser that may take this much has answered.
const NOTICEABLE_BYTES: u64 = 1 << 20;

/// The parser recurses as deep as DWARF nests inlined functions. Only pages
/// that are touched cost memory.
const STACK_BYTES: usize = 64 << 20;

/// Where names are looked for, and at what cost.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories with separate debug files, in order of preference.
    pub debug_dirs: Vec<PathBuf>,
    /// Servers that are asked for debug files that are in none of them.
    pub debug_servers: Option<DebugServers>,
    /// The kernel's symbol table.
    pub kallsyms: PathBuf,
    /// How long [`Symbolizer::finish`] waits for answers, besides the time that
    /// servers may take.
    pub max_wait: Duration,
    /// Measures the memory of this process in bytes, for
    /// [`super::Stats::peak_rss_bytes`].
    pub rss_bytes: fn() -> u64,
    /// What open parsers may hold together, in bytes. A file that takes more
    /// alone goes without what has to be inflated.
    pub max_parser_bytes: u64,
    /// When this process takes more, in bytes, no parser stays open.
    pub max_rss_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
            debug_servers: None,
            kallsyms: PathBuf::from("/proc/kallsyms"),
            max_wait: MAX_WAIT,
            rss_bytes: || 0,
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
}

impl Symbolizer {
    /// Starts the thread. It fails only if the system refuses a thread.
    pub fn spawn(options: Options) -> io::Result<Self> {
        let (queue, queries) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let for_servers = options.debug_servers.as_ref().map(|_| debuginfod::MAX_RUN);
        let max_wait = options.max_wait + for_servers.unwrap_or_default();
        let worker_shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("symbolize".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Dropped last, and by a panic too.
                let _ends: Sender<()> = ends;
                Worker::new(options, worker_shared).run(&queries);
            })?;
        Ok(Self {
            queue,
            ended,
            shared,
            submitted: AtomicU64::new(0),
            max_wait,
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
        let waited = self.ended.recv_timeout(self.max_wait);
        self.shared.is_left_behind.store(true, Ordering::Relaxed);
        let Answers { mut names, settled } = std::mem::take(&mut *self.shared.answers());
        let unanswered = self.submitted.into_inner().saturating_sub(settled);
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
        names
    }
}

/// The vDSO is read when the first address in it turns up.
enum Vdso {
    NotAsked,
    Unreadable,
    Open(Box<NativeFile>),
}

struct Worker {
    options: Options,
    files: HashMap<FileId, NativeFile>,
    open_parsers: OpenParsers,
    debug_files: DebugFiles,
    allowance: Allowance,
    kernel: Kernel,
    vdso: Vdso,
    shared: Arc<Shared>,
}

impl Worker {
    fn new(mut options: Options, shared: Arc<Shared>) -> Self {
        Self {
            kernel: Kernel::new(options.kallsyms.clone()),
            open_parsers: OpenParsers::new(options.max_parser_bytes),
            debug_files: DebugFiles::new(options.debug_dirs.clone(), options.debug_servers.take()),
            options,
            files: HashMap::new(),
            allowance: Allowance::default(),
            vdso: Vdso::NotAsked,
            shared,
        }
    }

    fn run(mut self, queries: &Receiver<Vec<Query>>) {
        while let Ok(first) = queries.recv() {
            // Whatever has queued up meanwhile makes the batches larger.
            let batch = first.into_iter().chain(queries.try_iter().flatten());
            for (place, addresses) in self.unanswered(batch) {
                if self.shared.is_left_behind.load(Ordering::Relaxed) {
                    return;
                }
                self.answer(&place, addresses);
            }
            self.measure_memory();
            self.publish_stats();
        }
    }

    /// The distinct addresses without an answer, by place, those first that no
    /// hostile file can hold up.
    fn unanswered(&self, queries: impl Iterator<Item = Query>) -> Vec<(Place, BTreeSet<u64>)> {
        let mut wanted: HashMap<PlaceKey, (Place, BTreeSet<u64>)> = HashMap::new();
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
        wanted.sort_by_key(|(place, _)| matches!(place, Place::File(_)));
        wanted
    }

    fn answer(&mut self, place: &Place, addresses: BTreeSet<u64>) {
        let addresses: Vec<u64> = addresses.into_iter().collect();
        let offsets = || {
            addresses
                .iter()
                .copied()
                .map(FileOffset)
                .collect::<Vec<_>>()
        };
        let named: Vec<Named> = match place {
            Place::Kernel => self.kernel.name(&addresses),
            Place::Vdso => self
                .vdso()
                .map_or_else(Vec::new, |vdso| vdso.name(&offsets())),
            Place::File(pin) => {
                let file = self.files.entry(pin.id).or_insert_with(|| {
                    NativeFile::open(pin.clone(), &mut self.debug_files, &mut self.allowance)
                });
                let parser_bytes = file.parser_bytes();
                self.make_room(pin.id, parser_bytes);
                let file = self.files.get_mut(&pin.id);
                let named = file.map_or_else(Vec::new, |file| file.name(&offsets()));
                if parser_bytes >= NOTICEABLE_BYTES
                    && self.measure_memory() > self.options.max_rss_bytes
                {
                    self.close_parsers();
                }
                named
            }
        };
        let unnamed = std::iter::repeat_with(|| Named::from([]));
        let mut answers = self.shared.answers();
        answers.settled += addresses.len() as u64;
        for (address, named) in addresses.iter().zip(named.into_iter().chain(unnamed)) {
            answers.names.insert(place.key(), *address, named);
        }
    }

    fn vdso(&mut self) -> Option<&mut NativeFile> {
        if let Vdso::NotAsked = self.vdso {
            self.vdso = match vdso::pin() {
                Ok(pin) => {
                    let file = NativeFile::open(pin, &mut self.debug_files, &mut self.allowance);
                    Vdso::Open(Box::new(file))
                }
                Err(error) => {
                    tracing::debug!(%error, "the vDSO cannot be read");
                    Vdso::Unreadable
                }
            };
        }
        match &mut self.vdso {
            Vdso::Open(file) => Some(file),
            Vdso::NotAsked | Vdso::Unreadable => None,
        }
    }

    /// Before a parser opens, closes those used longest ago, as far as need be;
    /// one that the run's allowance does not suffice for has to go without what
    /// is compressed.
    fn make_room(&mut self, id: FileId, parser_bytes: u64) {
        if self.open_parsers.touch(id) {
            return;
        }
        for closed in self.open_parsers.admit(id, parser_bytes) {
            if let Some(file) = self.files.get_mut(&closed) {
                file.close_parser();
            }
        }
        if let Some(file) = self.files.get_mut(&id)
            && (parser_bytes > self.options.max_parser_bytes
                || !self.allowance.take(file.inflated_bytes()))
        {
            tracing::debug!("there is no room to inflate what a file holds; it goes without");
            file.forgo_inflation();
        }
    }

    fn close_parsers(&mut self) {
        for closed in self.open_parsers.close_all() {
            if let Some(file) = self.files.get_mut(&closed) {
                file.close_parser();
            }
        }
    }

    fn measure_memory(&self) -> u64 {
        let rss_bytes = (self.options.rss_bytes)();
        let mut answers = self.shared.answers();
        let peak_bytes = &mut answers.names.stats_mut().peak_rss_bytes;
        *peak_bytes = rss_bytes.max(*peak_bytes);
        rss_bytes
    }

    fn publish_stats(&self) {
        let mut answers = self.shared.answers();
        let stats = answers.names.stats_mut();
        let files = || self.files.values();
        let count = |is: fn(&NativeFile) -> bool| files().filter(|file| is(file)).count() as u64;
        stats.files = self.files.len() as u64;
        stats.failed_files = count(NativeFile::has_failed);
        stats.files_without_debug_info = count(|file| !file.has_failed() && file.lost_debug_info);
        stats.parser_panics = files().map(|file| file.panics).sum::<u64>() + self.kernel.panics;
        if let Vdso::Open(file) = &self.vdso {
            stats.parser_panics += file.panics;
        }
        stats.kernel_names_hidden = self.kernel.names_hidden;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::ffi::CString;
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt as _;
    use std::time::Instant;

    use crate::object::PinnedFile;

    use super::*;

    fn own_program() -> Arc<PinnedFile> {
        let path = std::env::current_exe().unwrap();
        let file = File::open(&path).unwrap();
        let id = FileId {
            device: 1,
            inode: 1,
        };
        Arc::new(PinnedFile::new(id, path, None, file))
    }

    fn in_kernel(address: u64) -> Query {
        Query {
            place: Place::Kernel,
            address,
        }
    }

    /// A pipe that nobody writes to: whoever opens it waits for ever.
    fn silent_pipe(dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join("kallsyms");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is a NUL-terminated string that lives for the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }

    #[test]
    fn a_parser_that_never_answers_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let symbolizer = Symbolizer::spawn(Options {
            kallsyms: silent_pipe(&dir),
            max_wait: Duration::from_millis(200),
            ..Options::default()
        })
        .unwrap();
        let file = Place::File(own_program());
        let in_file = Query {
            place: file.clone(),
            address: 0,
        };
        let first = u64::MAX - 8;
        symbolizer.submit(vec![in_kernel(first), in_kernel(first), in_file]);
        symbolizer.submit(vec![in_kernel(u64::MAX)]);
        let begun = Instant::now();
        let names = symbolizer.finish();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(names.get(&file.key(), 0).is_none());
        // Three different addresses; one was asked for twice, which the thread
        // may have found out or not.
        let unanswered = names.stats().unanswered;
        assert!((3..=4).contains(&unanswered), "{unanswered}");
    }

    #[test]
    fn memory_is_measured_where_parsers_are_open() {
        let symbolizer = Symbolizer::spawn(Options {
            rss_bytes: || 4321,
            ..Options::default()
        })
        .unwrap();
        symbolizer.submit(vec![Query {
            place: Place::File(own_program()),
            address: 0,
        }]);
        let stats = symbolizer.finish().stats();
        assert_eq!((stats.peak_rss_bytes, stats.unanswered), (4321, 0));
    }
}
