//! Building unwind tables, on threads of their own: one for small files, which
//! are many, quickly done and in most stacks, and one for the large ones, for
//! which nobody else should have to wait. Each has a child without rights, which
//! does the building.
//!
//! Of a file no more is read than its table is made of, and what is held at a
//! time has a bound: a file that needs more gets no table.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use tokio::sync::Notify;

use super::maker::Maker;
use crate::cache::{Cache, Key, Kind};
use crate::isolation::{niceness, rights};
use crate::object::unwind::Table;
use crate::object::{FileId, PinnedFile};

/// A table to be built. Ordered by the size of the file.
#[derive(Debug)]
struct Order {
    size_bytes: u64,
    file: Arc<PinnedFile>,
}

impl Order {
    fn key(&self) -> (u64, FileId) {
        (self.size_bytes, self.file.id)
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

/// What came of an order.
#[derive(Debug)]
pub(super) struct Built {
    pub file: FileId,
    pub made: Made,
    /// Whether an earlier recording had made it.
    pub was_cached: bool,
    /// Children that were lost before.
    pub deaths: u64,
}

/// What could be made of a file.
#[derive(Debug)]
pub(super) enum Made {
    /// Its table.
    Table(Table),
    /// Nothing: it describes no code.
    Nothing,
    /// Nothing: it could not be read, or would have taken more memory than there
    /// is for it. How its code is to be walked is not known.
    Refused,
}

/// Files from this size on are large: some ten milliseconds of work.
const LARGE_BYTES: u64 = 8 << 20;

/// Tables of smaller files are built about as fast as they are read back.
const KEPT_FROM_BYTES: u64 = 256 << 10;

/// The large files' part of what may be held, of four; the rest is for the
/// small ones.
const LARGE_PARTS: u64 = 3;
const PARTS: u64 = 4;
/// Tables that wait to be written, in bytes.
const MAX_UNKEPT_BYTES: u64 = 16 << 20;
/// Tables that were built and are not taken yet, at most; they are few, since
/// whoever ordered them looks every few milliseconds.
const MAX_READY: usize = 4;

/// Whether a file of this size is a large one.
pub(super) const fn is_large(size_bytes: u64) -> bool {
    size_bytes >= LARGE_BYTES
}

/// The threads, as those who order see them.
#[derive(Debug)]
pub(super) struct Builder {
    small: Sender<Order>,
    large: Sender<Order>,
    built: Receiver<Built>,
    /// Told of each that is built.
    ready: Arc<Notify>,
    waiting: usize,
}

impl Builder {
    /// Starts the threads, whose children hold so many bytes together, and which
    /// look first for what an earlier recording built. They keep these rights.
    pub fn start(max_bytes: u64, cache: Option<&Arc<Cache>>, kept_rights: u64) -> io::Result<Self> {
        let (deliver, built) = mpsc::sync_channel(MAX_READY);
        let ready = Arc::new(Notify::new());
        let start = |name: &str, parts: u64, deliver: SyncSender<Built>| {
            let deliver = Delivery {
                built: deliver,
                ready: Arc::clone(&ready),
            };
            let (orders, ordered) = mpsc::channel();
            let max_bytes = max_bytes / PARTS * parts;
            let cache = cache.cloned();
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    // The child is as eager as the thread that starts it.
                    niceness::set(niceness::TABLES);
                    let maker = Maker::start(max_bytes);
                    if let Err(error) = rights::keep_only(kept_rights) {
                        tracing::debug!(%error, "rights cannot be given up");
                    }
                    build_all(&ordered, &deliver, maker, cache.as_deref());
                })
                .map(|_| orders)
        };
        Ok(Self {
            small: start("tables", PARTS - LARGE_PARTS, deliver.clone())?,
            large: start("large-tables", LARGE_PARTS, deliver)?,
            built,
            ready,
            waiting: 0,
        })
    }

    /// Orders the table of a file. Returns whether it will come.
    pub fn order(&mut self, file: &Arc<PinnedFile>) -> bool {
        let order = Order {
            size_bytes: file.size_bytes().unwrap_or(u64::MAX),
            file: Arc::clone(file),
        };
        let thread = if is_large(order.size_bytes) {
            &self.large
        } else {
            &self.small
        };
        // Fails only when the thread has died.
        let accepted = thread.send(order).is_ok();
        self.waiting += usize::from(accepted);
        accepted
    }

    /// Tables that were ordered and have not come.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Is notified when a table is ready.
    pub fn ready(&self) -> Arc<Notify> {
        Arc::clone(&self.ready)
    }

    /// The next table that is ready.
    pub fn next(&mut self) -> Option<Built> {
        let built = self.built.try_recv().ok()?;
        self.waiting = self.waiting.saturating_sub(1);
        Some(built)
    }
}

/// The way to whoever orders.
struct Delivery {
    built: SyncSender<Built>,
    ready: Arc<Notify>,
}

impl Delivery {
    /// Returns whether anybody still waits.
    fn send(&self, built: Built) -> bool {
        let is_wanted = self.built.send(built).is_ok();
        self.ready.notify_one();
        is_wanted
    }
}

/// Builds what is ordered, the smallest files first.
fn build_all(
    orders: &Receiver<Order>,
    deliver: &Delivery,
    mut maker: Maker,
    cache: Option<&Cache>,
) {
    let mut waiting = BinaryHeap::new();
    let mut unkept = Unkept {
        cache,
        tables: Vec::new(),
        bytes: 0,
    };
    loop {
        waiting.extend(orders.try_iter().map(Reverse));
        if waiting.is_empty() {
            unkept.keep();
            match orders.recv() {
                Ok(order) => waiting.push(Reverse(order)),
                Err(_) => return,
            }
            waiting.extend(orders.try_iter().map(Reverse));
        }
        let Some(Reverse(order)) = waiting.pop() else {
            continue;
        };
        let kept = cache
            .filter(|_| order.size_bytes >= KEPT_FROM_BYTES)
            .and_then(|cache| Some((cache, Key::of(Kind::Table, &order.file)?)));
        let known = kept.as_ref().and_then(|(cache, key)| cache.get(key));
        let known = known.and_then(|bytes| Table::decode(&bytes));
        let was_cached = known.is_some();
        let (made, encoded) = match known {
            Some(table) => (Made::Table(table), None),
            None => maker.make(&order.file),
        };
        let to_keep = kept.zip(encoded);
        let built = Built {
            file: order.file.id,
            made,
            was_cached,
            deaths: maker.take_deaths(),
        };
        if !deliver.send(built) {
            return;
        }
        if let Some(((_, key), encoded)) = to_keep {
            unkept.add(key, encoded);
        }
    }
}

/// Tables that are to be kept for the next recording, when nobody waits for
/// another one.
struct Unkept<'a> {
    cache: Option<&'a Cache>,
    tables: Vec<(Key, Vec<u8>)>,
    bytes: u64,
}

impl Unkept<'_> {
    fn add(&mut self, key: Key, encoded: Vec<u8>) {
        self.bytes += encoded.len() as u64;
        self.tables.push((key, encoded));
        if self.bytes > MAX_UNKEPT_BYTES {
            self.keep();
        }
    }

    fn keep(&mut self) {
        self.bytes = 0;
        for (key, encoded) in self.tables.drain(..) {
            if let Some(cache) = self.cache {
                cache.put(&key, &encoded);
            }
        }
    }
}
