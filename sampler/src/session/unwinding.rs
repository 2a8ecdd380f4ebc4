//! Keeps the walk in the kernel supplied: the mappings of the processes, and
//! the unwind tables of the files that they map.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use sampler_common::SpaceMapping;

use crate::object::unwind::{self, Table};
use crate::object::{FileId, PinnedFile};
use crate::probe::{Epoch, NO_TABLE, Tables};
use crate::process::{Backing, Mapping, ProcessTable};
use crate::symbolize;

/// A table to be built. Ordered by the size of the file.
#[derive(Debug)]
struct Order {
    size_bytes: u64,
    number: u32,
    file: Arc<PinnedFile>,
}

impl Order {
    fn key(&self) -> (u64, u32) {
        (self.size_bytes, self.number)
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A table that was built, with its number.
struct Built {
    number: u32,
    table: Option<Table>,
}

/// Supplies the walk.
#[derive(Debug)]
pub struct Unwinding {
    tables: Tables,
    by_file: HashMap<FileId, u32>,
    vdso: u32,
    wanted: Sender<Order>,
    built: Receiver<Built>,
    /// What the processes' epochs were before the last news.
    epochs: HashMap<u32, Epoch>,
    /// Processes to be published with the next news.
    postponed: Vec<u32>,
    /// Tables that were ordered and are not built yet.
    ordered: u64,
    /// Files and processes that found no room.
    without_room: u64,
}

impl Unwinding {
    /// Starts the thread that builds tables.
    pub fn start(tables: Tables) -> io::Result<Self> {
        let (wanted, orders) = mpsc::channel();
        let (deliver, built) = mpsc::channel();
        thread::Builder::new()
            .name("tables".to_owned())
            .spawn(move || build_all(&orders, &deliver))?;
        let mut unwinding = Self {
            tables,
            by_file: HashMap::new(),
            vdso: NO_TABLE,
            wanted,
            built,
            epochs: HashMap::new(),
            postponed: Vec::new(),
            ordered: 0,
            without_room: 0,
        };
        if let Ok(vdso) = symbolize::pin_vdso() {
            unwinding.vdso = unwinding.table_of(&vdso);
        }
        Ok(unwinding)
    }

    /// To be called before the news are read that the table of processes is
    /// brought up to date with: what is published then is for these epochs.
    pub fn before_news(&mut self) {
        self.tables.epochs(&mut self.epochs);
    }

    /// Brings the kernel's side up to date with the table of processes. Returns
    /// whether there are processes that are new to it: they can be published
    /// only with news that are read from now on.
    pub fn update(&mut self, table: &mut ProcessTable) -> bool {
        self.load_built();
        let mut pids = table.take_changed();
        pids.append(&mut self.postponed);
        pids.extend(self.tables.void());
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            let Some(mappings) = table.executable_mappings(pid) else {
                self.tables.retire(pid);
                continue;
            };
            let done = if let Some(epoch) = self.epochs.get(&pid).copied() {
                let mappings: Vec<_> = mappings
                    .iter()
                    .map(|mapping| self.describe(mapping))
                    .collect();
                self.tables.publish(pid, epoch, &mappings)
            } else {
                self.postponed.push(pid);
                self.tables.reserve(pid)
            };
            if done.is_err() {
                self.without_room += 1;
            }
        }
        !self.postponed.is_empty()
    }

    fn describe(&mut self, mapping: &Mapping) -> SpaceMapping {
        SpaceMapping {
            start: mapping.start,
            end: mapping.end,
            bias: mapping.start.wrapping_sub(mapping.file_offset),
            table: match &mapping.backing {
                Backing::File(file) => self.table_of(file),
                Backing::Vdso => self.vdso,
                Backing::Unpinned { .. } => NO_TABLE,
                Backing::Vsyscall | Backing::Anonymous { .. } => SpaceMapping::FRAME_POINTER,
            },
            reserved: 0,
        }
    }

    /// The number of a file's table, which is built if it is new.
    fn table_of(&mut self, file: &Arc<PinnedFile>) -> u32 {
        if let Some(number) = self.by_file.get(&file.id) {
            return *number;
        }
        let Ok(number) = self.tables.number() else {
            self.without_room += 1;
            return NO_TABLE;
        };
        self.by_file.insert(file.id, number);
        let order = Order {
            size_bytes: file.size_bytes().unwrap_or(u64::MAX),
            number,
            file: Arc::clone(file),
        };
        // Fails only when the thread has died: the file stays without a table.
        if self.wanted.send(order).is_ok() {
            self.ordered += 1;
        }
        number
    }

    /// Files and processes that found no room: their stacks are walked by frame
    /// pointers, or cut.
    pub fn without_room(&self) -> u64 {
        self.without_room
    }

    /// Whether tables are being built.
    pub fn waits(&self) -> bool {
        self.ordered > 0
    }

    /// Loads what was built since the last call.
    pub fn load_built(&mut self) {
        while let Ok(built) = self.built.try_recv() {
            self.ordered = self.ordered.saturating_sub(1);
            let Some(table) = built.table else {
                continue;
            };
            // Mappings are known by file offset. The code of a file lies in one
            // segment as a rule; where there are more, they are shifted alike.
            let Some(segment) = table.segments.first() else {
                continue;
            };
            let shift = segment.address.wrapping_sub(segment.file_offset);
            let loaded = self.tables.load(
                built.number,
                table.lowest.wrapping_sub(shift),
                &table.index,
                &table.rows,
            );
            if loaded.is_err() {
                self.without_room += 1;
            }
        }
    }

    /// From now on it is waited until every CPU has left the tick it is in.
    pub fn wait_for_cpus(&mut self) {
        self.tables.wait_for_cpus();
    }

    /// Every CPU has left the tick it was in when it began to be waited.
    pub fn all_cpus_passed(&mut self) {
        self.tables.all_cpus_passed();
    }
}

/// Builds what is ordered, the smallest files first: they are many, quickly
/// done, and in most stacks.
fn build_all(orders: &Receiver<Order>, deliver: &Sender<Built>) {
    let mut waiting = BinaryHeap::new();
    loop {
        if waiting.is_empty() {
            match orders.recv() {
                Ok(order) => waiting.push(Reverse(order)),
                Err(_) => return,
            }
        }
        waiting.extend(orders.try_iter().map(Reverse));
        let Some(Reverse(order)) = waiting.pop() else {
            continue;
        };
        let built = Built {
            number: order.number,
            table: build(&order.file),
        };
        if deliver.send(built).is_err() {
            return;
        }
    }
}

fn build(file: &PinnedFile) -> Option<Table> {
    let bytes = file.read_whole().ok()?;
    match unwind::build(&bytes) {
        Ok(table) => Some(table),
        Err(error) => {
            tracing::debug!(path = %file.path.display(), %error, "no unwind table");
            None
        }
    }
}
