//! Starting a profiler beside the worker, stopping it, and asking what it used.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// One way to run the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Alone: what the others are compared with.
    Alone,
    /// Beside `sampler record` of the whole host.
    Sampler {
        /// Samples a second and CPU.
        frequency_hz: u32,
    },
    /// Beside `perf record -g` of the whole host.
    Perf {
        /// Samples a second and CPU.
        frequency_hz: u32,
    },
}

impl Condition {
    /// The name in tables and JSON.
    pub fn name(self) -> String {
        match self {
            Self::Alone => "alone".into(),
            Self::Sampler { frequency_hz } => format!("sampler {frequency_hz} Hz"),
            Self::Perf { frequency_hz } => format!("perf -g {frequency_hz} Hz"),
        }
    }

    /// The command that profiles until SIGINT and writes to `output`; `None` for [`Self::Alone`].
    fn command(self, sampler: &Path, output: &Path) -> Option<Command> {
        match self {
            Self::Alone => None,
            Self::Sampler { frequency_hz } => {
                let mut command = Command::new(sampler);
                command
                    .args(["record", "-F", &frequency_hz.to_string(), "-o"])
                    .arg(output);
                Some(command)
            }
            Self::Perf { frequency_hz } => {
                let mut command = Command::new("perf");
                command
                    .args(["record", "-q", "-g", "-a", "-e", "cpu-clock"])
                    .args(["-F", &frequency_hz.to_string(), "-o"])
                    .arg(output);
                Some(command)
            }
        }
    }
}

/// What a profiler used in one run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usage {
    /// User and system time of it and of the children it waited for, from start to exit.
    pub cpu_s: f64,
    /// The kernel's high-water mark of its resident memory, mapped files included.
    pub max_rss_bytes: u64,
    /// From SIGINT to its exit.
    pub stop_to_exit_s: f64,
    /// What it says about itself; perf says nothing.
    #[serde(flatten)]
    pub own: Option<OwnAccount>,
}

/// From the `cost` of `index.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAccount {
    /// Resident memory of all its processes without mapped files.
    pub peak_rss_bytes: u64,
    /// Memory of its BPF maps.
    pub bpf_map_bytes: u64,
    /// From stop to the last profile in place.
    pub finish_ns: u64,
}

#[derive(Deserialize)]
struct Index {
    cost: OwnAccount,
}

/// A profiler that runs.
pub struct Profiler {
    condition: Condition,
    child: Child,
    output: PathBuf,
}

impl Profiler {
    /// Starts the profiler of `condition` and gives it `settle` to be sampling;
    /// `None` when the condition is to run alone. `output` must not exist.
    pub fn start(
        condition: Condition,
        sampler: &Path,
        output: &Path,
        settle: Duration,
    ) -> Result<Option<Self>> {
        let Some(mut command) = condition.command(sampler, output) else {
            return Ok(None);
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| condition.name())?;
        thread::sleep(settle);
        Ok(Some(Self {
            condition,
            child,
            output: output.to_path_buf(),
        }))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as Ctrl-C would and collects what it used.
    pub fn stop(mut self) -> Result<Usage> {
        let stopped = Instant::now();
        interrupt(self.pid())?;
        // It writes little there; what a full pipe holds is enough for an error.
        let (status, usage) = wait(self.pid())?;
        let stop_to_exit_s = stopped.elapsed().as_secs_f64();
        let ended_as_asked = status.success() || status.signal() == Some(libc::SIGINT);
        if !ended_as_asked {
            let mut said = String::new();
            if let Some(stderr) = self.child.stderr.as_mut() {
                // Only to explain the error below.
                let _ = io::Read::read_to_string(stderr, &mut said);
            }
            anyhow::bail!(
                "{} failed: {status}\n{}",
                self.condition.name(),
                said.trim_end()
            );
        }
        let own = match self.condition {
            Condition::Sampler { .. } => Some(own_account(&self.output)?),
            Condition::Alone | Condition::Perf { .. } => None,
        };
        Ok(Usage {
            cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            stop_to_exit_s,
            own,
        })
    }
}

fn own_account(folder: &Path) -> Result<OwnAccount> {
    let file = folder.join("index.json");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let index: Index = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    Ok(index.cost)
}

fn interrupt(pid: u32) -> Result<()> {
    // SAFETY: no memory is passed. The child is ours and not waited for, so
    // its pid cannot belong to another process.
    let result = unsafe { libc::kill(pid.cast_signed(), libc::SIGINT) };
    ensure!(result == 0, "kill: {}", io::Error::last_os_error());
    Ok(())
}

/// Waits for a child's end. Unlike `Child::wait` it tells what the child used.
fn wait(pid: u32) -> Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers; all zeros is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the types wait4 fills in.
        let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
        if waited == pid.cast_signed() {
            return Ok((ExitStatus::from_raw(status), usage));
        }
        let error = io::Error::last_os_error();
        ensure!(error.kind() == io::ErrorKind::Interrupted, "wait4: {error}");
    }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 * 1e-6
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A program that takes `sampler record`'s arguments and does `script`,
    /// where `$5` is the output folder.
    ///
    /// It is copied by a process of its own: a file that another test's fork of
    /// this one still holds open for writing could not be run.
    fn stand_in(folder: &Path, script: &str) -> PathBuf {
        let (source, program) = (folder.join("script"), folder.join("stand-in"));
        fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o700)).unwrap();
        let copied = Command::new("cp").arg(&source).arg(&program).status();
        assert!(copied.unwrap().success());
        program
    }

    fn run(script: &str) -> Result<Usage> {
        let folder = tempfile::tempdir().unwrap();
        Profiler::start(
            Condition::Sampler { frequency_hz: 99 },
            &stand_in(folder.path(), script),
            &folder.path().join("out"),
            Duration::from_millis(300),
        )
        .unwrap()
        .unwrap()
        .stop()
    }

    #[test]
    fn a_profiler_is_interrupted_and_its_account_of_itself_read() {
        let usage = run(
            r#"mkdir "$5"
               trap 'echo "{\"cost\": {\"peak_rss_bytes\": 1, \"bpf_map_bytes\": 2, \"finish_ns\": 3, \"later\": 4}}" > "$5/index.json"; exit 0' INT
               while :; do sleep 0.05; done"#,
        )
        .unwrap();
        let own = OwnAccount {
            peak_rss_bytes: 1,
            bpf_map_bytes: 2,
            finish_ns: 3,
        };
        assert_eq!(usage.own, Some(own));
        assert!(usage.max_rss_bytes > 100_000);
        assert!(usage.cpu_s < 5.0 && usage.stop_to_exit_s < 5.0);
    }

    #[test]
    fn a_profiler_that_failed_is_an_error_that_says_what_it_said() {
        let error = run("echo 'no permission' >&2; exit 3").unwrap_err();
        assert!(error.to_string().contains("no permission"), "{error}");
    }

    #[test]
    fn alone_there_is_nothing_to_start() {
        let none = Path::new("/nonexistent");
        let started = Profiler::start(Condition::Alone, none, none, Duration::ZERO).unwrap();
        assert!(started.is_none());
    }
}
