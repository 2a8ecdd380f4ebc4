//! The result of the overhead benchmark: JSON for programs, a table for people.

use super::stats::Estimate;
use serde::Serialize;
use std::fmt::Write as _;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Threads of the worker: one for each CPU.
    pub cpus: usize,
    /// How often each condition was run.
    pub rounds: usize,
    /// How the intervals are computed.
    pub interval_method: &'static str,
    /// One entry for each way to run the worker, that without a profiler first.
    pub conditions: Vec<Row>,
}

/// One condition; what concerns a profiler is a mean over the rounds, and null
/// for the worker alone.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The condition's name.
    pub name: String,
    /// The worker's duration in each round.
    pub elapsed_s: Vec<f64>,
    /// How much longer than alone, in percent.
    pub slowdown_percent: Option<Estimate>,
    /// CPU time of the profiler's processes, start to exit.
    pub cpu_s: Option<f64>,
    /// Resident memory: `peak_rss_bytes` of sampler's own account, for perf the
    /// kernel's high-water mark, which includes mapped files.
    pub peak_rss_bytes: Option<f64>,
    /// Memory of the BPF maps.
    pub bpf_map_bytes: Option<f64>,
    /// From the signal to the profiler's exit.
    pub stop_to_exit_s: Option<f64>,
    /// From the stop to the last file in place, by sampler's own account.
    pub finish_s: Option<f64>,
    /// The kernel's mean run time of the sampling programs, from a run of its own.
    pub ns_per_sample: Option<f64>,
}

impl Report {
    /// The table, with a line that explains it.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} rounds, {} CPUs, Linux {}; intervals: {}\n\n",
            self.rounds, self.cpus, self.kernel, self.interval_method
        );
        let mut line = |cells: [&str; 8]| {
            let [name, time, slower, cpu, rss, maps, finish, sample] = cells;
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name:<16} {time:>8} {slower:>26} {cpu:>9} {rss:>9} {maps:>9} {finish:>9} {sample:>10}"
            );
        };
        line([
            "condition",
            "time s",
            "slower % (95 %)",
            "own CPU s",
            "RSS MiB",
            "maps MiB",
            "finish s",
            "ns/sample",
        ]);
        for row in &self.conditions {
            line([
                &row.name,
                &number(super::stats::mean(&row.elapsed_s), 3),
                &row.slowdown_percent.map_or_else(|| "-".into(), slowdown),
                &number(row.cpu_s, 2),
                &number(row.peak_rss_bytes.map(mebibytes), 1),
                &number(row.bpf_map_bytes.map(mebibytes), 1),
                &number(row.finish_s.or(row.stop_to_exit_s), 2),
                &number(row.ns_per_sample, 0),
            ]);
        }
        text
    }
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

fn slowdown(estimate: Estimate) -> String {
    match (estimate.low, estimate.high) {
        (Some(low), Some(high)) => format!("{:+.2} ({low:+.2} … {high:+.2})", estimate.mean),
        _ => format!("{:+.2}", estimate.mean),
    }
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Row {
        Row {
            name: name.into(),
            elapsed_s: vec![1.0, 2.0],
            slowdown_percent: None,
            cpu_s: None,
            peak_rss_bytes: None,
            bpf_map_bytes: None,
            stop_to_exit_s: None,
            finish_s: None,
            ns_per_sample: None,
        }
    }

    #[test]
    fn each_condition_is_a_line_and_what_was_not_measured_a_dash() {
        let slower = Estimate {
            mean: 1.5,
            low: Some(-0.5),
            high: Some(3.5),
        };
        let report = Report {
            kernel: "6.18".into(),
            cpus: 2,
            rounds: 2,
            interval_method: "t",
            conditions: vec![
                row("alone"),
                Row {
                    slowdown_percent: Some(slower),
                    peak_rss_bytes: Some(3.0 * 1_048_576.0),
                    stop_to_exit_s: Some(0.25),
                    ..row("perf -g 99 Hz")
                },
            ],
        };
        let table = report.table();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[3], ["alone", "1.500", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(
            lines[4].join(" "),
            "perf -g 99 Hz 1.500 +1.50 (-0.50 … +3.50) - 3.0 - 0.25 -"
        );
    }
}
