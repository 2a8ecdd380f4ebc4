//! The children of this process, and what they have cost.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The one list of the process.
static CENSUS: Mutex<Census> = Mutex::new(Census {
    live: Vec::new(),
    ended_ns: 0,
});

struct Census {
    live: Vec<libc::pid_t>,
    /// CPU time of those that have ended.
    ended_ns: u64,
}

fn census() -> MutexGuard<'static, Census> {
    CENSUS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process IDs of the children that run.
pub fn pids() -> Vec<u32> {
    census().live.iter().map(|pid| pid.unsigned_abs()).collect()
}

/// CPU time that all children have used, those included that have ended, in
/// nanoseconds.
pub fn cpu_ns() -> u64 {
    let census = census();
    let live_ns: u64 = census.live.iter().map(|pid| cpu_ns_of(*pid)).sum();
    census.ended_ns + live_ns
}

/// Enters a child.
pub(super) fn born(pid: libc::pid_t) {
    census().live.push(pid);
}

/// Takes note of a child's end, if it has ended. Returns its wait status.
pub(super) fn reap(pid: libc::pid_t) -> Option<libc::c_int> {
    // Held, so that its time is never counted twice or not at all.
    let mut census = census();
    let mut status = 0;
    // SAFETY: all zeros is a valid account of resources.
    let mut used: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes a status and an account.
    let ended = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut used) };
    if ended != pid {
        return None;
    }
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    census.ended_ns += ns(used.ru_utime) + ns(used.ru_stime);
    census.live.retain(|live| *live != pid);
    Some(status)
}

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    time_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of a process, in nanoseconds; 0 if it is not known.
pub(super) fn cpu_ns_of(pid: libc::pid_t) -> u64 {
    let mut clock = 0;
    // SAFETY: the library writes the number of a clock.
    let known = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } == 0;
    if known { time_ns(clock) } else { 0 }
}

/// What a clock shows, in nanoseconds; 0 if there is no such clock.
fn time_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes a time.
    let known = unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
    if known {
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    } else {
        0
    }
}
