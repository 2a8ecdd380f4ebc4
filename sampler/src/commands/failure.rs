//! How a command fails, and the exit code that says so.

use std::fmt;

/// A failure with its exit code.
#[derive(Debug)]
pub enum Failure {
    /// 2: it was asked for wrongly.
    Usage(anyhow::Error),
    /// 3: this host, or this caller, cannot.
    Host(anyhow::Error),
    /// 4: what it is about is not there.
    Target(anyhow::Error),
    /// 5: the result could not be written.
    Output(anyhow::Error),
    /// The command that was to be recorded could not be started.
    Command {
        /// 126 or 127.
        code: i32,
        /// Why.
        error: anyhow::Error,
    },
}

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(_) => 2,
            Self::Host(_) => 3,
            Self::Target(_) => 4,
            Self::Output(_) => 5,
            Self::Command { code, .. } => *code,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) | Self::Host(error) | Self::Target(error) | Self::Output(error) => {
                write!(f, "{error:#}")
            }
            Self::Command { error, .. } => write!(f, "{error:#}"),
        }
    }
}
