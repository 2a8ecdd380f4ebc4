//! Whose sample it is, and which mapping each of its addresses lies in.

use std::collections::HashMap;
use std::sync::Arc;

use sampler_common::{CopyChunk, Ending, NO_STACK, Region, StackCopy, Thread};

use super::ledger::{Class, Completeness};
use super::traces::{Located, Marker, Traces};
use super::unwinding::{CopyState, Unwinding};
use super::verification::{CheckedWalk, Verification};
use crate::object::FileId;
use crate::process::{AddressSpace, Backing, Comm, ProcessKey, ProcessTable, Sighting};

/// A process that has samples.
#[derive(Debug)]
pub struct SampledProcess {
    /// Process ID as the caller's pid namespace has it; 0 for the idle tasks
    /// and for processes that cannot be seen from there.
    pub pid: u32,
    /// Whether it is outside the caller's pid namespace.
    pub outside: bool,
    /// Name of its thread-group leader, as last seen.
    pub comm: Comm,
    /// The program that it ran last, if that is known.
    pub exe: Option<String>,
    /// Its cgroup, relative to the cgroup2 mount; looked up when asked for.
    pub cgroup: Option<String>,
    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_boottime_ns: u64,
    /// Its samples.
    pub samples: HashMap<SampleKey, u64>,
    /// How complete their stacks are.
    pub completeness: Completeness,
    /// The mappings that their frames lie in.
    pub located: Located,
    /// Its name in the table; none for the idle tasks and for processes that
    /// cannot be seen.
    pub(super) key: Option<ProcessKey>,
}

/// What samples are told apart by within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SampleKey {
    /// Thread ID as the caller's pid namespace has it.
    pub tid: u32,
    /// The thread's name.
    pub thread_name: Comm,
    /// Position in [`Traces::stack_by_id`].
    pub stack: u32,
}

/// Who a process is: one of the table, or one of those that it cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Known(ProcessKey),
    /// The idle tasks of all CPUs.
    Idle,
    /// All processes outside the caller's pid namespace, by name.
    Outside(Comm),
}

/// Which halves of a stack were asked for.
#[derive(Debug, Clone, Copy)]
pub struct WantedFrames {
    /// User frames.
    pub user: bool,
    /// Kernel frames.
    pub kernel: bool,
}

/// A thread of a region, as far as it is looked up once.
#[derive(Debug, Clone)]
struct Owned {
    /// Position in the list of processes.
    process: usize,
    key: Option<ProcessKey>,
    /// The mappings of the program that it ran when it was first seen here.
    space: Option<Arc<AddressSpace>>,
}

/// The copy of a stack that waits for an unwind table.
#[derive(Debug)]
struct WaitingCopy {
    awaits: FileId,
    process: usize,
    tid: u32,
    thread_name: Comm,
    space: Arc<AddressSpace>,
    kernel_frames: Vec<u32>,
    kernel_ending: Option<Ending>,
    copy: StackCopy,
    words: Box<[u64]>,
}

/// Collects the samples of a recording by process.
#[derive(Debug)]
pub struct Attribution {
    wanted: WantedFrames,
    /// Whether cgroups are looked up.
    cgroups: bool,
    owners: HashMap<Owner, usize>,
    processes: Vec<SampledProcess>,
    /// All stack traces.
    pub traces: Traces,
    frames: Vec<u32>,
    addresses: Vec<u64>,
    waiting: Vec<WaitingCopy>,
    waiting_bytes: u64,
    max_waiting_bytes: u64,
}

impl Attribution {
    /// An empty one, in which so many bytes of stack copies may wait for unwind
    /// tables.
    pub fn new(wanted: WantedFrames, cgroups: bool, max_waiting_bytes: u64) -> Self {
        Self {
            wanted,
            cgroups,
            owners: HashMap::new(),
            processes: Vec::new(),
            traces: Traces::default(),
            frames: Vec::new(),
            addresses: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            max_waiting_bytes,
        }
    }

    /// The processes with samples.
    pub fn processes(&self) -> &[SampledProcess] {
        &self.processes
    }

    /// Samples so far.
    pub fn samples(&self) -> u64 {
        self.processes
            .iter()
            .map(|process| process.completeness.total())
            .sum()
    }

    /// Adds what one CPU counted in one generation, and the stacks that it
    /// copied; but copies of stacks that it walked itself count for nothing and
    /// go to `verification`.
    pub fn add(
        &mut self,
        region: &Region,
        chunks: &[&CopyChunk],
        table: &mut ProcessTable,
        mut unwinding: Option<&mut Unwinding>,
        mut verification: Option<&mut Verification>,
    ) {
        let mut owners: Vec<Option<Owned>> = vec![None; region.threads().len()];
        for count in region.counts() {
            let Some(thread) = region.threads().get(count.thread as usize) else {
                continue;
            };
            let owned = owners[count.thread as usize]
                .get_or_insert_with(|| self.owned(thread, table))
                .clone();
            let kernel_ending = self.start_trace(region.stack(count.kernel_stack));
            let user_ending = region
                .stack(count.user_stack)
                .map(|(addresses, ending)| self.user_frames(addresses, ending, &owned));
            if let (Some(unwinding), Some(space)) = (&mut unwinding, &owned.space)
                && unwinding.wants_to_know_use()
                && let Some((addresses, _)) = region.stack(count.user_stack)
            {
                note_use(unwinding, addresses, space);
            }
            self.enter(
                owned.process,
                thread.caller_tid,
                Comm::from_words(thread.key.comm),
                Class::of(user_ending, kernel_ending),
                count.ticks,
            );
        }
        let Some(unwinding) = unwinding else {
            return;
        };
        for (copy, words) in chunks.iter().flat_map(|chunk| chunk.copies()) {
            let Some(thread) = region.threads().get(copy.thread as usize) else {
                continue;
            };
            let owned = owners[copy.thread as usize]
                .get_or_insert_with(|| self.owned(thread, table))
                .clone();
            let space = match owned.key {
                Some(key) => table.address_space(key, copy.time_ns),
                None => Arc::default(),
            };
            if copy.checked_stack != NO_STACK {
                if let Some(verification) = &mut verification
                    && let Some((frames, ending)) = region.stack(copy.checked_stack)
                {
                    verification.hand_over(CheckedWalk {
                        pid: thread.caller_pid,
                        space,
                        frames,
                        ending,
                        copy,
                        words,
                    });
                }
                continue;
            }
            let kernel_ending = self.start_trace(region.stack(copy.kernel_stack));
            let waiting = WaitingCopy {
                awaits: FileId::default(),
                process: owned.process,
                tid: thread.caller_tid,
                thread_name: Comm::from_words(thread.key.comm),
                space,
                kernel_frames: Vec::new(),
                kernel_ending,
                copy: *copy,
                words: Box::default(),
            };
            self.add_copy(waiting, words, unwinding);
        }
    }

    /// Walks the copies that waited for tables which have come.
    pub fn walk_waiting(&mut self, unwinding: &mut Unwinding) {
        for copy in std::mem::take(&mut self.waiting) {
            if unwinding.is_awaited(copy.awaits) {
                self.waiting.push(copy);
            } else {
                self.walk_again(copy, unwinding);
            }
        }
    }

    /// Whether copies wait for tables.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives the copies that still wait as much of a walk as can be.
    pub fn give_up_waiting(&mut self, unwinding: &mut Unwinding) {
        self.max_waiting_bytes = 0;
        for copy in std::mem::take(&mut self.waiting) {
            self.walk_again(copy, unwinding);
        }
    }

    fn walk_again(&mut self, mut copy: WaitingCopy, unwinding: &mut Unwinding) {
        let words = std::mem::take(&mut copy.words);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(waiting_bytes(&words));
        self.frames.clear();
        self.frames.append(&mut copy.kernel_frames);
        self.add_copy(copy, &words, unwinding);
    }

    /// Walks a copy, whose kernel half is in `self.frames`, or lets it wait.
    fn add_copy(&mut self, mut copy: WaitingCopy, words: &[u64], unwinding: &mut Unwinding) {
        let mut addresses = std::mem::take(&mut self.addresses);
        let state = unwinding.walk(&copy.copy, words, &copy.space, &mut addresses);
        let ending = match state {
            CopyState::Walked(ending) => ending,
            CopyState::Awaits(file) => {
                let bytes = waiting_bytes(words);
                if self.waiting_bytes + bytes <= self.max_waiting_bytes {
                    self.addresses = addresses;
                    self.waiting_bytes += bytes;
                    copy.awaits = file;
                    copy.words = words.into();
                    copy.kernel_frames.clone_from(&self.frames);
                    self.waiting.push(copy);
                    return;
                }
                Ending::TableMissing
            }
        };
        let owned = Owned {
            process: copy.process,
            key: None,
            space: Some(Arc::clone(&copy.space)),
        };
        let ending = self.user_frames(&addresses, ending, &owned);
        self.addresses = addresses;
        let class = Class::of(Some(ending), copy.kernel_ending);
        self.enter(copy.process, copy.tid, copy.thread_name, class, 1);
    }

    /// Begins a stack trace in `self.frames` with its kernel half.
    fn start_trace(&mut self, kernel: Option<(&[u64], Ending)>) -> Option<Ending> {
        self.frames.clear();
        let (addresses, ending) = kernel?;
        for (depth, address) in addresses.iter().enumerate() {
            let frame = self.traces.kernel_frame(at_call(*address, depth));
            self.frames.push(frame);
        }
        Some(ending)
    }

    /// Adds the frames of a user half; returns how it really ended. A caller
    /// outside every executable mapping is none: what was taken for a frame
    /// pointer was something else.
    fn user_frames(&mut self, addresses: &[u64], ending: Ending, owned: &Owned) -> Ending {
        let space = owned.space.as_deref();
        let located = &mut self.processes[owned.process].located;
        for (depth, address) in addresses.iter().enumerate() {
            let address = at_call(*address, depth);
            let frame = match space.map(|space| (space, space.at(address))) {
                Some((space, Some(mapping))) => {
                    self.traces
                        .mapped_frame(located, space.since_ns, mapping, address)
                }
                Some((space, None)) if depth > 0 && space.complete => {
                    return Ending::UnmappedAddress;
                }
                _ => self.traces.unmapped_frame(address),
            };
            self.frames.push(frame);
        }
        ending
    }

    /// Counts the stack trace in `self.frames`.
    fn enter(&mut self, process: usize, tid: u32, thread_name: Comm, class: Class, ticks: u64) {
        if let Class::Ended(ending) = class
            && ending != Ending::Complete
        {
            let marker = self.traces.marker_frame(Marker::Truncated(ending));
            self.frames.push(marker);
        }
        if self.frames.is_empty() {
            let marker = if self.wanted.kernel {
                Marker::UserFramesDropped
            } else {
                Marker::KernelFramesDropped
            };
            let marker = self.traces.marker_frame(marker);
            self.frames.push(marker);
        }
        let sample = SampleKey {
            tid,
            thread_name,
            stack: self.traces.stack(&self.frames),
        };
        let process = &mut self.processes[process];
        *process.samples.entry(sample).or_default() += ticks;
        process.completeness.add(class, ticks);
    }

    fn owned(&mut self, thread: &Thread, table: &mut ProcessTable) -> Owned {
        let (process, key) = self.owner(thread, table);
        Owned {
            process,
            key,
            space: key.map(|key| table.address_space(key, thread.first_seen_ns)),
        }
    }

    /// The process of a thread, as a position in `self.processes`.
    fn owner(&mut self, thread: &Thread, table: &mut ProcessTable) -> (usize, Option<ProcessKey>) {
        let comm = Comm::from_words(thread.process_comm);
        let owner = if thread.key.pid_tgid >> 32 == 0 {
            Owner::Idle
        } else if thread.caller_pid == 0 {
            Owner::Outside(comm)
        } else {
            Owner::Known(table.find(&Sighting {
                pid: thread.caller_pid,
                start_time_ns: thread.process_start_boottime_ns,
                time_ns: thread.first_seen_ns,
                leader_comm: comm,
            }))
        };
        let next = self.processes.len();
        let position = *self.owners.entry(owner).or_insert(next);
        let key = match owner {
            Owner::Known(key) => Some(key),
            Owner::Idle | Owner::Outside(_) => None,
        };
        if position == next {
            self.processes.push(SampledProcess {
                pid: thread.caller_pid,
                outside: matches!(owner, Owner::Outside(_)),
                comm: if owner == Owner::Idle {
                    Comm::new(b"swapper")
                } else {
                    comm
                },
                exe: None,
                cgroup: None,
                start_boottime_ns: thread.process_start_boottime_ns,
                samples: HashMap::new(),
                completeness: Completeness::default(),
                located: Located::of(position),
                key,
            });
        }
        if let Some(key) = key {
            self.refresh(position, key, table);
        }
        (position, key)
    }

    /// Copies what may have changed since the process was last seen.
    fn refresh(&mut self, position: usize, key: ProcessKey, table: &mut ProcessTable) {
        let seen = &mut self.processes[position];
        if let Some(process) = table.process(key) {
            seen.comm = process.comm();
            if let Some(exe) = process.exe() {
                let exe = exe.to_string_lossy();
                if seen.exe.as_deref() != Some(&*exe) {
                    seen.exe = Some(exe.into_owned());
                }
            }
        }
        if self.cgroups && seen.cgroup.is_none() {
            seen.cgroup = table
                .cgroup(key)
                .map(|path| String::from_utf8_lossy(path).into_owned());
        }
    }

    /// Copies the last names of all processes from the table.
    pub fn refresh_all(&mut self, table: &mut ProcessTable) {
        let known: Vec<_> = self
            .owners
            .iter()
            .filter_map(|(owner, position)| match owner {
                Owner::Known(key) => Some((*position, *key)),
                _ => None,
            })
            .collect();
        for (position, key) in known {
            self.refresh(position, key, table);
        }
    }
}

/// What a copy takes while it waits.
fn waiting_bytes(words: &[u64]) -> u64 {
    (size_of::<WaitingCopy>() + size_of_val(words)) as u64
}

/// Tells which files a walked stack went through.
fn note_use(unwinding: &mut Unwinding, addresses: &[u64], space: &AddressSpace) {
    for address in addresses {
        if let Some(mapping) = space.at(*address)
            && let Backing::File(file) = &mapping.backing
        {
            unwinding.used(file.id);
        }
    }
}

/// The address to look up for a frame: the interrupted one as it is; of a
/// caller, which is known by its return address, the call before that.
fn at_call(address: u64, depth: usize) -> u64 {
    if depth == 0 {
        address
    } else {
        address.wrapping_sub(1)
    }
}
