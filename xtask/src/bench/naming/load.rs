//! What is recorded: programs whose symbols are many.

use super::big;
use crate::project;
use anyhow::{Context, Result, ensure};
use corpus::{Crowd, PROGRAMS};
use std::process::{Child, Command, Stdio};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// `rustc` that compiles the corpus' library again and again:
    /// `librustc_driver` and `libLLVM`.
    Rustc,
    /// The corpus' script in `node`.
    Node,
    /// A debug build of half a gigabyte.
    Big,
}

/// All of them.
pub const LOADS: [Load; 3] = [Load::Rustc, Load::Node, Load::Big];

/// A load that runs; ended when dropped.
pub enum Busy {
    Corpus { _crowd: Crowd },
    Big(Child),
}

impl Load {
    /// In tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rustc => "rustc",
            Self::Node => "node",
            Self::Big => "big",
        }
    }

    /// The one of that name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = LOADS.into_iter().find(|load| load.name() == name);
        found.ok_or_else(|| format!("no load {name:?}; there are rustc, node, big"))
    }

    /// Builds what it needs, and starts it.
    pub fn start(self, size: big::Size) -> Result<Busy> {
        match self {
            Self::Rustc | Self::Node => {
                let program = PROGRAMS.iter().find(|program| program.name == self.name());
                let crowd = Crowd::start(&[program.context("a program of the corpus")?])?;
                if let Some((name, why)) = crowd.missing.first() {
                    anyhow::bail!("{name}: {why}");
                }
                ensure!(crowd.len() == 1, "it does not run");
                Ok(Busy::Corpus { _crowd: crowd })
            }
            Self::Big => {
                let program = big::build(size, &project::root().join("target/naming"))?;
                let child = Command::new(program)
                    .stdin(Stdio::null())
                    .spawn()
                    .context("the debug build")?;
                Ok(Busy::Big(child))
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Self::Big(child) = self {
            // Errors: it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
