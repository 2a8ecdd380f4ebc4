//! A recording of the whole host, and what it says of the short-lived processes.

use super::{CHILD_COMM, FUNCTION, LOOP_COMM};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// What a recording gets to start, and to read what lies behind the last tick.
const SETTLE: Duration = Duration::from_millis(1_500);

/// One that runs.
pub struct Recording {
    child: Child,
    output: PathBuf,
}

/// One that ended.
#[derive(Debug)]
pub struct Seen {
    ledger: Ledger,
    lifecycle: Lifecycle,
    processes: Vec<Process>,
}

/// The samples of one process.
#[derive(Debug)]
struct Process {
    pid: u32,
    comm: String,
    stacks: Stacks,
    /// Samples whose stack, by its names, leads from the program's entry to the
    /// burning function.
    named: u64,
}

/// Samples of the short-lived processes.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Tally {
    /// All.
    pub samples: u64,
    /// With a complete stack.
    pub complete: u64,
    /// Without a user half.
    pub kernel_only: u64,
    /// Under the program's own name and through its burning function.
    pub named: u64,
    /// Under the name of the loop that forked them.
    pub before_exec: u64,
}

#[derive(Debug, Deserialize)]
struct Index {
    ledger: Ledger,
    lifecycle: Lifecycle,
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
struct Ledger {
    ticks: u64,
    counted: u64,
    idle: u64,
    out_of_scope: u64,
    lost: HashMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Lifecycle {
    lost_records: u64,
}

#[derive(Debug, Deserialize)]
struct File {
    #[serde(rename = "file")]
    name: String,
    pid: Option<u32>,
    comm: String,
    stacks: Stacks,
}

#[derive(Debug, Deserialize)]
struct Stacks {
    complete: u64,
    kernel_only: u64,
    truncated: HashMap<String, u64>,
}

impl Recording {
    /// Starts one; `output` must not exist.
    pub fn start(sampler: &Path, rate_hz: u32, output: &Path) -> Result<Self> {
        let mut command = Command::new(sampler);
        command
            .args([
                "record",
                "--no-cache",
                "--format",
                "folded",
                "-F",
                &rate_hz.to_string(),
            ])
            .arg("-o")
            .arg(output)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| sampler.display().to_string())?;
        thread::sleep(SETTLE);
        Ok(Self {
            child,
            output: output.to_path_buf(),
        })
    }

    /// Ends it and reads what it wrote.
    pub fn stop(mut self) -> Result<Seen> {
        // SAFETY: the process is our child and was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the recording failed: {status}");
        }
        let index: Index = serde_json::from_slice(&fs::read(self.output.join("index.json"))?)?;
        let processes = index
            .files
            .into_iter()
            .filter(|file| file.comm == CHILD_COMM || file.comm == LOOP_COMM)
            .map(|file| {
                let folded = fs::read_to_string(self.output.join(&file.name))?;
                Ok(Process {
                    pid: file.pid.context("a profile without a process")?,
                    comm: file.comm,
                    stacks: file.stacks,
                    named: named(&folded),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Seen {
            ledger: index.ledger,
            lifecycle: index.lifecycle,
            processes,
        })
    }
}

/// Samples of folded stacks that lead from `_start` to the burning function.
fn named(folded: &str) -> u64 {
    let lines = folded.lines().filter_map(|line| line.rsplit_once(' '));
    lines
        .filter(|(stack, _)| {
            let mut frames = stack.split(';').skip_while(|frame| *frame != "_start");
            frames.next().is_some() && frames.any(|frame| frame == FUNCTION)
        })
        .filter_map(|(_, samples)| samples.parse::<u64>().ok())
        .sum()
}

impl Seen {
    /// What it says of all but the loop itself.
    pub fn tally(&self, loop_pid: u32) -> Tally {
        let mut tally = Tally::default();
        for process in &self.processes {
            if process.pid == loop_pid {
                continue;
            }
            let stacks = &process.stacks;
            let samples =
                stacks.complete + stacks.kernel_only + stacks.truncated.values().sum::<u64>();
            tally.samples += samples;
            tally.complete += stacks.complete;
            tally.kernel_only += stacks.kernel_only;
            if process.comm == CHILD_COMM {
                tally.named += process.named;
            } else {
                tally.before_exec += samples;
            }
        }
        tally
    }

    /// Ticks without an outcome.
    pub fn unaccounted_ticks(&self) -> i64 {
        let ledger = &self.ledger;
        let outcomes =
            ledger.counted + ledger.idle + ledger.out_of_scope + ledger.lost.values().sum::<u64>();
        ledger.ticks as i64 - outcomes as i64
    }

    /// Ticks that were lost.
    pub fn lost(&self) -> u64 {
        self.ledger.lost.values().sum()
    }

    /// Records of forks, execs, mappings and exits that were lost.
    pub fn lost_records(&self) -> u64 {
        self.lifecycle.lost_records
    }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn only_whole_paths_to_the_function_count() {
        let folded = "short_child;_start;main;short_burn 3\n\
                      short_child;[truncated];main;short_burn 5\n\
                      short_child;_start;_dl_start 7\n";
        assert_eq!(named(folded), 3);
    }
}
