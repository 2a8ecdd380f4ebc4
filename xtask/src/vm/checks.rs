//! What must be true of the guest's report.

use super::folded::Recursion;
use super::index::Index;
use super::sections::{Section, Sections};
use anyhow::{Context, Result};

/// What the fixture's fork mode exits with.
const FORK_EXIT_CODE: i32 = 7;
/// Fewer samples of short lives say little of one in twenty.
const SHORT_LIVES_SAMPLES: u64 = 100;

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
    let index = Index::parse("host", host)?;
    checks.that(true, format!("the kernel was {}", index.host.kernel));
    checks.adds_up("host", &index);
    let profile = index.profiles().find(|file| file.pid == Some(recursing));
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
    let index = Index::parse("command-index", sections.get("command-index")?)?;
    checks.adds_up("command", &index);
    let children = index
        .profiles()
        .filter(|file| file.comm.as_deref() == Some("fixture"))
        .count();
    checks.that(
        children > 1,
        format!("the command and its children have {children} profiles"),
    );
    checks.recursion("command", &sections.get("command-stacks")?.text, depth);

    let short = sections.get("short")?;
    checks.exits("record of short lives", short, 0);
    let index = Index::parse("short-index", sections.get("short-index")?)?;
    checks.adds_up("short lives", &index);
    checks.short_lives(&index);
    Ok(checks.0)
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
        let classes = stacks.complete + stacks.cut() + stacks.kernel_only;
        let samples: u64 = index.profiles().map(|file| file.samples).sum();
        self.that(
            ledger.counted == classes && ledger.counted == samples,
            format!(
                "{what}: {} counted are {classes} stacks and {samples} samples in files",
                ledger.counted
            ),
        );
    }

    /// Programs that live for some milliseconds, one after the other: a table that
    /// is there for one is there for the next. While the kernel starts or ends a
    /// program, which under emulation takes almost as long as the program itself, its
    /// last stack stands for it.
    fn short_lives(&mut self, index: &Index) {
        let lives = index
            .profiles()
            .filter(|file| file.comm.as_deref() == Some("brief"));
        let (mut complete, mut cut, mut kernel_only) = (0, 0, 0);
        for file in lives {
            complete += file.stacks.complete;
            cut += file.stacks.cut();
            kernel_only += file.stacks.kernel_only;
        }
        self.that(
            complete >= SHORT_LIVES_SAMPLES && complete * 20 >= (complete + cut + kernel_only) * 19,
            format!(
                "short lives' stacks are complete: {complete}; {cut} are cut, {kernel_only} of \
                 the kernel only"
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

    /// The index of a recording of processes named `comm`, 20 samples each.
    fn index(comm: &str, pids: &[u32], complete: u64) -> String {
        let (cut, samples) = (20 - complete, 20 * pids.len() as u64);
        let stacks = |many: u64| {
            format!(
                r#"{{"complete": {}, "truncated": {{"broken_chain": {}}}, "kernel_only": 0}}"#,
                complete * many,
                cut * many
            )
        };
        let files: Vec<String> = pids
            .iter()
            .flat_map(|pid| {
                ["pb.gz", "folded"].map(|format| {
                    format!(
                        r#"{{"file": "cpu-{comm}-{pid}.{format}", "pid": {pid},
                        "comm": "{comm}", "samples": 20, "stacks": {}}}"#,
                        stacks(1)
                    )
                })
            })
            .collect();
        format!(
            r#"{{"host": {{"kernel": "6.1"}}, "ledger": {{"ticks": {},
            "expected_ticks": 100, "counted": {samples}, "idle": 50, "out_of_scope": 10,
            "lost": {{"stacks_full": 0}}}}, "stacks": {}, "files": [{}]}}"#,
            samples + 60,
            stacks(pids.len() as u64),
            files.join(",")
        )
    }

    /// A report in which everything holds.
    fn report() -> String {
        let stacks = "fixture;_start;begin;descend;descend;spin 20";
        let short: Vec<u32> = (300..312).collect();
        [
            ("doctor", 0, "works".to_string()),
            ("recursing", 0, "95".into()),
            ("host", 0, index("fixture", &[95, 96], 19)),
            ("host-stacks", 0, stacks.into()),
            ("command", 7, String::new()),
            ("command-index", 0, index("fixture", &[200, 201], 19)),
            ("command-stacks", 0, stacks.into()),
            ("short", 0, String::new()),
            ("short-index", 0, index("brief", &short, 19)),
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
    fn short_lives_that_are_cut_or_not_seen_are_noticed() {
        let lives: Vec<u32> = (300..312).collect();
        let whole = index("brief", &lives, 19);
        one_change_is_noticed(&whole, &index("brief", &lives[..5], 19), "complete: 95;");
        one_change_is_noticed(&whole, &index("brief", &lives, 18), "complete: 216;");
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
