//! The files of one process's code, held open until its addresses are named.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Found, jitdump, perf_map};
use crate::object::PinnedFile;
use crate::symbolize::names::{FrameName, Named};

/// What names the code that one process made while it ran one program.
#[derive(Debug)]
pub struct JitSource {
    /// Tells it from all others of a run.
    pub id: u64,
    /// What the process wrote as a jitdump; asked first, since it has lines.
    pub dump: Option<Arc<PinnedFile>>,
    /// What it wrote as a perf map.
    pub map: Option<Arc<PinnedFile>>,
}

/// What became of such files, counted in files and lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JitStats {
    /// Read.
    pub files: u64,
    /// Not read: too large, or unreadable.
    pub refused_files: u64,
    /// Lines of perf maps and records of jitdumps that made no sense.
    pub bad_lines: u64,
}

impl JitStats {
    /// Adds what became of others.
    pub(in crate::symbolize) fn add(&mut self, more: Self) {
        self.files = self.files.saturating_add(more.files);
        self.refused_files = self.refused_files.saturating_add(more.refused_files);
        self.bad_lines = self.bad_lines.saturating_add(more.bad_lines);
    }
}

impl JitSource {
    /// The names of addresses in ascending order. `allowance_bytes` is what may
    /// be read of all files of the run together, and what was read is taken from
    /// it.
    pub(in crate::symbolize) fn name(
        &self,
        addresses: &[u64],
        allowance_bytes: &mut u64,
        stats: &mut JitStats,
    ) -> Vec<Named> {
        let mut symbols = vec![None; addresses.len()];
        let mut take = |found: Option<Found>| {
            let Some(found) = found else {
                stats.refused_files += 1;
                return;
            };
            stats.files += 1;
            stats.bad_lines += found.bad;
            for (symbol, found) in symbols.iter_mut().zip(found.symbols) {
                *symbol = symbol.take().or(found);
            }
        };
        if let Some(dump) = &self.dump {
            let dump = open(dump, jitdump::MAX_BYTES, allowance_bytes);
            take(dump.map(|dump| jitdump::look_up(&dump, addresses)));
        }
        if let Some(map) = &self.map {
            let map = open(map, perf_map::MAX_BYTES, allowance_bytes);
            take(map.map(|map| perf_map::look_up(&map, addresses)));
        }
        symbols
            .into_iter()
            .map(|symbol| {
                let frame = symbol.map(|symbol| FrameName {
                    name: symbol.name.to_string(),
                    system_name: symbol.name.into(),
                    source_file: symbol.source_file.into(),
                    line: symbol.line,
                    column: 0,
                });
                frame.into_iter().collect()
            })
            .collect()
    }
}

/// What is in a file as it is now, unless that is too much.
fn open(
    file: &PinnedFile,
    max_bytes: u64,
    allowance_bytes: &mut u64,
) -> Option<crate::object::FileContents> {
    let size_bytes = file.size_bytes().ok()?;
    if size_bytes > max_bytes {
        tracing::debug!(
            size_bytes,
            "the names of code made at run time are too many"
        );
        return None;
    }
    *allowance_bytes = allowance_bytes.checked_sub(size_bytes)?;
    file.contents().ok()
}
