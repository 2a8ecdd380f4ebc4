//! The worker's side: a child that parses, started again when it is lost.
//!
//! Files are asked for here, the kernel and code that was made at run time in files
//! of their own.

mod decompressed;
mod jit;
mod kernel;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::isolation::{Child, Limits, Lost};
use crate::object::{BuildId, FileId, PinnedFile};

use super::debug_files::DebugFiles;
use super::inflation::Allowance;
use super::kept::{KeptNames, Sought, Symbol};
use super::names::{FrameName, Named, Stats};
use super::native::AddressKind;
use super::protocol::{
    FileState, MAX_ADDRESSES, MAX_FILE_ROWS_BYTES, MAX_LINK_BYTES, MAX_REPLY_BYTES, Reply, Request,
    SYMBOLS_AT_ONCE_BYTES, is_sound,
};
use super::service::SERVICE;
use super::symbol_rows::SymbolRows;

use decompressed::KeptDecompressed;
use jit::Jit;
pub(super) use kernel::KernelSymbols;

/// Children that a file may cost. After the first, it is tried without its debug
/// information.
const MAX_DEATHS: u32 = 2;
/// The parser recurses as deep as DWARF nests inlined functions. Only pages
/// that are touched cost memory.
const STACK_BYTES: u64 = 64 << 20;
/// CPU time that a child may use beyond the deadline of what it is asked: the
/// kernel ends it then, should we not.
const CPU_GRACE: Duration = Duration::from_secs(10);

/// What the child may take, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How long it may be at one file.
    pub file_deadline: Duration,
    /// What its open parsers may hold together.
    pub max_parser_bytes: u64,
    /// What it may hold at all.
    pub max_bytes: u64,
}

impl Bounds {
    /// Begins with a file: gives a child the CPU time for it. Returns the deadline.
    fn begin(&self, child: &Child) -> Instant {
        child.allow_cpu(self.file_deadline + CPU_GRACE);
        Instant::now() + self.file_deadline
    }
}

/// The parsers of all files, as the worker sees them.
#[derive(Debug)]
pub(super) struct Parsers {
    bounds: Bounds,
    debug_files: DebugFiles,
    decompressed: KeptDecompressed,
    kept: KeptNames,
    files: HashMap<FileId, KnownFile>,
    kernel: KernelSymbols,
    jit: Jit,
    child: Option<Running>,
    /// Whether a child could not be started, which has been said then.
    cannot_start: bool,
    allowance_bytes: u64,
    deaths: u64,
    /// How often a child was asked about a file.
    asked: u64,
    /// Addresses that an earlier recording had named, or found to be nameless.
    taken: u64,
    /// CPU time of children that were lost.
    lost_cpu_ns: u64,
}

/// A child at work.
#[derive(Debug)]
struct Running {
    child: Child,
    open: HashSet<FileId>,
    /// It has the kernel's symbols.
    has_kernel: bool,
}

/// What is known of a file.
#[derive(Debug)]
struct KnownFile {
    pin: Arc<PinnedFile>,
    number: u64,
    state: FileState,
    /// What its debug file was looked for by.
    sought: Option<Sought>,
    /// Children lost over it.
    deaths: u32,
    has_timed_out: bool,
    spent: Duration,
}

impl KnownFile {
    /// Whether it might be read better another time.
    fn is_doubtful(&self) -> bool {
        let state = &self.state;
        self.deaths > 0 || state.failed || state.lost_debug_info || state.panics > 0
    }
}

impl Parsers {
    pub(super) fn new(
        bounds: Bounds,
        debug_files: DebugFiles,
        cache: Option<Arc<Cache>>,
        kernel: KernelSymbols,
    ) -> Self {
        Self {
            bounds,
            debug_files,
            decompressed: KeptDecompressed::new(cache.clone()),
            kept: KeptNames::new(cache),
            files: HashMap::new(),
            kernel,
            jit: Jit::default(),
            child: None,
            cannot_start: false,
            allowance_bytes: Allowance::default().left_bytes(),
            deaths: 0,
            asked: 0,
            taken: 0,
            lost_cpu_ns: 0,
        }
    }

    /// Starts a child, so that none has to be waited for later.
    pub(super) fn prepare(&mut self) {
        self.running();
    }

    /// How long files have taken so far: of this one, and 0 if it is new.
    pub(super) fn spent(&self, file: FileId) -> Duration {
        self.files
            .get(&file)
            .map_or(Duration::ZERO, |known| known.spent)
    }

    /// How often a child was asked about a file so far.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// What the parser of a file may take, in bytes.
    pub(super) fn parser_bytes(&self, file: FileId) -> u64 {
        self.files
            .get(&file)
            .map_or(0, |known| known.state.parser_bytes)
    }

    /// Has a file opened that was not before. Returns the DWARF that its parser reads,
    /// in bytes as it lies in the file.
    pub(super) fn debug_bytes(&mut self, pin: &Arc<PinnedFile>, kind: AddressKind) -> u64 {
        if !self.files.contains_key(&pin.id) {
            self.learn(pin);
            self.name_some(pin.id, &[], kind);
        }
        let known = self.files.get(&pin.id);
        known.map_or(0, |known| known.state.debug_bytes)
    }

    /// What earlier recordings kept of each address.
    pub(super) fn known(
        &mut self,
        pin: &Arc<PinnedFile>,
        addresses: &[u64],
        kind: AddressKind,
    ) -> Vec<Option<Named>> {
        if kind != AddressKind::FileOffset {
            return vec![None; addresses.len()];
        }
        let (mut named, symbols) = self.kept.take(pin, addresses, &self.debug_files);
        if !symbols.is_empty() {
            self.name_kept_symbols(pin, &symbols);
            (named, _) = self.kept.take(pin, addresses, &self.debug_files);
        }
        self.taken += named.iter().flatten().count() as u64;
        named
    }

    /// The frames at each address, by asking a child; none for what remains when the
    /// file is given up.
    pub(super) fn name(
        &mut self,
        pin: &Arc<PinnedFile>,
        addresses: &[u64],
        kind: AddressKind,
    ) -> Vec<Named> {
        let found = self.parse(pin, addresses, kind);
        if let (AddressKind::FileOffset, Some(known)) = (kind, self.files.get(&pin.id)) {
            let found = addresses.iter().copied().zip(found.iter().cloned());
            let sought = known.sought.clone();
            self.kept.add(pin.id, found, sought, known.is_doubtful());
        }
        found
    }

    /// Has the names of symbols demangled that earlier recordings kept of this file: a
    /// child does it, as all that reads what anybody may have written.
    fn name_kept_symbols(&mut self, pin: &Arc<PinnedFile>, symbols: &[Symbol]) {
        let mut left = symbols;
        while !left.is_empty() {
            let mut bytes = 0;
            let fits = left.iter().take_while(|symbol| {
                bytes += symbol.name.len();
                bytes <= SYMBOLS_AT_ONCE_BYTES
            });
            let (now, later) = left.split_at(fits.count());
            left = later;
            let bounds = self.bounds;
            let Some(Running { child, .. }) = self.running() else {
                return;
            };
            let deadline = bounds.begin(child);
            let request = Request::Demangle {
                symbols: now.iter().map(|symbol| symbol.name.clone()).collect(),
            };
            let asked = child.send(&request, None, deadline);
            match asked.and_then(|()| receive_frames(child, now.len(), deadline)) {
                Ok(named) => self.kept.have(pin.id, now, named),
                Err(lost) => {
                    tracing::warn!(path = ?pin.path, "lost a parser over names of symbols: {lost}");
                    // The file itself is asked from now on.
                    self.kept.forget(pin.id);
                    self.lose_child();
                    return;
                }
            }
        }
    }

    /// Keeps the names that were found for the next recording.
    pub(super) fn keep_names(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        let spent = |file| self.spent(file);
        let changed: Vec<_> = kept.changed(spent).collect();
        for (cache, file) in changed {
            let rows = file.lacks_rows().then(|| self.symbol_rows(file.id()));
            file.keep(&cache, &self.debug_files, rows.flatten());
        }
        self.kernel.keep();
    }

    /// All that the symbol tables of a file say, if the child that has it open finds
    /// that they are all that is asked.
    fn symbol_rows(&mut self, file: FileId) -> Option<SymbolRows> {
        let (Some(running), Some(known)) = (&self.child, self.files.get(&file)) else {
            return None;
        };
        if !running.open.contains(&file) {
            return None;
        }
        let child = &running.child;
        let deadline = self.bounds.begin(child);
        let request = Request::Symbols { file: known.number };
        let asked = child.send(&request, None, deadline);
        let reply = asked.and_then(|()| child.receive(MAX_REPLY_BYTES, deadline));
        let rows = reply.and_then(|reply| match reply {
            Reply::Symbols(true) => child.receive_bytes(MAX_FILE_ROWS_BYTES, deadline).map(Some),
            Reply::Symbols(false) => Ok(None),
            _ => Err(Lost::Nonsense),
        });
        match rows {
            Ok(rows) => rows.map(SymbolRows::from_bytes),
            Err(lost) => {
                tracing::warn!(path = ?known.pin.path, "lost a parser over all symbols of a file: {lost}");
                self.lose_child();
                None
            }
        }
    }

    fn parse(&mut self, pin: &Arc<PinnedFile>, addresses: &[u64], kind: AddressKind) -> Vec<Named> {
        self.learn(pin);
        let mut named = Vec::with_capacity(addresses.len());
        for chunk in addresses.chunks(MAX_ADDRESSES) {
            named.extend(self.name_some(pin.id, chunk, kind));
        }
        named
    }

    /// Enters a file.
    fn learn(&mut self, pin: &Arc<PinnedFile>) {
        let number = self.files.len() as u64 + 1;
        self.files.entry(pin.id).or_insert_with(|| KnownFile {
            pin: Arc::clone(pin),
            number,
            state: FileState::default(),
            sought: None,
            deaths: 0,
            has_timed_out: false,
            spent: Duration::ZERO,
        });
    }

    fn name_some(&mut self, file: FileId, addresses: &[u64], kind: AddressKind) -> Vec<Named> {
        let nameless = || vec![Named::from([]); addresses.len()];
        loop {
            let may_go_on = self.files.get(&file).is_some_and(|known| {
                let is_known_to_fail = known.state.failed && self.child_has(file);
                known.deaths < MAX_DEATHS && !is_known_to_fail
            });
            if !may_go_on || self.running().is_none() {
                return nameless();
            }
            self.asked += 1;
            let begun = Instant::now();
            let asked = self.ask(file, addresses, kind);
            let Some(known) = self.files.get_mut(&file) else {
                return nameless();
            };
            known.spent += begun.elapsed();
            match asked {
                Ok((named, state)) => {
                    known.state = state;
                    self.allowance_bytes = self.allowance_bytes.min(state.allowance_bytes);
                    return named;
                }
                Err(lost) => {
                    known.deaths += 1;
                    known.has_timed_out |= lost == Lost::TimedOut;
                    // The path is the target's: it is quoted, and its bytes escaped.
                    tracing::warn!(path = ?known.pin.path, given_up = known.deaths >= MAX_DEATHS, "lost a parser over a file: {lost}");
                    known.state.lost_debug_info = true;
                    self.lose_child();
                }
            }
        }
    }

    fn child_has(&self, file: FileId) -> bool {
        let running = self.child.as_ref();
        running.is_some_and(|running| running.open.contains(&file))
    }

    /// Opens the file, if the child does not have it, and asks it.
    fn ask(
        &mut self,
        file: FileId,
        addresses: &[u64],
        kind: AddressKind,
    ) -> Result<(Vec<Named>, FileState), Lost> {
        let (Some(running), Some(known)) = (&mut self.child, self.files.get_mut(&file)) else {
            return Err(Lost::Ended);
        };
        let child = &running.child;
        let mut deadline = self.bounds.begin(child);
        if running.open.insert(file) {
            let request = Request::Open {
                file: known.number,
                build_id: known.pin.build_id.as_ref().map(|id| id.0.clone()),
                symbols_only: known.deaths > 0,
            };
            child.send(&request, Some(known.pin.as_fd()), deadline)?;
            let (state, sought, put_off) = offer_debug_files(
                child,
                &mut self.debug_files,
                &mut self.decompressed,
                &known.pin,
                deadline,
            )?;
            (known.sought, deadline) = (sought, put_off);
            if state.failed {
                return Ok((vec![Named::from([]); addresses.len()], state));
            }
        }
        let request = Request::Name {
            file: known.number,
            addresses: addresses.to_vec(),
            kind,
        };
        child.send(&request, None, deadline)?;
        let named = receive_frames(child, addresses.len(), deadline)?;
        match child.receive(MAX_REPLY_BYTES, deadline)? {
            Reply::Named(state) => Ok((named, state)),
            _ => Err(Lost::Nonsense),
        }
    }

    /// Frees what the parsers hold.
    pub(super) fn close_parsers(&mut self) {
        let deadline = Instant::now() + self.bounds.file_deadline;
        let Some(Running { child, .. }) = &self.child else {
            return;
        };
        let closed = child
            .send(&Request::CloseParsers, None, deadline)
            .and_then(|()| child.receive(MAX_REPLY_BYTES, deadline));
        if !matches!(closed, Ok(Reply::Closed)) {
            self.lose_child();
        }
    }

    fn lose_child(&mut self) {
        self.lost_cpu_ns += self.child_cpu_ns();
        self.child = None;
        self.deaths += 1;
    }

    fn child_cpu_ns(&self) -> u64 {
        let running = self.child.as_ref();
        running.map_or(0, |running| running.child.cpu_ns())
    }

    /// The child, started if there is none.
    fn running(&mut self) -> Option<&mut Running> {
        // One that was ended while it had nothing to do is no file's fault.
        let is_ready = |running: &Running| running.child.is_ready();
        if self.child.as_ref().is_some_and(|child| !is_ready(child)) {
            tracing::warn!("lost a parser that had nothing to do");
            self.lose_child();
        }
        if self.child.is_none() {
            match self.start() {
                Ok(child) => {
                    self.child = Some(Running {
                        child,
                        open: HashSet::new(),
                        has_kernel: false,
                    });
                }
                Err(error) => {
                    if !self.cannot_start {
                        tracing::error!(%error, "no parser can be started; frames stay without names");
                    }
                    self.cannot_start = true;
                }
            }
        }
        self.child.as_mut()
    }

    fn start(&self) -> io::Result<Child> {
        let limits = Limits {
            data_bytes: self.bounds.max_bytes,
            stack_bytes: STACK_BYTES,
        };
        let child = Child::start(SERVICE.name, limits)?;
        let begin = Request::Begin {
            max_parser_bytes: self.bounds.max_parser_bytes,
            allowance_bytes: self.allowance_bytes,
        };
        let deadline = Instant::now() + self.bounds.file_deadline;
        child
            .send(&begin, None, deadline)
            .map_err(io::Error::other)?;
        Ok(child)
    }

    /// Puts what was counted here into the statistics.
    pub(super) fn count(&self, stats: &mut Stats) {
        let count = |is: fn(&KnownFile) -> bool| {
            let files = self.files.values();
            files.filter(|known| is(known)).count() as u64
        };
        let is_given_up = |known: &KnownFile| known.deaths >= MAX_DEATHS;
        stats.files = self.files.len() as u64;
        stats.failed_files = count(|known| known.state.failed);
        stats.files_without_debug_info = self
            .files
            .values()
            .filter(|known| !known.state.failed && !is_given_up(known))
            .filter(|known| known.state.lost_debug_info)
            .count() as u64;
        stats.files_without_supplement = count(|known| known.state.lacks_supplement);
        stats.parser_panics = self.kernel.panics
            + self
                .files
                .values()
                .map(|known| known.state.panics)
                .sum::<u64>();
        stats.parser_deaths = self.deaths;
        stats.timed_out_files = count(|known| known.has_timed_out);
        stats.given_up_files = count(|known| known.deaths >= MAX_DEATHS);
        stats.jit = self.jit.stats;
        stats.given_up_files += self.jit.lost.len() as u64;
        stats.kernel_names_hidden = self.kernel.names_hidden;
        stats.kept = self.taken;
        stats.cpu_ns = self.lost_cpu_ns + self.child_cpu_ns();
    }
}

/// Hands over candidates for the debug file of a file that the child is opening,
/// until it has opened it. Returns what they were sought by, and the deadline, put off
/// by the time that looking for them took: a slow server is not the file's fault.
fn offer_debug_files(
    child: &Child,
    debug_files: &mut DebugFiles,
    decompressed: &mut KeptDecompressed,
    pin: &PinnedFile,
    mut deadline: Instant,
) -> Result<(FileState, Option<Sought>, Instant), Lost> {
    let is_short = |bytes: &[u8]| bytes.len() <= MAX_LINK_BYTES;
    let (build_id, link) = match decompressed.next_reply(child, pin, deadline)? {
        Reply::Opened(state) => return Ok((state, None, deadline)),
        Reply::Wants { build_id, link } if is_short(&build_id) => (BuildId(build_id), link),
        _ => return Err(Lost::Nonsense),
    };
    let link = link.as_deref().filter(|link| is_short(link));
    let sought = Sought {
        build_id: build_id.0.clone(),
        link: link.map(Box::from),
    };
    let mut candidates = debug_files.find(pin, &build_id, link);
    loop {
        let begun = Instant::now();
        let candidate = candidates.next();
        deadline += begun.elapsed();
        let reply = if let Some(file) = &candidate {
            child.send(&Request::Candidate, Some(file.as_fd()), deadline)?;
            decompressed.next_reply(child, file, deadline)?
        } else {
            child.send(&Request::NoCandidate, None, deadline)?;
            child.receive(MAX_REPLY_BYTES, deadline)?
        };
        match reply {
            Reply::Opened(state) => return Ok((state, Some(sought), deadline)),
            // Who asks on for ever is not answered for ever.
            Reply::WantsNext if candidate.is_some() => {}
            _ => return Err(Lost::Nonsense),
        }
    }
}

/// The frames at so many addresses.
fn receive_frames(child: &Child, count: usize, deadline: Instant) -> Result<Vec<Named>, Lost> {
    let mut named: Vec<Named> = Vec::with_capacity(count);
    while named.len() < count {
        let Reply::Frames(part) = child.receive(MAX_REPLY_BYTES, deadline)? else {
            return Err(Lost::Nonsense);
        };
        let is_right = !part.is_empty()
            && part.len() <= count - named.len()
            && part.iter().all(|frames| is_sound(frames));
        if !is_right {
            return Err(Lost::Nonsense);
        }
        named.extend(part.into_iter().map(shared));
    }
    Ok(named)
}

fn shared(frames: Vec<FrameName>) -> Named {
    Arc::from(frames)
}
