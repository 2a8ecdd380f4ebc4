//! Measuring one program: so much work that enough samples come, and again if
//! the host was disturbed.

use crate::judge::Judge;
use crate::programs::{Prepared, Program, Unit};
use crate::recording::{Meter, Recording};
use crate::tally::Tally;
use crate::workshop::{Workshop, tool};
use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So often at most, and the least disturbed run counts.
const RUNS_AT_MOST: u32 = 5;
/// What the trial of a program that counts rounds should take at least.
const TRIAL_CPU_S: f64 = 0.2;
/// Work in excess, since a host is not always equally fast.
const ROUNDS_MARGIN: f64 = 1.1;
const SECONDS_MARGIN: f64 = 1.02;

/// Why a program was not measured.
#[derive(Debug)]
pub enum Unmeasured {
    /// Something that could be installed is not.
    Missing(String),
    /// This host cannot run it.
    Impossible(String),
    /// It did not build or run.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Unmeasured {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What came of one program at one rate.
#[derive(Debug)]
pub struct Measurement {
    /// Samples a second and CPU.
    pub rate_hz: u32,
    /// User and system time of all its processes.
    pub cpu_s: f64,
    /// Its samples, judged.
    pub tally: Tally,
    /// Its samples by the class that `sampler` gives them.
    pub classes: BTreeMap<String, u64>,
    /// Time stolen from the CPUs, as a share.
    pub stolen: f64,
    /// Ticks not delivered to CPUs that were not idle, as a share.
    pub undelivered: f64,
    /// How often it was run.
    pub runs: u32,
}

impl Measurement {
    /// The samples that its CPU time makes.
    pub fn expected(&self) -> f64 {
        self.cpu_s * f64::from(self.rate_hz)
    }

    /// Complete samples as a share of the expected ones.
    pub fn good(&self) -> f64 {
        self.tally.complete() as f64 / self.expected()
    }
}

/// What all measurements need.
pub struct Bench {
    sampler: PathBuf,
    workshop: Workshop,
    meter: Meter,
    judge: Judge,
    ready: HashMap<&'static str, Ready>,
}

struct Ready {
    prepared: Prepared,
    /// What one unit of its amount takes; tried out on first need.
    cpu_s_per_unit: f64,
}

impl Bench {
    /// With this `sampler`.
    pub fn new(sampler: &Path) -> Result<Self, Unmeasured> {
        let workshop = Workshop::new()?;
        Ok(Self {
            meter: Meter::build(&workshop, &tool("gcc")?)?,
            sampler: sampler
                .canonicalize()
                .with_context(|| sampler.display().to_string())?,
            workshop,
            judge: Judge::default(),
            ready: HashMap::new(),
        })
    }

    /// Runs `program` for `samples` samples at this rate.
    pub fn measure(
        &mut self,
        program: &Program,
        rate_hz: u32,
        samples: u32,
    ) -> Result<Measurement, Unmeasured> {
        if !self.ready.contains_key(program.name) {
            let ready = self.prepare(program)?;
            self.ready.insert(program.name, ready);
        }
        let ready = &self.ready[program.name];
        let wanted_s = f64::from(samples) / f64::from(rate_hz);
        let margin = match ready.prepared.unit {
            Unit::CpuSeconds => SECONDS_MARGIN,
            Unit::Rounds => ROUNDS_MARGIN,
        };
        let words = ready
            .prepared
            .command(wanted_s * margin / ready.cpu_s_per_unit);
        let limit = Duration::from_secs_f64(120.0 + 10.0 * wanted_s);
        let executable = Path::new(&words[0]).canonicalize()?;
        let mut best: Option<Measurement> = None;
        for run in 1..=RUNS_AT_MOST {
            let recording =
                self.meter
                    .recorded(&self.workshop, &self.sampler, rate_hz, &words, limit)?;
            let disturbance = recording.disturbance;
            let least = best
                .as_ref()
                .map_or(f64::INFINITY, |best| best.stolen.max(best.undelivered));
            if disturbance.worst() < least {
                let tally = Tally::of(
                    &recording.profiles,
                    &mut self.judge,
                    &executable,
                    program.base,
                )?;
                best = Some(measurement(rate_hz, recording, tally));
            }
            if let Some(best) = &mut best {
                best.runs = run;
            }
            if !disturbance.is_too_much() {
                break;
            }
        }
        best.context("not run").map_err(Unmeasured::Failed)
    }

    fn prepare(&self, program: &Program) -> Result<Ready, Unmeasured> {
        let prepared = (program.prepare)(&self.workshop)?;
        let mut amount = 1.0;
        let cpu_s_per_unit = match prepared.unit {
            Unit::CpuSeconds => 1.0,
            Unit::Rounds => loop {
                let words = prepared.command(amount);
                let limit = Duration::from_secs(120);
                let cpu_s = self.meter.alone(&self.workshop, &words, limit)?;
                if cpu_s >= TRIAL_CPU_S {
                    break cpu_s / amount;
                }
                amount *= (2.0 * TRIAL_CPU_S / cpu_s).clamp(2.0, 100.0).ceil();
            },
        };
        Ok(Ready {
            prepared,
            cpu_s_per_unit,
        })
    }
}

fn measurement(rate_hz: u32, recording: Recording, tally: Tally) -> Measurement {
    Measurement {
        rate_hz,
        cpu_s: recording.cpu_s,
        tally,
        classes: recording.classes,
        stolen: recording.disturbance.stolen,
        undelivered: recording.disturbance.undelivered,
        runs: 0,
    }
}
