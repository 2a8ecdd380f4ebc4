//! Building unwind tables, on threads of their own: one for small files, which
//! are many, quickly done and in most stacks, and one for the large ones, for
//! which nobody else should have to wait.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::object::unwind::{self, Table};
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

/// A table that was built; none of a file that has no unwind information.
#[derive(Debug)]
pub(super) struct Built {
    pub file: FileId,
    pub table: Option<Table>,
}

/// Files from this size on are large: some ten milliseconds of work.
const LARGE_BYTES: u64 = 8 << 20;

/// The niceness of the threads.
const NICENESS: libc::c_int = -10;

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
    waiting: usize,
}

impl Builder {
    pub fn start() -> io::Result<Self> {
        let (deliver, built) = mpsc::channel();
        let start = |name: &str, deliver: Sender<Built>| {
            let (orders, ordered) = mpsc::channel();
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    hurry();
                    build_all(&ordered, &deliver);
                })
                .map(|_| orders)
        };
        Ok(Self {
            small: start("tables", deliver.clone())?,
            large: start("large-tables", deliver)?,
            built,
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

    /// The next table that is ready.
    pub fn next(&mut self) -> Option<Built> {
        let built = self.built.try_recv().ok()?;
        self.waiting = self.waiting.saturating_sub(1);
        Some(built)
    }
}

/// Puts this thread before others: until a table is there, each stack that
/// needs it is copied, which costs those others more. Without the right to do
/// so it takes its turn.
fn hurry() {
    // SAFETY: changes the priority of the calling thread and nothing else.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// Builds what is ordered, the smallest files first.
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
            file: order.file.id,
            table: build(&order.file),
        };
        if deliver.send(built).is_err() {
            return;
        }
    }
}

fn build(file: &PinnedFile) -> Option<Table> {
    let bytes = file
        .read_whole()
        .inspect_err(|error| {
            tracing::debug!(path = %file.path.display(), %error, "cannot be read for its table");
        })
        .ok()?;
    unwind::build(&bytes)
        .inspect_err(|error| {
            tracing::debug!(path = %file.path.display(), %error, "no unwind table");
        })
        .ok()
}
