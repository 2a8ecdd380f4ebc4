//! From what is asked and what the host is like to what the programs are told.

use sampler_common::{Limits, RegisterLayout, ScopeKind, Settings, departure_slots};

use super::options::{Options, Scope};
use crate::probe::MapSizes;
use crate::probe::host::HostFacts;
use crate::probe::host::cpus::clock_tick_ns;
use crate::probe::host::task_layout::KernelLayout;
use crate::process::Comm;

/// The settings of a recording, without the pid namespace, which the kernel
/// has to be asked for.
pub fn settings(
    options: &Options,
    facts: &HostFacts,
    layout: KernelLayout,
    maps: &MapSizes,
    seed: [u64; 2],
) -> Settings {
    let scope = match &options.scope {
        Scope::Host => ScopeKind::Host,
        Scope::Processes { .. } | Scope::Command(_) => ScopeKind::Processes,
        Scope::Comm(_) => ScopeKind::Comm,
        Scope::Cgroup(_) => ScopeKind::Cgroup,
    };
    let [comm_low, comm_high] = match &options.scope {
        Scope::Comm(comm) => comm_words(*comm),
        _ => [0; 2],
    };
    let entry_text = facts.kernel_text.entry.clone().unwrap_or(0..0);
    Settings {
        seed_low: seed[0],
        seed_high: seed[1],
        pid_namespace: 0,
        pid_namespace_level: 0,
        scope: scope as u32,
        comm_low,
        comm_high,
        entry_text_start: entry_text.start,
        entry_text_end: entry_text.end,
        clock_tick_ns: clock_tick_ns(),
        kernel_frames: u32::from(options.wanted.kernel),
        user_frames: u32::from(options.wanted.user),
        fault_kernel_stack: u32::from(options.fault_kernel_stack),
        follow_forks: u32::from(matches!(
            options.scope,
            Scope::Processes { children: true, .. } | Scope::Command(_)
        )),
        limits: limits(options, facts, maps),
        registers: if cfg!(target_arch = "aarch64") {
            RegisterLayout::AARCH64
        } else {
            RegisterLayout::X86_64
        },
        task: layout.task,
        memory: layout.memory,
        tables: u32::from(options.wants_tables()),
        check_every: options.check_every,
        departure_slots: if options.wanted.user {
            departure_slots(maps.cpus)
        } else {
            0
        },
        departing_states: maps.cpus,
        reserved: 0,
    }
}

/// The limits asked for, less what the kernel's own limit and the room in the
/// maps take away.
fn limits(options: &Options, facts: &HostFacts, maps: &MapSizes) -> Limits {
    let mut limits = options.limits;
    limits.copy_chunks = limits.copy_chunks.min(maps.copy_chunks);
    if let Some(max_stack) = facts.sysctls.perf_event_max_stack_frames {
        let max_stack = u32::try_from(max_stack).unwrap_or(u32::MAX);
        limits.kernel_frames = limits.kernel_frames.min(max_stack.saturating_sub(1).max(1));
    }
    limits
}

/// A name as the kernel holds it: 16 bytes, zero-padded.
fn comm_words(comm: Comm) -> [u64; 2] {
    let mut bytes = [0; sampler_common::COMM_BYTES];
    bytes[..comm.as_bytes().len()].copy_from_slice(comm.as_bytes());
    let (low, high) = bytes.split_at(8);
    [word(low), word(high)]
}

fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_as_the_kernel_holds_it() {
        assert_eq!(comm_words(Comm::new(b"ab")), [0x6261, 0]);
        assert_eq!(
            comm_words(Comm::new(b"12345678X")),
            [0x3837_3635_3433_3231, 0x58]
        );
    }
}
