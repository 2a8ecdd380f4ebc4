//! How much of a run was not the run's own: time that the hypervisor took, and
//! ticks that the kernel did not deliver.

use anyhow::{Context as _, Result};
use std::fs;

/// A run that lost more than this is run again.
const TOLERATED: f64 = 0.01;

/// Shares, from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disturbance {
    /// Of the CPUs' time: stolen.
    pub stolen: f64,
    /// Of the expected ticks: not delivered to CPUs that were not idle.
    pub undelivered: f64,
}

impl Disturbance {
    /// Whether the run says little about the walk.
    pub fn is_too_much(self) -> bool {
        self.worst() > TOLERATED
    }

    /// The larger share.
    pub fn worst(self) -> f64 {
        self.stolen.max(self.undelivered)
    }
}

/// The CPUs' time so far, in the kernel's ticks.
pub struct CpuTime {
    total: u64,
    stolen: u64,
}

impl CpuTime {
    /// From `/proc/stat`.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("cpu "));
        // user nice system idle iowait irq softirq steal; guests are in user.
        let fields: Vec<u64> = line
            .context("/proc/stat does not begin with the sum of the CPUs")?
            .split_whitespace()
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            total: fields.iter().sum(),
            stolen: fields.get(7).copied().unwrap_or(0),
        })
    }

    /// The share of the time since then that was stolen.
    pub fn stolen_since(&self) -> Result<f64> {
        let now = Self::now()?;
        let total = now.total.saturating_sub(self.total).max(1);
        Ok(now.stolen.saturating_sub(self.stolen) as f64 / total as f64)
    }
}
