//! The thread that owns all parsers.
//!
//! blazesym's parsers are not `Send`, so they are made and used on one thread;
//! nobody who asks ever waits for it before the end.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use crate::object::{FileId, FileOffset};

use super::kernel::Kernel;
use super::names::{Named, Names};
use super::native::NativeFile;
use super::place::{Place, PlaceKey, Query};
use super::vdso;

/// Files whose parsed tables are kept in memory; others are parsed again when
/// new addresses in them turn up.
const MAX_OPEN_PARSERS: usize = 128;

/// The parser recurses as deep as DWARF nests inlined functions. Only pages
/// that are touched cost memory.
const STACK_BYTES: usize = 64 << 20;

/// Where names are looked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories with separate debug files, in order of preference.
    pub debug_dirs: Vec<PathBuf>,
    /// The kernel's symbol table.
    pub kallsyms: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
            kallsyms: PathBuf::from("/proc/kallsyms"),
        }
    }
}

/// A handle on the thread that names addresses.
#[derive(Debug)]
pub struct Symbolizer {
    queue: Sender<Vec<Query>>,
    thread: JoinHandle<Names>,
}

impl Symbolizer {
    /// Starts the thread. It fails only if the system refuses a thread.
    pub fn spawn(options: Options) -> io::Result<Self> {
        let (queue, queries) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("symbolize".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || Worker::new(options).run(&queries))?;
        Ok(Self { queue, thread })
    }

    /// Asks for names. Returns at once; what was asked for before costs nothing
    /// but the look-up.
    pub fn submit(&self, queries: Vec<Query>) {
        // Fails only if the thread has died, which `finish` reports.
        let _ = self.queue.send(queries);
    }

    /// Waits until everything asked for is answered.
    pub fn finish(self) -> Names {
        drop(self.queue);
        self.thread.join().unwrap_or_else(|_| {
            tracing::error!("the symbolizer died; addresses stay without names");
            Names::default()
        })
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
    /// Files with an open parser, the least recently used first.
    open_parsers: VecDeque<FileId>,
    kernel: Kernel,
    vdso: Vdso,
    names: Names,
}

impl Worker {
    fn new(options: Options) -> Self {
        Self {
            kernel: Kernel::new(options.kallsyms.clone()),
            options,
            files: HashMap::new(),
            open_parsers: VecDeque::new(),
            vdso: Vdso::NotAsked,
            names: Names::default(),
        }
    }

    fn run(mut self, queries: &Receiver<Vec<Query>>) -> Names {
        while let Ok(first) = queries.recv() {
            // Whatever has queued up meanwhile makes the batches larger.
            let batch = first.into_iter().chain(queries.try_iter().flatten());
            for (place, addresses) in self.unanswered(batch) {
                self.answer(&place, addresses);
            }
        }
        self.into_names()
    }

    /// The distinct addresses without an answer, by place.
    fn unanswered(&self, queries: impl Iterator<Item = Query>) -> Vec<(Place, BTreeSet<u64>)> {
        let mut wanted: HashMap<PlaceKey, (Place, BTreeSet<u64>)> = HashMap::new();
        for Query { place, address } in queries {
            let key = place.key();
            if !self.names.knows(&key, address) {
                let entry = wanted.entry(key).or_insert((place, BTreeSet::new()));
                entry.1.insert(address);
            }
        }
        wanted.into_values().collect()
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
                self.keep_open(pin.id);
                let debug_dirs = &self.options.debug_dirs;
                let file = self.files.entry(pin.id);
                file.or_insert_with(|| NativeFile::open(pin.clone(), debug_dirs))
                    .name(&offsets())
            }
        };
        let unnamed = std::iter::repeat_with(|| Named::from([]));
        for (address, named) in addresses.iter().zip(named.into_iter().chain(unnamed)) {
            self.names.insert(place.key(), *address, named);
        }
    }

    fn vdso(&mut self) -> Option<&mut NativeFile> {
        if let Vdso::NotAsked = self.vdso {
            self.vdso = match vdso::pin() {
                Ok(pin) => Vdso::Open(Box::new(NativeFile::open(pin, &[]))),
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

    /// Marks a file as used last, and closes the parser used longest ago.
    fn keep_open(&mut self, file: FileId) {
        self.open_parsers.retain(|open| *open != file);
        self.open_parsers.push_back(file);
        if self.open_parsers.len() > MAX_OPEN_PARSERS
            && let Some(oldest) = self.open_parsers.pop_front()
            && let Some(file) = self.files.get_mut(&oldest)
        {
            file.close_parser();
        }
    }

    fn into_names(mut self) -> Names {
        let stats = self.names.stats_mut();
        stats.files = self.files.len() as u64;
        for file in self.files.values() {
            stats.failed_files += u64::from(file.has_failed());
            stats.files_without_debug_info += u64::from(!file.has_failed() && file.lost_debug_info);
        }
        let panics = self.files.values().map(|file| file.panics);
        stats.parser_panics = panics.sum::<u64>() + self.kernel.panics;
        if let Vdso::Open(file) = &self.vdso {
            stats.parser_panics += file.panics;
        }
        stats.kernel_names_hidden = self.kernel.names_hidden;
        self.names
    }
}
