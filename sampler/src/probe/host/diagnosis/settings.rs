//! How the kernel is configured: settings, limits, mounts.

use super::super::facts::HostFacts;
use super::super::lockdown::Lockdown;
use super::super::privilege::Capability;
use super::rights::{fix_for, has};
use super::{Finding, State};

/// The frequency of a recording that says nothing else.
const DEFAULT_FREQUENCY_HZ: i64 = 99;
/// The kernel's own default of `perf_event_max_stack`.
const USUAL_STACK_FRAMES: i64 = 127;
/// A ring of 128 pages, which holds a burst of some thousand records.
const RING_BYTES: u64 = 512 << 10;

pub(super) fn lockdown(facts: &HostFacts) -> Finding {
    let item = "lockdown";
    match facts.lockdown {
        Lockdown::Absent => Finding::ok(item, "none"),
        Lockdown::Off => Finding::ok(item, "off"),
        Lockdown::Integrity => Finding::ok(item, "integrity, which lets profilers read"),
        Lockdown::Confidentiality => Finding::not_ok(
            item,
            State::Missing,
            "the kernel is locked down for confidentiality",
            "neither BPF nor perf may read memory of the kernel",
            "boot with lockdown=integrity, or without a lockdown= parameter",
        ),
    }
}

pub(super) fn paranoid(facts: &HostFacts) -> Finding {
    let item = "perf_event_paranoid";
    let Some(value) = facts.sysctls.perf_event_paranoid else {
        return Finding::ok(item, "no such setting");
    };
    if facts.sysctls.restricts_events_to_admins() && !has(facts, Capability::SysAdmin) {
        return Finding::not_ok(
            item,
            State::Warning,
            value.to_string(),
            "where the kernel knows this value, as Debian's do, events need CAP_SYS_ADMIN",
            "sysctl -w kernel.perf_event_paranoid=2 (as root)",
        );
    }
    if has(facts, Capability::Perfmon) || value < 0 {
        return Finding::ok(item, format!("{value}, which does not bind this caller"));
    }
    Finding::not_ok(
        item,
        State::Warning,
        value.to_string(),
        "without CAP_PERFMON, events on the whole host are refused",
        fix_for(facts, &[Capability::Perfmon]),
    )
}

pub(super) fn sample_rate(facts: &HostFacts) -> Finding {
    let item = "perf_event_max_sample_rate";
    match facts.sysctls.perf_event_max_sample_rate_hz {
        Some(limit_hz) if limit_hz < DEFAULT_FREQUENCY_HZ => Finding::not_ok(
            item,
            State::Warning,
            format!("{limit_hz} Hz"),
            format!("-F above {limit_hz} is refused, the default of {DEFAULT_FREQUENCY_HZ} too"),
            "sysctl -w kernel.perf_event_max_sample_rate=100000 (as root), or a lower -F",
        ),
        Some(limit_hz) => Finding::ok(item, format!("{limit_hz} Hz")),
        None => Finding::ok(item, "no such setting"),
    }
}

pub(super) fn stack_depth(facts: &HostFacts) -> Finding {
    let item = "perf_event_max_stack";
    match facts.sysctls.perf_event_max_stack_frames {
        Some(frames) if frames < USUAL_STACK_FRAMES => Finding::not_ok(
            item,
            State::Warning,
            format!("{frames} frames"),
            format!("kernel stacks deeper than {frames} frames are cut"),
            format!("sysctl -w kernel.perf_event_max_stack={USUAL_STACK_FRAMES} (as root)"),
        ),
        Some(frames) => Finding::ok(item, format!("{frames} frames")),
        None => Finding::ok(item, "no such setting"),
    }
}

pub(super) fn kernel_addresses(facts: &HostFacts) -> Finding {
    let item = "kptr_restrict";
    let value = facts.sysctls.kptr_restrict;
    let shown = value.map_or("no such setting".to_owned(), |value| value.to_string());
    if facts.kernel_text.is_shown() {
        return Finding::ok(item, format!("{shown}; this caller sees kernel addresses"));
    }
    Finding::not_ok(
        item,
        State::Warning,
        format!("{shown}; this caller sees no kernel addresses"),
        "kernel frames stay without names, and interrupts on an idle CPU count as idle",
        match value {
            Some(2..) => "sysctl -w kernel.kptr_restrict=1 (as root)".to_owned(),
            _ if !has(facts, Capability::Syslog) => fix_for(facts, &[Capability::Syslog]),
            _ => "boot a kernel built with CONFIG_KALLSYMS=y, and mount /proc".to_owned(),
        },
    )
}

/// Memory that is free for the rings of each CPU, in KiB: see `perf_event_open(2)`.
fn free_for_each_cpu_kib(facts: &HostFacts) -> u64 {
    let free_kib = facts.sysctls.perf_event_mlock_kib.unwrap_or_default();
    u64::try_from(free_kib).unwrap_or_default()
}

/// Whether every CPU can have a ring of the usual size without `CAP_IPC_LOCK`.
pub(super) fn pinned_memory_suffices(facts: &HostFacts) -> bool {
    let cpus = facts.online_cpus.len().max(1) as u64;
    facts.limits.pinned_bytes.is_none_or(|limit_bytes| {
        let free_bytes = free_for_each_cpu_kib(facts).saturating_mul(1024);
        free_bytes.saturating_add(limit_bytes / cpus) >= RING_BYTES
    })
}

pub(super) fn pinned_memory(facts: &HostFacts) -> Finding {
    let item = "memlock";
    if has(facts, Capability::IpcLock) {
        return Finding::ok(item, "not bound by it (CAP_IPC_LOCK)");
    }
    let Some(limit_bytes) = facts.limits.pinned_bytes else {
        return Finding::ok(item, "unlimited");
    };
    let found = format!(
        "{} KiB, and {} KiB for each CPU (perf_event_mlock_kb)",
        limit_bytes / 1024,
        free_for_each_cpu_kib(facts)
    );
    if pinned_memory_suffices(facts) {
        return Finding::ok(item, found);
    }
    Finding::not_ok(
        item,
        State::Warning,
        found,
        "event rings are small: bursts of new processes lose records",
        "ulimit -l unlimited, or sysctl -w kernel.perf_event_mlock_kb=516 (as root), or \
         CAP_IPC_LOCK",
    )
}

pub(super) fn cgroup(facts: &HostFacts) -> Finding {
    let item = "cgroup2";
    match facts.cgroups.version2.first() {
        Some(mount) => Finding::ok(item, format!("mounted at {}", mount.point.display())),
        None => Finding::not_ok(
            item,
            State::Warning,
            "not mounted",
            "--cgroup has nothing to choose from",
            "mkdir -p /mnt/cgroup2; mount -t cgroup2 none /mnt/cgroup2 (as root)",
        ),
    }
}
