//! How a trial ends: it held, it did not, or it could not be tried here.

use std::fmt::Display;

use libtest_mimic::{Completion, Failed, Trial};

/// Why a trial stopped before its end.
pub enum Stop {
    /// What it says about the world is not so.
    Failed(String),
    /// It cannot be tried on this host, and why.
    Skipped(String),
}

impl<M: Display> From<M> for Stop {
    fn from(message: M) -> Self {
        Self::Failed(message.to_string())
    }
}

pub type Verdict<T = ()> = Result<T, Stop>;

/// A trial whose runner may find that it cannot be tried here.
pub fn trial(name: &str, run: fn() -> Verdict) -> Trial {
    Trial::ignorable_test(name, move || match run() {
        Ok(()) => Ok(Completion::Completed),
        Err(Stop::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
        Err(Stop::Failed(message)) => Err(Failed::from(message)),
    })
}

/// Fails the trial with a formatted message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::support::verdict::Stop::Failed(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
