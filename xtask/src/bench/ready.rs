//! When a profiler that was started has begun to sample.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS_UNCHANGED: u32 = 3;

/// What a process holds that samples: perf events, or the links by which programs
/// are attached to them.
const SAMPLING: [&str; 2] = ["anon_inode:[perf_event]", "anon_inode:bpf_link"];

/// Waits until process `pid` has opened perf events and, for some looks, no more
/// of them: the ones that sample may come last.
pub fn wait(pid: u32) -> Result<()> {
    let started = Instant::now();
    let (mut events, mut unchanged) = (0, 0);
    while events == 0 || unchanged < LOOKS_UNCHANGED {
        thread::sleep(LOOK_EVERY);
        let now = perf_events(pid).context("it has ended")?;
        unchanged = if now == events { unchanged + 1 } else { 0 };
        events = now;
        ensure!(started.elapsed() < PATIENCE, "it does not sample");
    }
    Ok(())
}

/// How many a process has open; `None` when it has ended, waited for or not:
/// then it has no descriptor at all.
fn perf_events(pid: u32) -> Option<usize> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let targets: Vec<PathBuf> = descriptors
        .flatten()
        // One may be closed in between.
        .map(|descriptor| fs::read_link(descriptor.path()).unwrap_or_default())
        .collect();
    let events = targets
        .iter()
        .filter(|target| SAMPLING.iter().any(|event| target.as_os_str() == *event));
    (!targets.is_empty()).then(|| events.count())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use std::process::Command;

    #[test]
    fn one_that_ends_is_not_waited_for() {
        let mut child = Command::new("sleep").arg("0.3").spawn().unwrap();
        assert_eq!(perf_events(child.id()), Some(0));
        let error = wait(child.id()).unwrap_err();
        assert_eq!(error.to_string(), "it has ended");
        child.wait().unwrap();
        assert_eq!(perf_events(child.id()), None);
    }
}
