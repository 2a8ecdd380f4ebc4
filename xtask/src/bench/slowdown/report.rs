//! The result of the slowdown benchmark: JSON for programs, a table for people.

use super::Look;
use super::arm::Arm;
use super::order::ARMS;
use super::window::Figures;
use crate::bench::stats::{self, Estimate};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write as _;

/// What was seen of each arm, in the arms' own order; the first two have nothing
/// beside the work.
pub struct Round(pub [Look; ARMS]);

impl Round {
    /// The largest share of one of its windows that the hypervisor took.
    pub fn stolen(&self) -> f64 {
        let stolen = self.0.iter().map(|look| look.figures.stolen);
        stolen.fold(0.0, f64::max)
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// All of them work.
    pub cpus: usize,
    /// Load average before the work was started.
    pub load_before: f64,
    /// What is looked at in each arm and round.
    pub window_s: f64,
    /// One for each rate; one with the control.
    pub parts: Vec<Part>,
}

/// All rounds of the arms at one rate.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Samples a second and CPU; 0 if nothing samples.
    pub rate_hz: u32,
    /// How many count.
    pub rounds: usize,
    /// How many were measured anew because the hypervisor took time.
    pub repeats: usize,
    /// Wall time of a unit alone.
    pub unit_us: f64,
    /// One for each arm but the first, then the difference of the last two.
    pub rows: Vec<Row>,
}

/// Percent of the work's time alone.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The arm's name, or both with a minus between.
    pub name: String,
    /// By the mean unit.
    pub whole: Slowdown,
    /// By the mean unit in medians of its moment.
    pub within: Slowdown,
    /// The CPU time of what ran beside the work, of all CPUs' time.
    pub beside_percent: Option<f64>,
    /// The time that the work waited for other threads.
    pub waited_percent: Option<f64>,
    /// The time that the hypervisor took.
    pub stolen_percent: Option<f64>,
}

/// One figure's slowdown over the rounds.
#[derive(Debug, Serialize)]
pub struct Slowdown {
    /// Of each round.
    pub rounds: Vec<f64>,
    /// Their mean, with 95 % by Student's t.
    pub mean: Option<Estimate>,
    /// The mean of the middle three fifths, with 95 % by Tukey and `McLaughlin`.
    pub trimmed: Option<Estimate>,
}

impl Slowdown {
    fn of(rounds: Vec<f64>) -> Self {
        Self {
            mean: stats::estimate(&rounds),
            trimmed: stats::trimmed(&rounds),
            rounds,
        }
    }

    fn minus(&self, other: &Self) -> Self {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Self::of(pairs.map(|(own, other)| own - other).collect())
    }
}

impl Part {
    /// Computes the rows.
    pub fn new(rate_hz: u32, arms: [Arm; ARMS], rounds: &[Round], repeats: usize) -> Result<Self> {
        let mut rows: Vec<Row> = (1..ARMS).map(|at| Row::new(arms, at, rounds)).collect();
        let [.., one, other] = rows.as_slice() else {
            anyhow::bail!("there are too few arms");
        };
        let difference = Row {
            name: format!("{} − {}", one.name, other.name),
            whole: one.whole.minus(&other.whole),
            within: one.within.minus(&other.within),
            beside_percent: None,
            waited_percent: None,
            stolen_percent: None,
        };
        rows.push(difference);
        let alone: Vec<f64> = rounds
            .iter()
            .map(|round| round.0[0].figures.unit_ns)
            .collect();
        Ok(Self {
            rate_hz,
            rounds: rounds.len(),
            repeats,
            unit_us: stats::mean(&alone).context("no round was measured")? / 1e3,
            rows,
        })
    }
}

impl Row {
    fn new(arms: [Arm; ARMS], at: usize, rounds: &[Round]) -> Self {
        let slowdown = |figure: fn(&Figures) -> f64| {
            let of_round = |round: &Round| {
                let value = |arm: usize| figure(&round.0[arm].figures);
                slowdown_percent(arms[at], [value(0), value(1)], value(at))
            };
            Slowdown::of(rounds.iter().map(of_round).collect())
        };
        let mean = |field: fn(&Look) -> f64| {
            let all: Vec<f64> = rounds.iter().map(|round| field(&round.0[at])).collect();
            stats::mean(&all).map(|share| share * 100.0)
        };
        Self {
            name: arms[at].name().to_owned(),
            whole: slowdown(|figures| figures.unit_ns),
            within: slowdown(|figures| figures.in_medians),
            beside_percent: mean(|look| look.beside),
            waited_percent: mean(|look| look.figures.waited),
            stolen_percent: mean(|look| look.figures.stolen),
        }
    }
}

/// An arm's figure over that of the work alone. The second window alone is
/// compared with the first, all others with the mean of both.
fn slowdown_percent(arm: Arm, alone: [f64; 2], value: f64) -> f64 {
    let base = match arm {
        Arm::AloneAgain => alone[0],
        _ => f64::midpoint(alone[0], alone[1]),
    };
    (value / base - 1.0) * 100.0
}

impl Report {
    /// The table, with a line that explains each part.
    pub fn table(&self) -> String {
        let mut text = format!(
            "Linux {}, {} CPUs, windows of {} s. Slower, in percent of the work alone: mean and 95 %\n",
            self.kernel, self.cpus, self.window_s
        );
        for part in &self.parts {
            part.write(&mut text);
        }
        text
    }
}

impl Part {
    fn write(&self, text: &mut String) {
        let rate = match self.rate_hz {
            0 => "control".to_owned(),
            rate_hz => format!("{rate_hz} Hz"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\n{rate}: {} rounds, {} more repeated for stolen time; a unit takes {:.1} us",
            self.rounds, self.repeats, self.unit_us
        );
        let mut line = |cells: [&str; 7]| {
            let [name, whole, trimmed, within, beside, waited, stolen] = cells;
            let _ = writeln!(
                text,
                "{name:<26} {whole:>25} {trimmed:>25} {within:>25} {beside:>8} {waited:>8} {stolen:>8}"
            );
        };
        line([
            "",
            "whole",
            "whole, trimmed",
            "within",
            "beside %",
            "waited %",
            "stolen %",
        ]);
        for row in &self.rows {
            line([
                &row.name,
                &interval(row.whole.mean),
                &interval(row.whole.trimmed),
                &interval(row.within.mean),
                &percent(row.beside_percent),
                &percent(row.waited_percent),
                &percent(row.stolen_percent),
            ]);
        }
    }
}

fn interval(estimate: Option<Estimate>) -> String {
    match estimate {
        Some(Estimate {
            mean,
            low: Some(low),
            high: Some(high),
        }) => format!("{mean:+.2} ({low:+.2} … {high:+.2})"),
        Some(Estimate { mean, .. }) => format!("{mean:+.2}"),
        None => "-".into(),
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    const ARMS_COMPARED: [Arm; ARMS] = [Arm::Alone, Arm::AloneAgain, Arm::Sampler, Arm::Perf];

    fn round(units_ns: [f64; ARMS], in_medians: [f64; ARMS]) -> Round {
        let look = |at: usize| Look {
            figures: Figures {
                unit_ns: units_ns[at],
                in_medians: in_medians[at],
                waited: 0.01,
                stolen: 0.001 * at as f64,
            },
            beside: 0.02,
        };
        Round([look(0), look(1), look(2), look(3)])
    }

    #[test]
    fn profilers_are_compared_with_both_windows_alone_and_with_each_other() {
        // The second round runs on a machine half as fast.
        let in_medians = [1.0, 1.0, 1.02, 1.03];
        let rounds = vec![
            round([90.0, 110.0, 102.0, 103.0], in_medians),
            round([180.0, 220.0, 206.0, 204.0], in_medians),
        ];
        assert!((rounds[0].stolen() - 0.003).abs() < 1e-9);
        let part = Part::new(99, ARMS_COMPARED, &rounds, 3).unwrap();
        let near = |row: usize, whole: [f64; 2], within: f64| {
            let row = &part.rows[row];
            for (found, expected) in row.whole.rounds.iter().zip(whole) {
                assert!((found - expected).abs() < 1e-9, "{row:?}");
            }
            assert!((row.within.mean.unwrap().mean - within).abs() < 1e-9);
        };
        let again = (110.0 / 90.0 - 1.0) * 100.0;
        near(0, [again, again], 0.0);
        near(1, [2.0, 3.0], 2.0);
        near(2, [3.0, 2.0], 3.0);
        near(3, [-1.0, 1.0], -1.0);
        let report = Report {
            kernel: "6.18".into(),
            cpus: 2,
            load_before: 0.0,
            window_s: 3.0,
            parts: vec![part],
        };
        let table = report.table();
        let last = table.lines().last().unwrap();
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "sampler − perf -g +0.00 (-12.71 … +12.71) +0.00 (-12.71 … +12.71) -1.00 (-1.00 … -1.00) - - -"
        );
    }
}
