//! What a trial asks of the host before it starts.
//!
//! A tool that could be installed is a failure where `CI` is set, so that a
//! machine cannot go green by lacking a compiler; what only another kernel
//! would give stays a skip.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::verdict::{Stop, Verdict, ensure};

/// Loading BPF programs takes root in these trials.
pub fn root() -> Verdict {
    // SAFETY: geteuid takes nothing, touches nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        Ok(())
    } else {
        Err(Stop::Skipped("needs root".into()))
    }
}

/// A program on PATH, or the reason why the trial cannot be.
pub fn tool(name: &str) -> Verdict<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    found.ok_or_else(|| missing_tool(format!("needs `{name}`, which is not installed")))
}

/// The verdict on a tool that is not there or does not do what it should.
pub fn missing_tool(reason: String) -> Stop {
    if std::env::var_os("CI").is_some_and(|value| value == OsStr::new("true")) {
        Stop::Failed(reason)
    } else {
        Stop::Skipped(reason)
    }
}

/// A number that the kernel shows in a file.
pub fn kernel_number(path: impl AsRef<Path>) -> Verdict<u64> {
    let path = path.as_ref();
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| Stop::Skipped(format!("needs a number in {}", path.display())))
}

/// A kernel of this version or a later one.
pub fn kernel(major: u32, minor: u32) -> Verdict {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|word| word.parse().ok());
    let running: (u32, u32) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    if running >= (major, minor) {
        Ok(())
    } else {
        Err(Stop::Skipped(format!(
            "needs Linux {major}.{minor} or newer"
        )))
    }
}

/// The online CPUs' numbers.
pub fn online_cpus() -> Verdict<Vec<usize>> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>()?..=last.parse::<usize>()?);
    }
    ensure!(!cpus.is_empty(), "no CPU is online: {text:?}");
    Ok(cpus)
}

/// At least `count` online CPUs.
pub fn cpus(count: usize) -> Verdict<Vec<usize>> {
    let online = online_cpus()?;
    if online.len() < count {
        return Err(Stop::Skipped(format!("needs {count} CPUs")));
    }
    Ok(online)
}

/// Where a hierarchy of this type (`cgroup` or `cgroup2`) is mounted.
pub fn cgroup_mount(kind: &str) -> Verdict<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ');
            let (_, place, found) = (words.next()?, words.next()?, words.next()?);
            (found == kind).then(|| PathBuf::from(place))
        })
        .ok_or_else(|| Stop::Skipped(format!("needs a {kind} mount")))
}
