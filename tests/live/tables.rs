//! Stacks of programs without frame pointers, walked by their unwind tables.

use libtest_mimic::Trial;

use crate::support::fixture::fixture;
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::{Recorder, record_fixture};
use crate::support::verdict::{Verdict, ensure, trial};

/// Of the stacks that a trial is about, this many in a hundred at least: one in
/// a thousand may be any other, and trials have some hundred.
const MOST: u64 = 98;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("tables::complete_without_frame_pointers", complete),
        trial("tables::complete_from_the_first_sample", short_lives),
        trial("tables::truncated_not_outwards", not_outwards),
        trial("tables::truncated_unsupported_rule", unsupported_rule),
        trial("tables::truncated_table_missing", table_missing),
        trial("tables::truncated_copy_too_short", copy_too_short),
        trial("tables::truncated_copies_full", copies_full),
    ]
}

fn complete() -> Verdict {
    need::root()?;
    let options = ["-F", "499"];
    let (_, recording) = record_fixture(&options, "nofp", &["4000"])?;
    let (file, profile) = recording.only("nofp")?;
    ensure!(
        file.stacks.complete * 100 >= file.samples * MOST,
        "{} of {} stacks are complete: {:?}",
        file.stacks.complete,
        file.samples,
        file.stacks.truncated
    );
    let whole = profile.count(|sample| {
        sample.holds("nofp_leaf") && sample.holds("main") && sample.holds("_start")
    });
    ensure!(
        whole * 100 >= profile.total() * MOST,
        "{whole} of {} samples lead from the leaf to the program's entry",
        profile.total()
    );
    Ok(())
}

fn truncated(how: &str, reason: &str) -> Verdict {
    need::root()?;
    let options = ["-F", "499"];
    let (_, recording) = record_fixture(&options, "cfi", &[how, "2500"])?;
    mostly_cut(&recording, "cfi", reason)
}

fn not_outwards() -> Verdict {
    truncated("outwards", "not_outwards")
}

fn unsupported_rule() -> Verdict {
    truncated("unsupported", "unsupported_rule")
}

/// A hundred programs that live for some milliseconds each, one after the
/// other: the table of the first serves them all, and before it is there their
/// stacks are copied.
fn short_lives() -> Verdict {
    need::root()?;
    let nofp = fixture("nofp")?;
    let each = format!("for i in $(seq 100); do {} 8; done", nofp.display());
    let run = Recorder::new(&["-F", "997", "--group", "comm"])?
        .command("sh", &["-c", &each])
        .run()?;
    let recording = run.exits(0)?.recording()?;
    let (file, profile) = recording.only("nofp")?;
    // What a program does while the kernel starts or ends it has no user half.
    let walked = file.samples - file.stacks.kernel_only;
    ensure!(
        walked >= 400 && file.stacks.complete * 100 >= walked * MOST,
        "{} of {walked} stacks are complete: {:?}",
        file.stacks.complete,
        file.stacks.truncated
    );
    let whole = profile.count(|sample| {
        sample.holds("nofp_leaf") && sample.holds("main") && sample.holds("_start")
    });
    ensure!(
        whole * 10 >= walked * 8,
        "{whole} of {walked} samples lead from the leaf to the program's entry"
    );
    Ok(())
}

/// No file can be held open, so no table can be built.
fn table_missing() -> Verdict {
    need::root()?;
    let nofp = fixture("nofp")?;
    let run = Recorder::new(&["-F", "499"])?
        .command(nofp, &["1000"])
        .start_under(&["prlimit", "--nofile=256"])?
        .finish()?;
    let recording = run.exits(0)?.recording()?;
    mostly_cut(&recording, "nofp", "table_missing")
}

/// The first stack that reaches a file is always copied.
fn copy_too_short() -> Verdict {
    need::root()?;
    let options = ["-F", "999", "--test-limit", "copy-bytes=512"];
    let (_, recording) = record_fixture(&options, "deep", &["300", "400"])?;
    let (file, profile) = recording.only("deep")?;
    let cut = file.stacks.truncated("copy_too_short");
    ensure!(cut > 0, "no stack is cut: {:?}", file.stacks.truncated);
    let kept = profile
        .count(|sample| sample.holds("[truncated: copy_too_short]") && sample.user_frames() > 2);
    ensure!(kept > 0, "what the copy held is not kept");
    Ok(())
}

/// Without room for copies nothing is ever learnt of a file.
fn copies_full() -> Verdict {
    need::root()?;
    let options = ["-F", "499", "--test-limit", "copy-chunks=0"];
    let (_, recording) = record_fixture(&options, "nofp", &["1000"])?;
    mostly_cut(&recording, "nofp", "copies_full")
}

fn mostly_cut(recording: &Recording, name: &str, reason: &str) -> Verdict {
    let (file, _) = recording.only(name)?;
    let cut = file.stacks.truncated(reason);
    ensure!(
        cut * 100 >= file.samples * 90,
        "{cut} of {} stacks cut by {reason}: {:?}",
        file.samples,
        file.stacks.truncated
    );
    Ok(())
}
