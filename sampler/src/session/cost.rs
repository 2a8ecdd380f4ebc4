//! What the profiler itself costs.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::isolation;
use crate::probe::RuleCounters;

/// The most memory of this process and its children that was seen, that which no
/// file backs and that which one does, in bytes. A process has one each.
static PEAK_BYTES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// More than a status file is long.
const STATUS_BYTES: usize = 4096;

/// The profiler's own consumption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of this process and of the children that parse for it, user and
    /// system, in nanoseconds.
    pub cpu_ns: u64,
    /// That of finding names: of the thread that asks, and of the children that
    /// it asks.
    pub naming_cpu_ns: u64,
    /// CPU time of the eBPF programs, in nanoseconds, extrapolated.
    pub bpf_ns: u64,
    /// How often the sampling program ran.
    pub bpf_runs: u64,
    /// Highest `RssAnon` + `RssShmem` that was seen, in bytes.
    pub peak_rss_bytes: u64,
    /// Highest `RssFile` that was seen, in bytes: the program itself, what it has
    /// mapped of files, and the pages of the eBPF maps that it has touched. The
    /// system takes what is a file's back when it needs it.
    pub file_backed_rss_bytes: u64,
    /// Kernel memory of the eBPF maps, in bytes.
    pub bpf_map_bytes: u64,
    /// What `peak_rss_bytes` and `bpf_map_bytes` were to remain within together.
    pub memory_budget_bytes: u64,
    /// How walks by tables found the rules for their frames; all zeros where
    /// there were none.
    pub rules: RuleCounters,
}

/// How `bpf_ns` comes about.
pub const BPF_NS_METHOD: &str = "own clock on every 16th tick of each CPU, times ticks, and on every stack kept at an exec or exit; entry and exit of the programs not included";

/// CPU time that this process and its children without rights have used, in
/// nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 + isolation::cpu_ns()
}

/// Memory of this process and its children without rights that is not backed by
/// files, in bytes; it is remembered if it is the most.
///
/// Mapped BPF arrays show up as file pages and are counted as maps instead.
pub fn rss_bytes() -> u64 {
    let statuses: Vec<String> = std::iter::once("self".to_owned())
        .chain(isolation::pids().iter().map(u32::to_string))
        .filter_map(|pid| status(&format!("/proc/{pid}/status")).ok())
        .collect();
    let sum = |names: &[&str]| -> u64 {
        let bytes = statuses.iter().map(|status| parse_bytes(status, names));
        bytes.sum()
    };
    let own = sum(&["RssAnon:", "RssShmem:"]);
    let file_backed = sum(&["RssFile:"]);
    for (peak, bytes) in PEAK_BYTES.iter().zip([own, file_backed]) {
        peak.fetch_max(bytes, Ordering::Relaxed);
    }
    own
}

/// The most memory that [`rss_bytes`] has seen, and the most that files backed.
pub fn peak_bytes() -> [u64; 2] {
    rss_bytes();
    PEAK_BYTES
        .each_ref()
        .map(|peak| peak.load(Ordering::Relaxed))
}

/// A status file of the system's, which makes it anew for each time it is asked for
/// a part: all of it at once.
fn status(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(STATUS_BYTES);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn parse_bytes(status: &str, names: &[&str]) -> u64 {
    status
        .lines()
        .filter_map(|line| {
            let value = names.iter().find_map(|name| line.strip_prefix(name))?;
            value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .sum::<u64>()
        * 1024
}

/// The time of all ticks, from the time of those that were clocked.
pub fn extrapolate_bpf_ns(clocked_ns: u64, clocked_ticks: u64, ticks: u64) -> u64 {
    if clocked_ticks == 0 {
        return 0;
    }
    (u128::from(clocked_ns) * u128::from(ticks) / u128::from(clocked_ticks)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_anonymous_and_shared_but_not_mapped_files() {
        let status = "VmRSS:\t  9000 kB\nRssAnon:\t    1200 kB\nRssFile:\t 7700 kB\nRssShmem:\t     100 kB\n";
        let own = ["RssAnon:", "RssShmem:"];
        assert_eq!(parse_bytes(status, &own), 1300 * 1024);
        assert_eq!(parse_bytes(status, &["RssFile:"]), 7700 * 1024);
        assert_eq!(parse_bytes("RssAnon: nonsense\n", &own), 0);
    }

    #[test]
    fn the_most_that_was_seen_is_remembered() {
        let held = vec![1_u8; 32 << 20];
        let now = rss_bytes();
        assert!(now > 32 << 20, "{now}");
        drop(held);
        let [own, file_backed] = peak_bytes();
        assert!(own >= now && file_backed > 0, "{own} {file_backed}");
    }

    #[test]
    fn time_is_extrapolated_by_ticks() {
        assert_eq!(extrapolate_bpf_ns(1_000, 10, 160), 16_000);
        assert_eq!(extrapolate_bpf_ns(0, 0, 5), 0);
    }
}
