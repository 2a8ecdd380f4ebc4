//! Hosts that exist in tests only.

use std::path::PathBuf;

use super::bpf_features::{BpfFeatures, ProgramState};
use super::cgroup::{CgroupMount, CgroupMounts};
use super::events::{EventState, Events};
use super::facts::HostFacts;
use super::kallsyms::KernelText;
use super::lockdown::Lockdown;
use super::pid_namespace::PidNamespace;
use super::privilege::{CapabilitySet, Privilege};
use super::sysctl::{ResourceLimits, Sysctls};
use super::task_layout::KernelLayout;

/// Root on a virtual machine of today: everything but hardware events.
pub(crate) fn able_host() -> HostFacts {
    HostFacts {
        kernel_release: "6.1.0-18-amd64".to_owned(),
        online_cpus: vec![0, 1],
        privilege: Some(Privilege {
            euid: 0,
            effective: CapabilitySet::ALL,
            bounding: CapabilitySet::ALL,
            initial_user_namespace: true,
        }),
        layout: Ok(KernelLayout::default()),
        kernel_text: KernelText {
            start: Some(0xffff_ffff_8100_0000),
            entry: Some(0xffff_ffff_8100_0010..0xffff_ffff_8100_2000),
        },
        events: Events {
            cpu_clock: EventState::Works,
            side_band: EventState::Works,
            cycles: EventState::NotSupported,
        },
        bpf: BpfFeatures {
            perf_event: ProgramState::Works,
            raw_tracepoint: ProgramState::Works,
            missing_helpers: Some(Vec::new()),
        },
        sysctls: Sysctls {
            perf_event_paranoid: Some(2),
            perf_event_max_sample_rate_hz: Some(100_000),
            perf_event_max_stack_frames: Some(127),
            perf_event_mlock_kib: Some(516),
            kptr_restrict: Some(0),
            unprivileged_bpf_disabled: Some(2),
        },
        lockdown: Lockdown::Off,
        limits: ResourceLimits {
            pinned_bytes: Some(8 << 20),
            open_files: Some(1 << 20),
        },
        cgroups: CgroupMounts {
            version2: vec![CgroupMount {
                root: PathBuf::from("/"),
                point: PathBuf::from("/sys/fs/cgroup"),
            }],
            version1: Vec::new(),
        },
        pid_namespace: Some(PidNamespace {
            inode: 0xEFFF_FFFC,
            device: 4,
            initial: true,
            proc_is_ours: true,
        }),
    }
}

/// The same host as a caller without any rights sees it.
pub(crate) fn nobody(mut host: HostFacts) -> HostFacts {
    host.privilege = Some(Privilege {
        euid: 65534,
        effective: CapabilitySet::default(),
        bounding: CapabilitySet::ALL,
        initial_user_namespace: true,
    });
    host.kernel_text = KernelText::default();
    host.events = Events {
        cpu_clock: EventState::NotPermitted,
        side_band: EventState::NotPermitted,
        cycles: EventState::NotPermitted,
    };
    host.bpf = BpfFeatures {
        perf_event: ProgramState::NotPermitted,
        raw_tracepoint: ProgramState::NotPermitted,
        missing_helpers: None,
    };
    host
}
