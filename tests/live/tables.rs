//! Stacks of programs without frame pointers, walked by their unwind tables.

use libtest_mimic::Trial;

use crate::support::need;
use crate::support::run::record_fixture;
use crate::support::verdict::{Verdict, ensure, trial};

/// Tables are built while the recording runs, and until then frame pointers
/// are followed: the trials ask for this share of the stacks, in percent.
const MOST: u64 = 70;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("tables::complete_without_frame_pointers", complete),
        trial("tables::truncated_not_outwards", not_outwards),
        trial("tables::truncated_unsupported_rule", unsupported_rule),
        trial("tables::truncated_table_missing", table_missing),
    ]
}

fn complete() -> Verdict {
    need::root()?;
    let options = ["-F", "499", "--unwind", "tables"];
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
    let options = ["-F", "499", "--unwind", "tables"];
    let (_, recording) = record_fixture(&options, "cfi", &[how, "2500"])?;
    let (file, _) = recording.only("cfi")?;
    let cut = file.stacks.truncated(reason);
    ensure!(
        cut * 100 >= file.samples * MOST,
        "{cut} of {} stacks cut by {reason}: {:?}",
        file.samples,
        file.stacks.truncated
    );
    Ok(())
}

fn not_outwards() -> Verdict {
    truncated("outwards", "not_outwards")
}

fn unsupported_rule() -> Verdict {
    truncated("unsupported", "unsupported_rule")
}

fn table_missing() -> Verdict {
    truncated("missing", "table_missing")
}
