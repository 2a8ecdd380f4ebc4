//! Who the caller is and what it may do.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::small_file;

/// The capabilities that matter to a profiler; the number is the kernel's bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Read any file and directory.
    DacReadSearch = 2,
    /// Pin memory above `RLIMIT_MEMLOCK`.
    IpcLock = 14,
    /// Look into processes of other users.
    SysPtrace = 19,
    /// Nearly everything, and what BPF and PERFMON allow.
    SysAdmin = 21,
    /// Raise limits above their hard value.
    SysResource = 24,
    /// See addresses of the kernel.
    Syslog = 34,
    /// Open events on the whole host; load programs that read memory.
    Perfmon = 38,
    /// Load BPF programs and maps.
    Bpf = 39,
    /// Open the files that a process maps, through `/proc/PID/map_files`.
    CheckpointRestore = 40,
}

impl Capability {
    /// Its name as in capabilities(7).
    pub fn name(self) -> &'static str {
        match self {
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
            Self::CheckpointRestore => "CAP_CHECKPOINT_RESTORE",
        }
    }
}

/// A set of capabilities, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// All that exist and will.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether the kernel would grant what `capability` stands for: since 5.8
    /// `CAP_SYS_ADMIN` stands for BPF, PERFMON and `CHECKPOINT_RESTORE` too.
    pub fn grants(self, capability: Capability) -> bool {
        let implied = matches!(
            capability,
            Capability::Bpf | Capability::Perfmon | Capability::CheckpointRestore
        );
        self.has(capability) || implied && self.has(Capability::SysAdmin)
    }

    /// The set without one of them.
    #[must_use]
    pub fn without(self, capability: Capability) -> Self {
        Self(self.0 & !(1 << capability as u32))
    }

    /// Whether it holds the capability itself.
    pub fn has(self, capability: Capability) -> bool {
        self.0 >> capability as u32 & 1 == 1
    }

    /// One of the sets in the text of `/proc/PID/status`, such as `CapEff`.
    fn parse_status(status: &str, set: &str) -> Option<Self> {
        let hex = status
            .lines()
            .find_map(|line| line.strip_prefix(set)?.strip_prefix(':'))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }
}

/// The caller's rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privilege {
    /// Effective user ID, in the caller's user namespace.
    pub euid: u32,
    /// Effective capabilities.
    pub effective: CapabilitySet,
    /// Those that it can gain by exec: a file with more is not executed.
    pub bounding: CapabilitySet,
    /// Whether the effective ones count for the host: in any other user namespace than the
    /// first, BPF and perf ignore them.
    pub initial_user_namespace: bool,
}

/// The inode of the first user namespace (`PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Privilege {
    /// Reads `/proc/self`.
    pub fn read() -> io::Result<Self> {
        let status = small_file::read_text("/proc/self/status")?;
        let set = |name| {
            CapabilitySet::parse_status(&status, name).ok_or_else(|| {
                let message = format!("/proc/self/status holds no {name} line");
                io::Error::new(io::ErrorKind::InvalidData, message)
            })
        };
        // A kernel without user namespaces has no such file, and one namespace.
        let initial_user_namespace = std::fs::metadata("/proc/self/ns/user")
            .map_or(true, |metadata| metadata.ino() == INITIAL_USER_NAMESPACE);
        Ok(Self {
            // SAFETY: geteuid takes nothing and cannot fail.
            euid: unsafe { libc::geteuid() },
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            initial_user_namespace,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    #[test]
    fn the_effective_set_is_read_and_not_the_permitted_one() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t000000c000000004\n";
        let set = CapabilitySet::parse_status(status, "CapEff").unwrap();
        assert!(set.grants(Capability::Bpf));
        assert!(set.grants(Capability::Perfmon));
        assert!(set.grants(Capability::DacReadSearch));
        assert!(!set.grants(Capability::SysPtrace));
        assert!(!set.grants(Capability::CheckpointRestore));
    }

    #[test]
    fn sys_admin_stands_for_the_younger_ones_only() {
        let set = CapabilitySet(1 << Capability::SysAdmin as u32);
        assert!(set.grants(Capability::Bpf));
        assert!(set.grants(Capability::Perfmon));
        assert!(!set.grants(Capability::SysPtrace));
        assert!(!set.grants(Capability::Syslog));
    }

    #[test]
    fn a_status_without_the_line_is_no_set() {
        assert_eq!(CapabilitySet::parse_status("Name:\tx\n", "CapEff"), None);
        assert_eq!(
            CapabilitySet::parse_status("CapEff:\tnonsense\n", "CapEff"),
            None
        );
    }

    #[test]
    fn the_caller_has_rights_to_read() {
        // The same number from another source: the owner of `/proc/self`.
        let owner = std::fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(Privilege::read().unwrap().euid, owner);
    }
}
