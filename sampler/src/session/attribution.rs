//! Whose sample it is, and which mapping each of its addresses lies in.

use std::collections::HashMap;

use sampler_common::{Ending, Region, Thread};

use super::ledger::{Class, Completeness};
use super::traces::{Marker, Traces};
use crate::process::{Comm, ProcessKey, ProcessTable, Sighting};

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
}

impl Attribution {
    /// An empty one.
    pub fn new(wanted: WantedFrames, cgroups: bool) -> Self {
        Self {
            wanted,
            cgroups,
            owners: HashMap::new(),
            processes: Vec::new(),
            traces: Traces::default(),
            frames: Vec::new(),
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

    /// Adds what one CPU counted in one generation.
    pub fn add(&mut self, region: &Region, table: &mut ProcessTable) {
        let mut owners: Vec<Option<(usize, Option<ProcessKey>)>> =
            vec![None; region.threads().len()];
        for count in region.counts() {
            let Some(thread) = region.threads().get(count.thread as usize) else {
                continue;
            };
            let (process, key) =
                *owners[count.thread as usize].get_or_insert_with(|| self.owner(thread, table));
            let user = region.stack(count.user_stack);
            let kernel = region.stack(count.kernel_stack);
            let class = self.trace(user, kernel, thread, key.map(|key| (key, &*table)));
            let sample = SampleKey {
                tid: thread.caller_tid,
                thread_name: Comm::from_words(thread.key.comm),
                stack: self.traces.stack(&self.frames),
            };
            let process = &mut self.processes[process];
            *process.samples.entry(sample).or_default() += count.ticks;
            process.completeness.add(class, count.ticks);
        }
    }

    /// Puts the located frames of a stack trace into `self.frames`.
    fn trace(
        &mut self,
        user: Option<(&[u64], Ending)>,
        kernel: Option<(&[u64], Ending)>,
        thread: &Thread,
        process: Option<(ProcessKey, &ProcessTable)>,
    ) -> Class {
        self.frames.clear();
        if let Some((addresses, _)) = kernel {
            for (depth, address) in addresses.iter().enumerate() {
                let frame = self.traces.kernel_frame(at_call(*address, depth));
                self.frames.push(frame);
            }
        }
        let user_ending = user.map(|(addresses, ending)| {
            if let Some((key, table)) = process {
                return self.locate(addresses, ending, thread, key, table);
            }
            for (depth, address) in addresses.iter().enumerate() {
                let frame = self.traces.unmapped_frame(at_call(*address, depth));
                self.frames.push(frame);
            }
            ending
        });
        let class = Class::of(user_ending, kernel.map(|(_, ending)| ending));
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
        class
    }

    /// Locates the frames of a user half; returns how it really ended. A
    /// caller outside every executable mapping is none: what was taken for a
    /// frame pointer was something else.
    fn locate(
        &mut self,
        addresses: &[u64],
        ending: Ending,
        thread: &Thread,
        process: ProcessKey,
        table: &ProcessTable,
    ) -> Ending {
        let time_ns = thread.first_seen_ns;
        for (depth, address) in addresses.iter().enumerate() {
            let address = at_call(*address, depth);
            let frame = match table.locate(process, time_ns, address) {
                Some(mapping) => self.traces.mapped_frame(&mapping, address),
                None if depth > 0 && table.is_known_at(process, time_ns) => {
                    return Ending::UnmappedAddress;
                }
                None => self.traces.unmapped_frame(address),
            };
            self.frames.push(frame);
        }
        ending
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

/// The address to look up for a frame: the interrupted one as it is; of a
/// caller, which is known by its return address, the call before that.
fn at_call(address: u64, depth: usize) -> u64 {
    if depth == 0 {
        address
    } else {
        address.wrapping_sub(1)
    }
}
