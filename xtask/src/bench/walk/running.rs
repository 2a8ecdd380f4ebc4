//! A profiler under way: its programs' run time, its memory, its end.

use crate::bench::bpf_stats::Runs;
use crate::bench::tree;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// What a profiler may take to take its first sample, and to end.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A profiler that runs; ended when dropped.
pub struct Running {
    child: Child,
    folder: PathBuf,
    is_waited_for: bool,
    peak_rss_bytes: u64,
}

/// What it used from start to exit.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// User and system time of it and of the children it waited for.
    pub cpu_s: f64,
    /// The highest `RssAnon` + `RssShmem` of it and those below it that was seen,
    /// looking ten times a second.
    pub peak_rss_bytes: u64,
}

impl Running {
    /// Starts it. What it says goes to the file `said` in `folder`.
    pub fn start(mut command: Command, folder: &Path) -> Result<Self> {
        // SAFETY: prctl is async-signal-safe and touches the child alone.
        unsafe {
            command.pre_exec(|| {
                // Whatever becomes of this task, no profiler runs on without it.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command
            // In a group of its own: Ctrl-C is for this program, which passes it on.
            .process_group(0)
            .spawn()
            .with_context(|| command.get_program().display().to_string())?;
        Ok(Self {
            child,
            folder: folder.to_path_buf(),
            is_waited_for: false,
            peak_rss_bytes: 0,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Run time and runs of its sampling programs.
    pub fn runs(&self) -> Result<Runs> {
        Runs::of_process(self.child.id())
    }

    /// Waits until its programs take samples, and `settle` more. Needs the
    /// kernel's statistics on.
    pub fn wait_for_samples(&mut self, settle: Duration) -> Result<()> {
        let started = Instant::now();
        while self.runs()?.mean_ns().is_none() {
            if self.has_ended()? || started.elapsed() > PATIENCE {
                bail!("it takes no samples: {}", self.said());
            }
            thread::sleep(LOOK_EVERY);
        }
        thread::sleep(settle);
        Ok(())
    }

    /// Lets it run, and looks at its memory meanwhile.
    pub fn watch(&mut self, duration: Duration) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < duration {
            ensure!(!self.has_ended()?, "it ended early: {}", self.said());
            self.look();
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Kernel memory of its BPF maps.
    pub fn map_bytes(&self) -> u64 {
        tree::map_bytes(self.child.id())
    }

    /// Ends it as Ctrl-C would, and waits until its result is there.
    pub fn stop(self) -> Result<Used> {
        self.end(Some(libc::SIGINT))
    }

    /// Waits for the end of one that ends by itself.
    pub fn wait_for_end(self) -> Result<Used> {
        self.end(None)
    }

    fn end(mut self, signal: Option<i32>) -> Result<Used> {
        if let Some(signal) = signal {
            self.signal(signal)?;
        }
        let started = Instant::now();
        loop {
            self.look();
            if let Some((status, usage)) = self.reap()? {
                let by_signal = signal.is_some() && status.signal() == signal;
                let as_asked = status.success() || by_signal;
                ensure!(as_asked, "it failed: {status}: {}", self.said());
                return Ok(Used {
                    cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
                    peak_rss_bytes: self.peak_rss_bytes,
                });
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "it does not end: {}",
                self.said()
            );
            thread::sleep(LOOK_EVERY / 5);
        }
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.is_waited_for || self.reap()?.is_some())
    }

    /// Its exit, once there is one. Unlike `Child::try_wait` it tells what the
    /// child used.
    fn reap(&mut self) -> Result<Option<(ExitStatus, libc::rusage)>> {
        let pid = self.child.id().cast_signed();
        let mut status = 0;
        // SAFETY: rusage is plain numbers; all zeros is a value of it.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live variables of the types wait4 fills in.
        let waited = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
        ensure!(waited >= 0, "wait4: {}", io::Error::last_os_error());
        self.is_waited_for = waited == pid;
        Ok(self
            .is_waited_for
            .then(|| (ExitStatus::from_raw(status), usage)))
    }

    fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: no memory is passed. The child is ours and not waited for,
        // so its pid cannot belong to another process.
        let result = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        ensure!(result == 0, "kill: {}", io::Error::last_os_error());
        Ok(())
    }

    fn look(&mut self) {
        let all = tree::pids(self.child.id());
        let rss_bytes = all.into_iter().map(tree::rss_bytes).sum();
        self.peak_rss_bytes = self.peak_rss_bytes.max(rss_bytes);
    }

    /// The end of what it said.
    fn said(&self) -> String {
        let said = fs::read_to_string(self.folder.join("said")).unwrap_or_default();
        let mut lines: Vec<&str> = said.lines().rev().take(3).collect();
        lines.reverse();
        lines.join("; ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_waited_for {
            // Errors: it has ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 * 1e-6
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn start(script: &str) -> (Running, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stderr(fs::File::create(folder.path().join("said")).unwrap());
        (Running::start(command, folder.path()).unwrap(), folder)
    }

    #[test]
    fn one_that_fails_is_an_error_with_its_last_words() {
        let (mut running, _folder) = start("echo no permission >&2; exit 3");
        let error = running.watch(PATIENCE).unwrap_err();
        assert!(error.to_string().contains("no permission"), "{error}");
    }

    #[test]
    fn one_that_runs_is_stopped_and_its_memory_seen() {
        let (mut running, _folder) = start("while :; do :; done");
        running.watch(LOOK_EVERY).unwrap();
        let used = running.stop().unwrap();
        assert!(used.cpu_s > 0.0 && used.peak_rss_bytes > 0);
    }
}
