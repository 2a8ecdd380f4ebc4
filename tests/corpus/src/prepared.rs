//! A program that is ready to run, and how it is told how much to do.

use crate::measure::Unmeasured;
use crate::workshop::tool;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// How a program is told how much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// It watches its own CPU time.
    CpuSeconds,
    /// As often as this takes; how long that is has to be tried out.
    Rounds,
}

/// A program that is ready to run.
pub struct Prepared {
    pub unit: Unit,
    /// With [`AMOUNT`] where the amount has to stand.
    words: Vec<OsString>,
}

/// Stands for the amount of work in a command.
pub const AMOUNT: &str = "AMOUNT";
/// Stands for as many repeats of the next word as there are rounds.
pub const REPEATED: &str = "REPEATED";

impl Prepared {
    /// The command that does so much.
    pub fn command(&self, amount: f64) -> Vec<OsString> {
        let amount = match self.unit {
            Unit::CpuSeconds => amount,
            Unit::Rounds => amount.ceil(),
        };
        let mut words = Vec::new();
        let mut rest = self.words.iter();
        while let Some(word) = rest.next() {
            if word == AMOUNT {
                words.push(amount.to_string().into());
            } else if word == REPEATED {
                let repeated = rest.next().into_iter().cycle();
                words.extend(repeated.take(amount as usize).cloned());
            } else {
                words.push(word.clone());
            }
        }
        words
    }

    /// A command of `program` and `arguments`.
    pub fn new(unit: Unit, program: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Self {
        let arguments = arguments.iter().map(|word| (*word).as_ref().to_owned());
        Self {
            unit,
            words: [program.as_os_str().to_owned()]
                .into_iter()
                .chain(arguments)
                .collect(),
        }
    }

    /// A process of this command for each round.
    pub fn repeated(arguments: &[&dyn AsRef<OsStr>]) -> Result<Self, Unmeasured> {
        let script = "n=$1; shift; while [ $n -gt 0 ]; do \"$@\" || exit; n=$((n - 1)); done";
        let first: [&dyn AsRef<OsStr>; 4] = [&"-c", &script, &"sh", &AMOUNT];
        Ok(Self::new(
            Unit::Rounds,
            &tool("sh")?,
            &[&first, arguments].concat(),
        ))
    }

    /// With one more argument.
    pub fn with(mut self, argument: &str) -> Self {
        self.words.push(argument.into());
        self
    }
}
