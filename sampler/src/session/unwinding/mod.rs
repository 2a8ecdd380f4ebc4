//! Supplies the walk in the kernel with unwind tables, and walks the copies of
//! the stacks that it could not walk.
//!
//! Tables are built when a stack needs them: the first stack that reaches a
//! file comes as a copy, waits here for the table, and is walked with it; then
//! the table goes to the kernel's side, which does the rest.

mod builder;
mod walk;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use sampler_common::unwind::x86_64::Rule;
use sampler_common::unwind::{BUCKET_BYTES, BUCKET_SHIFT, PackedRule};
use sampler_common::{Ending, StackCopy, TablePlace};

use self::builder::{Builder, Built};
pub(super) use self::walk::Copied;
use self::walk::{Code, Walked};
use crate::object::unwind::Table;
use crate::object::{FileId, PinnedFile};
use crate::probe::{LoadedTable, NoRoom, Part, Tables, WalkedBy};
use crate::process::{AddressSpace, Backing};
use crate::symbolize;

/// Bytes of tables that are kept here because the kernel's side has no room.
const MAX_KEPT_BYTES: u64 = 32 << 20;

/// Generations of samples after which a table that no stack has needed may go.
const COLD: u64 = 5;

/// What is known of a file.
#[derive(Debug)]
struct KnownFile {
    /// Held open as long as the kernel's side knows the file by its inode.
    _file: Arc<PinnedFile>,
    state: State,
    /// What the kernel's side knows it by; several only if it was told wrong.
    bound: Vec<u64>,
    /// When a stack last needed it.
    used: u64,
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
    /// There is none.
    None,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// It was walked; its frames are there.
    Walked(Ending),
    /// It waits for the table of a file.
    Awaits(FileId),
}

/// What could not be done as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shortage {
    /// Tables that the kernel's side had no room for.
    pub not_loaded: u64,
    /// Tables that had to go to make room for others.
    pub evicted: u64,
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
    /// Counts up with each generation of samples.
    now: u64,
    /// Whether tables are kept here.
    has_kept: bool,
    shortage: Shortage,
}

impl Unwinding {
    /// Starts the threads that build tables. `foresees` says whether files that
    /// are mapped later may be those of processes in scope.
    pub fn start(tables: Tables, max_frames: u32, foresees: bool) -> io::Result<Self> {
        Ok(Self {
            tables,
            builder: Builder::start()?,
            files: HashMap::new(),
            vdso: symbolize::pin_vdso().ok(),
            max_frames,
            foresees,
            now: 0,
            has_kept: false,
            shortage: Shortage::default(),
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

    /// What could not be done as it should.
    pub fn shortage(&self) -> Shortage {
        self.shortage
    }

    /// From now on it is waited until every CPU has left the tick it is in.
    pub fn wait_for_cpus(&mut self) {
        self.now += 1;
        self.tables.wait_for_cpus();
    }

    /// Every CPU has left the tick it was in when it began to be waited.
    pub fn all_cpus_passed(&mut self) {
        self.tables.all_cpus_passed();
        if self.has_kept {
            self.load_kept();
        }
    }

    /// Whether it matters which files the stacks go through.
    pub fn wants_to_know_use(&self) -> bool {
        self.has_kept
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
        let builder = &mut self.builder;
        let known = self.files.entry(file.id).or_insert_with(|| KnownFile {
            _file: Arc::clone(file),
            state: if builder.order(file) {
                State::Ordered
            } else {
                State::None
            },
            bound: Vec::new(),
            used: 0,
        });
        known.used = self.now;
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
            State::Ordered | State::Kept(_) => return,
        };
        if self.tables.bind(copy.unknown_file, by).is_err() {
            // The next copy tells again.
            self.known(&file).bound.pop();
            self.shortage.not_loaded += 1;
        }
    }

    /// Tells the kernel's side how a file is walked whose table is new.
    fn publish(&mut self, file: FileId) {
        let Some(known) = self.files.get_mut(&file) else {
            return;
        };
        let by = match known.state {
            State::Loaded(table) => WalkedBy::Table(table),
            State::None => WalkedBy::FramePointers,
            State::Ordered | State::Kept(_) => return,
        };
        let (tables, shortage) = (&mut self.tables, &mut self.shortage);
        // Of those that find no room the next copy tells again.
        known.bound.retain(|name| {
            let bound = tables.bind(*name, by).is_ok();
            shortage.not_loaded += u64::from(!bound);
            bound
        });
    }

    fn take(&mut self, built: Built) {
        let state = match built.table {
            None => State::None,
            Some(table) => self.load(table),
        };
        self.has_kept |= matches!(state, State::Kept(_));
        if let Some(known) = self.files.get_mut(&built.file) {
            known.state = state;
        }
        self.publish(built.file);
    }

    /// Hands a table to the kernel's side, or keeps it until there is room.
    fn load(&mut self, table: Table) -> State {
        let parts = parts(&table);
        if let Ok(loaded) = self.tables.load(&parts, &table.index, &table.rows) {
            return State::Loaded(loaded);
        }
        self.shortage.not_loaded += 1;
        State::Kept(Box::new(table))
    }

    /// Gives the tables that are kept here another chance, those that were
    /// needed last first; what has long not been needed makes room for them.
    fn load_kept(&mut self) {
        let mut kept: Vec<(u64, FileId)> = self
            .files
            .iter()
            .filter(|(_, known)| matches!(known.state, State::Kept(_)))
            .map(|(id, known)| (known.used, *id))
            .collect();
        self.has_kept = !kept.is_empty();
        kept.sort_unstable_by_key(|(used, _)| Reverse(*used));
        let mut kept_bytes = 0;
        for (used, id) in kept {
            let Some(KnownFile {
                state: State::Kept(table),
                ..
            }) = self.files.get(&id)
            else {
                continue;
            };
            let bytes = table.bytes();
            let loaded = self.tables.load(&parts(table), &table.index, &table.rows);
            match loaded {
                Ok(loaded) => {
                    if let Some(known) = self.files.get_mut(&id) {
                        known.state = State::Loaded(loaded);
                    }
                    self.publish(id);
                }
                Err(NoRoom) if self.evict_colder_than(used, bytes) => kept_bytes += bytes,
                Err(NoRoom) if kept_bytes + bytes <= MAX_KEPT_BYTES => kept_bytes += bytes,
                // To be built again when it is needed again.
                Err(NoRoom) => {
                    self.files.remove(&id);
                }
            }
        }
    }

    /// Takes back tables that were needed long before `used`, until `bytes` of
    /// them are coming free. Returns whether there were enough.
    fn evict_colder_than(&mut self, used: u64, bytes: u64) -> bool {
        let mut coldest: Vec<(u64, FileId, LoadedTable)> = self
            .files
            .iter()
            .filter_map(|(id, known)| match known.state {
                State::Loaded(table) if known.used + COLD <= used => Some((known.used, *id, table)),
                _ => None,
            })
            .collect();
        coldest.sort_unstable_by_key(|(used, ..)| *used);
        let mut freed = 0;
        for (_, id, table) in coldest {
            if freed >= bytes {
                break;
            }
            if let Some(known) = self.files.remove(&id) {
                for name in &known.bound {
                    self.tables.unbind(*name);
                }
            }
            self.tables.unload(table);
            self.shortage.evicted += 1;
            freed += table.bytes();
        }
        freed >= bytes
    }
}

/// What a table, which goes by addresses, covers of its file.
fn parts(table: &Table) -> Vec<Part> {
    let bucket = |address: u64| (address.saturating_sub(table.lowest) >> BUCKET_SHIFT) as u32;
    let mut parts = Vec::new();
    for segment in &table.segments {
        let first_bucket = bucket(segment.address);
        let end = bucket((segment.address + segment.size).next_multiple_of(BUCKET_BYTES));
        parts.push(Part {
            first_offset: segment.file_offset & !(BUCKET_BYTES - 1),
            buckets: end - first_bucket,
            first_bucket,
        });
    }
    parts
}

/// The rule at an offset of a file, from a table that is kept here.
fn rule_at(table: &Table, file_offset: u64) -> Option<PackedRule> {
    table.segments.iter().find_map(|segment| {
        let from_start = file_offset.checked_sub(segment.file_offset)?;
        let address = segment.address + from_start;
        segment.holds(address).then(|| table.rule_at(address))?
    })
}
