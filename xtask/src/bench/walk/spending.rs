//! What the profilers use themselves: CPU time of recording and finishing, and
//! memory. The kernel's statistics are off meanwhile.

use super::Bench;
use super::program::{FramePointers, WORKLOADS};
use super::report::{Spending, Spent};
use super::running::Running;
use super::subject::Subject;
use crate::project;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const RATE_HZ: u32 = 999;
const RECORDING: Duration = Duration::from_secs(10);

/// A profiler of which only this is measured.
enum Spender<'a> {
    Walking(&'a Subject),
    /// `perf record` with this `--call-graph`, then `perf script`.
    Perf(&'static str),
}

impl Spender<'_> {
    fn name(&self) -> String {
        match self {
            Self::Walking(subject) => subject.name().to_owned(),
            Self::Perf(by) => format!("perf, {by}"),
        }
    }
}

/// In alternation, another one first each round.
pub fn measure<W: Fn(u32) -> Duration>(
    bench: &Bench<'_, W>,
    subjects: &[Subject],
    rounds: usize,
    quick: bool,
) -> Vec<Spending> {
    let recording = if quick { RECORDING / 10 } else { RECORDING };
    let mut spenders: Vec<Spender<'_>> = subjects.iter().map(Spender::Walking).collect();
    if project::find_program("perf").is_some() {
        spenders.extend(["dwarf", "fp"].map(Spender::Perf));
    }
    let mut all: Vec<Spending> = spenders
        .iter()
        .map(|spender| Spending::of(spender.name()))
        .collect();
    for round in 0..rounds {
        for step in 0..spenders.len() {
            let at = (round + step) % spenders.len();
            match spend(bench, &spenders[at], recording) {
                Ok(spent) => all[at].add(&spent),
                Err(error) => eprintln!("{}: {error:#}", spenders[at].name()),
            }
        }
    }
    all
}

fn spend<W: Fn(u32) -> Duration>(
    bench: &Bench<'_, W>,
    spender: &Spender<'_>,
    recording: Duration,
) -> Result<Spent> {
    let output = bench.output()?;
    let frame_pointers = match spender {
        Spender::Walking(subject) => subject.frame_pointers(),
        Spender::Perf("fp") => FramePointers::Kept,
        Spender::Perf(_) => FramePointers::Omitted,
    };
    let _busy = bench
        .programs
        .start(WORKLOADS[0], frame_pointers, bench.cpus)?;
    let command = match spender {
        Spender::Walking(subject) => subject.command(RATE_HZ, output.path())?,
        Spender::Perf(by) => perf_record(by, output.path())?,
    };
    let mut running = Running::start(command, output.path())?;
    running.watch(recording)?;
    let map_bytes = running.map_bytes();
    let used = running.stop()?;
    let mut cpu_s = used.cpu_s;
    let mut peak_rss_bytes = used.peak_rss_bytes;
    if let Spender::Perf(_) = spender {
        let mut script = Command::new("perf");
        script
            .args(["script", "-i"])
            .arg(output.path().join("perf.data"))
            .stdout(Stdio::null())
            .stderr(File::create(output.path().join("said"))?);
        let used = Running::start(script, output.path())?.wait_for_end()?;
        cpu_s += used.cpu_s;
        peak_rss_bytes = peak_rss_bytes.max(used.peak_rss_bytes);
    }
    Ok(Spent {
        cpu_s,
        peak_rss_bytes,
        map_bytes,
    })
}

fn perf_record(by: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new("perf");
    command
        .args(["record", "-q", "-a", "-e", "cpu-clock", "--call-graph", by])
        .args(["-F", &RATE_HZ.to_string(), "-o"])
        .arg(folder.join("perf.data"))
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("said")).context("a file for what perf says")?);
    Ok(command)
}
