//! `index.json`: what was recorded, what was lost, what it cost, and one entry
//! for each file.
//!
//! Stable: later versions add fields and change the meaning of none.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sampler_common::{Ending, Outcome};
use serde::Serialize;

use crate::probe::RuleCounters;
use crate::session::{
    BPF_NS_METHOD, Completeness, Cost, FrameCounts, JitCounts, Ledger, Lifecycle, TableCounts,
    Verified,
};
use crate::symbolize::{JitStats, Stats};

/// The whole index.
#[derive(Debug, Clone, Serialize)]
pub struct Index {
    /// Version of the profiler.
    pub sampler: &'static str,
    /// Where.
    pub host: HostIndex,
    /// What ticked.
    pub event: &'static str,
    /// How often, in Hz.
    pub frequency_hz: u64,
    /// When the timers started, RFC 3339.
    pub start: String,
    /// How long they ran.
    pub duration_ns: u64,
    /// Where every tick went.
    pub ledger: LedgerIndex,
    /// How complete the stacks are.
    pub stacks: StackIndex,
    /// How many frames have names.
    pub frames: FrameIndex,
    /// What was heard of processes.
    pub lifecycle: LifecycleIndex,
    /// What the profiler itself cost.
    pub cost: CostIndex,
    /// What became of the unwind tables.
    pub unwind_tables: TablesIndex,
    /// What named code that was compiled at run time.
    pub jit: JitIndex,
    /// What became of the children that parse files.
    pub parsers: ParsersIndex,
    /// Only if the walk was to be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationIndex>,
    /// One entry for each file.
    pub files: Vec<FileIndex>,
    /// Only if not all files could be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<UnfinishedIndex>,
}

/// What became of a recording whose files could not all be written: `files`
/// are those that are whole.
#[derive(Debug, Clone, Serialize)]
pub struct UnfinishedIndex {
    /// What went wrong.
    pub error: String,
    /// Files of an older recording that this one was to replace and that are
    /// still there.
    pub older_files: Vec<String>,
}

/// The host.
#[derive(Debug, Clone, Serialize)]
pub struct HostIndex {
    /// Its name.
    pub name: String,
    /// Release of its kernel.
    pub kernel: String,
    /// CPUs online at the start.
    pub cpus: u32,
    /// Its architecture.
    pub arch: &'static str,
}

/// The ledger: `ticks` = `counted` + `idle` + `out_of_scope` + all `lost`.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerIndex {
    /// Counted first thing in the program.
    pub ticks: u64,
    /// Enabled time of the events times frequency; null without a rate.
    pub expected_ticks: Option<u64>,
    /// Expected, and never seen.
    pub not_delivered: Option<u64>,
    /// Of those, what idle CPUs account for.
    pub not_delivered_idle: Option<u64>,
    /// In the files.
    pub counted: u64,
    /// In the idle loop.
    pub idle: u64,
    /// Not what was asked for.
    pub out_of_scope: u64,
    /// Lost, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// Time that the hypervisor took from this host's CPUs.
    pub steal_ns: u64,
    /// CPU by CPU.
    pub cpus: Vec<CpuIndex>,
}

/// One CPU's part.
#[derive(Debug, Clone, Serialize)]
pub struct CpuIndex {
    /// Which.
    pub cpu: u32,
    /// As in the ledger.
    pub ticks: u64,
    /// As in the ledger.
    pub expected_ticks: Option<u64>,
    /// As in the ledger.
    pub not_delivered: Option<u64>,
    /// As in the ledger.
    pub not_delivered_idle: Option<u64>,
    /// Time that the hypervisor took from it.
    pub steal_ns: u64,
}

/// Stacks by class: their sum is the number of samples.
#[derive(Debug, Clone, Serialize)]
pub struct StackIndex {
    /// The outermost frame was reached.
    pub complete: u64,
    /// Cut, by reason.
    pub truncated: BTreeMap<&'static str, u64>,
    /// Kernel threads, which have no user half.
    pub kernel_only: u64,
}

/// Frames; each counts once for each sample that it is in.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FrameIndex {
    /// With a name.
    pub named: u64,
    /// Without.
    pub unnamed: u64,
}

/// What the kernel told of processes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LifecycleIndex {
    /// Records read.
    pub records: u64,
    /// Records lost.
    pub lost_records: u64,
    /// Files that could not be opened in time.
    pub unpinned_files: u64,
    /// Children that should have come into scope but found no room.
    pub scope_overflows: u64,
}

/// The profiler's own cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CostIndex {
    /// Its CPU time.
    pub cpu_ns: u64,
    /// That of finding names.
    pub naming_cpu_ns: u64,
    /// CPU time of its programs in the kernel.
    pub bpf_ns: u64,
    /// How that was measured.
    pub bpf_ns_method: &'static str,
    /// How often the sampling program ran.
    pub bpf_runs: u64,
    /// Its memory, files excluded.
    pub peak_rss_bytes: u64,
    /// Its memory that files back, and mapped maps.
    pub file_backed_rss_bytes: u64,
    /// Memory of its maps in the kernel.
    pub bpf_map_bytes: u64,
    /// What its memory, files excluded, and its maps were to remain within.
    pub memory_budget_bytes: u64,
    /// How walks by tables found the rules for their frames.
    pub walk: WalkIndex,
    /// From stop to the last profile in place.
    pub finish_ns: u64,
}

/// Unwind tables, as far as memory had room for them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct TablesIndex {
    /// Built, those included that were built again.
    pub built: u64,
    /// Taken from the cache: an earlier recording had built them.
    pub cached: u64,
    /// The rows of both.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be read, or whose tables are too large.
    pub refused: u64,
    /// How often a table found no room in the kernel.
    pub not_loaded: u64,
    /// Tables that went from there to make room for others.
    pub evicted: u64,
    /// Tables that found no room in user space either.
    pub dropped: u64,
}

/// What named code that was compiled at run time: perf maps and jitdumps.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct JitIndex {
    /// Programs with samples in such code.
    pub programs: u64,
    /// Those of them for which a file was found.
    pub programs_with_files: u64,
    /// Files that were read.
    pub files: u64,
    /// Files that were not, because they are too large.
    pub refused_files: u64,
    /// Lines and records in them that made no sense.
    pub bad_lines: u64,
}

/// Children that parse files and have ended over one.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ParsersIndex {
    /// How often one ended, or was ended, over a file. The file was then tried
    /// without its debug information.
    pub deaths: u64,
    /// Files that took longer than they may.
    pub timed_out_files: u64,
    /// Files that were given up: their frames have no names.
    pub given_up_files: u64,
    /// Files with debug information that could not be used, or not all of it:
    /// their frames lack source lines.
    pub files_without_debug_info: u64,
    /// Files with debug information that lies in part in a supplement of `dwz`,
    /// which is not read: functions inlined into others may be `[inlined]`.
    pub files_without_supplement: u64,
    /// Addresses that needed no parser: an earlier recording had looked them up.
    pub cached_addresses: u64,
}

/// Walks of the kernel's side that were checked by another: `checked` is the
/// sum of all other walks but `dropped`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct VerificationIndex {
    /// Walks that were compared.
    pub checked: u64,
    /// The same frames to the same end.
    pub agreed: u64,
    /// A frame differs.
    pub disagreed: u64,
    /// The same frames up to code that framehop cannot walk.
    pub framehop_failed: u64,
    /// The same frames up to the end of the copy.
    pub copy_too_short: u64,
    /// The same frames up to where the kernel's side gave up.
    pub truncated: u64,
    /// Not compared, for want of room or time.
    pub dropped: u64,
    /// Callers that both walks found, in all walks.
    pub callers_agreed: u64,
}

/// Frames that were walked by tables, by how their rule was found.
#[expect(clippy::struct_field_names, reason = "they are the names in the file")]
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WalkIndex {
    /// In the CPU's cache, next to that of the frame before.
    pub frames_in_order: u64,
    /// Elsewhere in the cache.
    pub frames_by_index: u64,
    /// Not in the cache.
    pub frames_missed: u64,
}

/// One file.
#[derive(Debug, Clone, Serialize)]
pub struct FileIndex {
    /// Its name in the directory.
    pub file: String,
    /// Its process; null for a group.
    pub pid: Option<u32>,
    /// Its process's name, or the group's.
    pub comm: String,
    /// The program that the process ran last, if that is known.
    pub exe: Option<String>,
    /// When the process started, RFC 3339; null for a group.
    pub start_time: Option<String>,
    /// Samples in it.
    pub samples: u64,
    /// The CPU time that they stand for.
    pub cpu_ns: u64,
    /// How complete the stacks are.
    pub stacks: StackIndex,
    /// How many frames have names.
    pub frames: FrameIndex,
}

impl LedgerIndex {
    /// From the ledger.
    pub fn new(ledger: &Ledger) -> Self {
        Self {
            ticks: ledger.ticks,
            expected_ticks: ledger.delivery.map(|delivery| delivery.expected_ticks),
            not_delivered: ledger.delivery.map(|delivery| delivery.not_delivered),
            not_delivered_idle: ledger.delivery.map(|delivery| delivery.not_delivered_idle),
            counted: ledger.outcome(Outcome::Counted),
            idle: ledger.outcome(Outcome::Idle),
            out_of_scope: ledger.outcome(Outcome::OutOfScope),
            lost: Outcome::LOST
                .iter()
                .map(|reason| (reason.name(), ledger.outcome(*reason)))
                .collect(),
            steal_ns: ledger.steal_ns,
            cpus: ledger
                .cpus
                .iter()
                .map(|cpu| CpuIndex {
                    cpu: cpu.cpu,
                    ticks: cpu.ticks,
                    expected_ticks: cpu.delivery.map(|delivery| delivery.expected_ticks),
                    not_delivered: cpu.delivery.map(|delivery| delivery.not_delivered),
                    not_delivered_idle: cpu.delivery.map(|delivery| delivery.not_delivered_idle),
                    steal_ns: cpu.steal_ns,
                })
                .collect(),
        }
    }
}

impl From<Completeness> for StackIndex {
    fn from(stacks: Completeness) -> Self {
        Self {
            complete: stacks.complete,
            truncated: Ending::TRUNCATED
                .iter()
                .zip(stacks.truncated)
                .map(|(reason, samples)| (reason.name(), samples))
                .collect(),
            kernel_only: stacks.kernel_only,
        }
    }
}

impl From<FrameCounts> for FrameIndex {
    fn from(frames: FrameCounts) -> Self {
        Self {
            named: frames.named,
            unnamed: frames.unnamed,
        }
    }
}

impl From<Lifecycle> for LifecycleIndex {
    fn from(lifecycle: Lifecycle) -> Self {
        Self {
            records: lifecycle.records,
            lost_records: lifecycle.lost_records,
            unpinned_files: lifecycle.unpinned_files,
            scope_overflows: lifecycle.scope_overflows,
        }
    }
}

impl From<&Verified> for VerificationIndex {
    fn from(found: &Verified) -> Self {
        Self {
            checked: found.checked(),
            agreed: found.agreed,
            disagreed: found.disagreed,
            framehop_failed: found.framehop_failed,
            copy_too_short: found.copy_too_short,
            truncated: found.truncated,
            dropped: found.dropped,
            callers_agreed: found.callers_agreed,
        }
    }
}

impl CostIndex {
    /// With the time that finishing took.
    pub fn new(cost: Cost, finish_ns: u64) -> Self {
        Self {
            cpu_ns: cost.cpu_ns,
            naming_cpu_ns: cost.naming_cpu_ns,
            bpf_ns: cost.bpf_ns,
            bpf_ns_method: BPF_NS_METHOD,
            bpf_runs: cost.bpf_runs,
            peak_rss_bytes: cost.peak_rss_bytes,
            file_backed_rss_bytes: cost.file_backed_rss_bytes,
            bpf_map_bytes: cost.bpf_map_bytes,
            memory_budget_bytes: cost.memory_budget_bytes,
            walk: cost.rules.into(),
            finish_ns,
        }
    }
}

impl ParsersIndex {
    /// From what naming and building of tables counted.
    pub fn new(stats: Stats, tables: TableCounts) -> Self {
        Self {
            cached_addresses: stats.kept,
            deaths: stats.parser_deaths + tables.builder_deaths,
            timed_out_files: stats.timed_out_files,
            given_up_files: stats.given_up_files,
            files_without_debug_info: stats.files_without_debug_info,
            files_without_supplement: stats.files_without_supplement,
        }
    }
}

impl From<TableCounts> for TablesIndex {
    fn from(tables: TableCounts) -> Self {
        Self {
            built: tables.built,
            cached: tables.cached,
            rows: tables.rows,
            bytes: tables.bytes,
            refused: tables.refused,
            not_loaded: tables.not_loaded,
            evicted: tables.evicted,
            dropped: tables.dropped,
        }
    }
}

impl JitIndex {
    /// From what was found and what was made of it.
    pub fn new(found: JitCounts, read: JitStats) -> Self {
        Self {
            programs: found.programs,
            programs_with_files: found.programs_with_files,
            files: read.files,
            refused_files: read.refused_files,
            bad_lines: read.bad_lines,
        }
    }
}

impl From<RuleCounters> for WalkIndex {
    fn from(rules: RuleCounters) -> Self {
        Self {
            frames_in_order: rules.in_order,
            frames_by_index: rules.by_index,
            frames_missed: rules.missed,
        }
    }
}

/// A moment as RFC 3339, UTC, to the millisecond.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A moment given in nanoseconds since 1970.
pub fn from_unix_ns(unix_ns: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_ns.max(0) as u64)
}

/// An index of nothing, for tests.
#[cfg(test)]
pub(super) mod example {
    use super::*;

    pub fn index() -> Index {
        let stacks = Completeness::default();
        Index {
            sampler: "0",
            host: HostIndex {
                name: "host".to_owned(),
                kernel: "6.1".to_owned(),
                cpus: 1,
                arch: "x86_64",
            },
            event: "cpu-clock",
            frequency_hz: 99,
            start: rfc3339(UNIX_EPOCH),
            duration_ns: 0,
            ledger: LedgerIndex::new(&Ledger::new(&[], Some(99))),
            stacks: stacks.into(),
            frames: FrameCounts::default().into(),
            lifecycle: LifecycleIndex {
                records: 0,
                lost_records: 0,
                unpinned_files: 0,
                scope_overflows: 0,
            },
            cost: CostIndex {
                cpu_ns: 0,
                naming_cpu_ns: 0,
                bpf_ns: 0,
                bpf_ns_method: BPF_NS_METHOD,
                bpf_runs: 0,
                peak_rss_bytes: 0,
                file_backed_rss_bytes: 0,
                bpf_map_bytes: 0,
                memory_budget_bytes: 0,
                walk: RuleCounters::default().into(),
                finish_ns: 0,
            },
            unwind_tables: TableCounts::default().into(),
            jit: JitIndex::new(JitCounts::default(), JitStats::default()),
            parsers: ParsersIndex::new(Stats::default(), TableCounts::default()),
            verification: None,
            files: Vec::new(),
            unfinished: None,
        }
    }

    pub fn file(name: &str) -> FileIndex {
        FileIndex {
            file: name.to_owned(),
            pid: None,
            comm: String::new(),
            exe: None,
            start_time: None,
            samples: 0,
            cpu_ns: 0,
            stacks: Completeness::default().into(),
            frames: FrameCounts::default().into(),
        }
    }
}
