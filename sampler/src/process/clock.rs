//! The clocks that meet here: records and samples carry `CLOCK_MONOTONIC`,
//! start times `CLOCK_BOOTTIME`, and `/proc` counts start times in ticks.

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// What translates between the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// How far `CLOCK_BOOTTIME` is ahead of `CLOCK_MONOTONIC`: the time spent
    /// suspended.
    pub boot_offset_ns: u64,
    /// The length of one tick of `/proc/PID/stat`.
    pub tick_ns: u64,
}

impl Clocks {
    /// As they stand now.
    pub fn read() -> Self {
        // SAFETY: sysconf takes no pointers.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Self {
            boot_offset_ns: now_ns(libc::CLOCK_BOOTTIME).saturating_sub(monotonic_ns()),
            tick_ns: NANOSECONDS_PER_SECOND / u64::try_from(ticks_per_second).unwrap_or(100).max(1),
        }
    }

    /// The start time that `/proc` shows for a process that started then.
    pub fn ticks(self, start_boot_ns: u64) -> u64 {
        start_boot_ns / self.tick_ns
    }

    /// The earliest moment that a start time of `/proc` can mean.
    pub fn ticks_to_boot_ns(self, ticks: u64) -> u64 {
        ticks.saturating_mul(self.tick_ns)
    }

    /// A moment of the samples' clock on the clock of start times.
    pub fn to_boot_ns(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add(self.boot_offset_ns)
    }

    /// A start time on the clock of the samples; 0 for what is older.
    pub fn to_monotonic_ns(self, boot_ns: u64) -> u64 {
        boot_ns.saturating_sub(self.boot_offset_ns)
    }
}

/// `CLOCK_MONOTONIC`, now.
pub fn monotonic_ns() -> u64 {
    now_ns(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME` minus `CLOCK_BOOTTIME`.
pub fn boot_unix_ns() -> i64 {
    now_ns(libc::CLOCK_REALTIME) as i64 - now_ns(libc::CLOCK_BOOTTIME) as i64
}

fn now_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a timespec of ours. The call cannot fail for
    // the two clocks asked for here; if it did, time would read zero.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * NANOSECONDS_PER_SECOND + time.tv_nsec as u64
}
