//! `cargo xtask bench walk`: what a complete user stack costs in the kernel, by
//! the kernel's own statistics, of `sampler`, of the kernel's walk by frame
//! pointers, and of other profilers, in alternation.

pub(super) mod machine;
mod program;
mod report;
pub(super) mod running;
mod spending;
mod stacks;
pub(super) mod subject;

use self::machine::Machine;
use self::program::{Programs, WORKLOADS, Workload};
use self::report::{Report, Row};
use self::running::Running;
use self::subject::{Outcome, Subject};
use super::bpf_stats::Enabled;
use crate::project;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A profiler's first seconds, in which it builds its tables.
const SETTLE: Duration = Duration::from_secs(3);
/// Samples that a cell is to have, on two CPUs.
const WANTED_SAMPLES: u32 = 1_200;
/// Load average above which figures are not to be trusted.
const QUIET_LOAD: f64 = 0.5;

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// Measure this binary instead of the release build of the checkout; given
    /// twice, both are measured, in alternation
    #[arg(long, value_name = "FILE")]
    sampler: Vec<PathBuf>,
    /// How often each is measured
    #[arg(long, default_value_t = 3, conflicts_with = "quick")]
    rounds: usize,
    /// Samples a second and CPU; all is measured at each
    #[arg(long, value_name = "HZ,..", value_delimiter = ',', default_values_t = [99, 999])]
    rates: Vec<u32>,
    /// Where a peer is: profile-bee, lightswitch. Otherwise it is looked for on PATH
    #[arg(long, value_name = "NAME=PATH", value_parser = peer)]
    peer: Vec<(String, PathBuf)>,
    /// Only these workloads: deep44, deepbig, deepbig-thrash, deep44-turns
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave the peers out; the kernel's walk stays
    #[arg(long)]
    no_peers: bool,
    /// Leave out what the profilers use themselves
    #[arg(long)]
    no_spending: bool,
    /// One short round: shows that everything works, measures little
    #[arg(long)]
    quick: bool,
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Reads `NAME=PATH` with a known peer's name.
pub(super) fn peer(text: &str) -> Result<(String, PathBuf), String> {
    let known = ["profile-bee", "lightswitch"];
    match text.split_once('=') {
        Some((name, path)) if known.contains(&name) => Ok((name.to_owned(), path.into())),
        _ => Err(format!("NAME=PATH with a NAME of {}", known.join(", "))),
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let workloads = chosen(&args.only)?;
    let folder = tempfile::Builder::new()
        .prefix("sampler-bench-")
        .tempdir()?;
    let mut subjects = samplers(&args.sampler)?;
    let (peers, absent) = Subject::peers(&args.peer, folder.path())?;
    subjects.extend(
        peers
            .into_iter()
            .filter(|peer| !args.no_peers || peer.is_reference()),
    );
    let machine = Machine::this()?;
    let bench = Bench {
        programs: Programs::build(folder.path(), &workloads)?,
        folder: folder.path(),
        cpus: machine.cpus,
        settle: if args.quick { SETTLE / 3 } else { SETTLE },
        window: |rate_hz| window(rate_hz, args.quick),
    };
    let mut report = Report::new(machine, absent);
    let rounds = if args.quick { 1 } else { args.rounds.max(1) };
    for round in 0..rounds {
        report.loads.push(machine::load_average()?);
        if let Some(load) = report.loads.last().filter(|load| **load > QUIET_LOAD) {
            eprintln!(
                "warning: load average {load} before round {}: other programs run, and the figures are too high",
                round + 1
            );
        }
        for rate_hz in &args.rates {
            for workload in &workloads {
                for step in 0..subjects.len() {
                    // Another one is first each round: none always follows the same one.
                    let subject = &subjects[(round + step) % subjects.len()];
                    let row = report.row(subject, *workload, *rate_hz);
                    bench.measure(subject, *workload, *rate_hz, round, row);
                }
            }
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    if !args.no_spending {
        report.spending = spending::measure(&bench, &subjects, rounds, args.quick);
    }
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<Workload>> {
    if names.is_empty() {
        return Ok(WORKLOADS.to_vec());
    }
    names
        .iter()
        .map(|name| {
            let found = WORKLOADS.into_iter().find(|workload| workload.name == name);
            found.with_context(|| format!("no workload {name:?}"))
        })
        .collect()
}

/// The builds of `sampler`, by their files' names if there are several.
fn samplers(files: &[PathBuf]) -> Result<Vec<Subject>> {
    match files {
        [] => Ok(vec![Subject::Sampler(
            "sampler".into(),
            project::release_sampler()?,
        )]),
        files => files
            .iter()
            .map(|file| {
                let found = fs::canonicalize(file).with_context(|| file.display().to_string())?;
                let name = match files {
                    [_] => "sampler".into(),
                    _ => file
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                };
                Ok(Subject::Sampler(name, found))
            })
            .collect(),
    }
}

/// How long a cell's samples take.
fn window(rate_hz: u32, quick: bool) -> Duration {
    if quick {
        return Duration::from_secs(1);
    }
    Duration::from_secs_f64(f64::from(WANTED_SAMPLES) / 2.0 / f64::from(rate_hz.max(1)))
        .max(Duration::from_secs(3))
}

/// What every measurement needs.
struct Bench<'a, W> {
    programs: Programs,
    folder: &'a Path,
    cpus: usize,
    settle: Duration,
    window: W,
}

impl<W: Fn(u32) -> Duration> Bench<'_, W> {
    /// One cell of one round; what fails is noted in its row.
    fn measure(
        &self,
        subject: &Subject,
        workload: Workload,
        rate_hz: u32,
        round: usize,
        row: &mut Row,
    ) {
        match self.cell(subject, workload, rate_hz) {
            Ok(cell) => row.add(round, &cell),
            Err(error) => {
                eprintln!("{} on {}: {error:#}", subject.name(), workload.name);
                row.failures.push(format!("{error:#}"));
            }
        }
    }

    fn cell(&self, subject: &Subject, workload: Workload, rate_hz: u32) -> Result<Cell> {
        let output = self.output()?;
        let busy = self
            .programs
            .start(workload, subject.frame_pointers(), self.cpus)?;
        let _enabled = Enabled::now()?;
        let command = subject.command(rate_hz, output.path())?;
        let mut running = Running::start(command, output.path())?;
        running.wait_for_samples(self.settle)?;
        let before = running.runs()?;
        running.watch((self.window)(rate_hz))?;
        let after = running.runs()?;
        running.stop()?;
        let outcome = subject.outcome(output.path(), busy.comm)?;
        Ok(Cell {
            ns_per_run: after.since(before).mean_ns().context("no samples")?,
            runs: after.since(before).count(),
            ticks: outcome.ticks.unwrap_or_else(|| after.count()),
            outcome,
        })
    }

    /// A folder for what a profiler writes.
    fn output(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::tempdir_in(self.folder)?)
    }
}

/// What one run has shown.
struct Cell {
    /// Mean time of the sampling program, in the window.
    ns_per_run: f64,
    /// How often it ran there.
    runs: u64,
    /// How often it ran in all.
    ticks: u64,
    outcome: Outcome,
}

impl Cell {
    /// Run time for each sample that was counted.
    fn ns_per_sample(&self) -> f64 {
        // A peer takes a few more samples between the last look and its end.
        let counted = self.outcome.counted as f64 / self.ticks.max(1) as f64;
        self.ns_per_run / counted.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn cell(counted: u64, ticks: u64) -> Cell {
        Cell {
            ns_per_run: 1_000.0,
            runs: 100,
            ticks,
            outcome: Outcome {
                counted,
                ..Outcome::default()
            },
        }
    }

    #[test]
    fn run_time_is_divided_by_what_was_counted() {
        let is = |cell: Cell, ns: f64| (cell.ns_per_sample() - ns).abs() < 1e-6;
        assert!(is(cell(50, 100), 2_000.0));
        assert!(is(cell(101, 100), 1_000.0));
        assert!(cell(0, 100).ns_per_sample().is_infinite());
    }

    #[test]
    fn a_peer_is_named_and_known() {
        let (name, path) = peer("profile-bee=/a/probee").unwrap();
        assert_eq!((name.as_str(), path), ("profile-bee", "/a/probee".into()));
        assert!(peer("other=/a").is_err() && peer("lightswitch").is_err());
    }
}
