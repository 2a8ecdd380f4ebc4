//! One run of a command under `sampler record`.

use crate::disturbance::{CpuTime, Disturbance};
use crate::workshop::{ENVIRONMENT, Workshop};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What makes `sampler` walk stacks the way that is measured.
const WALK: &[&str] = &["--unwind", "tables"];

/// Runs commands and tells what they used.
pub struct Meter {
    program: PathBuf,
}

/// A finished run.
pub struct Recording {
    /// User and system time of the command and its descendants.
    pub cpu_s: f64,
    /// The profiles of its processes.
    pub profiles: Vec<PathBuf>,
    /// Samples by class, as `index.json` has them: `complete`, `kernel_only`,
    /// and the reasons for which stacks were cut.
    pub classes: BTreeMap<String, u64>,
    pub disturbance: Disturbance,
}

#[derive(Deserialize)]
struct Index {
    ledger: Ledger,
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Ledger {
    expected_ticks: u64,
    not_delivered: u64,
    not_delivered_idle: u64,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    exe: Option<PathBuf>,
    stacks: Stacks,
}

#[derive(Deserialize)]
struct Stacks {
    complete: u64,
    truncated: BTreeMap<String, u64>,
    kernel_only: u64,
}

impl Meter {
    /// Builds the program that measures.
    pub fn build(workshop: &Workshop, compiler: &Path) -> Result<Self, crate::Unmeasured> {
        let program = workshop.compile(compiler, &["-O2"], &["meter.c"], "meter")?;
        Ok(Self { program })
    }

    /// The CPU seconds that `words` take without a profiler.
    pub fn alone(&self, workshop: &Workshop, words: &[OsString], limit: Duration) -> Result<f64> {
        let file = workshop.join("used");
        let mut command = Command::new(&self.program);
        command.arg(&file).args(words);
        run(&mut command, workshop, limit)?;
        used(&file)
    }

    /// Runs `words` under `sampler`, which keeps unwind tables in `cache` if there is
    /// one. The files lie in the workshop until the next run.
    pub fn recorded(
        &self,
        workshop: &Workshop,
        sampler: &Path,
        cache: Option<&Path>,
        rate_hz: u32,
        words: &[OsString],
        limit: Duration,
    ) -> Result<Recording> {
        let (file, out) = (workshop.join("used"), workshop.join("profiles"));
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        let mut command = Command::new(sampler);
        command
            .args(["record", "-F", &rate_hz.to_string()])
            .args(WALK)
            .args(match cache {
                Some(cache) => vec!["--cache".as_ref(), cache.as_os_str()],
                None => vec!["--no-cache".as_ref()],
            })
            .arg("-o")
            .arg(&out)
            .arg("--")
            .arg(&self.program)
            .arg(&file)
            .args(words);
        let before = CpuTime::now()?;
        run(&mut command, workshop, limit)?;
        let stolen = before.stolen_since()?;
        self.collect(&out, used(&file)?, stolen)
    }

    fn collect(&self, out: &Path, cpu_s: f64, stolen: f64) -> Result<Recording> {
        let text = fs::read_to_string(out.join("index.json")).context("index.json")?;
        let index: Index = serde_json::from_str(&text).context("index.json")?;
        let ledger = &index.ledger;
        let undelivered = ledger
            .not_delivered
            .saturating_sub(ledger.not_delivered_idle);
        let mut classes = BTreeMap::new();
        let mut profiles = Vec::new();
        for entry in index.files {
            // The meter itself is no part of the workload.
            if entry.exe.as_deref() == Some(&*self.program) {
                continue;
            }
            let stacks = entry.stacks;
            let whole = [
                ("complete", stacks.complete),
                ("kernel_only", stacks.kernel_only),
            ];
            let all = whole.map(|(class, count)| (class.to_owned(), count));
            for (class, count) in all.into_iter().chain(stacks.truncated) {
                *classes.entry(class).or_default() += count;
            }
            profiles.push(out.join(entry.file));
        }
        Ok(Recording {
            cpu_s,
            profiles,
            classes,
            disturbance: Disturbance {
                stolen,
                undelivered: undelivered as f64 / ledger.expected_ticks.max(1) as f64,
            },
        })
    }
}

fn used(file: &Path) -> Result<f64> {
    let text = fs::read_to_string(file).context("the meter wrote nothing")?;
    let microseconds: u64 = text.trim_end().parse().context("what the meter wrote")?;
    Ok(Duration::from_micros(microseconds).as_secs_f64())
}

/// Ends a command that somebody left.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless there was an error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command, workshop: &Workshop, limit: Duration) -> Result<()> {
    let name = command.get_program().display().to_string();
    let said = workshop.join("stderr");
    let child = command
        .current_dir(workshop.path())
        .envs(ENVIRONMENT.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&said)?)
        .spawn()
        .with_context(|| name.clone())?;
    let mut running = Running(child);
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = running.0.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            bail!("{name} ran for more than {limit:?}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    if !status.success() {
        bail!(
            "{name}: {status}\n{}",
            fs::read_to_string(&said)?.trim_end()
        );
    }
    Ok(())
}
