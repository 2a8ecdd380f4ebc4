//! What a thread does that has files parsed.
//!
//! It parses nothing itself: a child does, and the thread asks it. Nobody who asks
//! for names ever waits for it before the end, and then for a bounded time only.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::isolation;
use crate::object::{FileId, PinnedFile};

use super::debug_files::DebugFiles;
use super::kept_kernel::KeptKernel;
use super::names::{Named, Names};
use super::native::AddressKind;
use super::options::Options;
use super::place::{Place, PlaceKey, Query};
use super::remote::{Bounds, KernelSymbols, Parsers};
use super::vdso;

/// Memory is looked at after a parser that may take this much has answered.
const NOTICEABLE_BYTES: u64 = 1 << 20;

/// Addresses of a file that are asked for before its parser's memory is looked at,
/// at first; more where it hardly grows.
const FIRST_ADDRESSES: usize = 64;
/// The share of the memory that there is by which a parser may grow between two
/// looks, as a divisor.
const GROWTH: u64 = 16;
/// Time between two looks at the memory where small parsers are all that is asked.
const MEASURE: Duration = Duration::from_secs(1);
/// A file whose parser finds no room to stay open is asked again when so many
/// times as long has passed as it took; each time twice as many.
const PATIENCE: u32 = 10;
/// DWARF that a parser reads in a second, in bytes, where nothing better is known; and
/// how much memory it takes for it, as a divisor. Of C and of Rust it is about half.
const DWARF_A_SECOND: u64 = 256 << 20;
const DWARF_TO_MEMORY: u64 = 2;

/// What a child may hold in any case, so that a small budget costs time and no
/// names; and at most.
const MIN_CHILD_BYTES: u64 = 256 << 20;
const MAX_CHILD_BYTES: u64 = 4 << 30;

/// What the thread and the handle on it share.
#[derive(Debug, Default)]
pub(super) struct Shared {
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
    /// Distinct addresses with an answer, and, of so many queries, those that are
    /// known to be distinct or have none yet.
    pub(super) fn progress(&self, submitted: u64) -> (u64, u64) {
        let answers = self.answers();
        let stats = answers.names.stats();
        let answered = stats.named + stats.unnamed;
        (
            answered,
            answered + submitted.saturating_sub(answers.settled),
        )
    }

    /// What was found, and how many queries need nothing more. The thread is told
    /// that nobody waits for it any more.
    pub(super) fn leave(&self) -> (Names, u64) {
        self.is_left_behind.store(true, Ordering::Relaxed);
        let Answers { names, settled } = mem::take(&mut *self.answers());
        (names, settled)
    }

    /// A thread that died in between has left whole answers.
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The vDSO is read when the first address in it turns up.
enum Vdso {
    NotAsked,
    Unreadable,
    Open(Arc<PinnedFile>),
}

/// A file of which each pass over its addresses reads the same again.
struct Costly {
    /// When it may be asked the next time.
    until: Instant,
    /// How many times as long as it took it waits then.
    patience: u32,
}

pub(super) struct Worker {
    rss_bytes: fn() -> u64,
    max_rss_bytes: u64,
    parsers: Parsers,
    vdso: Vdso,
    /// Files whose parsers do not stay open.
    costly: HashMap<FileId, Costly>,
    /// What is asked of them until then.
    put_off: HashMap<PlaceKey, (Place, BTreeSet<u64>)>,
    /// Nothing can be put off any more.
    is_over: bool,
    /// When the memory was looked at last.
    measured: Option<Instant>,
    shared: Arc<Shared>,
}

impl Worker {
    pub(super) fn new(options: Options, shared: Arc<Shared>) -> Self {
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
                options.cache.clone(),
                KernelSymbols::open(
                    &options.kallsyms,
                    KeptKernel::new(options.cache, options.boot_id.as_deref()),
                    options.own_kernel_code,
                ),
            ),
            vdso: Vdso::NotAsked,
            costly: HashMap::new(),
            put_off: HashMap::new(),
            is_over: false,
            measured: None,
            shared,
        }
    }

    /// Starts its child, so that none has to be waited for later.
    pub(super) fn prepare(&mut self) {
        self.parsers.prepare();
    }

    /// Keeps the names that were found for the next recording.
    pub(super) fn keep_names(&mut self) {
        self.parsers.keep_names();
    }

    /// Answers until nobody asks any more.
    pub(super) fn run(mut self, queries: &Receiver<Vec<Query>>) -> Self {
        while let Ok(first) = queries.recv() {
            // Whatever has queued up meanwhile makes the batches larger.
            let batch = first.into_iter().chain(queries.try_iter().flatten());
            let asked = self.parsers.asked();
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
            let is_due = |measured: Instant| measured.elapsed() >= MEASURE;
            if asked != self.parsers.asked() && self.measured.is_none_or(is_due) {
                self.measure_memory();
            }
            self.publish_stats();
        }
        self.is_over = true;
        for (place, addresses) in mem::take(&mut self.put_off).into_values() {
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
        let costly = self.costly.get(&pin.id);
        !self.is_over && costly.is_some_and(|costly| Instant::now() < costly.until)
    }

    /// The distinct addresses without an answer, by place, those that were put off
    /// included: those first that no hostile file can hold up, then those in files,
    /// the hottest first: where most addresses are waiting for the time that the file
    /// has taken. One that takes long and tells little comes last.
    fn unanswered(&mut self, queries: impl Iterator<Item = Query>) -> Vec<(Place, BTreeSet<u64>)> {
        let mut wanted = mem::take(&mut self.put_off);
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
        wanted.sort_by_cached_key(|(place, addresses)| match place {
            Place::Kernel | Place::Vdso => (0, Duration::ZERO, Reverse(0)),
            Place::File(pin) | Place::DebugFile(pin) => {
                let waiting = addresses.len();
                let spent = self.parsers.spent(pin.id);
                let for_each = spent / u32::try_from(waiting).unwrap_or(u32::MAX).max(1);
                (1, for_each, Reverse(waiting))
            }
            Place::Jit(_) => (2, Duration::ZERO, Reverse(addresses.len())),
        });
        wanted
    }

    fn answer(&mut self, place: &Place, addresses: BTreeSet<u64>) {
        let addresses: Vec<u64> = addresses.into_iter().collect();
        let named = match place {
            Place::Kernel => now(self.parsers.name_kernel(&addresses)),
            Place::Vdso => match self.vdso() {
                Some(vdso) => self.name_in(&vdso, &addresses, AddressKind::FileOffset),
                None => Vec::new(),
            },
            Place::File(pin) => self.name_in(pin, &addresses, AddressKind::FileOffset),
            Place::DebugFile(pin) => self.name_in(pin, &addresses, AddressKind::Virtual),
            Place::Jit(source) => now(self.parsers.name_jit(source, &addresses)),
        };
        let mut later = BTreeSet::new();
        // Whoever has no answer has no name.
        let nameless = std::iter::repeat_with(|| Some(Named::from([])));
        let named = addresses.into_iter().zip(named.into_iter().chain(nameless));
        let named: Vec<(u64, Named)> = named
            .filter_map(|(address, named)| {
                if named.is_none() {
                    later.insert(address);
                }
                Some((address, named?))
            })
            .collect();
        if !later.is_empty() {
            self.put_off.insert(place.key(), (place.clone(), later));
        }
        let mut answers = self.shared.answers();
        answers.settled += named.len() as u64;
        answers.names.insert(place.key(), named.into_iter());
    }

    /// The frames at each address; `None` for those that had better be asked for later.
    fn name_in(
        &mut self,
        pin: &Arc<PinnedFile>,
        addresses: &[u64],
        kind: AddressKind,
    ) -> Vec<Option<Named>> {
        let mut named = self.parsers.known(pin, addresses, kind);
        let with_known = addresses.iter().zip(&named);
        let unknown = with_known.filter_map(|(at, named)| named.is_none().then_some(*at));
        let unknown: Vec<u64> = unknown.collect();
        if unknown.is_empty() || self.had_better_wait(pin, kind) {
            return named;
        }
        let found = self.parse(pin, &unknown, kind);
        let nameless = named.iter_mut().filter(|named| named.is_none());
        for (nameless, found) in nameless.zip(found) {
            *nameless = Some(found);
        }
        named
    }

    /// Whether a file has so much debug information that its parser will not stay open.
    /// All of its addresses together cost hardly more than the first ones alone.
    fn had_better_wait(&mut self, pin: &Arc<PinnedFile>, kind: AddressKind) -> bool {
        let was_asked = self.parsers.spent(pin.id) > Duration::ZERO;
        if self.is_over || was_asked {
            return false;
        }
        let debug_bytes = self.parsers.debug_bytes(pin, kind);
        if debug_bytes == 0 {
            return false;
        }
        let room_bytes = self.max_rss_bytes.saturating_sub(self.measure_memory());
        if debug_bytes / DWARF_TO_MEMORY <= room_bytes {
            return false;
        }
        let takes = Duration::from_secs(1).mul_f64(debug_bytes as f64 / DWARF_A_SECOND as f64);
        let costly = Costly {
            until: Instant::now() + takes * PATIENCE,
            patience: PATIENCE,
        };
        self.costly.insert(pin.id, costly);
        true
    }

    /// Asks a child, for as many addresses at once as leaves the memory within its
    /// bounds.
    fn parse(
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
            let before = self.costly.get(&pin.id);
            let patience = before.map_or(PATIENCE, |costly| costly.patience.saturating_mul(2));
            let until = ended + (ended - begun) * patience;
            self.costly.insert(pin.id, Costly { until, patience });
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

    fn measure_memory(&mut self) -> u64 {
        let rss_bytes = (self.rss_bytes)();
        self.measured = Some(Instant::now());
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

/// Answers none of which is put off.
fn now(named: Vec<Named>) -> Vec<Option<Named>> {
    named.into_iter().map(Some).collect()
}
