//! Has the tables of files built by a child without rights.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::builder::Made;
use super::service::{Reply, Request, TABLES_SERVICE};
use crate::isolation::{Child, Limits, Lost};
use crate::object::unwind::Table;
use crate::object::{FileId, PinnedFile};

/// How long a child may be at one file. The largest take a second.
const FILE_DEADLINE: Duration = Duration::from_secs(15);
/// CPU time beyond that, after which the kernel ends it.
const CPU_GRACE: Duration = Duration::from_secs(10);
/// What the child holds beside what it builds, in bytes: the program itself, and
/// the encoded table.
const BESIDE_BYTES: u64 = 64 << 20;
const STACK_BYTES: u64 = 8 << 20;
/// Children that a file may cost: one may have been killed by somebody else.
const MAX_DEATHS: u32 = 2;
/// An answer without its table.
const MAX_REPLY_BYTES: usize = 64;

/// One child, started again when it is lost.
#[derive(Debug)]
pub struct Maker {
    max_bytes: u64,
    file_deadline: Duration,
    child: Option<Child>,
    given_up: HashSet<FileId>,
    /// Children that were lost since this was last asked.
    deaths: u64,
}

impl Maker {
    /// Starts the child, which may hold so many bytes for a table that it builds.
    pub(super) fn start(max_bytes: u64) -> Self {
        Self::start_within(max_bytes, FILE_DEADLINE)
    }

    /// The same, for a child that may be at one file for so long.
    pub fn start_within(max_bytes: u64, file_deadline: Duration) -> Self {
        let mut maker = Self {
            max_bytes,
            file_deadline,
            child: None,
            given_up: HashSet::new(),
            deaths: 0,
        };
        maker.ready();
        maker
    }

    /// Children that were lost since the last call.
    pub fn take_deaths(&mut self) -> u64 {
        std::mem::take(&mut self.deaths)
    }

    /// The table of a file, if there is one to be had.
    pub fn table(&mut self, file: &PinnedFile) -> Option<Table> {
        match self.make(file).0 {
            Made::Table(table) => Some(table),
            Made::Nothing | Made::Refused => None,
        }
    }

    /// The table of a file, and the same encoded. A file that has cost too many
    /// children is refused.
    pub(super) fn make(&mut self, file: &PinnedFile) -> (Made, Option<Vec<u8>>) {
        for _ in 0..MAX_DEATHS {
            if self.given_up.contains(&file.id) || !self.ready() {
                break;
            }
            match self.ask(file) {
                Ok(answer) => return answer,
                Err(lost) => {
                    // The path is the target's: it is quoted, its bytes escaped.
                    tracing::warn!(path = ?file.path, "lost a builder of unwind tables: {lost}");
                    self.child = None;
                    self.deaths += 1;
                }
            }
        }
        self.given_up.insert(file.id);
        (Made::Refused, None)
    }

    fn ask(&self, file: &PinnedFile) -> Result<(Made, Option<Vec<u8>>), Lost> {
        let child = self.child.as_ref().ok_or(Lost::Ended)?;
        let deadline = Instant::now() + self.file_deadline;
        child.allow_cpu(self.file_deadline + CPU_GRACE);
        let request = Request {
            max_bytes: self.max_bytes,
        };
        child.send(&request, Some(file.as_fd()), deadline)?;
        Ok(match child.receive(MAX_REPLY_BYTES, deadline)? {
            Reply::Table => {
                let max_bytes = usize::try_from(self.max_bytes).unwrap_or(usize::MAX);
                let encoded = child.receive_bytes(max_bytes, deadline)?;
                let table = Table::decode(&encoded).ok_or(Lost::Nonsense)?;
                (Made::Table(table), Some(encoded))
            }
            Reply::Nothing => (Made::Nothing, None),
            Reply::Refused => (Made::Refused, None),
        })
    }

    /// Whether there is a child that waits to be asked.
    fn ready(&mut self) -> bool {
        if self.child.as_ref().is_some_and(|child| !child.is_ready()) {
            self.child = None;
            self.deaths += 1;
        }
        if self.child.is_none() {
            let limits = Limits {
                data_bytes: self.max_bytes.saturating_add(BESIDE_BYTES),
                stack_bytes: STACK_BYTES,
            };
            match Child::start(TABLES_SERVICE.name, limits) {
                Ok(child) => self.child = Some(child),
                Err(error) => tracing::error!(%error, "no unwind tables can be built"),
            }
        }
        self.child.is_some()
    }
}
