//! What a command uses, with all its processes, and how long it takes to end.

use crate::bench::{ready, tree};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// One look in so many is at the maps too.
const MAPS_EVERY: u32 = 25;
/// A profiler that has not ended then is killed.
const PATIENCE: Duration = Duration::from_secs(180);

/// What one command used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// User and system time of it and of the descendants that were waited for.
    pub cpu_s: f64,
    /// From the signal to its end; from its start if there was none.
    pub end_s: f64,
    /// The highest sum over its processes of memory that no file backs.
    pub peak_rss_bytes: u64,
    /// The highest sum of their BPF maps.
    pub peak_map_bytes: u64,
}

/// Runs a profiler that goes on until SIGINT, for `duration` from its first perf
/// events on. What it says is expected in `folder/said`.
pub fn record(command: Command, folder: &Path, duration: Duration) -> Result<Spent> {
    run(command, folder, Some(duration), PATIENCE)
}

/// Runs a command to its end.
pub fn finish(command: Command, folder: &Path, limit: Duration) -> Result<Spent> {
    run(command, folder, None, limit)
}

fn run(
    mut command: Command,
    folder: &Path,
    duration: Option<Duration>,
    limit: Duration,
) -> Result<Spent> {
    let name = command.get_program().display().to_string();
    // SAFETY: prctl is async-signal-safe and touches the child alone.
    unsafe {
        command.pre_exec(|| {
            // Whatever becomes of this task, no profiler runs on without it.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let child = command
        // A group of its own: Ctrl-C is for this program.
        .process_group(0)
        .spawn()
        .with_context(|| name.clone())?;
    let pid = child.id();
    let has_ended = AtomicBool::new(false);
    let mut spent = Spent::default();
    let (status, is_late, is_ready) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(pid, &has_ended));
        let deadline = scope.spawn(|| {
            let end = Instant::now() + limit + duration.unwrap_or_default();
            while !has_ended.load(Ordering::Acquire) {
                if Instant::now() > end {
                    signal(pid, libc::SIGKILL);
                    return true;
                }
                thread::sleep(LOOK_EVERY);
            }
            false
        });
        let mut started = Instant::now();
        let mut is_ready = Ok(());
        if let Some(duration) = duration {
            is_ready = ready::wait(pid);
            if is_ready.is_ok() {
                thread::sleep(duration);
            }
            started = Instant::now();
            signal(pid, libc::SIGINT);
        }
        let waited = wait(pid);
        spent.end_s = started.elapsed().as_secs_f64();
        has_ended.store(true, Ordering::Release);
        (spent.peak_rss_bytes, spent.peak_map_bytes) = watch.join().unwrap_or_default();
        let is_late = deadline.join().unwrap_or_default();
        let (status, cpu_s) = waited?;
        spent.cpu_s = cpu_s;
        anyhow::Ok((status, is_late, is_ready))
    })?;
    ensure!(!is_late, "{name} was not done within {limit:?}");
    let by_signal = duration.is_some() && status.signal() == Some(libc::SIGINT);
    let said = || fs::read_to_string(folder.join("said")).unwrap_or_default();
    ensure!(
        status.success() || by_signal,
        "{name} failed: {status}: {}",
        said().trim_end()
    );
    is_ready.context(name)?;
    Ok(spent)
}

/// The highest memory and maps that were seen.
fn watch(pid: u32, has_ended: &AtomicBool) -> (u64, u64) {
    let (mut rss_bytes, mut map_bytes) = (0, 0);
    for look in 0_u32.. {
        if has_ended.load(Ordering::Acquire) {
            break;
        }
        let now = tree::pids(pid).into_iter().map(tree::rss_bytes).sum();
        rss_bytes = rss_bytes.max(now);
        if look % MAPS_EVERY == 0 {
            map_bytes = map_bytes.max(tree::map_bytes(pid));
        }
        thread::sleep(LOOK_EVERY);
    }
    (rss_bytes, map_bytes)
}

fn signal(pid: u32, signal: i32) {
    // It may have ended by itself; waiting for it says how.
    // SAFETY: no memory is passed. The child is ours; it is waited for only
    // after its last signal but for a deadline that passes at that moment.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Waits for a child's end; seconds of CPU time of it and its descendants.
fn wait(pid: u32) -> Result<(ExitStatus, f64)> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers; all zeros is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the types wait4 fills in.
        let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
        if waited == pid.cast_signed() {
            let cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
            return Ok((ExitStatus::from_raw(status), cpu_s));
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

    fn sh(script: &str, folder: &Path) -> Command {
        let mut command = Command::new("sh");
        let said = fs::File::create(folder.join("said")).unwrap();
        command.args(["-c", script]).stderr(said);
        command
    }

    #[test]
    fn a_childs_time_and_memory_count() {
        let folder = tempfile::tempdir().unwrap();
        let script = "perl -e '$x = \"y\" x 3e7; 1 while (times)[0] < 0.5' & wait";
        let command = sh(script, folder.path());
        let spent = finish(command, folder.path(), PATIENCE).unwrap();
        assert!(spent.cpu_s > 0.4, "{spent:?}");
        assert!(spent.peak_rss_bytes > 30_000_000, "{spent:?}");
    }

    #[test]
    fn one_that_does_not_sample_is_an_error_that_says_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let failing = sh("echo no permission >&2; exit 3", folder.path());
        let error = record(failing, folder.path(), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("no permission"), "{error}");
        let idle = sh("exit 0", folder.path());
        let error = record(idle, folder.path(), Duration::ZERO).unwrap_err();
        assert!(format!("{error:#}").contains("it has ended"), "{error:#}");
    }

    #[test]
    fn one_that_fails_or_takes_too_long_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let failing = sh("echo no permission >&2; exit 3", folder.path());
        let error = finish(failing, folder.path(), PATIENCE).unwrap_err();
        assert!(error.to_string().contains("no permission"), "{error}");
        let endless = sh("exec sleep 1000", folder.path());
        let error = finish(endless, folder.path(), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("was not done"), "{error}");
    }
}
