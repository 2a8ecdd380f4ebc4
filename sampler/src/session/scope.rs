//! The processes that a recording is about, before it starts.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use super::options::Scope;
use crate::process::{Stat, parse_stat};

/// A process that was asked for cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is none.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// The number is a thread's.
    #[error("{tid} is a thread of process {pid}: use `-p {pid}`, which takes all of its threads")]
    Thread {
        /// What was asked for.
        tid: u32,
        /// Whose it is.
        pid: u32,
    },
}

/// A process that is in scope from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Process ID.
    pub pid: u32,
    /// Start time in clock ticks of `/proc`.
    pub start_clock_ticks: u64,
}

/// Looks up a process by its ID.
pub fn target(pid: u32) -> Result<Target, TargetError> {
    let missing = |_| TargetError::NoProcess(pid);
    let status = fs::read(format!("/proc/{pid}/status")).map_err(missing)?;
    if let Some(leader) = thread_group(&status)
        && leader != pid
    {
        return Err(TargetError::Thread {
            tid: pid,
            pid: leader,
        });
    }
    let stat = stat(pid).ok_or(TargetError::NoProcess(pid))?;
    Ok(Target {
        pid,
        start_clock_ticks: stat.start_ticks,
    })
}

/// Whether the processes of a scope are there.
pub fn check_targets(scope: &Scope) -> Result<(), TargetError> {
    match scope {
        Scope::Processes { pids, .. } => pids.iter().try_for_each(|pid| target(*pid).map(|_| ())),
        _ => Ok(()),
    }
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// `Tgid` of `/proc/PID/status`.
fn thread_group(status: &[u8]) -> Option<u32> {
    String::from_utf8_lossy(status)
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// The living descendants of these processes that are not in `known`.
pub fn new_descendants(of: &[u32], known: &HashSet<u32>) -> Vec<Target> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let processes: Vec<(u32, Stat)> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let mut family: HashSet<u32> = of.iter().copied().collect();
    loop {
        let before = family.len();
        for (pid, stat) in &processes {
            if family.contains(&stat.parent_pid) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            break;
        }
    }
    processes
        .iter()
        .filter(|(pid, _)| family.contains(pid) && !known.contains(pid))
        .map(|(pid, stat)| Target {
            pid: *pid,
            start_clock_ticks: stat.start_ticks,
        })
        .collect()
}

/// A descriptor that becomes readable when the process has ended.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there_and_the_impossible_pid_is_not() {
        let own = target(std::process::id());
        assert!(matches!(
            own,
            Ok(Target {
                start_clock_ticks: 1..,
                ..
            })
        ));
        assert!(matches!(target(u32::MAX), Err(TargetError::NoProcess(_))));
    }

    #[test]
    fn a_thread_is_not_a_process() {
        let (tell, told) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // SAFETY: asks for a number.
                let _ = tell.send(unsafe { libc::gettid() } as u32);
                let _ = held.recv();
            });
            let tid = told.recv().unwrap_or(0);
            let answer = target(tid);
            drop(release);
            assert!(
                matches!(answer, Err(TargetError::Thread { pid, .. }) if pid == std::process::id()),
                "{answer:?}"
            );
        });
    }

    #[test]
    fn a_child_is_a_descendant() {
        let Ok(mut child) = std::process::Command::new("sleep").arg("20").spawn() else {
            panic!("sleep is everywhere");
        };
        let found = new_descendants(&[std::process::id()], &HashSet::new());
        let _ = child.kill();
        let _ = child.wait();
        assert!(found.iter().any(|target| target.pid == child.id()));
    }
}
