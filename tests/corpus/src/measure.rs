//! Measuring one program: so much work that enough samples come, and again if
//! the host was disturbed.

use crate::disturbance::Disturbance;
use crate::judge::Judge;
use crate::prepared::{Prepared, Unit};
use crate::programs::Program;
use crate::recording::Meter;
use crate::tally::Tally;
use crate::workshop::{Workshop, tool};
use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So many more runs at most if the host is disturbed; the least disturbed one counts.
const REPEATS_AT_MOST: u32 = 4;
/// So many more runs at most until one makes enough samples.
const LONGER_RUNS_AT_MOST: u32 = 4;
/// What the trial of a program that counts rounds should take at least.
const TRIAL_CPU_S: f64 = 0.3;
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
    /// What of the run was lost on the way.
    pub disturbance: Disturbance,
    /// How often it was run again because of that.
    pub repeats: u32,
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

impl Ready {
    /// So much more is asked for than is wanted.
    fn margin(&self) -> f64 {
        match self.prepared.unit {
            Unit::CpuSeconds => SECONDS_MARGIN,
            Unit::Rounds => ROUNDS_MARGIN,
        }
    }
}

/// What all measurements need.
pub struct Bench {
    sampler: PathBuf,
    workshop: Workshop,
    meter: Meter,
    judge: Judge,
    ready: HashMap<&'static str, Ready>,
    /// Where runs find the unwind tables of earlier ones.
    cache: Option<PathBuf>,
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
            cache: None,
        })
    }

    /// From now on each run leaves its unwind tables to the next.
    pub fn keep_tables(&mut self) {
        self.cache = Some(self.workshop.join("cache"));
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
        let wanted_s = f64::from(samples) / f64::from(rate_hz);
        let mut best: Option<Measurement> = None;
        let (mut repeats, mut longer_runs) = (0, 0);
        loop {
            let measured = self.run_once(program, rate_hz, wanted_s)?;
            if measured.cpu_s < wanted_s && longer_runs < LONGER_RUNS_AT_MOST {
                longer_runs += 1;
                if let Some(ready) = self.ready.get_mut(program.name) {
                    ready.cpu_s_per_unit *= measured.cpu_s / (wanted_s * ready.margin());
                }
                continue;
            }
            let disturbed = measured.disturbance.is_too_much();
            if best
                .as_ref()
                .is_none_or(|best| measured.disturbance.worst() < best.disturbance.worst())
            {
                best = Some(measured);
            }
            if !disturbed || repeats == REPEATS_AT_MOST {
                break;
            }
            repeats += 1;
        }
        let mut best = best.context("not run")?;
        best.repeats = repeats;
        Ok(best)
    }

    fn run_once(&mut self, program: &Program, rate_hz: u32, wanted_s: f64) -> Result<Measurement> {
        let ready = &self.ready[program.name];
        let amount = wanted_s * ready.margin() / ready.cpu_s_per_unit;
        let words = ready.prepared.command(amount);
        let limit = Duration::from_secs_f64(120.0 + 10.0 * wanted_s);
        let recording = self.meter.recorded(
            &self.workshop,
            &self.sampler,
            self.cache.as_deref(),
            rate_hz,
            &words,
            limit,
        )?;
        let executable = Path::new(&words[0]).canonicalize()?;
        let tally = Tally::of(
            &recording.profiles,
            &mut self.judge,
            &executable,
            program.base,
        )?;
        Ok(Measurement {
            rate_hz,
            cpu_s: recording.cpu_s,
            tally,
            classes: recording.classes,
            disturbance: recording.disturbance,
            repeats: 0,
        })
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
