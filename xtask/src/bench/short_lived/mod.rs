//! `cargo xtask bench short-lived`: what is seen of processes that live for some
//! milliseconds, machine-wide.

mod recording;
mod report;

use crate::project;
use anyhow::{Context, Result, ensure};
use recording::Recording;
use report::{Report, Run};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const LOOP: &str = include_str!("loop.c");
const CHILD: &str = include_str!("child.c");
/// The program's name, as its processes bear it.
const CHILD_COMM: &str = "short_child";
/// The name that a process bears until it has become that program.
const LOOP_COMM: &str = "short_loop";
/// The function that the program spends its time in.
const FUNCTION: &str = "short_burn";

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// Measure this binary instead of the release build of the checkout
    #[arg(long, value_name = "FILE")]
    sampler: Option<PathBuf>,
    /// Samples a second and CPU; all are measured
    #[arg(long, value_name = "HZ,..", value_delimiter = ',', default_values_t = [99, 999])]
    rates: Vec<u32>,
    /// Runs at each rate
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// Seconds of a run
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Processes started in a second
    #[arg(long, default_value_t = 200)]
    processes: u32,
    /// CPU time that each burns
    #[arg(long, default_value_t = 3.0, value_name = "MS")]
    milliseconds: f64,
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the loop says of its processes.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Told {
    pid: u32,
    processes: u64,
    /// CPU time of all of them, from fork to the end of their exit.
    cpu_ns: u64,
    /// What they clocked in [`FUNCTION`].
    burnt_ns: u64,
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
    let programs = Programs::build(folder.path())?;
    let mut report = Report::default();
    for rate_hz in &args.rates {
        for round in 1..=args.rounds {
            let output = folder.path().join("profiles");
            let recording = Recording::start(&sampler, *rate_hz, &output)?;
            let told = programs.run(args);
            let seen = recording.stop()?;
            let run = Run::new(*rate_hz, told?, &seen);
            eprintln!("round {round} of {}: {}", args.rounds, run.line());
            report.runs.push(run);
            fs::remove_dir_all(&output)?;
        }
    }
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report.runs)?;
        fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// The built programs.
struct Programs {
    short_loop: PathBuf,
    child: PathBuf,
}

impl Programs {
    fn build(folder: &Path) -> Result<Self> {
        let build = |name: &str, source: &str| -> Result<PathBuf> {
            let file = folder.join(name);
            let source_file = file.with_extension("c");
            fs::write(&source_file, source)?;
            let mut compile = Command::new("cc");
            compile.arg("-O2").arg("-o").arg(&file).arg(&source_file);
            project::run(&mut compile).context("the programs need a C compiler")?;
            Ok(file)
        };
        Ok(Self {
            short_loop: build(LOOP_COMM, LOOP)?,
            child: build(CHILD_COMM, CHILD)?,
        })
    }

    fn run(&self, args: &Args) -> Result<Told> {
        let output = Command::new(&self.short_loop)
            .arg(&self.child)
            .args([args.seconds.to_string(), args.processes.to_string()])
            .arg(args.milliseconds.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(
            output.status.success(),
            "the loop failed: {}",
            output.status
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
