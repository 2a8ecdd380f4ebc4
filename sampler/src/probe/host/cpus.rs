//! The host's CPUs and how they spent their time.

use std::io;

use super::small_file;

/// More CPUs than Linux can be built for; the bound of a hostile list.
const MAX_CPUS: u32 = 1 << 16;

/// The numbers of the CPUs that run now.
pub fn online() -> io::Result<Vec<u32>> {
    read_list("/sys/devices/system/cpu/online")
}

/// The numbers of the CPUs that may ever run until the next boot.
pub fn possible() -> io::Result<Vec<u32>> {
    read_list("/sys/devices/system/cpu/possible")
}

fn read_list(path: &str) -> io::Result<Vec<u32>> {
    let text = small_file::read_text(path)?;
    parse_list(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path} is not a list of CPUs"),
        )
    })
}

/// A list such as `0-3,5`, in ascending order; the empty list is empty text.
pub fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    let text = text.trim();
    if text.is_empty() {
        return Some(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let ascends = cpus.last().is_none_or(|&before| before < first);
        if first > last || last >= MAX_CPUS || !ascends {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Where one CPU's time went since boot, in nanoseconds; the kernel counts in
/// ticks of 10 ms as a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// The CPU's number.
    pub cpu: u32,
    /// In user space, niced or not, guests included.
    pub user_ns: u64,
    /// In the kernel, on behalf of a task.
    pub system_ns: u64,
    /// In the idle loop with nothing to wait for.
    pub idle_ns: u64,
    /// In the idle loop while a task waited for a disk.
    pub iowait_ns: u64,
    /// In hard and soft interrupts.
    pub interrupt_ns: u64,
    /// Taken by the hypervisor for others.
    pub steal_ns: u64,
}

/// The time of each online CPU, now.
pub fn times() -> io::Result<Vec<CpuTime>> {
    Ok(parse_stat(
        &small_file::read_text("/proc/stat")?,
        clock_tick_ns(),
    ))
}

/// Nanoseconds of one of the clock ticks that `/proc` counts in.
pub fn clock_tick_ns() -> u64 {
    // SAFETY: sysconf takes a number and returns one.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(hz).ok().filter(|&hz| hz > 0).unwrap_or(100)
}

/// Bytes of a page.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes a number and returns one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The `cpuN` lines of `/proc/stat`; those that cannot be read are left out.
pub fn parse_stat(text: &str, tick_ns: u64) -> Vec<CpuTime> {
    text.lines()
        .filter_map(|line| parse_stat_line(line, tick_ns))
        .collect()
}

/// `cpuN user nice system idle iowait irq softirq steal …`: see proc(5).
fn parse_stat_line(line: &str, tick_ns: u64) -> Option<CpuTime> {
    let mut fields = line.strip_prefix("cpu")?.split_ascii_whitespace();
    // The line of all CPUs together has a space for its number.
    if !line[3..].starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let cpu = fields.next()?.parse().ok()?;
    let mut ticks = [0u64; 8];
    for slot in &mut ticks {
        *slot = fields.next()?.parse().ok()?;
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal] =
        ticks.map(|ticks| ticks.saturating_mul(tick_ns));
    Some(CpuTime {
        cpu,
        user_ns: user.saturating_add(nice),
        system_ns: system,
        idle_ns: idle,
        iowait_ns: iowait,
        interrupt_ns: irq.saturating_add(softirq),
        steal_ns: steal,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_and_single_cpus_make_a_list() {
        assert_eq!(parse_list("0-3,5\n"), Some(vec![0, 1, 2, 3, 5]));
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("\n"), Some(vec![]));
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        for text in ["3-1", "0-", "a", "0,,1", "1,1", "0-4294967295", "-1", "0 1"] {
            assert_eq!(parse_list(text), None, "{text}");
        }
    }

    #[test]
    fn ticks_become_nanoseconds_for_each_cpu() {
        let text = "cpu  31922 1 5058 167386 977 2 103 23 0 0\n\
                    cpu0 16243 1 2707 83268 465 2 34 12 0 0\n\
                    cpu7 1 0 0 2 3 0 0 4\n\
                    intr 432205 0\nctxt 658357\ncpu9 1 2\n";
        let times = parse_stat(text, 10_000_000);
        assert_eq!(times.len(), 2, "the sum and the short line are left out");
        assert_eq!(times[0].user_ns, 162_440_000_000);
        assert_eq!(times[0].interrupt_ns, 360_000_000);
        assert_eq!(
            times[1],
            CpuTime {
                cpu: 7,
                user_ns: 10_000_000,
                idle_ns: 20_000_000,
                iowait_ns: 30_000_000,
                steal_ns: 40_000_000,
                ..CpuTime::default()
            }
        );
    }

    #[test]
    fn this_host_has_cpus_and_every_online_one_is_possible() {
        let (online, possible) = (online().unwrap(), possible().unwrap());
        assert!(!online.is_empty());
        assert!(online.iter().all(|cpu| possible.contains(cpu)));
        let timed: Vec<_> = times().unwrap().iter().map(|time| time.cpu).collect();
        assert_eq!(timed, online);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC*", numbers in "cpu[0-9]{0,20}( [0-9]{1,22}){0,10}") {
            let _ = parse_list(&text);
            let _ = parse_stat(&text, 10_000_000);
            let _ = parse_stat(&numbers, u64::MAX);
        }
    }
}
