//! What shares a file.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::attribution::SampledProcess;

/// By what processes are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grouping {
    /// Each on its own.
    #[default]
    Process,
    /// By the program that they run.
    Exe,
    /// By name.
    Comm,
    /// By cgroup.
    Cgroup,
    /// All together.
    Host,
}

impl Grouping {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Process,
        Self::Exe,
        Self::Comm,
        Self::Cgroup,
        Self::Host,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Exe => "exe",
            Self::Comm => "comm",
            Self::Cgroup => "cgroup",
            Self::Host => "host",
        }
    }

    /// The processes that share a file, by position, groups with the most
    /// samples first; and the name of each group.
    pub fn groups(self, processes: &[SampledProcess], host: &str) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_name: HashMap<Vec<u8>, usize> = HashMap::new();
        for (position, process) in processes.iter().enumerate() {
            let name = match self {
                Self::Process | Self::Comm => process.comm.as_bytes().to_vec(),
                Self::Exe => process.exe.as_deref().map_or_else(
                    || process.comm.as_bytes().to_vec(),
                    |exe| exe.as_bytes().to_vec(),
                ),
                Self::Cgroup => process
                    .cgroup
                    .as_deref()
                    .unwrap_or("none")
                    .as_bytes()
                    .to_vec(),
                Self::Host => host.as_bytes().to_vec(),
            };
            let next = groups.len();
            let group = if self == Self::Process {
                next
            } else {
                *by_name.entry(name.clone()).or_insert(next)
            };
            if group == next {
                groups.push(Group {
                    name,
                    members: Vec::new(),
                });
            }
            groups[group].members.push(position);
        }
        let samples = |group: &Group| -> u64 {
            let of = |member: &usize| processes[*member].completeness.total();
            group.members.iter().map(of).sum()
        };
        groups.sort_by_key(|group| std::cmp::Reverse(samples(group)));
        groups
    }
}

/// Processes that share a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What they have in common, as bytes of a target's making.
    pub name: Vec<u8>,
    /// Positions of the processes.
    pub members: Vec<usize>,
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a way to group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a grouping; there are: process, exe, comm, cgroup, host")]
pub struct UnknownGrouping;

impl FromStr for Grouping {
    type Err = UnknownGrouping;

    fn from_str(name: &str) -> Result<Self, UnknownGrouping> {
        Self::ALL
            .into_iter()
            .find(|grouping| grouping.name() == name)
            .ok_or(UnknownGrouping)
    }
}
