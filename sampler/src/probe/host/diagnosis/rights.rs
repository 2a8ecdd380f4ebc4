//! What the caller may do, and which processes it sees.

use super::super::facts::HostFacts;
use super::super::privilege::{Capability, Privilege};
use super::settings::pinned_memory_suffices;
use super::{Finding, State};

/// Whether the caller's rights suffice to load the programs.
pub(super) fn may_load(facts: &HostFacts) -> bool {
    has(facts, Capability::Bpf) && has(facts, Capability::Perfmon)
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
    let mut findings = vec![privilege_line(facts, privilege)];
    for (capability, state, cost) in CAPABILITIES {
        let state = match capability {
            Capability::IpcLock if pinned_memory_suffices(facts) => State::Info,
            Capability::SysResource if open_files_suffice(facts) => State::Info,
            _ => state,
        };
        findings.push(capability_line(facts, privilege, capability, state, cost));
    }
    findings
}

/// One for each distinct file that a large host maps, with room to spare.
const AMPLE_OPEN_FILES: u64 = 1 << 14;

fn open_files_suffice(facts: &HostFacts) -> bool {
    let limit = facts.limits.open_files;
    limit.is_none_or(|limit| limit >= AMPLE_OPEN_FILES)
}

fn privilege_line(facts: &HostFacts, privilege: Privilege) -> Finding {
    let uid = privilege.euid;
    let required = [Capability::Bpf, Capability::Perfmon];
    let found = if privilege.initial_user_namespace {
        let lacking: Vec<_> = required
            .into_iter()
            .filter(|&capability| !privilege.effective.grants(capability))
            .map(Capability::name)
            .collect();
        if lacking.is_empty() {
            return Finding::ok("privilege", format!("uid {uid}"));
        }
        format!("uid {uid} without {}", lacking.join(" and "))
    } else {
        format!("uid {uid} of a user namespace, whose capabilities end at its border")
    };
    // One command for all that a recording can use and this caller can get.
    let useful: Vec<_> = CAPABILITIES
        .into_iter()
        .filter(|&(capability, state, _)| match state {
            State::Missing => !has(facts, capability),
            State::Warning => !has(facts, capability) && privilege.bounding.has(capability),
            State::Ok | State::Info => false,
        })
        .map(|(capability, ..)| capability)
        .collect();
    Finding::not_ok(
        "privilege",
        State::Missing,
        found,
        "no program can be loaded and no event opened",
        fix_for(facts, &useful),
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
        "event rings stay within perf_event_mlock_kb and RLIMIT_MEMLOCK: where those are low, \
         bursts of new processes lose records",
    ),
    (
        Capability::SysResource,
        State::Warning,
        "the hard limit of open files stays: where that is low, fewer files are held open for \
         naming",
    ),
    (
        Capability::SysAdmin,
        State::Info,
        "nothing in a recording; benchmarks cannot switch on the kernel's own BPF statistics",
    ),
];

fn capability_line(
    facts: &HostFacts,
    privilege: Privilege,
    capability: Capability,
    state: State,
    cost: &str,
) -> Finding {
    let item = capability.name();
    if has(facts, capability) {
        return Finding::ok(item, "effective");
    }
    let found = if privilege.effective.grants(capability) {
        "effective in its user namespace only"
    } else {
        "not effective"
    };
    Finding::not_ok(item, state, found, cost, fix_for(facts, &[capability]))
}

/// How this caller comes by capabilities.
pub(super) fn fix_for(facts: &HostFacts, capabilities: &[Capability]) -> String {
    let names: Vec<_> = capabilities.iter().map(|one| one.name()).collect();
    match facts.privilege {
        Some(privilege) if !privilege.initial_user_namespace => {
            "run it outside of the user namespace (containers: rootful, with the host's user \
             namespace)"
                .to_owned()
        }
        // Root has them already unless something took them; and the kernel does
        // not execute a file that bears more than the bounding set.
        Some(Privilege { euid, bounding, .. })
            if euid == 0 || capabilities.iter().any(|&one| !bounding.has(one)) =>
        {
            let flags: Vec<_> = names
                .iter()
                .map(|name| name.replace("CAP_", "--cap-add="))
                .collect();
            format!(
                "start it with {} (containers: {}; services: CapabilityBoundingSet=)",
                names.join(" "),
                flags.join(" ")
            )
        }
        _ => format!(
            "run as root, or as root give the sampler binary the rights: setcap {}+ep FILE",
            names.join(",").to_lowercase()
        ),
    }
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
