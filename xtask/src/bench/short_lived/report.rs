//! The table of a series.

use super::Told;
use super::recording::{Seen, Tally};
use crate::bench::stats;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Samples a second and CPU.
    pub rate_hz: u32,
    /// Processes started.
    pub processes: u64,
    /// Samples that their CPU time should make.
    pub expected: f64,
    /// Samples that the time they clocked in their function should make.
    pub expected_named: f64,
    /// What was seen.
    pub tally: Tally,
    /// Ticks without an outcome.
    pub unaccounted_ticks: i64,
    /// Ticks that were lost.
    pub lost: u64,
    /// Records that were lost.
    pub lost_records: u64,
}

impl Run {
    pub(super) fn new(rate_hz: u32, told: Told, seen: &Seen) -> Self {
        let expected = |ns: u64| f64::from(rate_hz) * ns as f64 * 1e-9;
        Self {
            rate_hz,
            processes: told.processes,
            expected: expected(told.cpu_ns),
            expected_named: expected(told.burnt_ns),
            tally: seen.tally(told.pid),
            unaccounted_ticks: seen.unaccounted_ticks(),
            lost: seen.lost(),
            lost_records: seen.lost_records(),
        }
    }

    /// Complete stacks over expected samples.
    fn good_percent(&self) -> f64 {
        percent(self.tally.complete as f64, self.expected)
    }

    /// Samples through the function over those expected in it.
    fn named_percent(&self) -> f64 {
        percent(self.tally.named as f64, self.expected_named)
    }

    /// What was seen, in a line.
    pub fn line(&self) -> String {
        let tally = self.tally;
        format!(
            "{} Hz, {} processes: {} samples of {:.0}, {} complete ({:.1} %), {} kernel only, {} named of {:.0} \
             ({:.1} %), {} before exec, {} lost, {} lost records, {} unaccounted",
            self.rate_hz,
            self.processes,
            tally.samples,
            self.expected,
            tally.complete,
            self.good_percent(),
            tally.kernel_only,
            tally.named,
            self.expected_named,
            self.named_percent(),
            tally.before_exec,
            self.lost,
            self.lost_records,
            self.unaccounted_ticks,
        )
    }
}

/// A series.
#[derive(Debug, Default)]
pub struct Report {
    /// In order.
    pub runs: Vec<Run>,
}

impl Report {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| Hz | runs | samples | good: complete of expected | complete of samples | named of expected | unaccounted | lost | lost records |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        let rates: BTreeSet<u32> = self.runs.iter().map(|run| run.rate_hz).collect();
        for rate_hz in rates {
            let runs: Vec<&Run> = self
                .runs
                .iter()
                .filter(|run| run.rate_hz == rate_hz)
                .collect();
            let sum = |of: fn(&Run) -> f64| runs.iter().map(|run| of(run)).sum::<f64>();
            let samples = sum(|run| run.tally.samples as f64);
            let complete = sum(|run| run.tally.complete as f64);
            let _infallible = writeln!(
                table,
                "| {rate_hz} | {} | {samples:.0} | {} | {:.1} % | {} | {} | {} | {} |",
                runs.len(),
                interval(&runs, Run::good_percent),
                percent(complete, samples),
                interval(&runs, Run::named_percent),
                sum(|run| run.unaccounted_ticks as f64),
                sum(|run| run.lost as f64),
                sum(|run| run.lost_records as f64),
            );
        }
        table
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        100.0 * part / whole
    } else {
        0.0
    }
}

/// The mean over runs with its 95 % interval by Student's t.
fn interval(runs: &[&Run], of: fn(&Run) -> f64) -> String {
    let values: Vec<f64> = runs.iter().map(|run| of(run)).collect();
    match stats::estimate(&values) {
        Some(stats::Estimate {
            mean,
            low: Some(low),
            high: Some(high),
        }) => format!("{mean:.1} % ({low:.1} … {high:.1})"),
        Some(estimate) => format!("{:.1} %", estimate.mean),
        None => "-".into(),
    }
}
