//! The result of the naming benchmark: JSON for programs, a table for people.

use super::names::Names;
use super::subject::Outcome;
use crate::bench::stats;
use crate::bench::walk::machine::Machine;
use serde::Serialize;
use std::fmt::Write as _;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Load average before each round.
    pub loads: Vec<f64>,
    /// Samples a second and CPU.
    pub rate_hz: u32,
    /// Of each recording.
    pub seconds: f64,
    /// What could not be measured at all.
    pub absent: Vec<String>,
    /// One for each load and way of naming.
    pub rows: Vec<Row>,
}

/// One way of naming on one load; an entry for each round.
#[derive(Debug, Default, Serialize)]
pub struct Row {
    /// The load's name.
    pub load: &'static str,
    /// Who names.
    pub name: &'static str,
    /// CPU time of all its processes, start to end.
    pub cpu_s: Vec<f64>,
    /// From the stop to the last file.
    pub stop_to_end_s: Vec<f64>,
    /// The same by `sampler`'s own account.
    pub finish_s: Vec<f64>,
    /// CPU time of finding names alone, by its own account.
    pub naming_cpu_s: Vec<f64>,
    /// Memory of all its processes that no file backs, at most.
    pub peak_rss_bytes: Vec<f64>,
    /// Its BPF maps, at most.
    pub peak_map_bytes: Vec<f64>,
    /// Frames and named frames.
    pub names: Vec<Names>,
    /// Rounds that failed, and how.
    pub failures: Vec<String>,
}

impl Row {
    /// Adds a round.
    pub fn add(&mut self, outcome: &Outcome) {
        let spent = &outcome.spent;
        self.cpu_s.push(spent.cpu_s);
        self.stop_to_end_s.push(spent.end_s);
        self.finish_s.extend(outcome.finish_s);
        self.naming_cpu_s.extend(outcome.naming_cpu_s);
        self.peak_rss_bytes.push(spent.peak_rss_bytes as f64);
        self.peak_map_bytes.push(spent.peak_map_bytes as f64);
        self.names.push(outcome.names);
    }

    /// The median over the rounds of a share, in percent.
    fn percent(&self, share: fn(&Names) -> Option<f64>) -> Option<f64> {
        let shares: Vec<f64> = self.names.iter().filter_map(share).collect();
        stats::median(&shares).map(|share| share * 100.0)
    }
}

impl Report {
    /// The row of that load and name, a new one if there is none.
    pub fn row(&mut self, load: &'static str, name: &'static str) -> &mut Row {
        let found = self
            .rows
            .iter()
            .position(|row| row.load == load && row.name == name);
        let at = found.unwrap_or_else(|| {
            self.rows.push(Row {
                load,
                name,
                ..Row::default()
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// The table, with a line that explains it.
    pub fn table(&self) -> String {
        let Machine { kernel, cpu, cpus } = &self.machine;
        let mut text = format!(
            "Linux {kernel}, {cpus} CPUs ({cpu}), {} s of the whole host at {} Hz; medians of the rounds\n",
            self.seconds, self.rate_hz
        );
        for what in &self.absent {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "not measured: {what}");
        }
        text.push('\n');
        let mut line = |cells: [&str; 10]| {
            let [
                load,
                name,
                rounds,
                cpu,
                naming,
                end,
                rss,
                maps,
                user,
                frames,
            ] = cells;
            let _ = writeln!(
                text,
                "{load:<6} {name:<24} {rounds:>6} {cpu:>10} {naming:>9} {end:>9} {rss:>8} {maps:>8} {user:>8} {frames:>11}"
            );
        };
        line([
            "load",
            "who",
            "rounds",
            "own CPU s",
            "of names",
            "finish s",
            "RSS MiB",
            "maps MiB",
            "named %",
            "user frames",
        ]);
        for row in &self.rows {
            let of = |values: &[f64], scale: f64, decimals: usize| {
                number(stats::median(values).map(|value| value / scale), decimals)
            };
            let mebibyte = f64::from(1 << 20);
            let frames: Vec<f64> = row.names.iter().map(|names| names.user as f64).collect();
            line([
                row.load,
                row.name,
                &row.cpu_s.len().to_string(),
                &of(&row.cpu_s, 1.0, 2),
                &of(&row.naming_cpu_s, 1.0, 3),
                &of(&row.stop_to_end_s, 1.0, 2),
                &of(&row.peak_rss_bytes, mebibyte, 1),
                &of(&row.peak_map_bytes, mebibyte, 1),
                &number(row.percent(Names::user_share), 2),
                &of(&frames, 1.0, 0),
            ]);
        }
        for row in &self.rows {
            for failure in &row.failures {
                let _ = writeln!(text, "{} on {}: {failure}", row.name, row.load);
            }
        }
        text
    }
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::bench::naming::spending::Spent;

    #[test]
    fn a_row_has_the_medians_of_its_rounds_and_says_what_failed() {
        let mut report = Report {
            machine: Machine {
                kernel: "6.18".into(),
                cpu: "X".into(),
                cpus: 2,
            },
            loads: vec![0.1],
            rate_hz: 999,
            seconds: 10.0,
            absent: vec!["lightswitch".into()],
            rows: Vec::new(),
        };
        for (cpu_s, user_named) in [(1.0, 9), (5.0, 8), (2.0, 10)] {
            let outcome = Outcome {
                spent: Spent {
                    cpu_s,
                    end_s: 0.25,
                    peak_rss_bytes: 3 << 20,
                    peak_map_bytes: 0,
                },
                finish_s: Some(0.2),
                naming_cpu_s: Some(0.5),
                names: Names {
                    user: 10,
                    user_named,
                    ..Names::default()
                },
            };
            report.row("rustc", "sampler").add(&outcome);
        }
        report
            .row("rustc", "perf script")
            .failures
            .push("late".into());
        let table = report.table();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1].join(" "), "not measured: lightswitch");
        assert_eq!(
            lines[4].join(" "),
            "rustc sampler 3 2.00 0.500 0.25 3.0 0.0 90.00 10"
        );
        assert_eq!(lines[5].join(" "), "rustc perf script 0 - - - - - - -");
        assert_eq!(lines[6].join(" "), "perf script on rustc: late");
    }
}
