//! Programs of the corpus that run all at once, each again when it has ended.

use crate::measure::Unmeasured;
use crate::prepared::Unit;
use crate::programs::Program;
use crate::workshop::{ENVIRONMENT, Workshop, tool};
use anyhow::Result;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// What one that watches its CPU time is told to use before it starts anew.
const CPU_S: f64 = 5.0;

/// The programs under way; ended when dropped.
pub struct Crowd {
    children: Vec<Child>,
    /// Those that could not be started, and why.
    pub missing: Vec<(&'static str, String)>,
    /// Where they are built and run; it must outlive them.
    _workshop: Workshop,
}

impl Crowd {
    /// Builds and starts them.
    pub fn start(programs: &[&Program]) -> Result<Self> {
        let workshop = Workshop::new()?;
        let mut children = Vec::new();
        let mut missing = Vec::new();
        for program in programs {
            match start(program, &workshop) {
                Ok(child) => children.push(child),
                Err(Unmeasured::Missing(why) | Unmeasured::Impossible(why)) => {
                    missing.push((program.name, why));
                }
                Err(Unmeasured::Failed(error)) => {
                    missing.push((program.name, format!("{error:#}")));
                }
            }
        }
        Ok(Self {
            children,
            missing,
            _workshop: workshop,
        })
    }

    /// How many run.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

fn start(program: &Program, workshop: &Workshop) -> Result<Child, Unmeasured> {
    let prepared = (program.prepare)(workshop)?;
    let words = prepared.command(match prepared.unit {
        Unit::CpuSeconds => CPU_S,
        Unit::Rounds => 1.0,
    });
    let mut command = Command::new(tool("sh")?);
    command
        .args(["-c", "while \"$@\"; do :; done", "sh"])
        .args(words)
        .current_dir(workshop.path())
        .envs(ENVIRONMENT.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that it can be ended with all it has started.
        .process_group(0);
    Ok(command.spawn()?)
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let group = format!("-{}", child.id());
            // The group is there as long as its first process is not waited for.
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
        }
    }
}
