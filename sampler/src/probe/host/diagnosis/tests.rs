#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

use std::io;

use super::super::bpf_features::{Helper, ProgramState};
use super::super::invented::{able_host, nobody};
use super::super::kallsyms::KernelText;
use super::super::lockdown::Lockdown;
use super::super::privilege::{Capability, CapabilitySet};
use super::super::task_layout::LayoutError;
use super::*;

fn finding(facts: &HostFacts, item: &str) -> Finding {
    let report = diagnose(facts);
    let found = report.findings.into_iter().find(|found| found.item == item);
    found.unwrap()
}

fn blocker(facts: &HostFacts) -> Option<&'static str> {
    diagnose(facts).blocker().map(|finding| finding.item)
}

/// Items that lose something without making recording impossible.
fn warnings(facts: &HostFacts) -> Vec<&'static str> {
    let findings = diagnose(facts).findings;
    let warns = |finding: &&Finding| finding.state == State::Warning;
    findings
        .iter()
        .filter(warns)
        .map(|found| found.item)
        .collect()
}

#[test]
fn root_on_a_virtual_machine_loses_nothing() {
    let host = able_host();
    assert_eq!(blocker(&host), None);
    assert_eq!(warnings(&host), [""; 0]);
    assert_eq!(finding(&host, "event cycles").state, State::Info);
}

#[test]
fn whatever_is_not_ok_has_a_cost_and_a_fix_and_no_fix_needs_sudo() {
    let mut locked = nobody(able_host());
    locked.lockdown = Lockdown::Confidentiality;
    locked.kernel_release = "4.9".to_owned();
    locked.layout = Err(LayoutError::Unreadable(io::ErrorKind::NotFound));
    locked.cgroups.version2.clear();
    for finding in diagnose(&locked).findings {
        if finding.state != State::Ok {
            assert!(finding.cost.is_some_and(|cost| !cost.is_empty()));
            let fix = finding.fix.unwrap();
            assert!(!fix.is_empty() && !fix.contains("sudo"), "{fix}");
        }
    }
}

#[test]
fn nobody_lacks_first_of_all_the_privilege() {
    let host = nobody(able_host());
    assert_eq!(blocker(&host), Some("privilege"));
    assert_eq!(finding(&host, "CAP_BPF").state, State::Missing);
    assert_eq!(finding(&host, "CAP_SYSLOG").state, State::Warning);
    assert_eq!(finding(&host, "BPF helpers").state, State::Info);
    assert_eq!(finding(&host, "perf_event_paranoid").state, State::Warning);
    let fix = finding(&host, "privilege").fix.unwrap();
    assert!(fix.contains("setcap cap_bpf,cap_perfmon,"), "{fix}");
}

#[test]
fn where_events_are_for_admins_it_says_so() {
    let mut host = able_host();
    host.sysctls.perf_event_paranoid = Some(3);
    assert_eq!(finding(&host, "perf_event_paranoid").state, State::Ok);
    let privilege = host.privilege.as_mut().unwrap();
    privilege.euid = 1000;
    privilege.effective = CapabilitySet::ALL.without(Capability::SysAdmin);
    let finding = finding(&host, "perf_event_paranoid");
    assert_eq!(finding.state, State::Warning);
    assert!(finding.fix.unwrap().contains("=2"));
}

#[test]
fn two_capabilities_suffice_to_record_and_the_others_are_losses() {
    let mut host = able_host();
    let privilege = host.privilege.as_mut().unwrap();
    privilege.euid = 1000;
    privilege.effective =
        CapabilitySet(1 << Capability::Bpf as u32 | 1 << Capability::Perfmon as u32);
    assert_eq!(blocker(&host), None);
    assert_eq!(
        warnings(&host),
        [
            "CAP_SYS_PTRACE",
            "CAP_CHECKPOINT_RESTORE",
            "CAP_DAC_READ_SEARCH",
            "CAP_SYSLOG",
        ]
    );
    host.limits.pinned_bytes = Some(0);
    host.sysctls.perf_event_mlock_kib = Some(64);
    host.limits.open_files = Some(1024);
    let warned = warnings(&host);
    for item in ["CAP_IPC_LOCK", "CAP_SYS_RESOURCE", "memlock"] {
        assert!(
            warned.contains(&item),
            "{item} matters where the limits are low"
        );
    }
}

#[test]
fn root_in_a_container_is_told_to_add_what_it_lacks() {
    let mut host = able_host();
    let privilege = host.privilege.as_mut().unwrap();
    privilege.effective = CapabilitySet::ALL
        .without(Capability::SysAdmin)
        .without(Capability::Perfmon);
    assert_eq!(blocker(&host), Some("privilege"));
    let fix = finding(&host, "privilege").fix.unwrap();
    assert!(fix.contains("--cap-add=PERFMON"), "{fix}");
}

#[test]
fn a_right_outside_of_the_bounding_set_is_not_to_be_had_by_setcap() {
    let mut host = nobody(able_host());
    let privilege = host.privilege.as_mut().unwrap();
    privilege.bounding = CapabilitySet::ALL.without(Capability::SysResource);
    let fix = finding(&host, "privilege").fix.unwrap();
    assert!(
        fix.contains("setcap cap_bpf") && !fix.contains("cap_sys_resource"),
        "{fix}"
    );
    let fix = finding(&host, "CAP_SYS_RESOURCE").fix.unwrap();
    assert!(!fix.contains("setcap"), "{fix}");
}

#[test]
fn root_of_a_user_namespace_is_not_root() {
    let mut host = able_host();
    host.privilege.as_mut().unwrap().initial_user_namespace = false;
    assert_eq!(blocker(&host), Some("privilege"));
    assert_eq!(finding(&host, "CAP_BPF").state, State::Missing);
    assert_eq!(finding(&host, "CAP_SYS_PTRACE").state, State::Warning);
    let fix = finding(&host, "CAP_BPF").fix.unwrap();
    assert!(fix.contains("outside of the user namespace"), "{fix}");
}

#[test]
fn hidden_kernel_addresses_cost_the_names_of_kernel_frames() {
    let mut host = able_host();
    host.kernel_text = KernelText::default();
    host.sysctls.kptr_restrict = Some(2);
    assert_eq!(blocker(&host), None);
    assert_eq!(warnings(&host), ["kptr_restrict"]);
    let fix = finding(&host, "kptr_restrict").fix.unwrap();
    assert!(fix.contains("sysctl -w kernel.kptr_restrict=1"), "{fix}");
}

#[test]
fn confidentiality_bars_recording_and_integrity_does_not() {
    let mut host = able_host();
    host.lockdown = Lockdown::Integrity;
    assert_eq!(blocker(&host), None);
    host.lockdown = Lockdown::Confidentiality;
    assert_eq!(blocker(&host), Some("lockdown"));
}

#[test]
fn without_btf_there_is_no_recording() {
    let mut host = able_host();
    host.layout = Err(LayoutError::Unreadable(io::ErrorKind::NotFound));
    assert_eq!(blocker(&host), Some("BTF"));
}

#[test]
fn an_old_kernel_passes_only_with_the_helpers_of_a_new_one() {
    let mut host = able_host();
    host.kernel_release = "5.14.0-503.el9.x86_64".to_owned();
    assert_eq!(blocker(&host), None);
    host.bpf.missing_helpers = Some(vec![Helper::Loop]);
    assert_eq!(blocker(&host), Some("kernel"));
    host.kernel_release = "6.1".to_owned();
    assert_eq!(blocker(&host), Some("BPF helpers"));
}

#[test]
fn a_seccomp_filter_is_told_from_a_missing_capability() {
    let mut host = able_host();
    host.bpf.perf_event = ProgramState::NotPermitted;
    host.bpf.missing_helpers = None;
    assert_eq!(blocker(&host), Some("BPF at a tick"));
    let fix = finding(&host, "BPF at a tick").fix.unwrap();
    assert!(fix.contains("seccomp"), "{fix}");
}

#[test]
fn a_pid_namespace_is_a_loss_and_a_foreign_proc_a_blocker() {
    let mut host = able_host();
    let namespace = host.pid_namespace.as_mut().unwrap();
    namespace.initial = false;
    assert_eq!(warnings(&host), ["pid namespace"]);
    host.pid_namespace.as_mut().unwrap().proc_is_ours = false;
    assert_eq!(blocker(&host), Some("/proc"));
    host.pid_namespace = None;
    host.privilege = None;
    assert_eq!(blocker(&host), Some("/proc"));
}

#[test]
fn small_settings_are_losses() {
    let mut host = able_host();
    let privilege = host.privilege.as_mut().unwrap();
    privilege.effective = privilege.effective.without(Capability::IpcLock);
    host.limits.pinned_bytes = Some(64 << 10);
    host.sysctls.perf_event_mlock_kib = Some(8);
    host.sysctls.perf_event_max_stack_frames = Some(16);
    host.sysctls.perf_event_max_sample_rate_hz = Some(50);
    host.cgroups.version2.clear();
    assert_eq!(
        warnings(&host),
        [
            "CAP_IPC_LOCK",
            "perf_event_max_sample_rate",
            "perf_event_max_stack",
            "memlock",
            "cgroup2",
        ]
    );
    assert_eq!(blocker(&host), None);
}
