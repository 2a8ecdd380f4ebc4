//! Who walks: `sampler`, the kernel itself, and other profilers.

use super::program::FramePointers;
use super::stacks::{self, Stacks};
use crate::project;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file in the place of `/proc/modules`, without which lightswitch has no
/// profile: kernels without modules have none.
const NO_MODULES: &str = include_str!("no_modules.c");

/// One that walks.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A build of `sampler`, by the name in tables.
    Sampler(String, PathBuf),
    /// The kernel's walk by frame pointers, as bpftrace asks for it.
    Kernel,
    /// profile-bee's `probee`.
    ProfileBee(PathBuf),
    /// lightswitch, and what is to be loaded before it.
    Lightswitch(PathBuf, Option<PathBuf>),
}

/// What a subject says of its own recording.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Ticks that its program saw, where it says so.
    pub ticks: Option<u64>,
    /// Samples in its result.
    pub counted: u64,
    /// Those of the workload.
    pub own: Stacks,
    /// Frames by how their rule was found.
    pub rules: Option<Rules>,
}

/// `cost.walk` of `index.json`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Rules {
    /// In the cache, where expected.
    #[serde(rename = "frames_in_order")]
    pub in_order: u64,
    /// Elsewhere in the cache.
    #[serde(rename = "frames_by_index")]
    pub by_index: u64,
    /// Not in the cache.
    #[serde(rename = "frames_missed")]
    pub missed: u64,
}

impl Subject {
    /// The name in tables and JSON.
    pub fn name(&self) -> &str {
        match self {
            Self::Sampler(name, _) => name,
            Self::Kernel => "kernel, fp",
            Self::ProfileBee(_) => "profile-bee",
            Self::Lightswitch(..) => "lightswitch",
        }
    }

    /// Which build of the program it walks.
    pub fn frame_pointers(&self) -> FramePointers {
        match self {
            Self::Kernel => FramePointers::Kept,
            _ => FramePointers::Omitted,
        }
    }

    /// Every peer by name, as far as it is there: from `given` or on `PATH`.
    /// The second list names those that are not.
    pub fn peers(given: &[(String, PathBuf)], folder: &Path) -> Result<(Vec<Self>, Vec<String>)> {
        let file = |names: [&str; 2]| {
            given
                .iter()
                .find(|(name, _)| names.contains(&name.as_str()))
                .map(|(_, path)| path.clone())
                .or_else(|| project::find_program(names[1]))
        };
        let mut present = Vec::new();
        let mut absent = Vec::new();
        match file(["bpftrace", "bpftrace"]) {
            Some(_) => present.push(Self::Kernel),
            None => absent.push("kernel, fp (bpftrace)".to_owned()),
        }
        match file(["profile-bee", "probee"]) {
            Some(file) => present.push(Self::ProfileBee(file)),
            None => absent.push("profile-bee (probee)".to_owned()),
        }
        match file(["lightswitch", "lightswitch"]) {
            Some(file) => {
                let preload = if Path::new("/proc/modules").exists() {
                    None
                } else {
                    Some(build_no_modules(folder)?)
                };
                present.push(Self::Lightswitch(file, preload));
            }
            None => absent.push("lightswitch".to_owned()),
        }
        Ok((present, absent))
    }

    /// The rate it is run at when asked for `rate_hz`.
    pub fn rate_hz(&self, rate_hz: u32) -> u32 {
        match self {
            // It takes primes only.
            Self::Lightswitch(..) => prime_below(rate_hz),
            _ => rate_hz,
        }
    }

    /// The command that profiles until SIGINT and writes below `folder`.
    pub fn command(&self, rate_hz: u32, folder: &Path) -> Result<Command> {
        let rate = self.rate_hz(rate_hz).to_string();
        let mut command = match self {
            Self::Sampler(_, file) => {
                let mut command = Command::new(file);
                command
                    .args(["record", "--unwind", "tables", "-F", &rate, "-o"])
                    .arg(folder.join("profiles"));
                command
            }
            Self::Kernel => {
                let mut command = Command::new("bpftrace");
                command.args([
                    "-e",
                    &format!("profile:hz:{rate} {{ @[ustack(127)] = count(); }}"),
                    "-o",
                ]);
                command.arg(folder.join("stacks"));
                command
            }
            Self::ProfileBee(file) => {
                let mut command = Command::new(file);
                command
                    .args(["--dwarf", "-t", "0", "-f", &rate, "-o"])
                    .arg(folder.join("stacks.folded"));
                command
            }
            Self::Lightswitch(file, preload) => {
                let mut command = Command::new(file);
                command
                    .args(["--sample-freq", &rate, "--duration", "3600"])
                    .arg("--profile-path")
                    .arg(folder)
                    .args(["--profile-name", "stacks.svg"])
                    .arg("--cache-dir-base")
                    .arg(folder);
                if let Some(preload) = preload {
                    command.env("LD_PRELOAD", preload);
                }
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let said = fs::File::create(folder.join("said"))?;
        command.stderr(said);
        Ok(command)
    }

    /// What it wrote below `folder` of processes named `comm`.
    pub fn outcome(&self, folder: &Path, comm: &str) -> Result<Outcome> {
        let read = |name: &str| {
            let file = folder.join(name);
            fs::read_to_string(&file).with_context(|| file.display().to_string())
        };
        match self {
            Self::Sampler(..) => {
                let index: Index = serde_json::from_str(&read("profiles/index.json")?)?;
                Ok(index.outcome(comm))
            }
            Self::Kernel => Ok(Outcome::of(stacks::of_bpftrace(&read("stacks")?))),
            Self::ProfileBee(_) => Ok(Outcome::of(stacks::of_folded(&read("stacks.folded")?))),
            Self::Lightswitch(..) => Ok(Outcome::of(stacks::of_svg(&read("stacks.svg")?))),
        }
    }

    /// Whether it is the other side of the ratio.
    pub fn is_reference(&self) -> bool {
        matches!(self, Self::Kernel)
    }
}

impl Outcome {
    fn of((counted, own): (u64, Stacks)) -> Self {
        Self {
            ticks: None,
            counted,
            own,
            rules: None,
        }
    }
}

/// What is asked of `index.json`.
#[derive(Deserialize)]
struct Index {
    ledger: Ledger,
    files: Vec<File>,
    cost: Cost,
}

#[derive(Deserialize)]
struct Ledger {
    ticks: u64,
    counted: u64,
}

#[derive(Deserialize)]
struct File {
    comm: String,
    samples: u64,
    stacks: Complete,
}

#[derive(Deserialize)]
struct Complete {
    complete: u64,
}

#[derive(Deserialize)]
struct Cost {
    /// Older builds do not tell.
    walk: Option<Rules>,
}

impl Index {
    fn outcome(&self, comm: &str) -> Outcome {
        let own = self.files.iter().filter(|file| file.comm == comm);
        Outcome {
            ticks: Some(self.ledger.ticks),
            counted: self.ledger.counted,
            own: own.fold(Stacks::default(), |sum, file| Stacks {
                samples: sum.samples + file.samples,
                complete: sum.complete + file.stacks.complete,
            }),
            rules: self.cost.walk,
        }
    }
}

fn build_no_modules(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("no_modules.c");
    let library = folder.join("no_modules.so");
    fs::write(&source, NO_MODULES)?;
    project::run(
        Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&library, &source]),
    )?;
    Ok(library)
}

/// The greatest prime that is not above `number`; 2 at least.
fn prime_below(number: u32) -> u32 {
    (2..=number)
        .rev()
        .find(|candidate| (2..*candidate).all(|divisor| candidate % divisor != 0))
        .unwrap_or(2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn primes_are_found_from_above() {
        assert_eq!([99, 999, 97, 2, 0].map(prime_below), [97, 997, 97, 2, 2]);
    }

    #[test]
    fn an_index_is_summed_over_the_workloads_processes() {
        let text = r#"{"ledger": {"ticks": 20, "counted": 18}, "cost": {},
            "files": [{"comm": "a", "samples": 5, "stacks": {"complete": 4}},
                      {"comm": "b", "samples": 7, "stacks": {"complete": 7}},
                      {"comm": "a", "samples": 6, "stacks": {"complete": 6}}]}"#;
        let index: Index = serde_json::from_str(text).unwrap();
        let outcome = index.outcome("a");
        assert_eq!((outcome.own.samples, outcome.own.complete), (11, 10));
        assert_eq!((outcome.ticks, outcome.counted), (Some(20), 18));
        assert!(outcome.rules.is_none());
    }
}
