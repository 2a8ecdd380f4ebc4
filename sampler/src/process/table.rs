//! Every process that this run has heard of.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::address_space::AddressSpace;
use super::clock::{Clocks, boot_unix_ns, monotonic_ns};
use super::comm::Comm;
use super::incarnation::{Process, Start};
use super::jit_folder::JitFolder;
use super::mapping::Mapping;
use super::pin::{FileStore, Sought};
use super::proc_text::Stat;
use super::procfs::{Procfs, Snapshot};
use super::record::{Event, MapRecord, Record};
use crate::object::PinnedFile;

/// Names one process in its table, also after its exit and when its pid has
/// been given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey(u64);

/// What the kernel program saw of a process when it first took a sample of one
/// of its threads in its present program.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// The process; 0 or `u32::MAX` if it has no number in our pid namespace.
    pub pid: u32,
    /// When its thread-group leader started, `CLOCK_BOOTTIME`; 0 if unknown.
    pub start_time_ns: u64,
    /// When it was seen, `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The name of its thread-group leader; empty if unknown.
    pub leader_comm: Comm,
}

/// How complete the table's knowledge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records applied.
    pub records: u64,
    /// Records that the kernel had no room for. When this grows, `scan` again.
    pub lost_records: u64,
    /// Distinct files that could not be opened (counted up to 8,192).
    pub unpinned_files: u64,
}

/// The processes of this host, living and lately gone.
#[derive(Debug)]
pub struct ProcessTable {
    procfs: Procfs,
    clocks: Clocks,
    files: FileStore,
    processes: HashMap<ProcessKey, Process>,
    /// The processes that had a pid, one after the other.
    by_pid: HashMap<u32, Vec<ProcessKey>>,
    next_key: u64,
    records: u64,
    lost_records: u64,
}

/// How much later than it happened a record may come in, because its CPU's ring
/// was read before another's. Far less than a pid takes to come round.
const DISORDER_NS: u64 = 1_000_000_000;

impl ProcessTable {
    /// A table of nobody. It holds at most `max_files` files open.
    pub fn new(procfs: Procfs, max_files: usize) -> Self {
        Self {
            files: FileStore::new(procfs.root(), max_files),
            procfs,
            clocks: Clocks::read(),
            processes: HashMap::new(),
            by_pid: HashMap::new(),
            next_key: 0,
            records: 0,
            lost_records: 0,
        }
    }

    /// Reads from `/proc` all processes in scope: at the start, when the
    /// records have begun to flow, and again when some of them were lost.
    /// Processes of the table that are gone by then are taken to have ended.
    pub fn scan(&mut self, in_scope: impl Fn(u32) -> bool) -> io::Result<()> {
        self.clocks = Clocks::read();
        let began_ns = monotonic_ns();
        let pids = self.procfs.pids()?;
        let alive: HashSet<u32> = pids.iter().copied().collect();
        for process in self.processes.values_mut() {
            if is_visible(process.pid)
                && !alive.contains(&process.pid)
                && process.born_ns < began_ns
            {
                process.exited_ns.get_or_insert(began_ns);
            }
        }
        for pid in pids.into_iter().filter(|&pid| in_scope(pid)) {
            // It may end at any moment, and then there is nothing to read.
            let Ok(snapshot) = self.procfs.snapshot(pid) else {
                continue;
            };
            let ticks = snapshot.stat.start_ticks;
            let clocks = self.clocks;
            let known = self.newest_where(pid, |process| {
                process.start.agrees_with_ticks(ticks, clocks)
            });
            let key = known.unwrap_or_else(|| {
                let born_ns = clocks.to_monotonic_ns(clocks.ticks_to_boot_ns(ticks));
                self.add(Process::new(
                    pid,
                    Start::Ticks(ticks),
                    born_ns,
                    Arc::default(),
                ))
            });
            self.absorb(key, &snapshot, false);
        }
        Ok(())
    }

    /// Applies what the kernel told, in the order in which it happened.
    ///
    /// Hand in all that the rings of all CPUs hold, before asking about samples
    /// taken until then.
    pub fn apply(&mut self, mut records: Vec<Record>) {
        self.clocks = Clocks::read();
        records.sort_by_key(|record| record.time_ns);
        for record in records {
            self.apply_one(record);
        }
    }

    fn apply_one(&mut self, record: Record) {
        self.records += 1;
        let Record {
            time_ns, pid, tid, ..
        } = record;
        if let Event::Lost { records } = record.event {
            self.lost_records += records;
            return;
        }
        if !is_visible(pid) {
            return;
        }
        match record.event {
            Event::Fork { parent_pid, .. } if parent_pid != pid => {
                self.forked(pid, parent_pid, time_ns);
            }
            Event::Fork { .. } => {
                if let Some(process) = self.alive_mut(pid, time_ns) {
                    process.heard_of(tid, time_ns);
                }
            }
            Event::Exit => {
                if let Some(process) = self.alive_mut(pid, time_ns) {
                    process.thread_exited(tid, time_ns);
                }
            }
            Event::Comm { comm } => {
                if let Some(process) = self.alive_mut(pid, time_ns) {
                    process.heard_of(tid, time_ns);
                    if tid == pid {
                        process.rename(comm, time_ns);
                    }
                }
            }
            Event::Exec { comm } => {
                let key = self.alive_or_new(pid, time_ns);
                if let Some(process) = self.processes.get_mut(&key) {
                    process.exec(time_ns, comm);
                }
            }
            Event::Map(map) => self.mapped(pid, tid, time_ns, &map),
            Event::Lost { .. } => {}
        }
    }

    fn forked(&mut self, pid: u32, parent_pid: u32, time_ns: u64) {
        let clocks = self.clocks;
        let told_boot_ns = clocks.to_boot_ns(time_ns);
        let parent = self
            .alive(parent_pid, time_ns)
            .and_then(|key| self.processes.get(&key))
            .map(|parent| (Arc::clone(parent.images.at(time_ns)), parent.comm));
        let known = self.newest_where(pid, |process| process.may_begin_at(time_ns, clocks));
        let key = known.unwrap_or_else(|| {
            let start = Start::ForkedBy(told_boot_ns);
            self.add(Process::new(pid, start, time_ns, Arc::default()))
        });
        // Whoever had the pid before has ended, if that went unheard.
        for &other in self.by_pid.get(&pid).into_iter().flatten() {
            if other != key
                && let Some(process) = self.processes.get_mut(&other)
                && process.born_ns < time_ns
            {
                process.exited_ns.get_or_insert(time_ns);
            }
        }
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        process.parent_pid = parent_pid;
        process.forked_ns = Some(time_ns);
        process.born_ns = time_ns;
        if let Start::Before(_) = process.start {
            process.start = Start::ForkedBy(told_boot_ns);
        }
        if let Some((space, comm)) = parent {
            process.images.inherit(&space);
            process.rename(comm, process.comm_ns.min(time_ns));
        }
    }

    fn mapped(&mut self, pid: u32, tid: u32, time_ns: u64, map: &MapRecord) {
        let key = self.alive_or_new(pid, time_ns);
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        if process.read_ns.is_some_and(|read_ns| time_ns <= read_ns) {
            return;
        }
        process.heard_of(tid, time_ns);
        let mapping = self.files.resolve(Sought {
            map,
            pid,
            parent_pid: process.parent_pid,
        });
        process.images.map(time_ns, mapping);
    }

    /// The process that a sample was taken in. Unknown ones are read from
    /// `/proc` at once, if they are still there.
    pub fn find(&mut self, who: &Sighting) -> ProcessKey {
        let key = self.identify(who).unwrap_or_else(|| {
            let born_ns = match who.start_time_ns {
                0 => who.time_ns,
                start_ns => self.clocks.to_monotonic_ns(start_ns).min(who.time_ns),
            };
            let start = Start::Before(self.clocks.to_boot_ns(who.time_ns));
            self.add(Process::new(who.pid, start, born_ns, Arc::default()))
        });
        if let Some(process) = self.processes.get_mut(&key) {
            if who.start_time_ns != 0 || !is_visible(who.pid) {
                process.start = Start::Exact(who.start_time_ns);
            }
            if !who.leader_comm.is_empty() {
                process.rename(who.leader_comm, who.time_ns);
            }
            let wants_reading = !process.is_known_at(who.time_ns)
                && process.images.is_newest_at(who.time_ns)
                && process.exited_ns.is_none()
                && !process.unreadable
                && is_visible(who.pid);
            if wants_reading {
                self.read(key, who);
            }
        }
        key
    }

    fn identify(&self, who: &Sighting) -> Option<ProcessKey> {
        let clocks = self.clocks;
        if who.start_time_ns != 0 || !is_visible(who.pid) {
            // Many processes may share the number that stands for none.
            let start_ns = who.start_time_ns;
            let exact = Start::Exact(start_ns);
            self.newest_where(who.pid, |process| process.start == exact)
                .or_else(|| {
                    self.newest_where(who.pid, |process| {
                        process.born_ns <= who.time_ns
                            && process.start.agrees_with(start_ns, clocks)
                    })
                })
        } else {
            self.alive(who.pid, who.time_ns)
                .or_else(|| self.by_pid.get(&who.pid)?.first().copied())
        }
    }

    /// Reads a process of which too little is known, if `/proc` still shows it.
    fn read(&mut self, key: ProcessKey, who: &Sighting) {
        let clocks = self.clocks;
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let snapshot = self.procfs.snapshot(process.pid).ok().filter(|snapshot| {
            process
                .start
                .agrees_with_ticks(snapshot.stat.start_ticks, clocks)
        });
        match snapshot {
            Some(snapshot) => {
                // Another name means, most likely, that it has since started
                // another program, whose mappings are not those of the sample.
                let is_other = !who.leader_comm.is_empty() && who.leader_comm != snapshot.comm;
                self.absorb(key, &snapshot, is_other);
            }
            None => process.unreadable = true,
        }
    }

    fn absorb(&mut self, key: ProcessKey, snapshot: &Snapshot, only_since: bool) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let mut space = AddressSpace::default();
        for map in &snapshot.maps {
            let mapping = self.files.resolve(Sought {
                map,
                pid: snapshot.memory_tid,
                parent_pid: snapshot.stat.parent_pid,
            });
            space.insert(snapshot.taken_ns, mapping);
        }
        space.exe.clone_from(&snapshot.exe);
        space.complete = true;
        process.absorb(snapshot, space, only_since);
    }

    /// What is known of a process; nothing once it was forgotten.
    pub fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(&key)
    }

    /// All processes, in no order.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessKey, &Process)> {
        self.processes.iter().map(|(&key, process)| (key, process))
    }

    /// Whether all mappings that the process had at that time are known, so
    /// that an address outside them is none of its code.
    pub fn is_known_at(&self, key: ProcessKey, time_ns: u64) -> bool {
        self.processes
            .get(&key)
            .is_some_and(|process| process.is_known_at(time_ns))
    }

    /// The mappings of the program that a process ran at a moment; those of
    /// no program for a process that is not known.
    pub fn address_space(&self, key: ProcessKey, time_ns: u64) -> Arc<AddressSpace> {
        self.processes
            .get(&key)
            .map(|process| Arc::clone(process.images.at(time_ns)))
            .unwrap_or_default()
    }

    /// The files that were first mapped, or first seen to be, since the last
    /// call.
    pub fn take_new_files(&mut self) -> Vec<Arc<PinnedFile>> {
        self.files.take_new()
    }

    /// The mapping at an address of a process, in the program that it ran at
    /// that time.
    pub fn locate(&self, key: ProcessKey, time_ns: u64, address: u64) -> Option<Arc<Mapping>> {
        self.address_space(key, time_ns).at(address).cloned()
    }

    /// The cgroup2 path of a process: as it was when first asked for, if the
    /// process was there to be asked.
    pub fn cgroup(&self, key: ProcessKey) -> Option<&[u8]> {
        let process = self.processes.get(&key)?;
        let path = process.cgroup.get_or_init(|| {
            if !is_visible(process.pid) {
                return None;
            }
            self.procfs.cgroup2(process.pid, |stat| {
                let ticks = stat.start_ticks;
                process.start.agrees_with_ticks(ticks, self.clocks)
            })
        });
        path.as_deref()
    }

    /// Where a process leaves perf maps while it runs the program that it started
    /// at `since_ns` (`CLOCK_MONOTONIC`); `None` if it is gone.
    pub fn jit_folder(&self, key: ProcessKey, since_ns: u64) -> Option<JitFolder> {
        let process = self.processes.get(&key)?;
        if !is_visible(process.pid) {
            return None;
        }
        let started_boot_ns = process
            .start_boot_ns(self.clocks)
            .max(self.clocks.to_boot_ns(since_ns));
        let started_ns = boot_unix_ns().saturating_add_unsigned(started_boot_ns);
        let is_it = |stat: &Stat| {
            process
                .start
                .agrees_with_ticks(stat.start_ticks, self.clocks)
        };
        self.procfs.jit_folder(process.pid, is_it, started_ns)
    }

    /// Drops the processes that ended before a moment, and the programs that
    /// were replaced before it. Call it when no sample older than that is
    /// still to be attributed, and nothing of them is still to be asked: their
    /// keys lead nowhere afterwards.
    pub fn forget(&mut self, older_than_ns: u64) {
        self.processes.retain(|_, process| {
            process.images.forget(older_than_ns);
            process
                .exited_ns
                .is_none_or(|exited_ns| exited_ns >= older_than_ns)
        });
        let processes = &self.processes;
        self.by_pid.retain(|_, keys| {
            keys.retain(|key| processes.contains_key(key));
            !keys.is_empty()
        });
        self.files.release_unused();
    }

    /// What was heard and missed so far.
    pub fn counters(&self) -> Counters {
        Counters {
            records: self.records,
            lost_records: self.lost_records,
            unpinned_files: self.files.unpinned_files() as u64,
        }
    }

    /// The clocks that start times are told in.
    pub fn clocks(&self) -> Clocks {
        self.clocks
    }

    fn add(&mut self, process: Process) -> ProcessKey {
        let key = ProcessKey(self.next_key);
        self.next_key += 1;
        let keys = self.by_pid.entry(process.pid).or_default();
        let older = |key: &ProcessKey| {
            self.processes
                .get(key)
                .is_some_and(|other| other.born_ns <= process.born_ns)
        };
        let index = keys.iter().rposition(older).map_or(0, |index| index + 1);
        keys.insert(index, key);
        self.processes.insert(key, process);
        key
    }

    fn newest_where(&self, pid: u32, is_meant: impl Fn(&Process) -> bool) -> Option<ProcessKey> {
        let keys = self.by_pid.get(&pid)?;
        keys.iter()
            .rev()
            .find(|key| self.processes.get(key).is_some_and(&is_meant))
            .copied()
    }

    /// The process that had the pid at a moment.
    fn alive(&self, pid: u32, time_ns: u64) -> Option<ProcessKey> {
        self.newest_where(pid, |process| {
            process.born_ns <= time_ns && process.exited_ns.is_none_or(|ns| time_ns <= ns)
        })
    }

    fn alive_mut(&mut self, pid: u32, time_ns: u64) -> Option<&mut Process> {
        let key = self.alive(pid, time_ns)?;
        self.processes.get_mut(&key)
    }

    /// The same, or a new one of which nothing is known yet.
    fn alive_or_new(&mut self, pid: u32, time_ns: u64) -> ProcessKey {
        self.alive(pid, time_ns).unwrap_or_else(|| {
            let start = Start::Before(self.clocks.to_boot_ns(time_ns));
            // Not while the one before it was still there.
            let born_ns = self
                .by_pid
                .get(&pid)
                .into_iter()
                .flatten()
                .filter_map(|key| self.processes.get(key)?.exited_ns)
                .filter(|&exited_ns| exited_ns < time_ns)
                .fold(time_ns.saturating_sub(DISORDER_NS), u64::max);
            self.add(Process::new(pid, start, born_ns, Arc::default()))
        })
    }
}

/// Whether a number means a process: 0 and -1 stand for those of other pid
/// namespaces, and 0 for the idle loop.
fn is_visible(pid: u32) -> bool {
    pid != 0 && pid != u32::MAX
}
