//! What ends a recording from outside.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a recording listens to.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes them over from the system's defaults.
    pub fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ready when the recording is to end; with a command, never: the terminal
    /// interrupts the command too, and SIGTERM and SIGHUP are passed on to it.
    pub async fn stop(&mut self, command: Option<u32>) {
        loop {
            let passed_on = tokio::select! {
                _ = self.interrupt.recv() => None,
                _ = self.terminate.recv() => Some(libc::SIGTERM),
                _ = self.hangup.recv() => Some(libc::SIGHUP),
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
