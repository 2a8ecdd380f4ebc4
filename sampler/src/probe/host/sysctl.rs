//! The kernel's settings that bear on profiling.

use super::small_file;

/// Values of `/proc/sys/kernel/*`; None where the kernel has no such setting
/// or does not let the caller read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// What callers without `CAP_PERFMON` may measure; higher is less.
    pub perf_event_paranoid: Option<i64>,
    /// The highest sampling frequency, in Hz.
    pub perf_event_max_sample_rate_hz: Option<i64>,
    /// The deepest kernel stack that `bpf_get_stack` returns, in frames.
    pub perf_event_max_stack_frames: Option<i64>,
    /// Memory for event rings that is free for each CPU, in KiB.
    pub perf_event_mlock_kib: Option<i64>,
    /// 0: kernel addresses for all, 1: for `CAP_SYSLOG`, 2: for nobody.
    pub kptr_restrict: Option<i64>,
    /// Not 0: BPF needs `CAP_BPF`.
    pub unprivileged_bpf_disabled: Option<i64>,
}

impl Sysctls {
    /// Reads them all.
    pub fn read() -> Self {
        Self {
            perf_event_paranoid: kernel("perf_event_paranoid"),
            perf_event_max_sample_rate_hz: kernel("perf_event_max_sample_rate"),
            perf_event_max_stack_frames: kernel("perf_event_max_stack"),
            perf_event_mlock_kib: kernel("perf_event_mlock_kb"),
            kptr_restrict: kernel("kptr_restrict"),
            unprivileged_bpf_disabled: kernel("unprivileged_bpf_disabled"),
        }
    }
}

impl Sysctls {
    /// Whether `CAP_PERFMON` is not enough for events: kernels of Debian and its
    /// descendants know a 3, which the kernel's own sources do not.
    pub fn restricts_events_to_admins(&self) -> bool {
        self.perf_event_paranoid.is_some_and(|value| value > 2)
    }
}

fn kernel(name: &str) -> Option<i64> {
    let text = small_file::read_text(format!("/proc/sys/kernel/{name}")).ok()?;
    text.trim().parse().ok()
}

/// What the caller may use up; None is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory that may be pinned, in bytes: the soft limit.
    pub pinned_bytes: Option<u64>,
    /// Files that may be open: the hard limit, to which anyone may raise it.
    pub open_files: Option<u64>,
}

impl ResourceLimits {
    /// Reads them.
    pub fn read() -> Self {
        let finite = |limit| (limit != libc::RLIM_INFINITY).then_some(limit);
        Self {
            pinned_bytes: finite(limit(libc::RLIMIT_MEMLOCK).rlim_cur),
            open_files: finite(limit(libc::RLIMIT_NOFILE).rlim_max),
        }
    }
}

fn limit(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit fills the structure that it is given; on failure the
    // zeroes stay, which promise nothing.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    #[test]
    fn the_running_kernel_limits_the_sampling_rate() {
        assert!(Sysctls::read().perf_event_max_sample_rate_hz.unwrap() > 0);
    }

    #[test]
    fn this_process_may_open_at_least_the_files_it_has_open() {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        assert!(
            ResourceLimits::read()
                .open_files
                .is_none_or(|limit| limit >= open)
        );
    }

    #[test]
    fn a_setting_that_does_not_exist_is_none() {
        assert_eq!(kernel("no_such_setting"), None);
    }
}
