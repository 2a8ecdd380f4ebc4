//! Checks the walk of the kernel's side by another one: for some of the stacks
//! that it walked, its side also ships a copy, and framehop walks that.
//!
//! This room has a thread of its own. What waits for it is bounded: a walk
//! that finds no room is dropped, and counted as that.

mod compare;
mod file;
mod files;
mod peer;
mod report;
mod row;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sampler_common::{Ending, RegisterLayout, StackCopy};

use self::compare::{Verdict, compare};
use self::files::Files;
use self::peer::PeerWalk;
pub use self::report::{Disagreement, Verified, VisitedFrame};
use self::row::Incapable;
use crate::process::AddressSpace;

/// How long a recording that is over waits for the last walks.
const LAST_WALKS: Duration = Duration::from_secs(10);

/// A stack as the kernel's side walked it, with what it walked.
#[derive(Debug)]
pub struct CheckedWalk<'a> {
    /// Process ID, for people.
    pub pid: u32,
    /// The mappings of the process at that time.
    pub space: Arc<AddressSpace>,
    /// Its frames, as a region has them.
    pub frames: &'a [u64],
    /// How it ended.
    pub ending: Ending,
    /// The registers.
    pub copy: &'a StackCopy,
    /// The stack.
    pub words: &'a [u64],
}

/// The same, on its way to the thread.
struct Order {
    pid: u32,
    space: Arc<AddressSpace>,
    frames: Box<[u64]>,
    ending: Ending,
    copy: StackCopy,
    words: Box<[u64]>,
}

impl Order {
    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.frames) + size_of_val(&*self.words)
    }
}

/// The thread, as those who hand over walks see it.
#[derive(Debug)]
pub struct Verification {
    orders: Sender<Order>,
    waiting_bytes: Arc<AtomicUsize>,
    max_waiting_bytes: usize,
    handed_over: u64,
    dropped: u64,
    found: Arc<Mutex<Verified>>,
    /// Ends with the thread.
    ended: Receiver<()>,
}

impl Verification {
    /// Starts the thread, which holds so many bytes: of copies that wait and of
    /// files that were walked, half each.
    pub fn start(max_bytes: u64) -> io::Result<Self> {
        let half_bytes = usize::try_from(max_bytes / 2).unwrap_or(usize::MAX);
        let (orders, ordered) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let found = Arc::new(Mutex::new(Verified::default()));
        let (bytes, results) = (Arc::clone(&waiting_bytes), Arc::clone(&found));
        thread::Builder::new()
            .name("verify-unwind".to_owned())
            .spawn(move || {
                let _alive: Sender<()> = alive;
                check_all(&ordered, &bytes, &results, half_bytes);
            })?;
        Ok(Self {
            orders,
            waiting_bytes,
            max_waiting_bytes: half_bytes,
            handed_over: 0,
            dropped: 0,
            found,
            ended,
        })
    }

    /// Has a walk checked, if there is room for it to wait.
    pub fn hand_over(&mut self, walk: CheckedWalk<'_>) {
        let order = Order {
            pid: walk.pid,
            space: walk.space,
            frames: walk.frames.into(),
            ending: walk.ending,
            copy: *walk.copy,
            words: walk.words.into(),
        };
        let bytes = order.bytes();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes <= self.max_waiting_bytes && self.orders.send(order).is_ok() {
            self.handed_over += 1;
        } else {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped += 1;
        }
    }

    /// What was found, once the last walks are checked; those that take too
    /// long are dropped.
    pub fn finish(self) -> Verified {
        drop(self.orders);
        // Either the thread has ended or it is not waited for any longer.
        let _ended = self.ended.recv_timeout(LAST_WALKS);
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = found.clone();
        found.dropped = self.dropped + self.handed_over.saturating_sub(found.checked());
        found
    }
}

fn check_all(
    orders: &Receiver<Order>,
    waiting_bytes: &AtomicUsize,
    found: &Mutex<Verified>,
    max_kept_bytes: usize,
) {
    let mut files = Files::new(max_kept_bytes);
    for order in orders {
        let found = || found.lock().unwrap_or_else(PoisonError::into_inner);
        let is_shown = found().has_room_to_show();
        let checked = check(&order, is_shown, &mut files);
        found().add(checked);
        waiting_bytes.fetch_sub(order.bytes(), Ordering::Relaxed);
    }
}

/// What came of one walk.
#[derive(Debug, PartialEq, Eq)]
struct Checked {
    verdict: Verdict,
    /// Callers that both found.
    callers: u64,
    /// The circumstances of a disagreement, if they are shown.
    disagreement: Option<Disagreement>,
}

/// Walks one copy.
fn check(order: &Order, is_shown: bool, files: &mut Files) -> Checked {
    let layout = RegisterLayout::X86_64;
    let mode = order.copy.registers[layout.mode as usize] & layout.mode_mask;
    if mode != layout.mode_user {
        return Checked {
            verdict: Verdict::FramehopFailed(Incapable::Narrow),
            callers: 0,
            disagreement: None,
        };
    }
    let mut peer = PeerWalk::new(&order.copy, &order.words, &order.space);
    let (verdict, callers) = compare(&order.frames, order.ending, || peer.step(files));
    let disagreement = match verdict {
        Verdict::Disagrees {
            frame,
            ours,
            theirs,
        } if is_shown => Some(Disagreement {
            pid: order.pid,
            frame,
            ours,
            ending: order.ending,
            theirs,
            visited: peer.visited(files),
        }),
        _ => None,
    };
    Checked {
        verdict,
        callers,
        disagreement,
    }
}
