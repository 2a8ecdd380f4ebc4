//! The signals as the caller left them: what a caller ignores stays ignored,
//! here and in a command.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the caller had SIGPIPE ignored. By the time `main` runs it is
/// ignored in any case, and the caller's wish can no longer be read.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// The loader calls what is listed here before Rust's runtime starts, which
/// ignores SIGPIPE for its own sake.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = remember;

extern "C" fn remember() {
    SIGPIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

/// Whether a signal is ignored by now, as `nohup` ignores SIGHUP and a
/// script's shell SIGINT for what it starts in the background.
pub fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zeros is a valid `sigaction`; the kernel writes one and
    // changes nothing.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// What the library changes for each program that it starts: it sets SIGPIPE
/// to its default and lets every signal through.
#[derive(Clone, Copy)]
pub struct CallerSignals {
    sigpipe_ignored: bool,
    blocked: libc::sigset_t,
}

impl CallerSignals {
    /// Reads them, on a thread that has blocked nothing of its own.
    pub fn read() -> Self {
        // SAFETY: all zeros is a valid signal set; the call writes one and
        // changes nothing.
        let blocked = unsafe {
            let mut blocked = std::mem::zeroed::<libc::sigset_t>();
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut blocked);
            blocked
        };
        Self {
            sigpipe_ignored: SIGPIPE_IGNORED.load(Ordering::Relaxed),
            blocked,
        }
    }

    /// Makes them this process's. Safe between fork and exec.
    pub fn restore(&self) -> io::Result<()> {
        // SAFETY: neither call runs code of ours, and the set is a whole one.
        let failed = unsafe {
            (self.sigpipe_ignored && libc::signal(libc::SIGPIPE, libc::SIG_IGN) == libc::SIG_ERR)
                || libc::pthread_sigmask(
                    libc::SIG_SETMASK,
                    &raw const self.blocked,
                    std::ptr::null_mut(),
                ) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    /// Set in the copies of this test that were started with SIGPIPE ignored,
    /// or not: `true` or `false`.
    const IGNORED: &str = "SAMPLER_TEST_SIGPIPE_IGNORED";

    #[test]
    fn what_the_caller_did_with_sigpipe_is_passed_on() {
        if let Ok(started_with) = std::env::var(IGNORED) {
            // As the library does in a child.
            // SAFETY: no code of ours runs.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            CallerSignals::read().restore().unwrap();
            assert_eq!(is_ignored(libc::SIGPIPE).to_string(), started_with);
            return;
        }
        for (disposition, ignored) in [(libc::SIG_IGN, "true"), (libc::SIG_DFL, "false")] {
            let mut copy = Command::new(std::env::current_exe().unwrap());
            copy.args([
                "--exact",
                "session::inherited::tests::what_the_caller_did_with_sigpipe_is_passed_on",
            ]);
            copy.arg("--nocapture").env(IGNORED, ignored);
            // SAFETY: the closure only calls a function that is safe in a
            // signal handler.
            unsafe {
                copy.pre_exec(move || {
                    libc::signal(libc::SIGPIPE, disposition);
                    Ok(())
                });
            }
            let said = String::from_utf8(copy.output().unwrap().stdout).unwrap();
            assert!(said.contains("1 passed"), "{said}");
        }
    }
}
