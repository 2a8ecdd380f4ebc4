//! What the profiler itself costs.

use std::fs;

use crate::probe::RuleCounters;

/// The profiler's own consumption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of this process, user and system, in nanoseconds.
    pub cpu_ns: u64,
    /// CPU time of the eBPF programs, in nanoseconds, extrapolated.
    pub bpf_ns: u64,
    /// How often the sampling program ran.
    pub bpf_runs: u64,
    /// Highest `RssAnon` + `RssShmem` that was seen, in bytes.
    pub peak_rss_bytes: u64,
    /// Kernel memory of the eBPF maps, in bytes.
    pub bpf_map_bytes: u64,
    /// How walks by tables found the rules for their frames; all zeros where
    /// there were none.
    pub rules: RuleCounters,
}

/// How `bpf_ns` comes about.
pub const BPF_NS_METHOD: &str = "own clock on every 16th tick of each CPU, times ticks, and on every stack kept at an exec or exit; entry and exit of the programs not included";

/// CPU time that this process has used, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Memory of this process that is not backed by files, in bytes.
///
/// Mapped BPF arrays show up as file pages and are counted as maps instead.
pub fn rss_bytes() -> u64 {
    fs::read_to_string("/proc/self/status").map_or(0, |status| parse_rss_bytes(&status))
}

fn parse_rss_bytes(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| {
            let value = line
                .strip_prefix("RssAnon:")
                .or_else(|| line.strip_prefix("RssShmem:"))?;
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
        assert_eq!(parse_rss_bytes(status), 1300 * 1024);
        assert_eq!(parse_rss_bytes("RssAnon: nonsense\n"), 0);
    }

    #[test]
    fn time_is_extrapolated_by_ticks() {
        assert_eq!(extrapolate_bpf_ns(1_000, 10, 160), 16_000);
        assert_eq!(extrapolate_bpf_ns(0, 0, 5), 0);
    }
}
