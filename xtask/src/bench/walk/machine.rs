//! What the figures were measured on.

use crate::project;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::process::Command;
use std::thread;

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: String,
    /// As `/proc/cpuinfo` calls the first one.
    pub cpu: String,
    /// Those that may be used.
    pub cpus: usize,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let cpu = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown CPU", |(_, name)| name);
        Ok(Self {
            kernel: project::output(Command::new("uname").arg("-r"))?
                .trim_end()
                .to_owned(),
            cpu: cpu.to_owned(),
            cpus: thread::available_parallelism()?.get(),
        })
    }
}

/// Of the last minute.
pub fn load_average() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let first = text.split_whitespace().next().context("/proc/loadavg")?;
    first.parse().context("/proc/loadavg")
}

/// Load average above which figures are not to be trusted.
const QUIET: f64 = 0.5;

/// The load average, with a warning on stderr if other programs run too.
pub fn checked_load_average() -> Result<f64> {
    let load = load_average()?;
    if load > QUIET {
        eprintln!("warning: load average {load}: other programs run, and are measured too");
    }
    Ok(load)
}
