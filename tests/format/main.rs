//! Profiles as `go tool pprof`, the reader everyone has, sees them.
//!
//! But for those on naming a profile later, every trial writes a file, opens it in each view and expects exit code 0
//! and a silent stderr: a reader that has something to say has found something
//! wrong. Without Go the trials are ignored; under `CI=true` they fail.

// A test that cannot go on has failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod go;
mod profiles;
mod symbolize;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() {
    let trials = vec![
        trial(
            "a_stack_is_listed_with_names_lines_and_labels",
            stack_is_listed,
        ),
        trial("the_default_report_is_cpu_time_by_function", default_report),
        trial(
            "samples_can_be_found_by_pid_and_by_a_tid_of_zero",
            found_by_label,
        ),
        trial("comments_are_shown", comments_are_shown),
        trial("a_profile_without_samples_opens_silently", without_samples),
        trial("a_profile_of_bare_addresses_opens_silently", bare_addresses),
        trial("hostile_names_reach_no_terminal", hostile_names),
        trial("profiles_of_two_processes_merge", two_processes_merge),
        trial(
            "go_sees_the_names_that_were_added",
            symbolize::go_sees_the_names,
        ),
        pure("only_names_change", symbolize::only_names_change),
        pure(
            "nothing_named_is_nothing_changed",
            symbolize::nothing_named_is_nothing_changed,
        ),
        pure(
            "added_names_are_made_harmless",
            symbolize::names_are_made_harmless,
        ),
        pure(
            "what_does_not_fit_together_is_refused",
            symbolize::what_does_not_fit_together_is_refused,
        ),
        pure(
            "bombs_and_cut_files_are_refused",
            symbolize::bombs_and_cut_files_are_refused,
        ),
        pure("no_bytes_make_it_panic", symbolize::no_bytes_make_it_panic),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trial(name: &str, body: fn()) -> Trial {
    Trial::ignorable_test(name, move || match go::missing() {
        None => {
            body();
            Ok(Completion::Completed)
        }
        Some(reason) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => {
            Err(Failed::from(reason))
        }
        Some(reason) => Ok(Completion::ignored_with(reason)),
    })
}

/// A trial that needs no Go.
fn pure(name: &str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}

fn stack_is_listed() {
    let file = go::File::of(&profiles::typical(7));
    let raw = file.report(&["-raw"]);
    assert!(
        raw.contains("PeriodType: cpu nanoseconds\nPeriod: 10101010\n"),
        "{raw}"
    );
    assert!(
        raw.contains("samples/count cpu/nanoseconds[dflt]\n"),
        "{raw}"
    );
    assert!(raw.contains("Duration: 2"), "{raw}");
    assert!(raw.contains("2023-11-14"), "{raw}");
    assert!(raw.contains("comm:[spin]"), "{raw}");
    assert!(raw.contains("pid:[7 pid]"), "{raw}");
    assert!(
        raw.contains("/usr/bin/spin 0123456789abcdef [FN][FL][LN][IN]\n"),
        "{raw}"
    );
    assert!(raw.contains("/lib/libc.so.6  [FN]\n"), "{raw}");
    let traces = file.report(&["-traces"]);
    let frames = ["spin::inner (inline)", "spin::outer", "spin::main"];
    let at: Vec<_> = frames.iter().map(|f| traces.find(f).expect(f)).collect();
    assert!(at.is_sorted(), "leaf first: {traces}");
}

fn default_report() {
    let top = go::File::of(&profiles::typical(7)).report(&["-top"]);
    assert!(top.contains("Type: cpu\n"), "{top}");
    // 3 of 4 samples of 10,101,010 ns.
    assert!(top.contains("30.30ms 75.00% 75.00%"), "{top}");
    assert!(top.contains("[libc.so.6]"), "{top}");
}

fn found_by_label() {
    let file = go::File::of(&profiles::typical(7));
    let process = file.report(&["-top", "-sample_index=samples", "-tagfocus=pid=7"]);
    assert!(
        process.contains("Showing nodes accounting for 4, 100% of 4 total"),
        "{process}"
    );
    let thread = file.report(&["-top", "-sample_index=samples", "-tagfocus=tid=0"]);
    assert!(
        thread.contains("Showing nodes accounting for 1, 25.00% of 4 total"),
        "{thread}"
    );
}

fn comments_are_shown() {
    let comments = go::File::of(&profiles::typical(7)).report(&["-comments"]);
    assert_eq!(comments.trim_end(), "ledger: ticks 4, counted 4");
}

fn without_samples() {
    let file = go::File::of(&profiles::empty());
    let raw = file.report(&["-raw"]);
    assert!(
        raw.contains("samples/count cpu/nanoseconds[dflt]\n"),
        "{raw}"
    );
    let top = file.report(&["-top"]);
    assert!(top.contains("of 0 total"), "{top}");
    assert!(file.report(&["-traces"]).contains("Type: cpu\n"));
}

fn bare_addresses() {
    let file = go::File::of(&profiles::unsymbolized());
    for view in [["-top"], ["-traces"]] {
        let text = file.report(&view);
        for name in ["[gone]", "[[kernel.kallsyms]]", "[anon]"] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
    assert!(file.report(&["-raw"]).contains("0x400010 M=1"));
}

fn hostile_names() {
    let file = go::File::of(&profiles::hostile("\x1b[31mred\n\u{202e}../\"'`\u{0}"));
    for view in [["-raw"], ["-top"], ["-traces"]] {
        let text = file.report(&view);
        assert!(text.contains("\\x1b[31mred\\x0a\\u{202e}../"), "{text}");
        assert!(!text.contains(['\x1b', '\u{202e}', '\0']), "{text}");
    }
}

fn two_processes_merge() {
    let one = go::File::of(&profiles::typical(7));
    let other = go::File::of(&profiles::typical(9));
    let top = one.report_with(&["-top", "-sample_index=samples"], &[&other]);
    assert!(top.contains("of 8 total"), "{top}");
}
