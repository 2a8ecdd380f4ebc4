//! `cargo xtask bench naming`: what it takes to record a whole host and to name
//! what was seen, of `sampler`, `perf script` and other profilers, in alternation.
//!
//! Each runs as its user would run it, beside a load whose symbols are many. What
//! is measured is the whole run, from the start of the profiler to its end, with
//! all its processes: CPU time (`wait4`), the time from the signal that ends the
//! recording to the end of the profiler, after which no file of it is open, and the
//! highest memory that no file backs, looked at every 20 ms, and BPF maps. To `perf
//! record` the one `perf script` is added that the row names. Loads run on while
//! a profiler finishes, as they would. User frames count as often as
//! they were sampled; each profiler's share of named ones is that of the frames
//! that it saw.
//!
//! `--whole-host` asks instead how many frames a recording should have named: see
//! [`whole_host`].

mod big;
mod judge;
mod load;
mod names;
mod report;
mod spending;
mod subject;
mod whole_host;

use self::load::{LOADS, Load};
use self::report::Report;
use self::subject::{Subject, Turn};
use super::walk;
use super::walk::machine::{self, Machine};
use super::walk::subject::Subject as Walker;
use crate::project;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// How often each is measured
    #[arg(long, default_value_t = 3, conflicts_with = "quick")]
    rounds: usize,
    /// Seconds of each recording
    #[arg(long, default_value_t = 10, conflicts_with = "quick")]
    seconds: u64,
    /// Samples a second and CPU
    #[arg(long, value_name = "HZ", default_value_t = 999)]
    rate: u32,
    /// Only these loads: rustc, node, big
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = Load::parse)]
    only: Vec<Load>,
    /// How perf walks: fp or dwarf
    #[arg(long, value_name = "HOW", default_value = "fp", value_parser = ["fp", "dwarf"])]
    call_graph: String,
    /// What one `perf script` may take, in seconds
    #[arg(long, default_value_t = 600)]
    script_limit: u64,
    /// Where a peer is: profile-bee, lightswitch. Otherwise it is looked for on PATH
    #[arg(long, value_name = "NAME=PATH", value_parser = walk::peer)]
    peer: Vec<(String, PathBuf)>,
    /// Measure `sampler` only
    #[arg(long)]
    no_peers: bool,
    /// Count the frames that have a symbol on this machine, with the corpus running
    #[arg(long, conflicts_with_all = ["rounds", "only", "peer"])]
    whole_host: bool,
    /// `sampler` only, one short round: shows that everything works, measures little
    #[arg(long)]
    quick: bool,
    /// Measure this binary instead of the release build of the checkout
    #[arg(long, value_name = "FILE")]
    sampler: Option<PathBuf>,
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    fn duration(&self) -> Duration {
        Duration::from_secs(if self.quick { 3 } else { self.seconds.max(1) })
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let sampler = match &args.sampler {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => project::release_sampler()?,
    };
    let folder = tempfile::Builder::new()
        .prefix("sampler-bench-")
        .tempdir()?;
    let (text, json) = if args.whole_host {
        let report = whole_host::measure(args, &sampler, folder.path())?;
        (report.text(), serde_json::to_string_pretty(&report)?)
    } else {
        let report = measure(args, &sampler, folder.path())?;
        (report.table(), serde_json::to_string_pretty(&report)?)
    };
    print!("{text}");
    if let Some(file) = &args.json {
        fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn measure(args: &Args, sampler: &Path, folder: &Path) -> Result<Report> {
    let (subjects, absent) = subjects(args, sampler, folder)?;
    let mut report = Report {
        machine: Machine::this()?,
        loads: Vec::new(),
        rate_hz: args.rate,
        seconds: args.duration().as_secs_f64(),
        absent,
        rows: Vec::new(),
    };
    let loads = if args.only.is_empty() {
        &LOADS[..]
    } else {
        &args.only
    };
    let size = if args.quick { big::SMALL } else { big::BIG };
    let rounds = if args.quick { 1 } else { args.rounds.max(1) };
    for round in 0..rounds {
        report.loads.push(machine::load_average()?);
        for load in loads {
            let busy = match load.start(size) {
                Ok(busy) => busy,
                Err(why) => {
                    let why = format!("{}: {why:#}", load.name());
                    if !report.absent.contains(&why) {
                        eprintln!("{why}");
                        report.absent.push(why);
                    }
                    continue;
                }
            };
            for step in 0..subjects.len() {
                // Another one is first each round: none always follows the same one.
                let subject = &subjects[(round + step) % subjects.len()];
                let output = tempfile::tempdir_in(folder)?;
                let outcomes = subject.take(&Turn {
                    rate_hz: args.rate,
                    duration: args.duration(),
                    folder: output.path(),
                });
                for (name, outcome) in subject.rows().iter().zip(outcomes) {
                    let row = report.row(load.name(), name);
                    match outcome {
                        Ok(outcome) => {
                            let spent = &outcome.spent;
                            eprintln!(
                                "{}, {name}: {:.2} s CPU, {:.2} s to finish",
                                load.name(),
                                spent.cpu_s,
                                spent.end_s
                            );
                            row.add(&outcome);
                        }
                        Err(error) => {
                            eprintln!("{}, {name}: {error:#}", load.name());
                            row.failures.push(format!("{error:#}"));
                        }
                    }
                }
            }
            drop(busy);
        }
        eprintln!("round {} of {rounds} done", round + 1);
    }
    Ok(report)
}

/// Those that are there, and what is not.
fn subjects(args: &Args, sampler: &Path, folder: &Path) -> Result<(Vec<Subject>, Vec<String>)> {
    let mut subjects = Subject::samplers(sampler)?;
    let mut absent = Vec::new();
    if subjects.iter().all(|one| one.rows().len() == 1) {
        absent.push("a second run with a filled cache: this sampler has no cache of names".into());
    }
    if args.quick || args.no_peers {
        return Ok((subjects, absent));
    }
    if project::find_program("perf").is_some() {
        subjects.push(Subject::Perf {
            call_graph: args.call_graph.clone(),
            limit: Duration::from_secs(args.script_limit),
        });
    } else {
        absent.push("perf".into());
    }
    let (peers, missing) = Walker::peers(&args.peer, folder)?;
    // The kernel's own walk names nothing.
    let peers = peers.into_iter().filter(|peer| !peer.is_reference());
    subjects.extend(peers.map(Subject::Peer));
    absent.extend(
        missing
            .into_iter()
            .filter(|name| !name.starts_with("kernel")),
    );
    Ok((subjects, absent))
}
