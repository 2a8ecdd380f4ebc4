//! Writing a whole recording: each profile in each format, then the index.

use std::fmt;
use std::io;
use std::str::FromStr;

use super::directory::{INDEX, OutputDirectory, OutputError};
use super::index::{self, CostIndex, FileIndex, Index, UnfinishedIndex};
use super::naming;
use crate::format::{folded, pprof, svg};
use crate::profile::Profile;
use crate::session::{Completeness, FrameCounts, Grouping, Recording, SampledProcess};

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Gzipped protocol buffers, as `go tool pprof` reads them.
    Pprof,
    /// A line for each stack, as flame graph tools read them.
    Folded,
    /// A flame graph.
    Svg,
}

impl FileFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pprof, Self::Folded, Self::Svg];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pprof => "pprof",
            Self::Folded => "folded",
            Self::Svg => "svg",
        }
    }

    const fn ending(self) -> &'static str {
        match self {
            Self::Pprof => ".pb.gz",
            Self::Folded => ".folded",
            Self::Svg => ".svg",
        }
    }

    fn write(self, profile: &Profile, title: &str, out: &mut dyn io::Write) -> io::Result<()> {
        match self {
            Self::Pprof => pprof::write(profile, out),
            Self::Folded => folded::write(profile, 0, out),
            Self::Svg => svg::write(profile, 0, title, out),
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such format; there are: pprof, folded, svg")]
pub struct UnknownFormat;

impl FromStr for FileFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or(UnknownFormat)
    }
}

/// What all files of a recording say about it.
pub type Written = Index;

/// Writes the files of a recording. `index` comes with all that is known
/// without them.
pub fn write(
    recording: &Recording,
    grouping: Grouping,
    formats: &[FileFormat],
    mut index: Index,
    directory: &mut OutputDirectory,
) -> Result<Written, OutputError> {
    write_indexed(&mut index, directory, |index, directory| {
        write_profiles(recording, grouping, formats, index, directory)?;
        directory.remove_older()?;
        index.cost = CostIndex::new(
            recording.cost(),
            recording.stopped.elapsed().as_nanos() as u64,
        );
        Ok(())
    })?;
    Ok(index)
}

/// Writes files, then the index of them.
///
/// When a file cannot be written, the index is written all the same, if that
/// is possible: without it nobody would know which files in the directory are
/// a recording's, and may be replaced by the next.
fn write_indexed(
    index: &mut Index,
    directory: &mut OutputDirectory,
    files: impl FnOnce(&mut Index, &mut OutputDirectory) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    let written = files(index, directory);
    if let Err(error) = &written {
        index.unfinished = Some(UnfinishedIndex {
            error: error.to_string(),
            older_files: directory.older(),
        });
    }
    let indexed = directory.write(INDEX, |out| {
        serde_json::to_writer_pretty(&mut *out, &index)?;
        out.write_all(b"\n")
    });
    written.and(indexed)
}

/// Writes the profiles, and an entry of the index for each that is in place.
fn write_profiles(
    recording: &Recording,
    grouping: Grouping,
    formats: &[FileFormat],
    index: &mut Index,
    directory: &mut OutputDirectory,
) -> Result<(), OutputError> {
    let processes = recording.processes();
    let builder = recording.profiles();
    let endings: Vec<&str> = formats.iter().map(|format| format.ending()).collect();
    let mut all_frames = FrameCounts::default();
    for group in grouping.groups(processes, &index.host.name) {
        let members: Vec<&SampledProcess> = group
            .members
            .iter()
            .map(|member| &processes[*member])
            .collect();
        let mut built = builder.build(&members);
        recording.look_at_memory();
        let boot = recording.boot.comment();
        for comment in comments(index, built.completeness).into_iter().chain(boot) {
            built.profile.comment(comment);
        }
        let stem = naming::stem(grouping, &group, processes);
        let stem = naming::free_stem(directory, &stem, &endings);
        all_frames.named += built.frames.named;
        all_frames.unnamed += built.frames.unnamed;
        index.frames = all_frames.into();
        let alone = match members.as_slice() {
            [process] if grouping == Grouping::Process && !process.outside => Some(*process),
            _ => None,
        };
        for format in formats {
            let file = format!("{stem}{}", format.ending());
            directory.write(&file, |out| format.write(&built.profile, &stem, out))?;
            index.files.push(FileIndex {
                file,
                pid: alone.map(|process| process.pid),
                comm: String::from_utf8_lossy(&group.name).into_owned(),
                exe: members.first().and_then(|process| process.exe.clone()),
                start_time: alone.map(|process| {
                    index::rfc3339(index::from_unix_ns(
                        recording.boot_unix_ns + process.start_boottime_ns as i64,
                    ))
                }),
                samples: built.samples,
                cpu_ns: built.samples * recording.period_ns(),
                stacks: built.completeness.into(),
                frames: built.frames.into(),
            });
        }
    }
    Ok(())
}

/// The ledger, for whoever has only the profile: `pprof -comments` shows it.
/// Lines that start with `#` do not clutter the head of other reports.
fn comments(index: &Index, stacks: Completeness) -> Vec<String> {
    let ledger = &index.ledger;
    let number = |number: Option<u64>| {
        number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
    };
    let list = |entries: &std::collections::BTreeMap<&'static str, u64>| {
        let entries: Vec<_> = entries
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        if entries.is_empty() {
            "none".to_owned()
        } else {
            entries.join(", ")
        }
    };
    let of_profile = index::StackIndex::from(stacks);
    vec![
        format!(
            "sampler {} on {}, Linux {}: {} at {} Hz",
            index.sampler, index.host.name, index.host.kernel, index.event, index.frequency_hz
        ),
        format!(
            "# host: ticks {}, expected {}, not delivered {} (idle {}), counted {}, idle {}, out of scope {}, lost: {}",
            ledger.ticks,
            number(ledger.expected_ticks),
            number(ledger.not_delivered),
            number(ledger.not_delivered_idle),
            ledger.counted,
            ledger.idle,
            ledger.out_of_scope,
            list(&ledger.lost),
        ),
        format!(
            "# stacks of this profile: complete {}, kernel only {}, truncated: {}",
            of_profile.complete,
            of_profile.kernel_only,
            list(&of_profile.truncated),
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use std::fs;

    use super::*;
    use crate::output::index::example;

    /// Writes `whole`, then fails with a full disk.
    fn fail_after(whole: &str, directory: &mut OutputDirectory) {
        let mut index = example::index();
        let failed = write_indexed(&mut index, directory, |index, directory| {
            directory.write(whole, |out| out.write_all(b"new"))?;
            index.files.push(example::file(whole));
            directory.write("half", |_| Err(io::Error::from_raw_os_error(libc::ENOSPC)))
        });
        assert!(failed.is_err());
    }

    #[test]
    fn what_a_failed_recording_left_can_be_replaced() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = OutputDirectory::prepare(root.path(), false).unwrap();
        fail_after("first", &mut directory);
        drop(directory);

        // A second one fails too: now there are files of both.
        let mut directory = OutputDirectory::prepare(root.path(), true).unwrap();
        fail_after("second", &mut directory);
        drop(directory);
        let text = fs::read(root.path().join(INDEX)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["files"][0]["file"], "second");
        assert_eq!(json["unfinished"]["older_files"][0], "first");

        let mut directory = OutputDirectory::prepare(root.path(), true).unwrap();
        let mut index = example::index();
        write_indexed(&mut index, &mut directory, |_, directory| {
            directory.remove_older()
        })
        .unwrap();
        let left: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [INDEX]);
        let text = fs::read(root.path().join(INDEX)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert!(json.get("unfinished").is_none());
    }
}
