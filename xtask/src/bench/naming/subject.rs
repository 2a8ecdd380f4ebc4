//! Who names: `sampler`, `perf script`, and other profilers.

use super::names::{self, Names};
use super::spending::{self, Spent};
use crate::bench::walk::subject::Subject as Walker;
use crate::project;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Options of `sampler record` about its cache of names, if it has any.
const CACHE: &str = "--cache";
const NO_CACHE: &str = "--no-cache";

/// One that records and names; several rows of the table may come of one turn.
pub enum Subject {
    /// `sampler record`.
    Sampler {
        /// The binary.
        file: PathBuf,
        /// What it does with a cache of names.
        caching: Caching,
    },
    /// `perf record`, then `perf script` with inlined calls and without.
    Perf {
        /// Its `--call-graph`.
        call_graph: String,
        /// What `perf script` may take.
        limit: Duration,
    },
    /// profile-bee or lightswitch.
    Peer(Walker),
}

/// Whether `sampler` keeps names from one run to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// It cannot.
    Unknown,
    /// It does not.
    Off,
    /// It does: one run with an empty cache, one with what that has left.
    Twice,
}

/// One row's part of a turn.
pub struct Outcome {
    /// What was used, naming and writing included.
    pub spent: Spent,
    /// By `sampler`'s own account, seconds from the stop to the last file.
    pub finish_s: Option<f64>,
    /// CPU time of finding names alone, where it says so itself.
    pub naming_cpu_s: Option<f64>,
    /// What it named.
    pub names: Names,
}

/// How a turn is taken.
pub struct Turn<'a> {
    pub rate_hz: u32,
    pub duration: Duration,
    /// Empty, and the turn's own.
    pub folder: &'a Path,
}

impl Subject {
    /// Ways of caching that this binary has.
    pub fn samplers(file: &Path) -> Result<Vec<Self>> {
        let help = project::output(Command::new(file).args(["record", "--help"]))?;
        let has = |option: &str| help.split_whitespace().any(|word| word == option);
        let ways: &[Caching] = match (has(NO_CACHE), has(CACHE)) {
            (true, true) => &[Caching::Off, Caching::Twice],
            (false, true) => &[Caching::Twice],
            _ => &[Caching::Unknown],
        };
        Ok(ways
            .iter()
            .map(|caching| Self::Sampler {
                file: file.to_path_buf(),
                caching: *caching,
            })
            .collect())
    }

    /// The rows that its turns make.
    pub fn rows(&self) -> &'static [&'static str] {
        match self {
            Self::Sampler { caching, .. } => match caching {
                Caching::Unknown => &["sampler"],
                Caching::Off => &["sampler, no cache"],
                Caching::Twice => &["sampler, empty cache", "sampler, filled cache"],
            },
            Self::Perf { .. } => &["perf script", "perf script --no-inline"],
            Self::Peer(Walker::ProfileBee(_)) => &["profile-bee"],
            Self::Peer(_) => &["lightswitch"],
        }
    }

    /// Records, names, writes: for each of [`Self::rows`] what came of it.
    pub fn take(&self, turn: &Turn<'_>) -> Vec<Result<Outcome>> {
        match self {
            Self::Sampler { file, caching } => {
                let (rows, cache) = (self.rows(), turn.folder.join("cache"));
                rows.iter()
                    .map(|row| sampler(file, *caching, &cache, row, turn))
                    .collect()
            }
            Self::Perf { call_graph, limit } => perf(call_graph, *limit, self.rows(), turn),
            Self::Peer(walker) => vec![peer(walker, turn)],
        }
    }
}

#[derive(Deserialize)]
struct Index {
    files: Vec<Entry>,
    cost: Cost,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
}

#[derive(Deserialize)]
struct Cost {
    finish_ns: u64,
    naming_cpu_ns: u64,
}

fn sampler(
    file: &Path,
    caching: Caching,
    cache: &Path,
    row: &str,
    turn: &Turn<'_>,
) -> Result<Outcome> {
    let output = turn.folder.join(row.replace([' ', ','], "-"));
    let mut command = Command::new(file);
    command
        .args(["record", "-F", &turn.rate_hz.to_string(), "-o"])
        .arg(&output);
    match caching {
        Caching::Unknown => {}
        Caching::Off => {
            command.arg(NO_CACHE);
        }
        Caching::Twice => {
            command.arg(CACHE).arg(cache);
        }
    }
    quiet(&mut command, turn.folder)?;
    let spent = spending::record(command, turn.folder, turn.duration)?;
    let (index, files) = read_index(&output)?;
    Ok(Outcome {
        spent,
        finish_s: Some(index.cost.finish_ns as f64 * 1e-9),
        naming_cpu_s: Some(index.cost.naming_cpu_ns as f64 * 1e-9),
        names: Names::of_pprof(&files, names::is_named)?,
    })
}

/// The profiles of a finished recording of `sampler`.
pub fn profiles(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(read_index(folder)?.1)
}

fn read_index(folder: &Path) -> Result<(Index, Vec<PathBuf>)> {
    let text = fs::read_to_string(folder.join("index.json")).context("index.json")?;
    let index: Index = serde_json::from_str(&text).context("index.json")?;
    let files = index.files.iter().map(|entry| folder.join(&entry.file));
    let files = files.collect();
    Ok((index, files))
}

fn perf(call_graph: &str, limit: Duration, rows: &[&str], turn: &Turn<'_>) -> Vec<Result<Outcome>> {
    let data = turn.folder.join("perf.data");
    let record = || {
        let mut command = Command::new("perf");
        command
            .args(["record", "-q", "-a", "-e", "cpu-clock"])
            .args(["--call-graph", call_graph, "-F"])
            .arg(turn.rate_hz.to_string())
            .arg("-o")
            .arg(&data);
        quiet(&mut command, turn.folder)?;
        spending::record(command, turn.folder, turn.duration)
    };
    let recorded = match record() {
        Ok(recorded) => recorded,
        Err(error) => return vec![Err(error)],
    };
    let script = |row: &str| {
        let text = turn.folder.join("script");
        let mut command = Command::new("perf");
        command.arg("script").args(row.split(' ').skip(2));
        command.arg("-i").arg(&data);
        quiet(&mut command, turn.folder)?;
        command.stdout(File::create(&text)?);
        let scripted = spending::finish(command, turn.folder, limit)?;
        Ok(Outcome {
            spent: Spent {
                cpu_s: recorded.cpu_s + scripted.cpu_s,
                end_s: recorded.end_s + scripted.end_s,
                peak_rss_bytes: recorded.peak_rss_bytes.max(scripted.peak_rss_bytes),
                peak_map_bytes: 0,
            },
            finish_s: None,
            naming_cpu_s: None,
            // Names need not be UTF-8.
            names: Names::of_perf_script(&String::from_utf8_lossy(&fs::read(&text)?)),
        })
    };
    rows.iter().map(|row| script(row)).collect()
}

fn peer(walker: &Walker, turn: &Turn<'_>) -> Result<Outcome> {
    let rate = walker.rate_hz(turn.rate_hz).to_string();
    let (mut command, result) = match walker {
        Walker::Lightswitch(file, preload) => {
            let mut command = Command::new(file);
            command
                .args(["--sample-freq", &rate, "--duration", "3600"])
                .args(["--profile-format", "pprof", "--profile-name", "profile.pb"])
                .arg("--profile-path")
                .arg(turn.folder)
                .arg("--cache-dir-base")
                .arg(turn.folder);
            if let Some(preload) = preload {
                command.env("LD_PRELOAD", preload);
            }
            (command, turn.folder.join("profile.pb"))
        }
        _ => (
            walker.command(turn.rate_hz, turn.folder)?,
            turn.folder.join("stacks.folded"),
        ),
    };
    quiet(&mut command, turn.folder)?;
    let spent = spending::record(command, turn.folder, turn.duration)?;
    let names = match walker {
        Walker::Lightswitch(..) => Names::of_pprof(&[result], names::is_named_by_lightswitch)?,
        _ => Names::of_folded(&String::from_utf8_lossy(&fs::read(&result)?)),
    };
    Ok(Outcome {
        spent,
        finish_s: None,
        naming_cpu_s: None,
        names,
    })
}

/// What it says goes to the file `said` in `folder`.
fn quiet(command: &mut Command, folder: &Path) -> Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("said"))?);
    Ok(())
}
