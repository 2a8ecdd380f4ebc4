//! The result of the completeness benchmark: JSON for programs, a table for people.

use corpus::{Measurement, Program};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Samples that each program was to make.
    pub samples: u32,
    /// One for each program and rate.
    pub rows: Vec<Row>,
    /// Programs that could not be measured, and why.
    pub unmeasured: BTreeMap<&'static str, String>,
}

/// One program at one rate.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The program's name.
    pub program: &'static str,
    /// Why it is left out of the mean.
    pub excepted: Option<&'static str>,
    /// Samples a second and CPU.
    pub rate_hz: u32,
    /// CPU time of all its processes.
    pub cpu_s: f64,
    /// Samples that this time should make.
    pub expected: f64,
    /// Samples in its profiles.
    pub samples: u64,
    /// Those that reach their root, by the judge.
    pub complete: u64,
    /// `complete` of `expected`, in percent.
    pub good_percent: f64,
    /// Samples by the class that sampler gives them.
    pub classes: BTreeMap<String, u64>,
    /// Percent of the CPUs' time.
    pub stolen_percent: f64,
    /// Percent of the expected ticks.
    pub undelivered_percent: f64,
    /// How often it was run again because of the two above.
    pub repeats: u32,
}

impl Row {
    /// Of one measurement.
    pub fn new(program: &Program, measured: &Measurement) -> Self {
        Self {
            program: program.name,
            excepted: program.excepted,
            rate_hz: measured.rate_hz,
            cpu_s: measured.cpu_s,
            expected: measured.expected(),
            samples: measured.tally.samples(),
            complete: measured.tally.complete(),
            good_percent: measured.good() * 100.0,
            classes: measured.classes.clone(),
            stolen_percent: measured.disturbance.stolen * 100.0,
            undelivered_percent: measured.disturbance.undelivered * 100.0,
            repeats: measured.repeats,
        }
    }

    /// Its line of the table.
    pub fn line(&self) -> String {
        let name = match self.excepted {
            Some(_) => format!("({})", self.program),
            None => self.program.to_owned(),
        };
        let disturbed = self.stolen_percent.max(self.undelivered_percent);
        format!(
            "{name:<16} {:>5} {:>8.2} {:>9.0} {:>8} {:>9} {:>7.2} {:>6.2} {:>5}  {}",
            self.rate_hz,
            self.cpu_s,
            self.expected,
            self.samples,
            self.complete,
            self.good_percent,
            disturbed,
            self.repeats,
            self.reasons()
        )
    }

    /// Every class but `complete`, the most frequent first.
    fn reasons(&self) -> String {
        let mut cut: Vec<(&str, u64)> = self
            .classes
            .iter()
            .filter(|(class, count)| *class != "complete" && **count > 0)
            .map(|(class, count)| (class.as_str(), *count))
            .collect();
        cut.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let words: Vec<String> = cut
            .iter()
            .map(|(class, count)| format!("{class} {count}"))
            .collect();
        words.join(", ")
    }
}

impl Report {
    /// Nothing measured yet.
    pub fn new(kernel: &str, samples: u32) -> Self {
        Self {
            kernel: kernel.to_owned(),
            samples,
            rows: Vec::new(),
            unmeasured: BTreeMap::new(),
        }
    }

    /// The table, with what it says in short below it.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} samples each, Linux {}; good = complete / expected, expected = Hz x CPU s\n\n\
             {:<16} {:>5} {:>8} {:>9} {:>8} {:>9} {:>7} {:>6} {:>5}  {}\n",
            self.samples,
            self.kernel,
            "program",
            "Hz",
            "CPU s",
            "expected",
            "samples",
            "complete",
            "good %",
            "lost %",
            "again",
            "not complete, by sampler"
        );
        for row in &self.rows {
            text.push_str(&row.line());
            text.push('\n');
        }
        text.push('\n');
        // Writing to a string cannot fail.
        for (rate_hz, mean, programs) in self.means() {
            let _ = writeln!(
                text,
                "{rate_hz} Hz: {mean:.2} % good on average of {programs} programs, each at most 100 %"
            );
        }
        let repeated: u32 = self.rows.iter().map(|row| row.repeats).sum();
        let _ = writeln!(
            text,
            "{repeated} runs were repeats because more than 1 % of the time was stolen or of the ticks not delivered"
        );
        let excepted: BTreeMap<_, _> = self
            .rows
            .iter()
            .filter_map(|row| Some((row.program, row.excepted?)))
            .collect();
        for (program, why) in excepted {
            let _ = writeln!(text, "({program}) is not in the average: {why}");
        }
        for (program, why) in &self.unmeasured {
            let _ = writeln!(text, "{program} was not measured: {why}");
        }
        text
    }

    /// For each rate: the mean of `good`, and over how many programs.
    fn means(&self) -> Vec<(u32, f64, usize)> {
        let rates: BTreeSet<u32> = self.rows.iter().map(|row| row.rate_hz).collect();
        rates
            .into_iter()
            .filter_map(|rate_hz| {
                let shares: Vec<f64> = self
                    .rows
                    .iter()
                    .filter(|row| row.rate_hz == rate_hz && row.excepted.is_none())
                    .map(|row| row.good_percent.min(100.0))
                    .collect();
                Some((rate_hz, super::stats::mean(&shares)?, shares.len()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(program: &'static str, good_percent: f64) -> Row {
        Row {
            program,
            excepted: None,
            rate_hz: 99,
            cpu_s: 1.0,
            expected: 99.0,
            samples: 99,
            complete: 98,
            good_percent,
            classes: [("complete", 98), ("broken_chain", 1), ("table_missing", 0)]
                .map(|(class, count)| (class.to_owned(), count))
                .into(),
            stolen_percent: 0.0,
            undelivered_percent: 0.5,
            repeats: 1,
        }
    }

    #[test]
    fn more_than_expected_counts_as_all_and_the_excepted_do_not_count() {
        let mut report = Report::new("6.18", 100);
        report.rows = vec![
            row("a", 90.0),
            row("b", 104.0),
            Row {
                excepted: Some("why"),
                ..row("c", 1.0)
            },
        ];
        assert_eq!(report.means(), [(99, 95.0, 2)]);
        let table = report.table();
        assert!(
            table.contains("95.00 % good on average of 2 programs"),
            "{table}"
        );
        assert!(table.contains("3 runs were repeats"), "{table}");
        assert!(table.contains("(c) is not in the average: why"), "{table}");
    }

    #[test]
    fn a_line_says_what_is_not_complete() {
        let line = row("a", 98.99).line();
        assert!(
            line.ends_with("98.99   0.50     1  broken_chain 1"),
            "{line}"
        );
    }
}
