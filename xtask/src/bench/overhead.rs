//! `cargo xtask bench overhead`: the same work with and without a profiler, in
//! alternation.

use super::bpf_stats::{Enabled, Runs};
use super::profiler::{Condition, Profiler, Usage};
use super::report::{Report, Row};
use super::stats;
use super::worker::Worker;
use crate::project;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const FREQUENCIES_HZ: [u32; 2] = [99, 999];
const INTERVAL_METHOD: &str =
    "95 % by Student's t over the differences to the run alone of the same round";

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// How often each condition is run
    #[arg(long, default_value_t = 10, conflicts_with = "quick")]
    rounds: usize,
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Two short rounds: shows that everything works, measures little
    #[arg(long)]
    quick: bool,
    /// Measure this binary instead of the release build of the checkout
    #[arg(long, value_name = "FILE")]
    sampler: Option<PathBuf>,
}

/// How much is run.
struct Plan {
    rounds: usize,
    work: Duration,
    /// What a profiler gets to start.
    settle: Duration,
}

impl Plan {
    fn of(args: &Args) -> Self {
        if args.quick {
            Self {
                rounds: 2,
                work: Duration::from_millis(700),
                settle: Duration::from_millis(600),
            }
        } else {
            Self {
                rounds: args.rounds.max(1),
                work: Duration::from_secs(3),
                settle: Duration::from_millis(1_500),
            }
        }
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let plan = Plan::of(args);
    let sampler = match &args.sampler {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => project::release_sampler()?,
    };
    let folder = tempfile::Builder::new()
        .prefix("sampler-bench-")
        .tempdir()?;
    let bench = Bench {
        worker: Worker::build(folder.path(), plan.work)?,
        sampler,
        folder: folder.path(),
        settle: plan.settle,
    };
    let conditions = conditions();
    let mut series: Vec<Series> = conditions.iter().copied().map(Series::new).collect();
    for round in 0..plan.rounds {
        for step in 0..series.len() {
            // Another one is first each round: none always follows the same one.
            let at = (round + step) % series.len();
            series[at].run_once(&bench)?;
        }
        eprintln!("round {} of {} done", round + 1, plan.rounds);
    }
    let report = Report {
        kernel: project::output(Command::new("uname").arg("-r"))?
            .trim_end()
            .to_string(),
        cpus: bench.worker.threads(),
        rounds: plan.rounds,
        interval_method: INTERVAL_METHOD,
        conditions: rows(&series, &bench)?,
    };
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// The worker alone first; perf only where it is installed.
fn conditions() -> Vec<Condition> {
    let mut conditions = vec![Condition::Alone];
    conditions.extend(FREQUENCIES_HZ.map(|frequency_hz| Condition::Sampler { frequency_hz }));
    if project::output(Command::new("perf").arg("--version")).is_ok() {
        conditions.extend(FREQUENCIES_HZ.map(|frequency_hz| Condition::Perf { frequency_hz }));
    } else {
        eprintln!("perf is not installed: nothing to compare with");
    }
    conditions
}

/// What every run needs.
struct Bench<'a> {
    worker: Worker,
    sampler: PathBuf,
    folder: &'a Path,
    settle: Duration,
}

impl Bench<'_> {
    /// The work once under `condition`. `look` sees the profiler while it still runs.
    fn run(
        &self,
        condition: Condition,
        look: impl FnOnce(&Profiler) -> Result<()>,
    ) -> Result<(f64, Option<Usage>)> {
        let output = self.folder.join("profile");
        let profiler = Profiler::start(condition, &self.sampler, &output, self.settle)?;
        let worked = self.worker.run();
        let Some(profiler) = profiler else {
            return Ok((worked?, None));
        };
        let looked = look(&profiler);
        // Stopped before any error is reported: it samples the whole host.
        let usage = profiler.stop()?;
        let elapsed_s = worked?;
        looked?;
        remove(&output)?;
        Ok((elapsed_s, Some(usage)))
    }
}

/// A folder by `sampler`, a file by `perf`, which keeps an older one beside it.
fn remove(output: &Path) -> Result<()> {
    if output.is_dir() {
        fs::remove_dir_all(output)?;
    } else if output.exists() {
        fs::remove_file(output)?;
    }
    Ok(())
}

/// The runs of one condition, one a round.
struct Series {
    condition: Condition,
    elapsed_s: Vec<f64>,
    usages: Vec<Usage>,
}

impl Series {
    fn new(condition: Condition) -> Self {
        Self {
            condition,
            elapsed_s: Vec::new(),
            usages: Vec::new(),
        }
    }

    fn run_once(&mut self, bench: &Bench<'_>) -> Result<()> {
        let (elapsed_s, usage) = bench.run(self.condition, |_| Ok(()))?;
        self.elapsed_s.push(elapsed_s);
        self.usages.extend(usage);
        Ok(())
    }

    /// The mean of what `field` finds in each run.
    fn mean(&self, field: impl Fn(&Usage) -> Option<f64>) -> Option<f64> {
        stats::mean(&self.usages.iter().filter_map(field).collect::<Vec<_>>())
    }
}

fn rows(series: &[Series], bench: &Bench<'_>) -> Result<Vec<Row>> {
    let alone = series.first().map_or(&[][..], |first| &first.elapsed_s);
    series
        .iter()
        .map(|one| {
            let slowdowns = match one.condition {
                Condition::Alone => Vec::new(),
                _ => stats::slowdowns_percent(alone, &one.elapsed_s),
            };
            let ns_per_sample = match one.condition {
                Condition::Sampler { .. } => ns_per_sample(one.condition, bench)?,
                Condition::Alone | Condition::Perf { .. } => None,
            };
            Ok(Row {
                name: one.condition.name(),
                elapsed_s: one.elapsed_s.clone(),
                slowdown_percent: stats::estimate(&slowdowns),
                cpu_s: one.mean(|usage| Some(usage.cpu_s)),
                peak_rss_bytes: one.mean(|usage| {
                    let bytes = usage
                        .own
                        .map_or(usage.max_rss_bytes, |own| own.peak_rss_bytes);
                    Some(bytes as f64)
                }),
                bpf_map_bytes: one.mean(|usage| Some(usage.own?.bpf_map_bytes as f64)),
                stop_to_exit_s: one.mean(|usage| Some(usage.stop_to_exit_s)),
                finish_s: one.mean(|usage| Some(usage.own?.finish_ns as f64 * 1e-9)),
                ns_per_sample,
            })
        })
        .collect()
}

/// One more run, with the kernel's statistics on; its duration does not count.
fn ns_per_sample(condition: Condition, bench: &Bench<'_>) -> Result<Option<f64>> {
    let _enabled = match Enabled::now() {
        Ok(enabled) => enabled,
        Err(error) => {
            eprintln!("no ns per sample: {error:#}");
            return Ok(None);
        }
    };
    let mut runs = Runs::default();
    bench.run(condition, |profiler| {
        runs = Runs::of_process(profiler.pid())?;
        Ok(())
    })?;
    Ok(runs.mean_ns())
}
