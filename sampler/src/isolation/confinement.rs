//! Taking every right from this process, step by step. It has one thread.

use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::parent_id;

use super::child::Limits;
use super::{filter, landlock, rights};

/// Where the socket ends up; below are the standard streams.
const SOCKET: RawFd = 3;

/// What everything else on this host is worth more than.
const FIRST_TO_GO: &str = "1000";

/// A step that failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub(super) struct Failed {
    step: &'static str,
    error: io::Error,
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed { step, error }
}

/// Closes whatever is open but the socket, which came as the standard input.
/// The standard streams lead nowhere then.
pub(super) fn keep_only_the_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain calls on descriptors; nothing in this process, which has just
    // started, uses any but the standard streams.
    unsafe {
        done(libc::dup3(0, SOCKET, libc::O_CLOEXEC))?;
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        done(nowhere)?;
        for stream in 0..SOCKET {
            done(libc::dup2(nowhere, stream))?;
        }
        let first = SOCKET as libc::c_uint + 1;
        let closed = libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0);
        done(closed as libc::c_int)?;
        Ok(OwnedFd::from_raw_fd(SOCKET))
    }
}

/// Gives up all rights. After this the process can compute, read the files that
/// it is handed, and answer.
pub(super) fn confine(parent: u32, limits: Limits) -> Result<(), Failed> {
    end_with_the_parent(parent).map_err(step("end with the parent"))?;
    set_signals();
    // Neither matters for what the process may do.
    let _ = fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
    let _ = std::env::set_current_dir("/");
    // SAFETY: the first sets a number of this process's, the second reads a
    // NUL-terminated name of at most 16 bytes.
    unsafe {
        libc::umask(0o077);
        libc::prctl(libc::PR_SET_NAME, c"sampler-parser".as_ptr());
    }
    for (resource, most) in [
        (libc::RLIMIT_DATA, limits.data_bytes),
        (libc::RLIMIT_STACK, limits.stack_bytes),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
    ] {
        limit(resource, most).map_err(step("set limits"))?;
    }
    rights::keep_only(0).map_err(step("give up capabilities"))?;
    set(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(step("set no_new_privs"))?;
    set(libc::PR_SET_DUMPABLE, 0).map_err(step("become undumpable"))?;
    // Kernels before 5.13 have none, and later ones may have it switched off.
    let _ = landlock::forbid_files();
    filter::install().map_err(step("filter system calls"))?;
    match File::open("/") {
        Err(_) => Ok(()),
        Ok(_) => Err(step("try the filter")(io::Error::other("it lets through"))),
    }
}

fn end_with_the_parent(parent: u32) -> io::Result<()> {
    set(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    if parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::other("it is gone"))
    }
}

/// Those who stop the profiler mean the parent, which may still need us. What
/// the language's runtime does about faults needs system calls.
fn set_signals() {
    for (signal, disposition) in [
        (libc::SIGINT, libc::SIG_IGN),
        (libc::SIGTERM, libc::SIG_IGN),
        (libc::SIGHUP, libc::SIG_IGN),
        (libc::SIGQUIT, libc::SIG_IGN),
        (libc::SIGSEGV, libc::SIG_DFL),
        (libc::SIGBUS, libc::SIG_DFL),
    ] {
        // SAFETY: neither disposition runs any code of ours.
        unsafe { libc::signal(signal, disposition) };
    }
}

/// Lowers a limit, or leaves it where it is lower already.
fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one limit and then reads one.
    unsafe {
        done(libc::getrlimit(resource, &raw mut limit))?;
        limit.rlim_max = limit.rlim_max.min(most);
        limit.rlim_cur = limit.rlim_max;
        done(libc::setrlimit(resource, &raw const limit))
    }
}

fn set(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    let rest: libc::c_ulong = 0;
    // SAFETY: these options take numbers and touch no memory of ours.
    done(unsafe { libc::prctl(option, value, rest, rest, rest) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
