//! Every named outcome of a tick and every completeness of a stack, provoked.

use libtest_mimic::Trial;

use crate::support::guard::Background;
use crate::support::need;
use crate::support::pprof::Sample;
use crate::support::recording::Recording;
use crate::support::run::{Finished, Recorder, record, record_fixture};
use crate::support::verdict::{Stop, Verdict, ensure, trial};

/// A walk that a stack can lead astray.
const BY_FRAME_POINTERS: [&str; 4] = ["-F", "499", "--unwind", "frame-pointers"];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("outcomes::lost_threads_full", lost_threads_full),
        trial("outcomes::lost_counts_full", lost_counts_full),
        trial("outcomes::lost_stacks_full", lost_stacks_full),
        trial("outcomes::lost_no_region", lost_no_region),
        trial("outcomes::idle", idle),
        trial("outcomes::out_of_scope", out_of_scope),
        trial("outcomes::complete", complete),
        trial(
            "outcomes::complete_ninety_calls_deep",
            complete_ninety_calls_deep,
        ),
        trial("outcomes::truncated_depth_limit", truncated_depth_limit),
        trial(
            "outcomes::truncated_kernel_depth_limit",
            truncated_kernel_depth_limit,
        ),
        trial(
            "outcomes::truncated_kernel_stack_unavailable",
            truncated_kernel_stack_unavailable,
        ),
        trial(
            "outcomes::truncated_unreadable_stack",
            truncated_unreadable_stack,
        ),
        trial(
            "outcomes::truncated_unmapped_address",
            truncated_unmapped_address,
        ),
        trial("outcomes::truncated_broken_chain", truncated_broken_chain),
    ]
}

/// A number as the summary prints it, digits grouped or not.
fn shown(run: &Finished, what: &str, number: u64) -> Verdict {
    let text = run.talk() + &run.result();
    let mut words = Vec::new();
    let mut word = String::new();
    let characters: Vec<char> = text.chars().collect();
    for (at, &c) in characters.iter().enumerate() {
        let groups = matches!(c, ',' | '_' | '\'' | '\u{202f}' | '\u{2009}')
            && characters.get(at + 1).is_some_and(char::is_ascii_digit);
        if c.is_ascii_digit() {
            word.push(c);
        } else if !groups || word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    words.push(word);
    ensure!(
        words.contains(&number.to_string()),
        "the summary does not show {number} {what}:\n{text}"
    );
    Ok(())
}

fn lost(options: &[&str], fixture: &'static str, arguments: &[&str], reason: &str) -> Verdict {
    need::root()?;
    let (run, recording) = record_fixture(options, fixture, arguments)?;
    let ledger = &recording.index.ledger;
    let lost = ledger.lost.get(reason).copied().unwrap_or(0);
    ensure!(lost > 0, "nothing lost to {reason}: {:?}", ledger.lost);
    ensure!(
        lost == ledger.lost_total(),
        "lost to more than {reason}: {:?}",
        ledger.lost
    );
    shown(&run, reason, lost)
}

fn lost_threads_full() -> Verdict {
    let options = ["-F", "999", "--test-limit", "threads=1"];
    lost(&options, "threads", &["30"], "threads_full")
}

fn lost_counts_full() -> Verdict {
    // Three leaves in a row, and room for one (thread, stack) between two
    // drains. Stacks that are copied are not counted here, so there is no room
    // for copies.
    let options = ["-F", "999", "--test-limit", "counts=1,copy-chunks=0"];
    lost(&options, "split", &["600"], "counts_full")
}

fn lost_stacks_full() -> Verdict {
    let options = ["-F", "999", "--test-limit", "words=16"];
    lost(&options, "deep", &["60", "600"], "stacks_full")
}

fn lost_no_region() -> Verdict {
    need::root()?;
    need::cpus(2)?;
    let _load = Background::load_every_cpu()?;
    let run = Recorder::new(&["-d", "1s", "-F", "499", "--test-regions", "1"])?.run()?;
    let recording = run.recording()?;
    let ledger = &recording.index.ledger;
    let lost = ledger.lost.get("no_region").copied().unwrap_or(0);
    ensure!(
        lost > 200 && lost == ledger.lost_total(),
        "lost on CPUs without a region: {:?}",
        ledger.lost
    );
    shown(&run, "no_region", lost)
}

fn idle() -> Verdict {
    need::root()?;
    let (run, recording) = record(&["-d", "4s", "-F", "199"])?;
    let ledger = &recording.index.ledger;
    let idle = ledger.idle + ledger.not_delivered_idle.unwrap_or(0);
    if idle * 20 < ledger.expected_ticks.unwrap_or(0) {
        return Err(Stop::Skipped("somebody else keeps this host busy".into()));
    }
    ensure!(ledger.idle > 0, "no idle tick on a host that is not busy");
    shown(&run, "idle", ledger.idle)
}

fn out_of_scope() -> Verdict {
    need::root()?;
    let _load = Background::load_every_cpu()?;
    let (run, recording) = record_fixture(&["-F", "499"], "burn", &["500"])?;
    let ledger = &recording.index.ledger;
    ensure!(
        ledger.out_of_scope > 100,
        "{} out of scope",
        ledger.out_of_scope
    );
    shown(&run, "out of scope", ledger.out_of_scope)
}

fn complete() -> Verdict {
    need::root()?;
    let (run, recording) = record_fixture(&["-F", "499"], "split", &["600"])?;
    let stacks = &recording.index.stacks;
    ensure!(
        stacks.complete * 10 >= stacks.total() * 8,
        "{} of {} stacks complete",
        stacks.complete,
        stacks.total()
    );
    shown(&run, "complete", stacks.complete)
}

/// The most user frames named `recurse` in one stack.
fn deepest(recording: &Recording) -> usize {
    recording
        .profiles
        .iter()
        .flat_map(|profile| &profile.samples)
        .map(|sample| {
            sample
                .frames()
                .filter(|line| line.name == "recurse")
                .count()
        })
        .max()
        .unwrap_or(0)
}

fn complete_ninety_calls_deep() -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499"], "deep", &["90", "600"])?;
    let (file, _) = recording.only("deep")?;
    ensure!(
        deepest(&recording) == 90,
        "{} of 90 calls",
        deepest(&recording)
    );
    ensure!(
        file.stacks.complete * 10 >= file.samples * 9,
        "{} of {} stacks complete",
        file.stacks.complete,
        file.samples
    );
    Ok(())
}

/// Nine of ten stacks of the fixture are cut for this reason, and it is shown.
fn truncated(
    options: &[&str],
    fixture: &'static str,
    arguments: &[&str],
    reason: &str,
) -> Verdict<Recording> {
    need::root()?;
    let (run, recording) = record_fixture(options, fixture, arguments)?;
    let (file, _) = recording.only(fixture)?;
    let cut = file.stacks.truncated(reason);
    ensure!(
        cut * 10 >= file.samples * 8,
        "{cut} of {} stacks cut by {reason}: {:?}",
        file.samples,
        file.stacks.truncated
    );
    shown(&run, reason, recording.index.stacks.truncated(reason))?;
    Ok(recording)
}

fn truncated_depth_limit() -> Verdict {
    let options = ["-F", "499", "--test-depth", "user=16,kernel=64"];
    let recording = truncated(&options, "deep", &["40", "600"], "depth_limit")?;
    let (_, profile) = recording.only("deep")?;
    let most = profile.samples.iter().map(Sample::user_frames).max();
    ensure!(most == Some(16), "a limit of 16 frames left {most:?}");
    Ok(())
}

fn truncated_kernel_depth_limit() -> Verdict {
    let options = ["-F", "499", "--test-depth", "user=64,kernel=2"];
    let recording = truncated(&options, "syscalls", &["600"], "kernel_depth_limit")?;
    let (_, profile) = recording.only("syscalls")?;
    let most = profile.samples.iter().map(Sample::kernel_frames).max();
    ensure!(most == Some(2), "a limit of 2 kernel frames left {most:?}");
    Ok(())
}

fn truncated_kernel_stack_unavailable() -> Verdict {
    let options = ["-F", "499", "--test-fault", "kernel_stack"];
    let recording = truncated(&options, "syscalls", &["600"], "kernel_stack_unavailable")?;
    let (_, profile) = recording.only("syscalls")?;
    // The user's part does not suffer.
    ensure!(
        profile.count(|s| s.holds("syscall_work")) * 10 >= profile.total() * 8,
        "the user stacks are gone too"
    );
    Ok(())
}

fn truncated_unreadable_stack() -> Verdict {
    let arguments = ["unreadable", "600"];
    truncated(
        &BY_FRAME_POINTERS,
        "badstack",
        &arguments,
        "unreadable_stack",
    )
    .map(|_| ())
}

fn truncated_broken_chain() -> Verdict {
    let arguments = ["backwards", "600"];
    truncated(&BY_FRAME_POINTERS, "badstack", &arguments, "broken_chain").map(|_| ())
}

fn truncated_unmapped_address() -> Verdict {
    let arguments = ["nowhere", "600"];
    let recording = truncated(
        &BY_FRAME_POINTERS,
        "badstack",
        &arguments,
        "unmapped_address",
    )?;
    let (_, profile) = recording.only("badstack")?;
    // The address that is no code is nobody's frame. At its first and its last
    // instruction the loop still has its caller's frame pointer, and whole stacks.
    let in_loop = profile.count(|sample| sample.holds("bad_loop"));
    let alone = profile.count(|sample| sample.holds("bad_loop") && sample.user_frames() == 1);
    ensure!(
        alone > 0 && alone * 100 >= in_loop * 98,
        "{alone} of {in_loop} stacks in the loop have one frame"
    );
    Ok(())
}
