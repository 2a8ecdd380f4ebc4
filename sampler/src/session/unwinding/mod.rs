//! Supplies the walk in the kernel with unwind tables, and walks the copies of
//! the stacks that it could not walk.
//!
//! Tables are built when a stack needs them: the first stack that reaches a
//! file comes as a copy, waits here for the table, and is walked with it; then
//! the table goes to the kernel's side, which does the rest.

mod builder;
mod heat;
mod loading;
mod maker;
mod service;
mod walk;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sampler_common::unwind::PackedRule;
use sampler_common::unwind::x86_64::Rule;
use sampler_common::{Ending, StackCopy, TablePlace};
use tokio::sync::Notify;

use self::builder::Builder;
pub use self::maker::Maker as TableMaker;
pub use self::service::TABLES_SERVICE;
pub(super) use self::walk::Copied;
use self::walk::{Code, Walked};
use crate::cache::Cache;
use crate::object::unwind::Table;
use crate::object::{FileId, PinnedFile};
use crate::probe::{LoadedTable, Tables, WalkedBy};
use crate::process::{AddressSpace, Backing};
use crate::symbolize;

/// Time between two attempts to find room for the tables that are kept here.
const LOAD_AGAIN: Duration = Duration::from_millis(100);

/// What is known of a file.
#[derive(Debug)]
struct KnownFile {
    /// Held open as long as the kernel's side knows the file by its inode.
    _file: Arc<PinnedFile>,
    state: State,
    /// What the kernel's side knows it by; several only if it was told wrong.
    bound: Vec<u64>,
    /// When a stack last needed it.
    used: Instant,
    /// How often its table was dropped for want of room.
    drops: u32,
}

/// How far a file's table is.
#[derive(Debug)]
enum State {
    /// It was ordered.
    Ordered,
    /// The kernel's side has it.
    Loaded(LoadedTable),
    /// It is kept here, since the kernel's side has no room for it.
    Kept(Box<Table>),
    /// It was built and found no room anywhere; it is not to be built again
    /// before then.
    Dropped(Instant),
    /// There is none.
    None,
    /// There might be one, but it cannot be had.
    Refused,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// It was walked; its frames are there.
    Walked(Ending),
    /// It waits for the table of a file.
    Awaits(FileId),
}

/// What became of the tables of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableCounts {
    /// Tables that were built, those included that were built again.
    pub built: u64,
    /// Tables that an earlier recording had built.
    pub cached: u64,
    /// The rows of both.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be read, or whose tables are too large for the
    /// memory that there is.
    pub refused: u64,
    /// How often a table or its place found no room in the kernel.
    pub not_loaded: u64,
    /// Tables that had to go from there to make room for others.
    pub evicted: u64,
    /// Tables that found no room here either.
    pub dropped: u64,
    /// Children that were lost over a file.
    pub builder_deaths: u64,
}

impl TableCounts {
    /// Whether there was too little room for something.
    pub const fn is_short(&self) -> bool {
        self.refused + self.not_loaded + self.evicted + self.dropped > 0
    }
}

/// What tables may take in this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRoom {
    /// While they are built.
    pub builders_bytes: u64,
    /// Those that found no room in the kernel.
    pub kept_bytes: u64,
}

/// Supplies the walk.
#[derive(Debug)]
pub struct Unwinding {
    tables: Tables,
    builder: Builder,
    files: HashMap<FileId, KnownFile>,
    vdso: Option<Arc<PinnedFile>>,
    max_frames: u32,
    /// Whether what is mapped from now on may be sampled.
    foresees: bool,
    /// When the current generation of samples was drained.
    now: Instant,
    /// Since when it is known which tables stacks need: since tables are kept
    /// here.
    watched: Option<Instant>,
    /// When room was last looked for.
    looked_for_room: Instant,
    max_kept_bytes: u64,
    counts: TableCounts,
}

impl Unwinding {
    /// Starts the threads that build tables. `foresees` says whether files that
    /// are mapped later may be those of processes in scope; tables of earlier
    /// recordings are taken from the cache. The threads keep these rights.
    pub fn start(
        tables: Tables,
        room: TableRoom,
        max_frames: u32,
        foresees: bool,
        cache: Option<&Arc<Cache>>,
        kept_rights: u64,
    ) -> io::Result<Self> {
        Ok(Self {
            tables,
            builder: Builder::start(room.builders_bytes, cache, kept_rights)?,
            files: HashMap::new(),
            vdso: symbolize::pin_vdso().ok(),
            max_frames,
            foresees,
            now: Instant::now(),
            watched: None,
            looked_for_room: Instant::now(),
            max_kept_bytes: room.kept_bytes,
            counts: TableCounts::default(),
        })
    }

    /// Walks a copy, whose process had these mappings; `frames` gets the
    /// addresses of its frames.
    pub fn walk(
        &mut self,
        copy: &StackCopy,
        words: &[u64],
        space: &AddressSpace,
        frames: &mut Vec<u64>,
    ) -> CopyState {
        self.bind_unknown(copy, space);
        let max_frames = self.max_frames;
        let code_at = |address| self.code_at(space, address);
        match walk::walk(copy, words, max_frames, code_at, frames) {
            Walked::To(ending) => CopyState::Walked(ending),
            Walked::Awaits(file) => CopyState::Awaits(file),
        }
    }

    /// As [`Self::expect`], for files that were mapped while the recording runs.
    pub fn foresee(&mut self, files: &[Arc<PinnedFile>]) {
        if self.foresees {
            self.expect(files);
        }
    }

    /// Processes in scope map these files: the tables that take long are built
    /// before a stack needs them.
    pub fn expect(&mut self, files: &[Arc<PinnedFile>]) {
        for file in files {
            if file.size_bytes().is_ok_and(builder::is_large) {
                self.known(file);
            }
        }
    }

    /// Whether tables are being built.
    pub fn waits(&self) -> bool {
        self.builder.waiting() > 0
    }

    /// Is notified when [`Self::take_built`] has something to take.
    pub fn ready(&self) -> Arc<Notify> {
        self.builder.ready()
    }

    /// Whether the table of a file is still to come.
    pub fn is_awaited(&self, file: FileId) -> bool {
        self.files
            .get(&file)
            .is_some_and(|known| matches!(known.state, State::Ordered))
    }

    /// Takes the tables that were built since the last call. Returns whether
    /// there were any.
    pub fn take_built(&mut self) -> bool {
        let mut any = false;
        while let Some(built) = self.builder.next() {
            any = true;
            self.take(built);
        }
        any
    }

    /// What became of the tables.
    pub fn counts(&self) -> TableCounts {
        self.counts
    }

    /// From now on it is waited until every CPU has left the tick it is in.
    pub fn wait_for_cpus(&mut self) {
        self.now = Instant::now();
        self.tables.wait_for_cpus();
    }

    /// Every CPU has left the tick it was in when it began to be waited.
    pub fn all_cpus_passed(&mut self) {
        self.tables.all_cpus_passed();
        if self.watched.is_some() && self.looked_for_room + LOAD_AGAIN <= self.now {
            self.looked_for_room = self.now;
            self.load_kept();
        }
    }

    /// Whether it matters which files the stacks go through.
    pub fn wants_to_know_use(&self) -> bool {
        self.watched.is_some()
    }

    /// A stack that the kernel's side walked went through this file.
    pub fn used(&mut self, file: FileId) {
        if let Some(known) = self.files.get_mut(&file) {
            known.used = self.now;
        }
    }

    /// What is known of the code at an address.
    fn code_at(&mut self, space: &AddressSpace, address: u64) -> Code {
        let Some(mapping) = space.at(address) else {
            return if space.complete {
                Code::Nothing
            } else {
                Code::Missing
            };
        };
        let file = match &mapping.backing {
            Backing::File(file) => Arc::clone(file),
            Backing::Vdso => match &self.vdso {
                Some(vdso) => Arc::clone(vdso),
                None => return Code::Missing,
            },
            Backing::Unpinned { .. } => return Code::Missing,
            Backing::Vsyscall | Backing::Anonymous { .. } => {
                return Code::Rule(Rule::GAP_FRAME_POINTER);
            }
        };
        let offset = mapping.file_offset_of(address).0;
        let id = file.id;
        let rule = match &self.known(&file).state {
            State::Ordered => return Code::Awaited(id),
            State::Dropped(_) | State::Refused => return Code::Missing,
            State::None => None,
            State::Loaded(loaded) => {
                let loaded = *loaded;
                self.tables.rule_at(loaded, offset)
            }
            State::Kept(table) => rule_at(table, offset),
        };
        Code::Rule(rule.unwrap_or(Rule::GAP_FRAME_POINTER))
    }

    /// What is known of a file; of a new one, that its table was ordered.
    fn known(&mut self, file: &Arc<PinnedFile>) -> &mut KnownFile {
        let (builder, now) = (&mut self.builder, self.now);
        let mut order = || {
            if builder.order(file) {
                State::Ordered
            } else {
                State::Refused
            }
        };
        let known = self.files.entry(file.id).or_insert_with(|| KnownFile {
            _file: Arc::clone(file),
            state: order(),
            bound: Vec::new(),
            used: now,
            drops: 0,
        });
        if matches!(known.state, State::Dropped(until) if until <= now) {
            known.state = order();
        }
        known.used = now;
        known
    }

    /// Learns by what name the kernel's side knows the file that it could not
    /// walk through, and tells it how.
    fn bind_unknown(&mut self, copy: &StackCopy, space: &AddressSpace) {
        if copy.unknown_file == 0 {
            return;
        }
        let Some(mapping) = space.at(copy.unknown_address) else {
            return;
        };
        let file = match &mapping.backing {
            Backing::Vdso if copy.unknown_file == TablePlace::VDSO => self.vdso.clone(),
            // The address may have been another's by the time of the sample,
            // or is by now.
            Backing::File(file)
                if file.id.inode == copy.unknown_inode
                    && mapping.file_offset_of(copy.unknown_address).0 == copy.unknown_offset =>
            {
                Some(Arc::clone(file))
            }
            _ => None,
        };
        let Some(file) = file else {
            return;
        };
        let known = self.known(&file);
        if known.bound.contains(&copy.unknown_file) {
            return;
        }
        known.bound.push(copy.unknown_file);
        let by = match known.state {
            State::Loaded(table) => WalkedBy::Table(table),
            State::None => WalkedBy::FramePointers,
            State::Ordered | State::Kept(_) | State::Dropped(_) | State::Refused => return,
        };
        if self.tables.bind(copy.unknown_file, by).is_err() {
            // The next copy tells again.
            self.known(&file).bound.pop();
            self.counts.not_loaded += 1;
        }
    }
}

/// The rule at an offset of a file, from a table that is kept here.
fn rule_at(table: &Table, file_offset: u64) -> Option<PackedRule> {
    table.segments.iter().find_map(|segment| {
        let from_start = file_offset.checked_sub(segment.file_offset)?;
        let address = segment.address + from_start;
        segment.holds(address).then(|| table.rule_at(address))?
    })
}
