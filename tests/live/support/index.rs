//! `index.json` as its contract states it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::verdict::{Verdict, ensure};

#[derive(Deserialize)]
pub struct Index {
    pub sampler: String,
    pub host: Host,
    pub event: String,
    pub frequency_hz: u64,
    pub start: String,
    pub duration_ns: u64,
    pub ledger: Ledger,
    pub stacks: Stacks,
    pub frames: Frames,
    pub lifecycle: Lifecycle,
    pub cost: Cost,
    pub unwind_tables: Tables,
    pub jit: Jit,
    pub parsers: Parsers,
    pub verification: Option<Verification>,
    pub files: Vec<File>,
}

/// Children that have ended over a file.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Parsers {
    pub deaths: u64,
    pub timed_out_files: u64,
    pub given_up_files: u64,
    pub files_without_debug_info: u64,
    pub files_without_supplement: u64,
}

/// What named code that was compiled at run time.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Jit {
    pub programs: u64,
    pub programs_with_files: u64,
    pub files: u64,
    pub refused_files: u64,
    pub bad_lines: u64,
}

#[derive(Deserialize)]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub cpus: u64,
    pub arch: String,
}

#[derive(Deserialize)]
pub struct Ledger {
    pub ticks: u64,
    pub expected_ticks: Option<u64>,
    pub not_delivered: Option<u64>,
    pub not_delivered_idle: Option<u64>,
    pub counted: u64,
    pub idle: u64,
    pub out_of_scope: u64,
    pub lost: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
pub struct Stacks {
    pub complete: u64,
    pub truncated: BTreeMap<String, u64>,
    pub kernel_only: u64,
}

#[derive(Deserialize)]
pub struct Frames {
    pub named: u64,
    pub unnamed: u64,
}

#[derive(Deserialize)]
pub struct Lifecycle {
    pub records: u64,
    pub lost_records: u64,
    pub unpinned_files: u64,
}

#[derive(Deserialize)]
pub struct Cost {
    pub cpu_ns: u64,
    pub bpf_ns: u64,
    pub bpf_ns_method: String,
    pub bpf_runs: u64,
    pub peak_rss_bytes: u64,
    pub file_backed_rss_bytes: u64,
    pub bpf_map_bytes: u64,
    pub memory_budget_bytes: u64,
    pub finish_ns: u64,
}

#[derive(Deserialize)]
pub struct Tables {
    pub built: u64,
    pub cached: u64,
    pub rows: u64,
    pub bytes: u64,
    pub refused: u64,
    pub not_loaded: u64,
    pub evicted: u64,
    pub dropped: u64,
}

#[derive(Deserialize)]
pub struct Verification {
    pub checked: u64,
    pub agreed: u64,
    pub disagreed: u64,
    pub framehop_failed: u64,
    pub copy_too_short: u64,
    pub truncated: u64,
    pub dropped: u64,
    pub callers_agreed: u64,
}

#[derive(Deserialize)]
pub struct File {
    #[serde(rename = "file")]
    pub name: String,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub exe: Option<String>,
    pub start_time: Option<String>,
    pub samples: u64,
    pub cpu_ns: u64,
    pub stacks: Stacks,
    pub frames: Frames,
}

/// Every reason for which a tick is lost that these trials provoke.
pub const LOST: &[&str] = &["threads_full", "counts_full", "stacks_full", "no_region"];

/// Every reason for which a stack is cut that these trials provoke.
pub const TRUNCATED: &[&str] = &[
    "depth_limit",
    "kernel_depth_limit",
    "kernel_stack_unavailable",
    "unreadable_stack",
    "broken_chain",
    "unmapped_address",
];

impl Ledger {
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }

    /// What the kernel never ran the program for, idle CPUs aside.
    pub fn not_delivered_rest(&self) -> Verdict<u64> {
        let all = self
            .not_delivered
            .ok_or("not_delivered is null for a timer")?;
        let idle = self
            .not_delivered_idle
            .ok_or("not_delivered_idle is null for a timer")?;
        all.checked_sub(idle).ok_or_else(|| {
            format!("not_delivered_idle {idle} is not within not_delivered {all}").into()
        })
    }

    /// One outcome per tick, and nothing else.
    fn check(&self) -> Verdict {
        let outcomes = self.counted + self.idle + self.out_of_scope + self.lost_total();
        ensure!(
            self.ticks == outcomes,
            "{} ticks, but {outcomes} outcomes ({} counted, {} idle, {} out of scope, {:?} lost)",
            self.ticks,
            self.counted,
            self.idle,
            self.out_of_scope,
            self.lost
        );
        for reason in LOST {
            ensure!(
                self.lost.contains_key(*reason),
                "ledger.lost has no {reason}"
            );
        }
        let expected = self
            .expected_ticks
            .ok_or("expected_ticks is null for a timer")?;
        let missing = expected.saturating_sub(self.ticks);
        ensure!(
            self.not_delivered == Some(missing),
            "{expected} ticks expected, {} seen: not_delivered is {:?}",
            self.ticks,
            self.not_delivered
        );
        self.not_delivered_rest().map(|_| ())
    }
}

impl Stacks {
    pub fn total(&self) -> u64 {
        self.complete + self.kernel_only + self.truncated.values().sum::<u64>()
    }

    pub fn truncated(&self, reason: &str) -> u64 {
        self.truncated.get(reason).copied().unwrap_or(0)
    }

    fn check(&self, samples: u64, whose: &str) -> Verdict {
        ensure!(
            self.total() == samples,
            "{whose}: {samples} samples, but {} stacks by completeness",
            self.total()
        );
        for reason in TRUNCATED {
            ensure!(
                self.truncated.contains_key(*reason),
                "{whose}: stacks.truncated has no {reason}"
            );
        }
        Ok(())
    }
}

impl Verification {
    fn check(&self) -> Verdict {
        let classes = self.agreed
            + self.disagreed
            + self.framehop_failed
            + self.copy_too_short
            + self.truncated;
        ensure!(
            self.checked == classes,
            "{} walks were checked, but {classes} have a class",
            self.checked
        );
        Ok(())
    }
}

impl File {
    /// The ending of its name.
    fn format(&self) -> &str {
        self.name
            .rsplit_once('.')
            .map_or("none", |(_, ending)| ending)
    }
}

impl Index {
    pub fn parse(json: &[u8]) -> Verdict<Self> {
        let index: Self = serde_json::from_slice(json)
            .map_err(|error| format!("index.json breaks its contract: {error}"))?;
        index.check()?;
        Ok(index)
    }

    /// The sums that the contract promises, whatever was recorded.
    fn check(&self) -> Verdict {
        self.ledger.check()?;
        let tables = &self.unwind_tables;
        ensure!(
            tables.bytes >= 4 * tables.rows && tables.rows >= tables.built + tables.cached,
            "{} tables of {} rows take {} bytes",
            tables.built,
            tables.rows,
            tables.bytes
        );
        ensure!(
            self.jit.programs >= self.jit.programs_with_files
                && self.jit.files + self.jit.refused_files <= 2 * self.jit.programs_with_files,
            "{:?}",
            self.jit
        );
        if let Some(verification) = &self.verification {
            verification.check()?;
        }
        self.stacks.check(self.ledger.counted, "the whole run")?;
        for file in &self.files {
            file.stacks.check(file.samples, &file.name)?;
            ensure!(file.samples > 0, "{} is listed without a sample", file.name);
        }
        let formats: BTreeSet<&str> = self.files.iter().map(File::format).collect();
        for format in &formats {
            self.check_format(format)?;
        }
        ensure!(
            !formats.is_empty() || self.ledger.counted == 0,
            "{} samples and no file",
            self.ledger.counted
        );
        for (what, text) in [
            ("sampler", &self.sampler),
            ("host.name", &self.host.name),
            ("host.kernel", &self.host.kernel),
            ("host.arch", &self.host.arch),
            ("cost.bpf_ns_method", &self.cost.bpf_ns_method),
        ] {
            ensure!(!text.is_empty(), "{what} is empty");
        }
        ensure!(self.event == "cpu-clock", "the event is {:?}", self.event);
        ensure!(self.host.cpus > 0, "a host without CPUs");
        for (what, number) in [
            ("cost.cpu_ns", self.cost.cpu_ns),
            ("cost.peak_rss_bytes", self.cost.peak_rss_bytes),
            ("cost.bpf_map_bytes", self.cost.bpf_map_bytes),
            ("cost.finish_ns", self.cost.finish_ns),
        ] {
            ensure!(number > 0, "{what} is 0");
        }
        ensure!(
            self.cost.bpf_runs >= self.ledger.ticks
                && (self.cost.bpf_runs == 0) == (self.cost.bpf_ns == 0),
            "{} ns of {} runs at {} ticks",
            self.cost.bpf_ns,
            self.cost.bpf_runs,
            self.ledger.ticks
        );
        ensure!(self.duration_ns > 0, "a recording that took no time");
        ensure!(
            self.start.len() >= 20 && self.start.as_bytes()[10] == b'T',
            "start {:?} is not RFC 3339",
            self.start
        );
        Ok(())
    }

    /// Every format holds the whole recording.
    fn check_format(&self, format: &str) -> Verdict {
        let sum = |part: fn(&File) -> u64| -> u64 {
            let files = self.files.iter().filter(|file| file.format() == format);
            files.map(part).sum()
        };
        for (what, whole, parts) in [
            ("samples", self.ledger.counted, sum(|f| f.samples)),
            ("complete", self.stacks.complete, sum(|f| f.stacks.complete)),
            (
                "kernel_only",
                self.stacks.kernel_only,
                sum(|f| f.stacks.kernel_only),
            ),
            ("named frames", self.frames.named, sum(|f| f.frames.named)),
            (
                "unnamed frames",
                self.frames.unnamed,
                sum(|f| f.frames.unnamed),
            ),
        ] {
            ensure!(
                whole == parts,
                "{what}: {whole} in the run, {parts} in its {format} files"
            );
        }
        Ok(())
    }
}
