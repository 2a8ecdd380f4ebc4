//! What the caller may do, and which processes it sees.

use super::super::facts::HostFacts;
use super::super::privilege::{Capability, Privilege};
use super::{Finding, State};

/// Whether the caller's rights suffice to load the programs.
pub(super) fn may_load(facts: &HostFacts) -> bool {
    facts.privilege.is_some_and(|privilege| {
        privilege.initial_user_namespace
            && privilege.effective.grants(Capability::Bpf)
            && privilege.effective.grants(Capability::Perfmon)
    })
}

/// Whether they suffice to open events on the whole host.
pub(super) fn may_open_events(facts: &HostFacts) -> bool {
    has(facts, Capability::Perfmon)
}

/// Whether the caller has a capability that counts for the host.
pub(super) fn has(facts: &HostFacts, capability: Capability) -> bool {
    facts.privilege.is_some_and(|privilege| {
        privilege.initial_user_namespace && privilege.effective.grants(capability)
    })
}

/// The privilege line, then one for each capability.
pub(super) fn rights(facts: &HostFacts) -> Vec<Finding> {
    let Some(privilege) = facts.privilege else {
        // The line about /proc says it.
        return Vec::new();
    };
    let mut findings = vec![privilege_line(privilege)];
    for (capability, state, cost) in CAPABILITIES {
        findings.push(capability_line(privilege, capability, state, cost));
    }
    findings
}

fn privilege_line(privilege: Privilege) -> Finding {
    let item = "privilege";
    let uid = privilege.euid;
    if !privilege.initial_user_namespace {
        return Finding::not_ok(
            item,
            State::Missing,
            format!("uid {uid} of a user namespace, whose capabilities end at its border"),
            "no program can be loaded and no event opened",
            "run it outside of the user namespace (containers: rootful, with the host's user \
             namespace)",
        );
    }
    let lacking: Vec<_> = [Capability::Bpf, Capability::Perfmon]
        .into_iter()
        .filter(|&capability| !privilege.effective.grants(capability))
        .map(Capability::name)
        .collect();
    if lacking.is_empty() {
        return Finding::ok(item, format!("uid {uid}"));
    }
    Finding::not_ok(
        item,
        State::Missing,
        format!("uid {uid} without {}", lacking.join(" and ")),
        "no program can be loaded and no event opened",
        fix_for(privilege, &lacking),
    )
}

/// What it costs to lack each, and how bad that is.
const CAPABILITIES: [(Capability, State, &str); 9] = [
    (
        Capability::Bpf,
        State::Missing,
        "no BPF program or map can be made",
    ),
    (
        Capability::Perfmon,
        State::Missing,
        "no event can be opened on the whole host, and no BPF program may read memory",
    ),
    (
        Capability::SysPtrace,
        State::Warning,
        "mappings of other users' processes, and files in other mount namespaces \
         (/proc/PID/root), are closed: their frames stay without names",
    ),
    (
        Capability::CheckpointRestore,
        State::Warning,
        "/proc/PID/map_files is closed: deleted and replaced files stay without names",
    ),
    (
        Capability::DacReadSearch,
        State::Warning,
        "other users' private files are not read: their frames stay without names",
    ),
    (
        Capability::Syslog,
        State::Warning,
        "kernel addresses are hidden: kernel frames stay without names",
    ),
    (
        Capability::IpcLock,
        State::Warning,
        "event rings stay within perf_event_mlock_kb and RLIMIT_MEMLOCK: bursts of new \
         processes lose records",
    ),
    (
        Capability::SysResource,
        State::Warning,
        "the limit of open files cannot be raised: fewer files are held open for naming",
    ),
    (
        Capability::SysAdmin,
        State::Info,
        "nothing in a recording; benchmarks cannot switch on the kernel's own BPF statistics",
    ),
];

fn capability_line(
    privilege: Privilege,
    capability: Capability,
    state: State,
    cost: &str,
) -> Finding {
    let item = capability.name();
    let counts = privilege.initial_user_namespace || state != State::Missing;
    if counts && privilege.effective.grants(capability) {
        return Finding::ok(item, "effective");
    }
    Finding::not_ok(
        item,
        state,
        if counts {
            "not effective"
        } else {
            "effective in its user namespace only"
        },
        cost,
        fix_for(privilege, &[item]),
    )
}

/// How this caller comes by capabilities.
fn fix_for(privilege: Privilege, names: &[&str]) -> String {
    let names = names.join(",");
    if privilege.euid == 0 {
        let short = names.replace("CAP_", "");
        return format!(
            "start it with {names} (containers: --cap-add={short}; services: \
             CapabilityBoundingSet=)"
        );
    }
    let lower = names.to_lowercase();
    format!("run as root, or as root give the program the rights: setcap {lower}+ep FILE")
}

pub(super) fn proc(facts: &HostFacts) -> Finding {
    let fix = "mount -t proc proc /proc (as root, in this mount namespace)";
    match facts.pid_namespace {
        Some(namespace) if namespace.proc_is_ours => {
            Finding::ok("/proc", "shows this pid namespace")
        }
        Some(_) => Finding::not_ok(
            "/proc",
            State::Missing,
            "shows another pid namespace than the caller's",
            "its numbers mean other processes, so that samples would get wrong names",
            fix,
        ),
        None => Finding::not_ok(
            "/proc",
            State::Missing,
            "not mounted, or not readable",
            "neither processes nor their files can be named",
            fix,
        ),
    }
}

pub(super) fn pid_namespace(facts: &HostFacts) -> Finding {
    let item = "pid namespace";
    match facts.pid_namespace {
        Some(namespace) if namespace.initial => Finding::ok(item, "the host's own"),
        Some(_) => Finding::not_ok(
            item,
            State::Warning,
            "not the host's own",
            "processes outside of it are counted, but not named",
            "run it in the host's pid namespace (containers: --pid=host)",
        ),
        None => Finding::not_ok(
            item,
            State::Warning,
            "not known without /proc",
            "nothing beyond what the missing /proc costs",
            "mount -t proc proc /proc (as root, in this mount namespace)",
        ),
    }
}
