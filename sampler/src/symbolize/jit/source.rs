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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::io::Write as _;

    use super::*;
    use crate::object::FileId;

    fn file(contents: &[u8]) -> Arc<PinnedFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(contents).unwrap();
        let id = FileId::default();
        Arc::new(PinnedFile::new(id, "jit".into(), None, file))
    }

    /// A jitdump with one function `f` of 16 bytes at 0x1000.
    fn dump() -> Arc<PinnedFile> {
        let mut bytes = Vec::new();
        for field in [0x4A69_5444_u32, 1, 40, 62, 0, 7, 0, 0, 0, 0] {
            bytes.extend_from_slice(&field.to_ne_bytes());
        }
        for field in [0_u32, 74] {
            bytes.extend_from_slice(&field.to_ne_bytes());
        }
        for field in [0_u64, 7, 0x1000, 0x1000, 16, 1] {
            bytes.extend_from_slice(&field.to_ne_bytes());
        }
        bytes.extend_from_slice(b"f\0");
        bytes.resize(bytes.len() + 16, 0xcc);
        file(&bytes)
    }

    fn names(source: &JitSource, allowance_bytes: &mut u64) -> (Vec<String>, JitStats) {
        let mut stats = JitStats::default();
        let named = source.name(&[0x1004, 0x2004, 0x3004], allowance_bytes, &mut stats);
        let name = |named: &Named| {
            named
                .first()
                .map_or_else(String::new, |frame| frame.name.clone())
        };
        (named.iter().map(name).collect(), stats)
    }

    #[test]
    fn the_map_knows_what_the_dump_does_not() {
        let source = JitSource {
            id: 1,
            dump: Some(dump()),
            map: Some(file(b"1000 10 other\n2000 10 g\nbad\n")),
        };
        let (names, stats) = names(&source, &mut 1_000);
        assert_eq!(names, ["f", "g", ""]);
        let expected = JitStats {
            files: 2,
            refused_files: 0,
            bad_lines: 1,
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn what_is_read_of_a_run_is_bounded() {
        let source = JitSource {
            id: 1,
            dump: None,
            map: Some(file(b"1000 10 f\n")),
        };
        let mut allowance_bytes = 15;
        assert_eq!(names(&source, &mut allowance_bytes).0, ["f", "", ""]);
        let (again, stats) = names(&source, &mut allowance_bytes);
        assert_eq!(again, ["", "", ""]);
        assert_eq!((stats.files, stats.refused_files), (0, 1));
    }
}
