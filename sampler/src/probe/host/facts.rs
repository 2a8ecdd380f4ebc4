//! Everything this room knows of the host, gathered once.

use super::bpf_features::BpfFeatures;
use super::cgroup::CgroupMounts;
use super::events::Events;
use super::kallsyms::KernelText;
use super::lockdown::Lockdown;
use super::pid_namespace::PidNamespace;
use super::privilege::Privilege;
use super::sysctl::{ResourceLimits, Sysctls};
use super::task_layout::{self, KernelLayout, LayoutError};
use super::{cpus, kernel};

/// What this kernel and this caller can do.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The CPUs that run; never empty.
    pub online_cpus: Vec<u32>,
    /// The caller's rights; None without a `/proc`.
    pub privilege: Option<Privilege>,
    /// Where the kernel keeps what is read of a thread and its memory.
    pub layout: Result<KernelLayout, LayoutError>,
    /// The kernel's own addresses, as far as they are shown.
    pub kernel_text: KernelText,
    /// Events that open.
    pub events: Events,
    /// Programs that load.
    pub bpf: BpfFeatures,
    /// Settings.
    pub sysctls: Sysctls,
    /// Protection against root.
    pub lockdown: Lockdown,
    /// What the caller may use up.
    pub limits: ResourceLimits,
    /// Mounted cgroup hierarchies.
    pub cgroups: CgroupMounts,
    /// The caller's pid namespace; None without a `/proc`.
    pub pid_namespace: Option<PidNamespace>,
}

impl HostFacts {
    /// Reads and tries everything; what cannot be read counts as absent. Takes
    /// some 10 ms, most of it in the kernel's BTF.
    pub fn gather() -> Self {
        let online_cpus = cpus::online()
            .ok()
            .filter(|online| !online.is_empty())
            .unwrap_or_else(|| vec![0]);
        Self {
            kernel_release: kernel::release(),
            privilege: Privilege::read().ok(),
            layout: task_layout::read(),
            kernel_text: KernelText::read().unwrap_or_default(),
            events: Events::probe(online_cpus[0]),
            bpf: BpfFeatures::probe(),
            sysctls: Sysctls::read(),
            lockdown: Lockdown::read(),
            limits: ResourceLimits::read(),
            cgroups: CgroupMounts::read().unwrap_or_default(),
            pid_namespace: PidNamespace::read().ok(),
            online_cpus,
        }
    }
}
