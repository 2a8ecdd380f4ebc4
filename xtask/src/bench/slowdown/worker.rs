//! The work that is slowed: it runs on every CPU all the time, and is asked now
//! and then how long its units take.

use super::window::{self, Figures, Noted};
use crate::project;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

const SOURCE: &str = include_str!("units.c");
/// A tenth of the time between two ticks at 999 Hz, so that most units hold none.
const UNIT: Duration = Duration::from_micros(100);
const CALIBRATION_DESCENTS: u64 = 20;
const CALIBRATION: Duration = Duration::from_millis(300);
/// The unit of `/proc/stat`.
const STAT_TICK_NS: u64 = 10_000_000;

/// The built program.
pub struct Program {
    file: PathBuf,
    /// One for each CPU.
    threads: usize,
}

/// The work under way; ended when dropped.
pub struct Worker {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    threads: usize,
}

/// Something that takes CPU time beside the work; ended when dropped.
pub struct Burner(Child);

impl Program {
    /// Builds it in `folder`.
    pub fn build(folder: &Path) -> Result<Self> {
        let source = folder.join("units.c");
        let file = folder.join("units");
        fs::write(&source, SOURCE)?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-fno-omit-frame-pointer", "-pthread", "-o"])
            .args([&file, &source]);
        project::run(&mut compile).context("the worker needs a C compiler")?;
        Ok(Self {
            file,
            threads: thread::available_parallelism()?.get(),
        })
    }

    /// How many CPUs it is for.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Starts the work, in units of about [`UNIT`].
    pub fn work(&self) -> Result<Worker> {
        let mut trial = self.work_in(CALIBRATION_DESCENTS)?;
        let mut units: Vec<u32> = trial
            .ask(CALIBRATION, None)?
            .into_iter()
            .flat_map(|noted| noted.units_ns)
            .collect();
        units.sort_unstable();
        let median_ns = units.get(units.len() / 2).context("no unit was done")?;
        let wanted_ns = UNIT.as_nanos() as u64;
        self.work_in((CALIBRATION_DESCENTS * wanted_ns / u64::from(*median_ns).max(1)).max(1))
    }

    fn work_in(&self, descents: u64) -> Result<Worker> {
        let mut child = Command::new(&self.file)
            .args([self.threads.to_string(), descents.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the worker")?;
        let (ask, answers) = (child.stdin.take(), child.stdout.take());
        Ok(Worker {
            child,
            ask: ask.context("the worker's stdin")?,
            answers: BufReader::new(answers.context("the worker's stdout")?),
            threads: self.threads,
        })
    }

    /// Takes `share` of each CPU, in a hundred pieces a second.
    pub fn burn(&self, share: f64) -> Result<Burner> {
        let burnt_us = (share * 1e4).round();
        let child = Command::new(&self.file)
            .args(["burn", &self.threads.to_string(), &burnt_us.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("the burner")?;
        Ok(Burner(child))
    }
}

impl Worker {
    /// Looks at the work for so long. With `doubled`, one unit of so many is
    /// done twice.
    pub fn window(&mut self, duration: Duration, doubled: Option<u64>) -> Result<Figures> {
        let before = stolen_ns()?;
        let mut threads = self.ask(duration, doubled)?;
        let after = stolen_ns()?;
        for noted in &mut threads {
            let of = |all: &BTreeMap<u64, u64>| all.get(&noted.cpu).copied().unwrap_or(0);
            noted.stolen_ns = of(&after).saturating_sub(of(&before));
        }
        Figures::of(&threads).context("no unit was done")
    }

    fn ask(&mut self, duration: Duration, doubled: Option<u64>) -> Result<Vec<Noted>> {
        let line = format!("{} {}\n", duration.as_nanos(), doubled.unwrap_or(0));
        self.ask
            .write_all(line.as_bytes())
            .context("the worker has ended")?;
        window::read(&mut self.answers, self.threads)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Burner {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(child: &mut Child) {
    // Errors: it has ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// By CPU: the time that the hypervisor has taken since it started.
fn stolen_ns() -> Result<BTreeMap<u64, u64>> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let stolen = parse_stolen(&text);
    ensure!(!stolen.is_empty(), "/proc/stat names no CPU");
    Ok(stolen)
}

fn parse_stolen(text: &str) -> BTreeMap<u64, u64> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("cpu")?.split(' ');
            // The first line is their sum and has no number.
            let cpu = words.next()?.parse().ok()?;
            let ticks: u64 = words.nth(7)?.parse().ok()?;
            Some((cpu, ticks * STAT_TICK_NS))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_number_of_a_cpus_line() {
        let text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu11 1 2 3 4 5 6 7 30 0 0\nintr 5\n";
        assert_eq!(
            parse_stolen(text),
            BTreeMap::from([(0, 80_000_000), (11, 300_000_000)])
        );
    }

    #[test]
    fn units_are_as_long_as_they_are_meant_to_be_and_doubled_ones_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::build(folder.path()).unwrap();
        let mut worker = program.work().unwrap();
        let window = Duration::from_millis(400);
        let alone = worker.window(window, None).unwrap();
        assert!((2e4..1e8).contains(&alone.unit_ns), "{alone:?}");
        // Every other unit twice: then the median is that of the others.
        let noted = worker.ask(window, Some(3)).unwrap();
        let took = |at: usize| {
            let mut units: Vec<u32> = noted[0]
                .units_ns
                .iter()
                .skip(at)
                .step_by(3)
                .copied()
                .collect();
            units.sort_unstable();
            f64::from(units[units.len() / 2])
        };
        let ratio = took(2) / took(0);
        assert!((1.6..2.4).contains(&ratio), "{ratio}");
    }
}
