//! Why a session cannot go on.

use std::io;

use super::budget::TooSmall;
use super::scope::TargetError;
use crate::probe::{self, LoadError};

/// Why a session could not start.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A process that was asked for is not there.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The memory budget does not suffice.
    #[error(transparent)]
    Memory(#[from] TooSmall),
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The timers could not be opened.
    #[error("cannot open the event {event}: {error}")]
    Event {
        /// Which.
        event: probe::Event,
        /// The kernel's answer.
        error: io::Error,
    },
    /// Something else that the system refused.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The command could not be started.
    #[error("cannot start the command: {0}")]
    Command(io::Error),
}

/// Makes an error of a system call's.
pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> SessionError {
    move |error| SessionError::System { action, error }
}
