//! `cargo xtask bench naming --whole-host`: of the frames that have a symbol on this
//! machine, how many a recording of the whole host names, with the corpus running.
//!
//! Frames count as often as they were sampled; calls that were inlined are part
//! of theirs. A user frame that the recording named is taken as named; whether
//! rightly is not asked here. Each one that it did not name is put to a judge ([`judge`](super::judge)),
//! by its mapping's path, build ID and offset in the file: if the judge has a
//! name for it, it is *missed*.
//!
//! ```text
//! share = named / (named + missed)
//! ```
//!
//! What the judge cannot name either counts on neither side, and is stated: in a
//! file that has no symbol there, or in no file that could be asked: memory that
//! no file backs, code made at run time, files that are gone or have been replaced.

use super::judge::{Judge, Verdict};
use super::names::{Names, is_named};
use super::subject::profiles;
use super::{Args, spending};
use crate::bench::walk::machine::Machine;
use anyhow::{Context, Result, ensure};
use corpus::{Crowd, PROGRAMS, Program, profile};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// The programs of the short form.
const QUICK: [&str; 3] = ["c-O2", "dash", "python3"];
/// Names and files that the text lists.
const LISTED: usize = 12;

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Samples a second and CPU.
    pub rate_hz: u32,
    /// Of the recording.
    pub seconds: f64,
    /// Programs of the corpus that ran.
    pub programs: usize,
    /// Those that could not, and why.
    pub missing: Vec<(&'static str, String)>,
    /// Who was asked.
    pub judge: String,
    /// By the recording.
    pub names: Names,
    /// User frames that the judge names and the recording does not.
    pub missed: u64,
    /// User frames in files that have no symbol there.
    pub without_symbol: u64,
    /// User frames in no file that could be asked.
    pub without_file: u64,
    /// Of the missed ones: file and name, and how often.
    pub missed_names: Vec<(String, u64)>,
    /// Of the others: the files, and how often.
    pub unnamed_files: Vec<(String, u64)>,
}

impl Report {
    /// Named ones of those that have a symbol.
    fn user_share(&self) -> Option<f64> {
        let all = self.names.user_named + self.missed;
        (all > 0).then(|| self.names.user_named as f64 / all as f64)
    }

    /// For people.
    pub fn text(&self) -> String {
        let Machine { kernel, cpu, cpus } = &self.machine;
        let names = &self.names;
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "-".into(), |share| format!("{:.3} %", share * 100.0))
        };
        let mut text = format!(
            "Linux {kernel}, {cpus} CPUs ({cpu}), {} s at {} Hz, {} programs of the corpus; judged by {}\n\
             user frames   {}, named {}\n\
             with a symbol {} named: {} missed, {} have none, {} in no file to ask\n\
             kernel frames {}, named {}\n",
            self.seconds,
            self.rate_hz,
            self.programs,
            self.judge,
            names.user,
            percent(names.user_share()),
            percent(self.user_share()),
            self.missed,
            self.without_symbol,
            self.without_file,
            names.kernel,
            percent(names.kernel_share()),
        );
        let mut list = |title: &str, all: &[(String, u64)]| {
            for (what, count) in all.iter().take(LISTED) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{title} {count:>8}  {what}");
            }
        };
        list("missed ", &self.missed_names);
        list("unnamed", &self.unnamed_files);
        for (name, why) in &self.missing {
            let _ = writeln!(text, "without {name}: {why}");
        }
        text
    }
}

/// Records and judges.
pub fn measure(args: &Args, sampler: &Path, folder: &Path) -> Result<Report> {
    let judge = Judge::find()?;
    let programs: Vec<&Program> = PROGRAMS
        .iter()
        .filter(|program| !args.quick || QUICK.contains(&program.name))
        .collect();
    let mut crowd = Crowd::start(&programs)?;
    let output = folder.join("profiles");
    let mut command = Command::new(sampler);
    command
        .args(["record", "-F", &args.rate.to_string(), "-o"])
        .arg(&output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("said"))?);
    spending::record(command, folder, args.duration())?;
    let files = profiles(&output)?;
    let mut report = Report {
        machine: Machine::this()?,
        rate_hz: args.rate,
        seconds: args.duration().as_secs_f64(),
        programs: crowd.len(),
        missing: std::mem::take(&mut crowd.missing),
        judge: judge.name(),
        names: Names::of_pprof(&files, is_named)?,
        missed: 0,
        without_symbol: 0,
        without_file: 0,
        missed_names: Vec::new(),
        unnamed_files: Vec::new(),
    };
    ensure!(report.names.user > 0, "no user frame was sampled");
    // Programs that were built for this are asked before they are removed.
    report.judge(&judge, &Unnamed::of(&files)?)?;
    drop(crowd);
    Ok(report)
}

/// Places without a name, by file and build ID, and how often they were sampled.
struct Unnamed(BTreeMap<(String, String), BTreeMap<u64, u64>>);

impl Unnamed {
    fn of(files: &[std::path::PathBuf]) -> Result<Self> {
        let mut unnamed = Self(BTreeMap::new());
        for file in files {
            let samples = profile::read(file).with_context(|| file.display().to_string())?;
            for sample in samples {
                for frame in sample.stack {
                    if frame.remark.is_none() && !frame.is_kernel && !is_named(&frame) {
                        let places = unnamed.0.entry((frame.file, frame.build_id)).or_default();
                        *places.entry(frame.offset).or_default() += sample.count;
                    }
                }
            }
        }
        Ok(unnamed)
    }
}

impl Report {
    fn judge(&mut self, judge: &Judge, unnamed: &Unnamed) -> Result<()> {
        let mut missed: BTreeMap<String, u64> = BTreeMap::new();
        let mut others: BTreeMap<String, u64> = BTreeMap::new();
        for ((file, build_id), places) in &unnamed.0 {
            let offsets: Vec<u64> = places.keys().copied().collect();
            match judge.ask(Path::new(file), build_id, &offsets)? {
                Verdict::NoFile => {
                    let count: u64 = places.values().sum();
                    self.without_file += count;
                    *others.entry(file.clone()).or_default() += count;
                }
                Verdict::Names(names) => {
                    for (name, count) in names.into_iter().zip(places.values()) {
                        if let Some(name) = name {
                            self.missed += count;
                            *missed.entry(format!("{file}: {name}")).or_default() += count;
                        } else {
                            self.without_symbol += count;
                            *others.entry(file.clone()).or_default() += count;
                        }
                    }
                }
            }
        }
        self.missed_names = most_frequent_first(missed);
        self.unnamed_files = most_frequent_first(others);
        Ok(())
    }
}

fn most_frequent_first(all: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    all
}
