//! One process, from its fork to its exit: one use of a pid.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::address_space::AddressSpace;
use super::clock::Clocks;
use super::comm::Comm;
use super::image::Images;
use super::procfs::Snapshot;

/// How long before the news of its fork a process may have started: the parent
/// can be interrupted between the two.
const FORK_SLACK_NS: u64 = 2_000_000_000;
/// How much later than that its start time may read: the clocks' offset is not
/// taken at the same moment.
const CLOCK_SLACK_NS: u64 = 20_000_000;

/// When a process started, as well as it is known; `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// To the nanosecond, as the kernel program reads it.
    Exact(u64),
    /// In ticks, as `/proc` rounds it down.
    Ticks(u64),
    /// Shortly before this moment, when its fork was told.
    ForkedBy(u64),
    /// Some time before this moment, when it was first heard of.
    Before(u64),
}

impl Start {
    /// Whether a process that started at exactly this time can be the one.
    pub fn agrees_with(self, start_boot_ns: u64, clocks: Clocks) -> bool {
        match self {
            Self::Exact(exact_ns) => exact_ns == start_boot_ns,
            Self::Ticks(ticks) => ticks == clocks.ticks(start_boot_ns),
            Self::ForkedBy(told_ns) => within_fork_slack(told_ns, start_boot_ns),
            Self::Before(seen_ns) => start_boot_ns <= seen_ns + CLOCK_SLACK_NS,
        }
    }

    /// Whether a process for which `/proc` shows these ticks can be the one.
    pub fn agrees_with_ticks(self, ticks: u64, clocks: Clocks) -> bool {
        let earliest_ns = clocks.ticks_to_boot_ns(ticks);
        let latest_ns = earliest_ns + (clocks.tick_ns - 1);
        match self {
            Self::Exact(exact_ns) => ticks == clocks.ticks(exact_ns),
            Self::Ticks(own) => own == ticks,
            Self::ForkedBy(told_ns) => {
                within_fork_slack(told_ns, earliest_ns) || within_fork_slack(told_ns, latest_ns)
            }
            Self::Before(seen_ns) => earliest_ns <= seen_ns + CLOCK_SLACK_NS,
        }
    }

    /// Whether a process whose fork was told at this time can be the one.
    pub fn agrees_with_fork(self, told_boot_ns: u64, clocks: Clocks) -> bool {
        match self {
            Self::Exact(exact_ns) => within_fork_slack(told_boot_ns, exact_ns),
            Self::Ticks(ticks) => Self::ForkedBy(told_boot_ns).agrees_with_ticks(ticks, clocks),
            Self::ForkedBy(other_ns) => other_ns == told_boot_ns,
            // Heard of before its fork was: another CPU's news came first.
            Self::Before(seen_ns) => {
                (told_boot_ns..told_boot_ns + FORK_SLACK_NS).contains(&seen_ns)
            }
        }
    }

    /// The best single value.
    fn boot_ns(self, clocks: Clocks) -> u64 {
        match self {
            Self::Exact(ns) | Self::ForkedBy(ns) | Self::Before(ns) => ns,
            Self::Ticks(ticks) => clocks.ticks_to_boot_ns(ticks),
        }
    }
}

fn within_fork_slack(told_ns: u64, start_ns: u64) -> bool {
    (told_ns.saturating_sub(FORK_SLACK_NS)..=told_ns + CLOCK_SLACK_NS).contains(&start_ns)
}

/// One process. It is named by (pid, start time): a pid alone comes round.
#[derive(Debug, Clone)]
pub struct Process {
    pub(super) pid: u32,
    pub(super) start: Start,
    /// From when on the pid means this process; `CLOCK_MONOTONIC`.
    pub(super) born_ns: u64,
    /// When its fork was told, if it was; `CLOCK_MONOTONIC`. That happens once.
    pub(super) forked_ns: Option<u64>,
    /// When its last thread ended; `CLOCK_MONOTONIC`.
    pub(super) exited_ns: Option<u64>,
    pub(super) parent_pid: u32,
    pub(super) comm: Comm,
    pub(super) comm_ns: u64,
    pub(super) kernel_thread: bool,
    pub(super) threads: BTreeSet<u32>,
    pub(super) images: Images,
    /// When `/proc` was last read for it: news from before are in there.
    pub(super) read_ns: Option<u64>,
    /// The newest news of it.
    pub(super) last_news_ns: u64,
    /// Whether `/proc` was asked in vain.
    pub(super) unreadable: bool,
    pub(super) cgroup: OnceLock<Option<Box<[u8]>>>,
}

impl Process {
    /// A process of which nothing is known but that it is there.
    pub(super) fn new(pid: u32, start: Start, born_ns: u64, space: Arc<AddressSpace>) -> Self {
        Self {
            pid,
            start,
            born_ns,
            forked_ns: None,
            exited_ns: None,
            parent_pid: 0,
            comm: Comm::default(),
            comm_ns: 0,
            kernel_thread: false,
            threads: BTreeSet::from([pid]),
            images: Images::new(space),
            read_ns: None,
            last_news_ns: born_ns,
            unreadable: false,
            cgroup: OnceLock::new(),
        }
    }

    /// Its number in the pid namespace that this run sees; 0 or `u32::MAX` for
    /// none.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`: exact once it was
    /// seen in a sample, else as near as is known.
    pub fn start_boot_ns(&self, clocks: Clocks) -> u64 {
        self.start.boot_ns(clocks)
    }

    /// When its last thread ended, if it has; `CLOCK_MONOTONIC`.
    pub fn exited_ns(&self) -> Option<u64> {
        self.exited_ns
    }

    /// The process that forked it; 0 if unknown or not visible.
    pub fn parent_pid(&self) -> u32 {
        self.parent_pid
    }

    /// The name of its thread-group leader, as last seen.
    pub fn comm(&self) -> Comm {
        self.comm
    }

    /// Whether it is a thread of the kernel's own.
    pub fn is_kernel_thread(&self) -> bool {
        self.kernel_thread
    }

    /// The program that it ran last, as the process saw its path.
    pub fn exe(&self) -> Option<&Path> {
        self.images.newest().exe.as_deref()
    }

    /// Whether its mappings at a moment are known. Where they are not, an
    /// address without a mapping says nothing.
    pub fn is_known_at(&self, time_ns: u64) -> bool {
        self.images.at(time_ns).complete
    }

    /// The leader has this name since a moment.
    pub(super) fn rename(&mut self, comm: Comm, time_ns: u64) {
        if time_ns >= self.comm_ns {
            self.comm = comm;
            self.comm_ns = time_ns;
        }
    }

    /// Whether a fork that was told at this moment can be its own: start times
    /// alone cannot say, where a pid comes round faster than they are exact.
    pub(super) fn may_begin_at(&self, time_ns: u64, clocks: Clocks) -> bool {
        self.forked_ns.is_none_or(|forked_ns| forked_ns == time_ns)
            && self.exited_ns.is_none_or(|exited_ns| time_ns <= exited_ns)
            && self
                .start
                .agrees_with_fork(clocks.to_boot_ns(time_ns), clocks)
    }

    /// Something was heard of one of its threads, which must therefore live.
    pub(super) fn heard_of(&mut self, tid: u32, time_ns: u64) {
        self.last_news_ns = self.last_news_ns.max(time_ns);
        if self.exited_ns.is_none() {
            self.threads.insert(tid);
        }
    }

    /// It runs another program, and all its other threads are gone.
    pub(super) fn exec(&mut self, time_ns: u64, comm: Comm) {
        self.rename(comm, time_ns);
        if let Some(read_ns) = self.read_ns
            && time_ns <= read_ns
        {
            self.images.began(time_ns, read_ns);
            return;
        }
        self.images.exec(time_ns);
        if self.exited_ns.is_none() {
            self.threads = BTreeSet::from([self.pid]);
        }
        self.last_news_ns = self.last_news_ns.max(time_ns);
    }

    /// One of its threads ended.
    pub(super) fn thread_exited(&mut self, tid: u32, time_ns: u64) {
        if self.threads.remove(&tid) && self.threads.is_empty() {
            self.exited_ns = Some(time_ns);
        }
    }

    /// It was read from `/proc`. `only_since` as for the images.
    pub(super) fn absorb(&mut self, snapshot: &Snapshot, space: AddressSpace, only_since: bool) {
        let taken_ns = snapshot.taken_ns;
        if !matches!(self.start, Start::Exact(_)) {
            self.start = Start::Ticks(snapshot.stat.start_ticks);
        }
        self.rename(snapshot.comm, taken_ns);
        self.parent_pid = snapshot.stat.parent_pid;
        self.kernel_thread = snapshot.stat.kernel_thread;
        self.threads.clone_from(&snapshot.threads);
        self.exited_ns = None;
        self.images
            .read(taken_ns, space, self.last_news_ns, only_since);
        self.read_ns = Some(taken_ns);
    }
}
