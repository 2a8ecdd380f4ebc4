//! The kernel's own account of what its BPF programs cost: run time and runs
//! of each program, kept while `kernel.bpf_stats_enabled` is 1.
//!
//! Keeping it slows every BPF program of the host (two clock reads a run), so
//! it is on for one run of its own, never for a run whose duration counts.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// `BPF_PROG_TYPE_PERF_EVENT` of `linux/bpf.h`: the programs that take samples.
const PERF_EVENT: u64 = 7;

/// Statistics are on while this lives; then the switch is as it was before.
pub struct Enabled {
    before: String,
}

impl Enabled {
    /// Needs `CAP_SYS_ADMIN`.
    pub fn now() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).context(SWITCH)?;
        fs::write(SWITCH, "1").context(SWITCH)?;
        Ok(Self { before })
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim_end()) {
            eprintln!("warning: {SWITCH} stays 1: {error}");
        }
    }
}

/// Runs of a process's sampling programs and the time they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runs {
    count: u64,
    time_ns: u64,
}

impl Runs {
    /// Adds up the perf-event programs that process `pid` holds open.
    pub fn of_process(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}/fdinfo");
        let mut infos = Vec::new();
        for entry in fs::read_dir(&folder).context(folder)? {
            // A descriptor may be closed in between.
            infos.extend(fs::read_to_string(entry?.path()));
        }
        Ok(Self::sum(infos.iter().map(String::as_str)))
    }

    /// Several descriptors of one program count once.
    fn sum<'a>(infos: impl Iterator<Item = &'a str>) -> Self {
        let programs: BTreeMap<u64, Self> = infos.filter_map(parse).collect();
        programs
            .into_values()
            .fold(Self::default(), |sum, runs| Self {
                count: sum.count + runs.count,
                time_ns: sum.time_ns + runs.time_ns,
            })
    }

    /// What has come since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            count: self.count.saturating_sub(before.count),
            time_ns: self.time_ns.saturating_sub(before.time_ns),
        }
    }

    /// How many runs.
    pub fn count(self) -> u64 {
        self.count
    }

    /// Nanoseconds of one run on average; `None` when there was none.
    pub fn mean_ns(self) -> Option<f64> {
        (self.count > 0).then(|| self.time_ns as f64 / self.count as f64)
    }
}

/// The id and the runs of the program that an fdinfo describes, if it is one that samples.
fn parse(fdinfo: &str) -> Option<(u64, Runs)> {
    let field = |name: &str| {
        fdinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim().parse::<u64>().ok())?
        })
    };
    (field("prog_type")? == PERF_EVENT).then_some(())?;
    let runs = Runs {
        count: field("run_cnt")?,
        time_ns: field("run_time_ns")?,
    };
    Some((field("prog_id")?, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1064\nprog_type:\t7\nprog_jited:\t1\nprog_tag:\t3bb0\nmemlock:\t4096\nprog_id:\t41\nrun_time_ns:\t9000\nrun_cnt:\t3\nrecursion_misses:\t0\n";

    #[test]
    fn two_descriptors_of_one_program_count_once() {
        let runs = Runs::sum([PROGRAM, PROGRAM].into_iter());
        assert_eq!(runs.mean_ns(), Some(3_000.0));
        assert_eq!(runs.count, 3);
    }

    #[test]
    fn different_programs_add_up() {
        let other = PROGRAM.replace("prog_id:\t41", "prog_id:\t42");
        assert_eq!(Runs::sum([PROGRAM, &other].into_iter()).count, 6);
    }

    #[test]
    fn other_descriptors_and_other_kinds_of_programs_do_not_count() {
        let tracepoint = PROGRAM.replace("prog_type:\t7", "prog_type:\t5");
        let map = "pos:\t0\nmap_type:\t2\nkey_size:\t4\n";
        let runs = Runs::sum([map, "", &tracepoint].into_iter());
        assert_eq!(runs.mean_ns(), None);
    }
}
