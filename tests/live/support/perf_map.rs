//! A reader of perf maps that knows nothing of the profiler's, and a broom.

use std::fs;
use std::path::PathBuf;

use super::verdict::Verdict;

/// The map of a process, removed at the end of the trial.
pub struct MapFile {
    pub path: PathBuf,
}

/// What is in one.
pub struct PerfMap {
    /// Start, end and name, in the order of the file.
    lines: Vec<(u64, u64, String)>,
}

impl PerfMap {
    /// Where a process with this number leaves it.
    pub fn left_by(pid: u32) -> MapFile {
        MapFile {
            path: PathBuf::from(format!("/tmp/perf-{pid}.map")),
        }
    }

    /// The name at an address: that of the last line that covers it.
    pub fn name(&self, address: u64) -> Option<&str> {
        let mut lines = self.lines.iter().rev();
        let line = lines.find(|(start, end, _)| (*start..*end).contains(&address));
        line.map(|(_, _, name)| name.as_str())
    }

    /// Whether it has a function whose name holds `part`.
    pub fn knows(&self, part: &str) -> bool {
        self.lines.iter().any(|(_, _, name)| name.contains(part))
    }
}

impl MapFile {
    /// As it is now.
    pub fn read(&self) -> Verdict<PerfMap> {
        let number = |text: &str| {
            u64::from_str_radix(text.trim_start_matches("0x"), 16)
                .map_err(|error| format!("{text:?} in {}: {error}", self.path.display()))
        };
        let mut lines = Vec::new();
        for line in fs::read_to_string(&self.path)?.lines() {
            let mut parts = line.splitn(3, ' ');
            let (Some(start), Some(size), Some(name)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err(format!("the line {line:?} in {}", self.path.display()).into());
            };
            let start = number(start)?;
            lines.push((start, start + number(size)?, name.trim().to_owned()));
        }
        Ok(PerfMap { lines })
    }
}

impl Drop for MapFile {
    fn drop(&mut self) {
        // It is not always there, and a trial may have made a folder of it.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.path);
    }
}
