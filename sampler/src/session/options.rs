//! What a recording is asked to do.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sampler_common::Limits;

use super::attribution::WantedFrames;
use super::budget::Needs;
use crate::probe::Event;
use crate::probe::host::cgroup::Cgroup;
use crate::process::Comm;
use crate::symbolize::{DebugServers, Waiting};

/// Which processes a recording is about.
#[derive(Debug)]
pub enum Scope {
    /// All of this host.
    Host,
    /// These, with all of their threads.
    Processes {
        /// Their IDs, as the caller's pid namespace has them.
        pids: Vec<u32>,
        /// And all of their descendants.
        children: bool,
    },
    /// Those whose thread-group leader has this name.
    Comm(Comm),
    /// Those in this cgroup or below it.
    Cgroup(Cgroup),
    /// A command that is started for the recording, with its descendants.
    Command(Vec<OsString>),
}

impl Scope {
    /// Whether processes may come into it.
    pub const fn may_grow(&self) -> bool {
        !matches!(
            self,
            Self::Processes {
                children: false,
                ..
            }
        )
    }
}

/// How user stacks are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnwindBy {
    /// From frame pointer to frame pointer.
    FramePointers,
    /// By the files' own unwind tables.
    #[default]
    Tables,
}

impl UnwindBy {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FramePointers => "frame-pointers",
            Self::Tables => "tables",
        }
    }
}

impl fmt::Display for UnwindBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a way to walk stacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such way; there are: frame-pointers, tables")]
pub struct UnknownUnwindBy;

impl FromStr for UnwindBy {
    type Err = UnknownUnwindBy;

    fn from_str(name: &str) -> Result<Self, UnknownUnwindBy> {
        [Self::FramePointers, Self::Tables]
            .into_iter()
            .find(|way| way.name() == name)
            .ok_or(UnknownUnwindBy)
    }
}

impl Options {
    /// What the recording needs room for, on a host with so many possible CPUs.
    pub fn needs(&self, possible_cpus: u32) -> Needs {
        let follows_forks = matches!(
            self.scope,
            Scope::Processes { children: true, .. } | Scope::Command(_)
        );
        Needs {
            cpus: possible_cpus,
            tracks_processes: matches!(self.scope, Scope::Processes { .. } | Scope::Command(_)),
            follows_forks,
            tables: self.wants_tables(),
            checks: self.wants_tables() && self.check_every > 0,
        }
    }

    /// Whether the kernel's side needs unwind tables.
    pub fn wants_tables(&self) -> bool {
        cfg!(target_arch = "x86_64") && self.wanted.user && self.unwind == UnwindBy::Tables
    }
}

/// Everything that shapes a recording.
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
#[derive(Debug)]
pub struct Options {
    /// Who.
    pub scope: Scope,
    /// What ticks.
    pub event: Event,
    /// How often, on each CPU, in Hz.
    pub frequency_hz: u64,
    /// For how long at most.
    pub duration: Option<Duration>,
    /// Which frames.
    pub wanted: WantedFrames,
    /// Whether the cgroup of each process is wanted.
    pub cgroups: bool,
    /// How user stacks are walked.
    pub unwind: UnwindBy,
    /// One stack in this many is checked by another walk; 0 for none.
    pub check_every: u32,
    /// Whether frames are named.
    pub names: bool,
    /// Table sizes and depths.
    pub limits: Limits,
    /// The memory budget, in bytes; `None` for the default.
    pub memory_bytes: Option<u64>,
    /// Where what is worked out from files is kept for the next recording; `None`
    /// to keep nothing and take nothing.
    pub cache: Option<PathBuf>,
    /// The servers that are asked for debug files.
    pub debug_servers: Option<DebugServers>,
    /// Is told how far naming is, while the end of the recording waits for it.
    pub on_naming: fn(Waiting),
    /// Whether files are written where permissions do not allow it.
    pub overrides_permissions: bool,
    /// Time between two drains; `None` to go by the load.
    pub drain_interval: Option<Duration>,
    /// For tests: behave as if the kernel refused its stack.
    pub fault_kernel_stack: bool,
}

impl Options {
    /// When a recording that began at `started` is over; `None` when that is
    /// not to be, or so late that the clock has no name for it.
    pub fn deadline(&self, started: Instant) -> Option<Instant> {
        started.checked_add(self.duration?)
    }
}

/// The limits of a recording of which nothing else is asked.
pub const DEFAULT_LIMITS: Limits = Limits {
    threads: sampler_common::THREADS as u32,
    counts: sampler_common::COUNTS as u32,
    words: sampler_common::ARENA_WORDS as u32,
    user_frames: sampler_common::MAX_USER_FRAMES,
    kernel_frames: sampler_common::MAX_KERNEL_FRAMES,
    regions: u32::MAX,
    copy_bytes: sampler_common::MAX_COPY_BYTES,
    // As many as the budget has room for.
    copy_chunks: u32::MAX,
};

/// Options of which nothing special is asked.
#[cfg(test)]
pub(super) fn example() -> Options {
    Options {
        scope: Scope::Host,
        event: Event::CpuClock,
        frequency_hz: 99,
        duration: None,
        wanted: WantedFrames {
            user: true,
            kernel: true,
        },
        cgroups: false,
        unwind: UnwindBy::default(),
        check_every: 0,
        names: true,
        limits: DEFAULT_LIMITS,
        memory_bytes: None,
        cache: None,
        debug_servers: None,
        on_naming: |_| (),
        overrides_permissions: false,
        drain_interval: None,
        fault_kernel_stack: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(duration: Option<Duration>) -> Option<Duration> {
        let options = Options {
            duration,
            ..example()
        };
        let started = Instant::now();
        options.deadline(started).map(|end| end - started)
    }

    #[test]
    fn a_recording_ends_when_its_time_is_up() {
        let minute = Duration::from_secs(60);
        assert_eq!(deadline(Some(minute)), Some(minute));
        assert_eq!(deadline(None), None);
    }

    #[test]
    fn a_time_beyond_the_clock_never_comes() {
        assert_eq!(deadline(Some(Duration::MAX)), None);
    }
}
