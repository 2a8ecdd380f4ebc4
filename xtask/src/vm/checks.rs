//! What must be true of the guest's report.

use super::folded::Recursion;
use super::sections::{Section, Sections};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What the fixture's fork mode exits with.
const FORK_EXIT_CODE: i32 = 7;

/// The part of `index.json` that is checked.
#[derive(Debug, Deserialize)]
struct Index {
    host: Host,
    ledger: Ledger,
    stacks: Stacks,
    files: Vec<Profile>,
}

#[derive(Debug, Deserialize)]
struct Host {
    kernel: String,
}

#[derive(Debug, Deserialize)]
struct Ledger {
    ticks: u64,
    expected_ticks: Option<u64>,
    counted: u64,
    idle: u64,
    out_of_scope: u64,
    lost: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Stacks {
    complete: u64,
    truncated: BTreeMap<String, u64>,
    kernel_only: u64,
}

#[derive(Debug, Deserialize)]
struct Profile {
    file: String,
    pid: Option<u32>,
    comm: Option<String>,
    samples: u64,
    stacks: Stacks,
}

impl Profile {
    /// Each profile is there once a format; one of them stands for all.
    fn is_pprof(&self) -> bool {
        self.file.ends_with(".pb.gz")
    }
}

/// One statement and whether it held.
#[derive(Debug)]
pub struct Check {
    /// Whether it held.
    pub held: bool,
    /// The statement, with the numbers behind it.
    pub statement: String,
}

/// Judges the whole report. An error means that a part of it is missing or
/// cannot be read.
pub fn judge(sections: &Sections, depth: usize) -> Result<Vec<Check>> {
    let mut checks = Checks::default();
    checks.exits("doctor", sections.get("doctor")?, 0);

    let recursing: u32 = sections
        .get("recursing")?
        .text
        .parse()
        .context("the fixture's pid")?;
    let host = sections.get("host")?;
    checks.exits("record of the host", host, 0);
    let index = index("host", host)?;
    checks.that(true, format!("the kernel was {}", index.host.kernel));
    checks.adds_up("host", &index);
    let profile = index
        .files
        .iter()
        .find(|file| file.is_pprof() && file.pid == Some(recursing));
    checks.that(
        profile.is_some_and(|file| file.samples > 0),
        format!(
            "the recursing process {recursing} has a profile with {} samples",
            profile.map_or(0, |file| file.samples)
        ),
    );
    if let Some(file) = profile {
        checks.that(
            file.stacks.complete * 20 >= file.samples * 19,
            format!(
                "its stacks are complete: {} of {}",
                file.stacks.complete, file.samples
            ),
        );
    }
    checks.recursion("host", &sections.get("host-stacks")?.text, depth);

    let command = sections.get("command")?;
    checks.exits("record of a command", command, FORK_EXIT_CODE);
    checks.that(
        command.text.is_empty(),
        "with a command, stdout is the command's".into(),
    );
    let index = self::index("command-index", sections.get("command-index")?)?;
    checks.adds_up("command", &index);
    let children = index
        .files
        .iter()
        .filter(|file| file.is_pprof() && file.comm.as_deref() == Some("fixture"))
        .count();
    checks.that(
        children > 1,
        format!("the command and its children have {children} profiles"),
    );
    checks.recursion("command", &sections.get("command-stacks")?.text, depth);
    Ok(checks.0)
}

fn index(name: &str, section: &Section) -> Result<Index> {
    serde_json::from_str(&section.text).with_context(|| {
        let start: String = section.text.chars().take(300).collect();
        format!("{name} is no index: {start}")
    })
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn that(&mut self, held: bool, statement: String) {
        self.0.push(Check { held, statement });
    }

    fn exits(&mut self, what: &str, section: &Section, expected: i32) {
        self.that(
            section.exit_code == expected,
            format!("{what} exits {expected}: {}", section.exit_code),
        );
    }

    /// The ledger's equations, and nothing lost.
    fn adds_up(&mut self, what: &str, index: &Index) {
        let ledger = &index.ledger;
        let lost: u64 = ledger.lost.values().sum();
        let outcomes = ledger.counted + ledger.idle + ledger.out_of_scope + lost;
        self.that(
            ledger.ticks > 0 && ledger.ticks == outcomes,
            format!(
                "{what}: {} ticks are {outcomes} outcomes, {} counted ({} expected)",
                ledger.ticks,
                ledger.counted,
                ledger
                    .expected_ticks
                    .map_or("unknown".into(), |ticks| ticks.to_string())
            ),
        );
        self.that(lost == 0, format!("{what}: {lost} lost"));
        let stacks = &index.stacks;
        let classes = stacks.complete + stacks.truncated.values().sum::<u64>() + stacks.kernel_only;
        let samples: u64 = index
            .files
            .iter()
            .filter(|file| file.is_pprof())
            .map(|file| file.samples)
            .sum();
        self.that(
            ledger.counted == classes && ledger.counted == samples,
            format!(
                "{what}: {} counted are {classes} stacks and {samples} samples in files",
                ledger.counted
            ),
        );
    }

    fn recursion(&mut self, what: &str, folded: &str, depth: usize) {
        let found = Recursion::of(folded, depth);
        self.that(
            found.is_seen(),
            format!(
                "{what}: {} of {} samples in spin show all {depth} frames above it",
                found.whole, found.samples
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]
    use super::*;

    /// A report in which everything holds.
    fn report() -> String {
        let index = |ticks: u64, comm_pids: &[u32]| {
            let files: Vec<String> = comm_pids
                .iter()
                .flat_map(|pid| {
                    ["pb.gz", "folded"].map(|format| {
                        format!(
                            r#"{{"file": "cpu-fixture-{pid}.{format}", "pid": {pid},
                            "comm": "fixture", "samples": 20, "stacks":
                            {{"complete": 19, "truncated": {{"broken_chain": 1}},
                            "kernel_only": 0}}}}"#
                        )
                    })
                })
                .collect();
            format!(
                r#"{{"host": {{"kernel": "6.1"}}, "ledger": {{"ticks": {ticks},
                "expected_ticks": {ticks}, "counted": 40, "idle": 50, "out_of_scope": 10,
                "lost": {{"stacks_full": 0}}}}, "stacks": {{"complete": 38,
                "truncated": {{"broken_chain": 2}}, "kernel_only": 0}},
                "files": [{}]}}"#,
                files.join(",")
            )
        };
        let stacks = "fixture;_start;begin;descend;descend;spin 20";
        [
            ("doctor", 0, "works".to_string()),
            ("recursing", 0, "95".into()),
            ("host", 0, index(100, &[95, 96])),
            ("host-stacks", 0, stacks.into()),
            ("command", 7, String::new()),
            ("command-index", 0, index(100, &[200, 201])),
            ("command-stacks", 0, stacks.into()),
        ]
        .map(|(name, code, text)| format!("=== begin {name}\n{text}\n=== end {name} {code}\n"))
        .concat()
    }

    fn failures(report: &str) -> Vec<String> {
        judge(&Sections::parse(report), 2)
            .unwrap()
            .into_iter()
            .filter(|check| !check.held)
            .map(|check| check.statement)
            .collect()
    }

    /// `report` with one thing changed fails in statements that hold `expected`.
    #[track_caller]
    fn one_change_is_noticed(from: &str, to: &str, expected: &str) {
        let report = report();
        assert!(report.contains(from), "nothing to change");
        let failures = failures(&report.replace(from, to));
        assert!(!failures.is_empty());
        for failure in failures {
            assert!(failure.contains(expected), "{failure}");
        }
    }

    #[test]
    fn a_report_in_order_passes() {
        assert_eq!(failures(&report()), Vec::<String>::new());
    }

    #[test]
    fn a_tick_without_an_outcome_is_noticed() {
        one_change_is_noticed(r#""ticks": 100"#, r#""ticks": 101"#, "101 ticks are 100");
    }

    #[test]
    fn a_lost_tick_is_noticed_though_the_sum_is_right() {
        one_change_is_noticed(
            r#""idle": 50, "out_of_scope": 10,
                "lost": {"stacks_full": 0}"#,
            r#""idle": 49, "out_of_scope": 10,
                "lost": {"stacks_full": 1}"#,
            "1 lost",
        );
    }

    #[test]
    fn a_sample_that_reached_no_file_is_noticed() {
        one_change_is_noticed(r#""samples": 20"#, r#""samples": 19"#, "samples in files");
    }

    #[test]
    fn stacks_cut_short_are_noticed() {
        one_change_is_noticed(
            r#"{"complete": 19, "truncated": {"broken_chain": 1}"#,
            r#"{"complete": 1, "truncated": {"broken_chain": 19}"#,
            "stacks are complete",
        );
    }

    #[test]
    fn a_process_without_its_profile_is_noticed() {
        one_change_is_noticed("95\n", "94\n", "process 94");
    }

    #[test]
    fn a_missing_frame_is_noticed() {
        one_change_is_noticed("descend;descend", "descend", "0 of 20 samples");
    }

    #[test]
    fn an_exit_code_that_is_not_the_commands_is_noticed() {
        one_change_is_noticed("end command 7", "end command 0", "exits 7: 0");
    }

    #[test]
    fn a_doctor_that_despairs_is_noticed() {
        one_change_is_noticed("end doctor 0", "end doctor 3", "doctor exits 0: 3");
    }

    #[test]
    fn output_among_the_commands_is_noticed() {
        one_change_is_noticed(
            "begin command\n",
            "begin command\nchatter\n",
            "stdout is the command's",
        );
    }

    #[test]
    fn a_report_that_ends_early_is_an_error() {
        let report = report();
        let (first, _) = report.split_once("=== begin command\n").unwrap();
        let error = judge(&Sections::parse(first), 2).expect_err("it is incomplete");
        assert!(error.to_string().contains("command"), "{error}");
    }
}
