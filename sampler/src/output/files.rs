//! Writing a whole recording: each profile in each format, then the index.

use std::fmt;
use std::io;
use std::str::FromStr;

use super::directory::{INDEX, OutputDirectory, OutputError};
use super::index::{self, CostIndex, FileIndex, Index};
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
        for comment in comments(&index, built.completeness) {
            built.profile.comment(comment);
        }
        let stem = naming::stem(grouping, &group, processes);
        let stem = naming::free_stem(directory, &stem, &endings);
        for format in formats {
            directory.write(&format!("{stem}{}", format.ending()), |out| {
                format.write(&built.profile, &stem, out)
            })?;
        }
        all_frames.named += built.frames.named;
        all_frames.unnamed += built.frames.unnamed;
        let alone = match members.as_slice() {
            [process] if grouping == Grouping::Process && !process.outside => Some(*process),
            _ => None,
        };
        for ending in &endings {
            index.files.push(FileIndex {
                file: format!("{stem}{ending}"),
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
    directory.remove_older()?;
    index.frames = all_frames.into();
    index.cost = CostIndex::new(
        recording.cost(),
        recording.stopped.elapsed().as_nanos() as u64,
    );
    directory.write(INDEX, |out| {
        serde_json::to_writer_pretty(&mut *out, &index)?;
        out.write_all(b"\n")
    })?;
    Ok(index)
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
