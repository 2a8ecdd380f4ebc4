//! The fixed piece of work whose duration tells what the profiler costs: CPU
//! bound, on every CPU, with a call chain of 40 frames that keeps frame pointers.

use crate::project;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

const SOURCE: &str = include_str!("worker.c");
/// Rounds of the first run, which only measures how fast this machine is.
const CALIBRATION_ROUNDS: u64 = 20_000;

/// The built program with the amount of work decided on.
pub struct Worker {
    program: PathBuf,
    threads: usize,
    rounds: u64,
}

impl Worker {
    /// Builds the program in `folder` and chooses so much work that a run
    /// without a profiler takes about `duration`.
    pub fn build(folder: &Path, duration: Duration) -> Result<Self> {
        let source = folder.join("worker.c");
        let program = folder.join("worker");
        fs::write(&source, SOURCE)?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-fno-omit-frame-pointer", "-pthread", "-o"])
            .args([&program, &source]);
        project::run(&mut compile).context("the worker needs a C compiler")?;
        let mut worker = Self {
            program,
            threads: thread::available_parallelism()?.get(),
            rounds: CALIBRATION_ROUNDS,
        };
        let calibration_s = worker.run()?;
        worker.rounds = scaled(CALIBRATION_ROUNDS, calibration_s, duration.as_secs_f64());
        Ok(worker)
    }

    /// Does the work once; seconds from the first thread's start to the last one's end.
    pub fn run(&self) -> Result<f64> {
        let printed = project::output(
            Command::new(&self.program)
                .arg(self.threads.to_string())
                .arg(self.rounds.to_string()),
        )?;
        let elapsed_ns: u64 = printed.trim_end().parse().context("the worker's output")?;
        ensure!(elapsed_ns > 0, "the worker did nothing");
        Ok(Duration::from_nanos(elapsed_ns).as_secs_f64())
    }

    /// How many threads work: one for each CPU this process may use.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

/// The rounds that take `wanted_s` where `rounds` took `measured_s`; at least one.
fn scaled(rounds: u64, measured_s: f64, wanted_s: f64) -> u64 {
    ((rounds as f64 * wanted_s / measured_s) as u64).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn rounds_are_scaled_to_the_wanted_duration() {
        assert_eq!(scaled(1_000, 0.5, 3.0), 6_000);
        assert_eq!(scaled(1, 10.0, 0.1), 1);
    }

    #[test]
    fn the_worker_builds_and_takes_about_as_long_as_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let worker = Worker::build(folder.path(), Duration::from_millis(100)).unwrap();
        let elapsed_s = worker.run().unwrap();
        assert!((0.01..2.0).contains(&elapsed_s), "{elapsed_s} s");
    }
}
