//! What a session ends in.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use super::attribution::{Attribution, SampledProcess};
use super::cost::{self, Cost};
use super::jit::JitCounts;
use super::ledger::{Completeness, Ledger};
use super::profiles::{ModuleIds, ProfileBuilder};
use super::traces::Program;
use super::unwinding::TableCounts;
use super::verification::Verified;
use crate::probe::host::boot::Boot;
use crate::probe::{Event, RuleCounters};
use crate::process::Refusal;
use crate::profile::Header;
use crate::symbolize::{Names, Stats, vdso_build_id};

/// What was heard from the kernel about processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// Records read.
    pub records: u64,
    /// Records that the kernel dropped, or that made no sense.
    pub lost_records: u64,
    /// Files that could not be opened while they were there.
    pub unpinned_files: u64,
    /// Children that should have come into scope but found no room.
    pub scope_overflows: u64,
}

/// A finished recording.
#[derive(Debug)]
pub struct Recording {
    /// What ticked.
    pub event: Event,
    /// How often, in Hz.
    pub frequency_hz: u64,
    /// CPUs that are possible on this host.
    pub cpus: u32,
    /// When the timers started.
    pub start: SystemTime,
    /// How long they ran, in nanoseconds.
    pub duration_ns: u64,
    /// When they stopped.
    pub stopped: Instant,
    /// Where every tick went.
    pub ledger: Ledger,
    /// What was heard of processes.
    pub lifecycle: Lifecycle,
    /// What became of the unwind tables; all zeros where there were none.
    pub tables: TableCounts,
    /// What became of the files that name code made at run time.
    pub jit: JitCounts,
    /// What the checks of the walk found, if they were asked for.
    pub verified: Option<Verified>,
    /// `CLOCK_REALTIME` minus `CLOCK_BOOTTIME`, in nanoseconds.
    pub boot_unix_ns: i64,
    /// Which boot of which kernel it was.
    pub boot: Boot,
    pub(super) attribution: Attribution,
    /// None if no names were wanted.
    pub(super) names: Option<Names>,
    pub(super) jit_refusals: HashMap<Program, Refusal>,
    pub(super) bpf_ns: u64,
    /// Stacks that were walked because their program was about to end.
    pub(super) departures: u64,
    pub(super) memory_budget_bytes: u64,
    pub(super) bpf_map_bytes: u64,
    pub(super) rules: RuleCounters,
}

impl Recording {
    /// The processes that have samples.
    pub fn processes(&self) -> &[SampledProcess] {
        self.attribution.processes()
    }

    /// How complete all stacks are.
    pub fn completeness(&self) -> Completeness {
        let mut sum = Completeness::default();
        for process in self.processes() {
            sum.merge(&process.completeness);
        }
        sum
    }

    /// What naming achieved.
    pub fn symbol_stats(&self) -> Stats {
        self.names.as_ref().map(Names::stats).unwrap_or_default()
    }

    /// The time that one sample stands for.
    pub fn period_ns(&self) -> u64 {
        1_000_000_000 / self.frequency_hz.max(1)
    }

    /// Builds the profiles.
    pub fn profiles(&self) -> ProfileBuilder<'_> {
        let start_unix_ns = self
            .start
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as i64);
        let period_ns = self.period_ns() as i64;
        ProfileBuilder::new(
            &self.attribution.traces,
            self.names.as_ref(),
            period_ns,
            ModuleIds {
                kernel: self.boot.kernel_build_id.clone(),
                vdso: vdso_build_id().map(|build_id| build_id.to_string()),
            },
            Header::cpu(period_ns, start_unix_ns, self.duration_ns as i64),
        )
    }

    /// Looks at how much memory is in use, for [`Self::cost`].
    pub fn look_at_memory(&self) {
        cost::rss_bytes();
    }

    /// What the profiler has cost until now.
    pub fn cost(&self) -> Cost {
        let [peak_rss_bytes, file_backed_rss_bytes] = cost::peak_bytes();
        Cost {
            cpu_ns: cost::own_cpu_ns(),
            naming_cpu_ns: self.names.as_ref().map_or(0, |names| names.stats().cpu_ns),
            bpf_ns: self.bpf_ns,
            bpf_runs: self.ledger.ticks + self.departures,
            peak_rss_bytes,
            file_backed_rss_bytes,
            memory_budget_bytes: self.memory_budget_bytes,
            bpf_map_bytes: self.bpf_map_bytes,
            rules: self.rules,
        }
    }
}
