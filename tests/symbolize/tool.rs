//! Programs of this machine that a test needs.

use std::ffi::OsStr;
use std::process::Command;

use libtest_mimic::{Completion, Failed};

/// Why a test ends early.
#[derive(Debug)]
pub enum Stop {
    /// Something the test needs is not on this machine.
    Missing(String),
    /// The test fails.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a test's body returns.
pub type Outcome = Result<(), Stop>;

/// A failure with this message.
pub fn fail<T>(message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(message.into()))
}

/// Turns a body into a test of `libtest-mimic`.
pub fn trial(name: &'static str, body: fn() -> Outcome) -> libtest_mimic::Trial {
    libtest_mimic::Trial::ignorable_test(name, move || match body() {
        Ok(()) => Ok(Completion::Completed),
        Err(Stop::Missing(reason)) if std::env::var("CI").as_deref() != Ok("true") => {
            Ok(Completion::ignored_with(reason))
        }
        Err(Stop::Missing(reason) | Stop::Failed(reason)) => Err(Failed::from(reason)),
    })
}

/// Runs a program and returns what it prints.
pub fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String, Stop> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| Stop::Missing(format!("{program}: {error}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let message = String::from_utf8_lossy(&output.stderr);
        fail(format!("{program}: {}: {message}", output.status))
    }
}
