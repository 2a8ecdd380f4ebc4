//! What the kernel itself has: version, types, events, programs, helpers.

use super::super::bpf_features::{Helper, ProgramState};
use super::super::events::EventState;
use super::super::facts::HostFacts;
use super::super::kernel::KernelVersion;
use super::super::privilege::Capability;
use super::rights::{fix_for, has, may_load};
use super::{Finding, State};

pub(super) fn version(facts: &HostFacts) -> Finding {
    let oldest = KernelVersion::OLDEST;
    let release = &facts.kernel_release;
    let new_enough = KernelVersion::parse(release).is_some_and(|version| version >= oldest);
    // Vendors carry features to older kernels.
    let has_all = facts.bpf.missing_helpers.as_deref() == Some(&[]);
    if new_enough || has_all {
        return Finding::ok("kernel", release);
    }
    Finding::not_ok(
        "kernel",
        State::Missing,
        format!("{release}, older than Linux {oldest}"),
        "the programs that take samples need features that it does not have",
        format!("boot Linux {oldest} or newer"),
    )
}

pub(super) fn types(facts: &HostFacts) -> Finding {
    match &facts.layout {
        Ok(_) => Finding::ok("BTF", super::super::btf::KERNEL_BTF),
        Err(error) => Finding::not_ok(
            "BTF",
            State::Missing,
            error.to_string(),
            "a thread's identity and its user stack cannot be found in the kernel's memory",
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount /sys",
        ),
    }
}

pub(super) fn cpu_clock(facts: &HostFacts) -> Finding {
    let item = "event cpu-clock";
    let state = facts.events.cpu_clock;
    if state == EventState::Works {
        return Finding::ok(item, "opens on a whole CPU");
    }
    Finding::not_ok(
        item,
        State::Missing,
        event_found(state),
        "nothing takes samples",
        event_fix(facts, state),
    )
}

pub(super) fn side_band(facts: &HostFacts) -> Finding {
    let item = "event dummy";
    let state = facts.events.side_band;
    if state == EventState::Works {
        return Finding::ok(item, "reports mappings, forks and execs");
    }
    Finding::not_ok(
        item,
        State::Warning,
        event_found(state),
        "files of short-lived processes are not seen in time: their frames stay without names",
        event_fix(facts, state),
    )
}

pub(super) fn cycles(facts: &HostFacts) -> Finding {
    let item = "event cycles";
    let state = facts.events.cycles;
    if state == EventState::Works {
        return Finding::ok(item, "the hardware counts");
    }
    Finding::not_ok(
        item,
        State::Info,
        event_found(state),
        "nothing by default: samples come from cpu-clock; code with interrupts off is not seen",
        match state {
            EventState::NotPermitted => event_fix(facts, state),
            _ => "use a machine, or a virtual machine type, that offers a performance \
                  monitoring unit"
                .to_owned(),
        },
    )
}

fn event_found(state: EventState) -> String {
    match state {
        EventState::Works => "opens".to_owned(),
        EventState::NotSupported => "not supported here".to_owned(),
        EventState::NotPermitted => "not permitted".to_owned(),
        EventState::Failed(errno) => format!("does not open: {}", errno_text(errno)),
    }
}

fn event_fix(facts: &HostFacts, state: EventState) -> String {
    match state {
        EventState::NotPermitted if !has(facts, Capability::Perfmon) => {
            fix_for(facts, &[Capability::Perfmon])
        }
        EventState::NotPermitted => {
            "allow perf_event_open in the container's seccomp profile, or in the security module \
             that forbids it"
                .to_owned()
        }
        EventState::NotSupported => {
            "boot Linux 5.17 or newer, built with CONFIG_PERF_EVENTS=y".to_owned()
        }
        EventState::Works | EventState::Failed(_) => {
            "free what the error names and try again".to_owned()
        }
    }
}

pub(super) fn programs(facts: &HostFacts) -> Finding {
    program(
        facts,
        "BPF at a tick",
        facts.bpf.perf_event,
        State::Missing,
        "nothing counts the samples",
    )
}

pub(super) fn task_programs(facts: &HostFacts) -> Finding {
    program(
        facts,
        "BPF at fork and exit",
        facts.bpf.raw_tracepoint,
        State::Warning,
        "children of the recorded processes are not followed",
    )
}

fn program(
    facts: &HostFacts,
    item: &'static str,
    state: ProgramState,
    when_refused: State,
    cost: &str,
) -> Finding {
    let (found, fix) = match state {
        ProgramState::Works => return Finding::ok(item, "loads"),
        ProgramState::NotPermitted if !may_load(facts) => (
            "not permitted".to_owned(),
            fix_for(facts, &[Capability::Bpf, Capability::Perfmon]),
        ),
        ProgramState::NotPermitted => (
            "not permitted, whatever the capabilities".to_owned(),
            "allow bpf() in the container's seccomp profile, or in the security module that \
             forbids it"
                .to_owned(),
        ),
        ProgramState::Failed(libc::ENOSYS) => (
            "the kernel has no bpf()".to_owned(),
            "boot a kernel built with CONFIG_BPF_SYSCALL=y".to_owned(),
        ),
        ProgramState::Failed(errno) => (
            format!("refused: {}", errno_text(errno)),
            "boot a kernel built with CONFIG_BPF_EVENTS=y".to_owned(),
        ),
    };
    Finding::not_ok(item, when_refused, found, cost, fix)
}

pub(super) fn helpers(facts: &HostFacts) -> Finding {
    let item = "BPF helpers";
    let fix = format!("boot Linux {} or newer", KernelVersion::OLDEST);
    let Some(missing) = &facts.bpf.missing_helpers else {
        return Finding::not_ok(
            item,
            State::Info,
            "not known: this caller may not load programs",
            "nothing beyond what the programs cost",
            "repeat this with the rights to load programs",
        );
    };
    if missing.is_empty() {
        return Finding::ok(item, Helper::ALL.map(Helper::name).join(" "));
    }
    let names: Vec<_> = missing.iter().map(|helper| helper.name()).collect();
    let found = format!("without {}", names.join(" "));
    let cost = "the programs that take samples do not load";
    Finding::not_ok(item, State::Missing, found, cost, fix)
}

fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}
