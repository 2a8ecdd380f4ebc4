//! The command that a recording is made of: held before its first
//! instruction until the timers run.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;

use super::inherited::CallerSignals;

/// A child that waits to become the command.
///
/// The library waits in `spawn` until the exec has succeeded or failed, so it
/// runs on a thread of its own while the child is held.
#[derive(Debug)]
pub struct HeldCommand {
    /// Its process ID.
    pub pid: u32,
    release: File,
    spawning: JoinHandle<io::Result<Child>>,
}

impl HeldCommand {
    /// Forks the child, with the caller's own limit on open files and with its
    /// signals.
    pub fn fork(command: &[OsString], open_files: libc::rlimit) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let (told_pid, tell_pid) = pipe()?;
        let (held, release) = pipe()?;
        let release_fd = release.as_raw_fd();
        let signals = CallerSignals::read();
        let mut builder = Command::new(program);
        builder.args(arguments);
        // SAFETY: between fork and exec the closure only calls functions that
        // are safe in a signal handler, on descriptors that it owns.
        unsafe {
            builder.pre_exec(move || {
                // Its own copy would keep the pipe open after the profiler's end.
                libc::close(release_fd);
                libc::setrlimit(libc::RLIMIT_NOFILE, &raw const open_files);
                signals.restore()?;
                let pid = libc::getpid().to_ne_bytes();
                let written = libc::write(tell_pid.as_raw_fd(), pid.as_ptr().cast(), pid.len());
                let mut go = 0_u8;
                let read = libc::read(held.as_raw_fd(), (&raw mut go).cast(), 1);
                if written == 4 && read == 1 {
                    Ok(())
                } else {
                    // The profiler ended before the recording began.
                    Err(io::Error::from_raw_os_error(libc::ECANCELED))
                }
            });
        }
        let spawning = std::thread::Builder::new()
            .name("spawn".to_owned())
            .spawn(move || builder.spawn())?;
        let mut pid = [0; 4];
        File::from(told_pid).read_exact(&mut pid)?;
        Ok(Self {
            pid: u32::from_ne_bytes(pid),
            release: File::from(release),
            spawning,
        })
    }

    /// Lets it go; returns when it has become the command.
    pub fn release(mut self) -> io::Result<Child> {
        self.release.write_all(&[1])?;
        self.spawning
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts the command died")))
    }
}

/// A pipe of which no other program gets an end: the reading one first.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors, which nothing else owns.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// The exit code that stands for how a command ended, as shells have it.
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}

/// The exit code that stands for a command that could not be started: 127 if
/// there is none, 126 if it may not or cannot be run.
pub fn start_failure_code(error: &io::Error) -> i32 {
    if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    /// How `grep` with this pattern ends on the status of its own process.
    fn grep_own_status(pattern: &str) -> Option<i32> {
        let open_files = libc::rlimit {
            rlim_cur: 64,
            rlim_max: 64,
        };
        let command = ["grep", "-Eq", pattern, "/proc/self/status"].map(OsString::from);
        let held = HeldCommand::fork(&command, open_files).unwrap();
        held.release().unwrap().wait().unwrap().code()
    }

    #[test]
    fn a_signal_that_the_caller_blocked_is_blocked_in_the_command() {
        let usr2_blocked = "^SigBlk:[[:space:]]*0*800$";
        assert_eq!(grep_own_status(usr2_blocked), Some(1));
        // SAFETY: all zeros is a valid signal set, and the mask is this
        // thread's, which ends with this test.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigaddset(&raw mut set, libc::SIGUSR2);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        assert_eq!(grep_own_status(usr2_blocked), Some(0));
    }
}
