//! The result of the walk benchmark: JSON for programs, a table for people.

use super::Cell;
use super::machine::Machine;
use super::program::{FRAMES, Workload};
use super::subject::Subject;
use crate::bench::stats;
use serde::Serialize;
use std::fmt::Write as _;

/// Share of complete stacks from which on a figure is one of complete stacks.
const COMPARABLE: f64 = 90.0;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Load average of the last minute before each round.
    pub loads: Vec<f64>,
    /// Profilers that are not installed.
    pub absent: Vec<String>,
    /// One for each profiler, workload and rate.
    pub rows: Vec<Row>,
    /// What the profilers use themselves.
    pub spending: Vec<Spending>,
}

/// One profiler on one workload at one rate, with a value for each round.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The profiler.
    pub subject: String,
    /// What it walked.
    pub workload: &'static str,
    /// Samples a second and CPU, as asked for.
    pub asked_hz: u32,
    /// As it was run: some take primes only.
    pub rate_hz: u32,
    /// Whether the others are compared with it.
    pub is_reference: bool,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Why there are fewer rounds than there should be.
    pub failures: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    /// Which round, from 0.
    pub number: usize,
    /// Run time in the kernel for each counted sample.
    pub ns_per_sample: f64,
    /// Runs of the program that this is the mean of.
    pub runs: u64,
    /// Share of the workload's stacks that reach their root.
    pub complete_percent: Option<f64>,
    /// Share of the samples that are the workload's.
    pub own_percent: f64,
    /// Shares of frames whose rule was in the cache where expected, elsewhere
    /// in it, and not there.
    pub rules_percent: Option<[f64; 3]>,
}

/// What one profiler uses itself.
#[derive(Debug, Serialize)]
pub struct Spending {
    /// The profiler.
    pub name: String,
    /// User and system time from its start to its result, in each round.
    pub cpu_s: Vec<f64>,
    /// Without mapped files, the most in a round.
    pub peak_rss_bytes: u64,
    /// Kernel memory of its BPF maps, the most in a round.
    pub map_bytes: u64,
}

/// The same of one round.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// User and system time.
    pub cpu_s: f64,
    /// Without mapped files.
    pub peak_rss_bytes: u64,
    /// Of its BPF maps.
    pub map_bytes: u64,
}

impl Spending {
    /// Of this profiler, no round yet.
    pub fn of(name: String) -> Self {
        Self {
            name,
            cpu_s: Vec::new(),
            peak_rss_bytes: 0,
            map_bytes: 0,
        }
    }

    /// Enters a round.
    pub fn add(&mut self, spent: &Spent) {
        self.cpu_s.push(spent.cpu_s);
        self.peak_rss_bytes = self.peak_rss_bytes.max(spent.peak_rss_bytes);
        self.map_bytes = self.map_bytes.max(spent.map_bytes);
    }
}

impl Row {
    /// Enters a round.
    pub fn add(&mut self, number: usize, cell: &Cell) {
        let outcome = &cell.outcome;
        let percent = |part: u64, of: u64| part as f64 * 100.0 / of.max(1) as f64;
        self.rounds.push(Round {
            number,
            ns_per_sample: cell.ns_per_sample(),
            runs: cell.runs,
            complete_percent: (outcome.own.samples > 0)
                .then(|| percent(outcome.own.complete, outcome.own.samples)),
            own_percent: percent(outcome.own.samples, outcome.counted),
            rules_percent: outcome.rules.map(|rules| {
                let parts = [rules.in_order, rules.by_index, rules.missed];
                parts.map(|part| percent(part, parts.iter().sum()))
            }),
        });
    }

    fn values(&self, of: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(of).collect()
    }

    /// Of each round in which the reference was measured too.
    fn ratios(&self, reference: Option<&Self>) -> Vec<f64> {
        self.values(|round| {
            let others = &reference?.rounds;
            let other = others.iter().find(|other| other.number == round.number)?;
            Some(round.ns_per_sample / other.ns_per_sample)
        })
    }
}

impl Report {
    /// Nothing measured yet.
    pub fn new(machine: Machine, absent: Vec<String>) -> Self {
        Self {
            machine,
            loads: Vec::new(),
            absent,
            rows: Vec::new(),
            spending: Vec::new(),
        }
    }

    /// The row of this profiler, workload and rate.
    pub fn row(&mut self, subject: &Subject, workload: Workload, rate_hz: u32) -> &mut Row {
        let found = self.rows.iter().position(|row| {
            row.subject == subject.name()
                && row.workload == workload.name
                && row.asked_hz == rate_hz
        });
        let at = found.unwrap_or_else(|| {
            self.rows.push(Row {
                subject: subject.name().to_owned(),
                workload: workload.name,
                asked_hz: rate_hz,
                rate_hz: subject.rate_hz(rate_hz),
                is_reference: subject.is_reference(),
                rounds: Vec::new(),
                failures: Vec::new(),
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    fn reference(&self, row: &Row) -> Option<&Row> {
        self.rows.iter().find(|other| {
            other.is_reference && other.workload == row.workload && other.asked_hz == row.asked_hz
        })
    }

    /// The tables, with what they say in short below them.
    pub fn table(&self) -> String {
        let Machine { kernel, cpu, cpus } = &self.machine;
        let mut text = format!(
            "{cpus} CPUs, {cpu}, Linux {kernel}; load average before each round: {:?}\n\
             Medians [and ranges] of the rounds; frames of a stack: {FRAMES}\n\n",
            self.loads
        );
        let mut line = |cells: [&str; 9]| {
            let [workload, rate, who, ns, ratio, frame, complete, own, rules] = cells;
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(
                text,
                "{workload:<15} {rate:>4} {who:<16} {ns:>24} {ratio:>19} {frame:>8} {complete:>10} {own:>6}  {rules}"
            );
        };
        line([
            "workload",
            "Hz",
            "who",
            "ns/sample",
            "to kernel's walk",
            "ns/frame",
            "complete %",
            "own %",
            "rules: in order / by index / missed %",
        ]);
        for row in &self.rows {
            let ns = row.values(|round| Some(round.ns_per_sample));
            let complete = stats::median(&row.values(|round| round.complete_percent));
            let mark = match complete {
                Some(complete) if complete >= COMPARABLE => "",
                _ => "*",
            };
            line([
                row.workload,
                &row.rate_hz.to_string(),
                &row.subject,
                &ranged(&ns, 0),
                &ranged(&row.ratios(self.reference(row)), 2),
                &number(stats::median(&ns).map(|ns| ns / f64::from(FRAMES)), 0),
                &format!("{}{mark}", number(complete, 1)),
                &number(
                    stats::median(&row.values(|round| Some(round.own_percent))),
                    0,
                ),
                &rules(row),
            ]);
        }
        text.push_str("\n* not comparable: fewer than 90 % of its stacks are complete\n");
        for name in &self.absent {
            let _ = writeln!(text, "absent: {name}");
        }
        for row in self.rows.iter().filter(|row| !row.failures.is_empty()) {
            let _ = writeln!(
                text,
                "failed: {} on {} at {} Hz, {} times: {}",
                row.subject,
                row.workload,
                row.rate_hz,
                row.failures.len(),
                row.failures[0]
            );
        }
        if !self.spending.is_empty() {
            text.push_str(&self.spending_table());
        }
        text
    }

    fn spending_table(&self) -> String {
        let mut text = format!(
            "\n{:<16} {:>6} {:>9} {:>9} {:>9}   recording deep44 at 999 Hz and finishing, statistics off; CPU: median\n",
            "who", "rounds", "own CPU s", "RSS MiB", "maps MiB"
        );
        for one in &self.spending {
            let _ = writeln!(
                text,
                "{:<16} {:>6} {:>9.2} {:>9.1} {:>9.1}",
                one.name,
                one.cpu_s.len(),
                stats::median(&one.cpu_s).unwrap_or(f64::NAN),
                mebibytes(one.peak_rss_bytes),
                mebibytes(one.map_bytes)
            );
        }
        text
    }
}

fn rules(row: &Row) -> String {
    let share = |at: usize| {
        let values = row.values(|round| Some(round.rules_percent?[at]));
        number(stats::median(&values), 2)
    };
    [0, 1, 2].map(share).join(" / ")
}

/// `median [least-greatest]`
fn ranged(values: &[f64], decimals: usize) -> String {
    let Some(median) = stats::median(values) else {
        return "-".into();
    };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{median:.decimals$} [{least:.decimals$}-{greatest:.decimals$}]")
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn row(subject: &str, is_reference: bool, ns: &[f64], complete: f64) -> Row {
        let round = |(number, ns_per_sample): (usize, &f64)| Round {
            number,
            ns_per_sample: *ns_per_sample,
            runs: 9,
            complete_percent: Some(complete),
            own_percent: 99.0,
            rules_percent: None,
        };
        Row {
            subject: subject.into(),
            workload: "deep44",
            asked_hz: 99,
            rate_hz: 99,
            is_reference,
            rounds: ns.iter().enumerate().map(round).collect(),
            failures: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_the_incomplete_marked() {
        let machine = Machine {
            kernel: "6.18".into(),
            cpu: "CPU".into(),
            cpus: 2,
        };
        let mut report = Report::new(machine, vec!["lightswitch".into()]);
        report.rows = vec![
            row("sampler", false, &[100.0, 400.0, 300.0], 99.0),
            row("kernel, fp", true, &[200.0, 400.0, 100.0], 99.0),
            row("profile-bee", false, &[900.0], 80.0),
            row("lightswitch", false, &[], 0.0),
        ];
        let table = report.table();
        let line = |who: &str| table.lines().find(|line| line.contains(who)).unwrap();
        assert!(line("sampler").contains("300 [100-400]"), "{table}");
        assert!(line("sampler").contains("1.00 [0.50-3.00]"), "{table}");
        assert!(line("profile-bee").contains("80.0*"), "{table}");
        assert!(table.contains("absent: lightswitch"), "{table}");
    }
}
