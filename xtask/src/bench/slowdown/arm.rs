//! What runs beside the work in a window.

use crate::bench::slowdown::worker::{Burner, Program};
use crate::bench::walk::running::Running;
use crate::bench::{ready, tree};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(100);
/// Of the samples that a profiler should take, it must have taken so many.
const SAMPLES_AT_LEAST: f64 = 0.5;
/// Less than `perf` writes for a sample.
const PERF_SAMPLE_BYTES: f64 = 40.0;
/// One unit of so many is done twice in the arm that does.
pub const DOUBLED: u64 = 100;
/// Of each CPU, what the arm that burns is to take.
pub const BURNT: f64 = 0.01;

/// One of the things that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// Nothing: what the others are compared with.
    Alone,
    /// Nothing, once more: its slowdown has to be none.
    AloneAgain,
    /// `sampler record` of the whole host.
    Sampler,
    /// `perf record -g` of the whole host.
    Perf,
    /// Nothing, but the work does one unit in [`DOUBLED`] twice.
    Doubled,
    /// A program that takes [`BURNT`] of each CPU.
    Burner,
}

impl Arm {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::AloneAgain => "alone again",
            Self::Sampler => "sampler",
            Self::Perf => "perf -g",
            Self::Doubled => "1 % more work",
            Self::Burner => "1 % burnt",
        }
    }

    /// How often the work doubles a unit.
    pub fn doubled(self) -> Option<u64> {
        (self == Self::Doubled).then_some(DOUBLED)
    }
}

/// What is needed to start an arm.
pub struct Starting<'a> {
    pub program: &'a Program,
    pub sampler: &'a Path,
    pub folder: &'a Path,
    pub rate_hz: u32,
}

/// What runs beside the work now.
pub enum Beside {
    Nothing,
    Burner(Burner),
    Profiler(Profiler),
}

/// A profiler that samples.
pub struct Profiler {
    running: Running,
    arm: Arm,
    output: tempfile::TempDir,
    rate_hz: u32,
    cpus: usize,
}

impl Beside {
    /// Starts it; a profiler has its events open when this returns.
    pub fn start(arm: Arm, starting: &Starting<'_>) -> Result<Self> {
        let output = tempfile::tempdir_in(starting.folder)?;
        let (rate, result) = (starting.rate_hz.to_string(), result(output.path()));
        let mut command = match arm {
            Arm::Alone | Arm::AloneAgain | Arm::Doubled => return Ok(Self::Nothing),
            Arm::Burner => return Ok(Self::Burner(starting.program.burn(BURNT)?)),
            Arm::Sampler => {
                let mut command = Command::new(starting.sampler);
                // Its windows share what it keeps from one recording to the next.
                command.arg("record").arg("--cache");
                command.arg(starting.folder.join("cache"));
                command.args(["-F", &rate, "-o"]);
                command
            }
            Arm::Perf => {
                let mut command = Command::new("perf");
                command.args(["record", "-q", "-g", "-a", "-e", "cpu-clock"]);
                command.args(["-F", &rate, "-o"]);
                command
            }
        };
        command
            .arg(&result)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(output.path().join("said"))?);
        let mut running = Running::start(command, output.path())?;
        if let Err(error) = ready::wait(running.pid()) {
            // Says what it said, if it has ended.
            running.watch(LOOK)?;
            return Err(error.context(arm.name()));
        }
        Ok(Self::Profiler(Profiler {
            running,
            arm,
            output,
            rate_hz: starting.rate_hz,
            cpus: starting.program.threads(),
        }))
    }

    /// CPU time that it and its children have used so far.
    pub fn cpu_ns(&self) -> u64 {
        let root = match self {
            Self::Nothing => return 0,
            Self::Burner(burner) => burner.pid(),
            Self::Profiler(profiler) => profiler.running.pid(),
        };
        tree::pids(root).into_iter().map(tree::cpu_ns).sum()
    }

    /// Ends it; an error if it has not sampled for `at_least`.
    pub fn end(self, at_least: Duration) -> Result<()> {
        match self {
            Self::Nothing | Self::Burner(_) => Ok(()),
            Self::Profiler(profiler) => profiler.end(at_least),
        }
    }
}

impl Profiler {
    fn end(self, at_least: Duration) -> Result<()> {
        self.running.stop().context(self.arm.name())?;
        let expected = at_least.as_secs_f64() * f64::from(self.rate_hz) * self.cpus as f64;
        let result = result(self.output.path());
        let samples = if self.arm == Arm::Sampler {
            let text = fs::read_to_string(result.join("index.json")).context("index.json")?;
            let index: Index = serde_json::from_str(&text).context("index.json")?;
            index.ledger.ticks as f64
        } else {
            fs::metadata(&result)?.len() as f64 / PERF_SAMPLE_BYTES
        };
        ensure!(
            samples >= SAMPLES_AT_LEAST * expected,
            "{} has {samples:.0} samples, and should have {expected:.0}",
            self.arm.name()
        );
        Ok(())
    }
}

#[derive(Deserialize)]
struct Index {
    ledger: Ledger,
}

#[derive(Deserialize)]
struct Ledger {
    ticks: u64,
}

fn result(folder: &Path) -> PathBuf {
    folder.join("profile")
}
