//! What ends a recording from outside.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::session::inherited;

/// The signals that a recording listens to; `None` for one that the caller
/// wants ignored.
#[derive(Debug)]
pub struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    /// Takes them over from the system's defaults, but for those that are
    /// ignored: after `nohup` neither the recording nor its command minds the
    /// end of a terminal.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: unless_ignored(SignalKind::interrupt())?,
            terminate: unless_ignored(SignalKind::terminate())?,
            hangup: unless_ignored(SignalKind::hangup())?,
        })
    }

    /// Ready when the recording is to end; with a command, never: the terminal
    /// interrupts the command too, and SIGTERM and SIGHUP are passed on to it.
    pub async fn stop(&mut self, command: Option<u32>) {
        loop {
            let passed_on = tokio::select! {
                () = received(&mut self.interrupt) => None,
                () = received(&mut self.terminate) => Some(libc::SIGTERM),
                () = received(&mut self.hangup) => Some(libc::SIGHUP),
            };
            match (command, passed_on) {
                (None, _) => return,
                (Some(pid), Some(signal)) => {
                    // SAFETY: sends a signal to a child that has not been waited for.
                    unsafe { libc::kill(pid as libc::pid_t, signal) };
                }
                (Some(_), None) => {}
            }
        }
    }
}

fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    if inherited::is_ignored(kind.as_raw_value()) {
        return Ok(None);
    }
    signal(kind).map(Some)
}

/// Ready when the signal has come; never for one that is ignored.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    #[tokio::test]
    async fn an_ignored_signal_stays_ignored() {
        // Real-time signals, which no other test uses.
        let (ignored, heard) = (libc::SIGRTMIN() + 1, libc::SIGRTMIN() + 2);
        // SAFETY: no code of ours runs.
        unsafe { libc::signal(ignored, libc::SIG_IGN) };
        assert!(
            unless_ignored(SignalKind::from_raw(ignored))
                .unwrap()
                .is_none()
        );
        assert!(inherited::is_ignored(ignored));

        let mut signal = unless_ignored(SignalKind::from_raw(heard)).unwrap();
        // SAFETY: the signal has a handler, which is the runtime's.
        unsafe { libc::raise(heard) };
        received(&mut signal).await;
    }
}
