//! Where the files go, and what they never touch.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "outputs::force_replaces_only_what_the_index_names",
            force_replaces_its_own,
        ),
        trial("outputs::links_are_not_followed", links_are_not_followed),
        trial(
            "outputs::an_index_cannot_name_files_elsewhere",
            an_index_names_no_files_elsewhere,
        ),
        trial(
            "outputs::an_empty_directory_is_used",
            an_empty_directory_is_used,
        ),
        trial("outputs::nobody_reads_stdout", nobody_reads_stdout),
        trial("outputs::two_recordings_at_once", two_recordings_at_once),
        trial(
            "outputs::a_kernel_thread_is_no_error",
            a_kernel_thread_is_no_error,
        ),
        trial(
            "outputs::nothing_matched_is_a_warning",
            nothing_matched_is_a_warning,
        ),
    ]
}

/// A short recording of a burner into `out`.
fn burner(options: &[&str]) -> Verdict<Recorder> {
    Ok(Recorder::new(options)?.command(fixture("burn")?, &["300"]))
}

fn force_replaces_its_own() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let out = folder.path().join("out");
    burner(&["-F", "199"])?.into(&out).run()?.exits(0)?;
    let first = Recording::open(&out)?;
    fs::write(out.join("cpu-mine-1.pb.gz"), "not the profiler's")?;
    burner(&["-F", "199"])?.into(&out).run()?.exits(5)?;

    let run = burner(&["-F", "199", "--force"])?.into(&out).run()?;
    run.exits(0)?;
    let kept = fs::read_to_string(out.join("cpu-mine-1.pb.gz"))?;
    ensure!(
        kept == "not the profiler's",
        "a stranger's file was replaced"
    );
    fs::remove_file(out.join("cpu-mine-1.pb.gz"))?;
    // What is left is the second recording and nothing of the first.
    let second = Recording::open(&out)?;
    ensure!(
        first.index.start != second.index.start,
        "the index is still the old one"
    );
    Ok(())
}

fn links_are_not_followed() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let out = folder.path().join("out");
    burner(&["-F", "199"])?.into(&out).run()?.exits(0)?;
    let old = Recording::open(&out)?;

    // Both a profile and the index turn into links to somebody's letters.
    let letter = folder.path().join("letter.txt");
    let other = folder.path().join("other.txt");
    fs::write(&letter, "dear reader")?;
    fs::write(&other, "yours")?;
    let profile = out.join(&old.index.files[0].name);
    fs::remove_file(&profile)?;
    symlink(&letter, &profile)?;
    burner(&["-F", "199", "--force"])?
        .into(&out)
        .run()?
        .exits(0)?;
    Recording::open(&out)?;
    ensure!(
        fs::read_to_string(&letter)? == "dear reader",
        "a link was followed"
    );

    fs::remove_file(out.join("index.json"))?;
    symlink(&other, out.join("index.json"))?;
    // Whether it refuses or replaces the link, the letter stays as it is.
    burner(&["-F", "199", "--force"])?.into(&out).run()?;
    ensure!(
        fs::read_to_string(&other)? == "yours",
        "the index's link was followed"
    );

    // A link that leads nowhere is not a place to make a directory at.
    let nowhere = folder.path().join("nowhere");
    symlink(folder.path().join("target"), &nowhere)?;
    burner(&["-F", "199"])?.into(&nowhere).run()?;
    ensure!(
        !folder.path().join("target").exists(),
        "a directory was made through a dangling link"
    );
    Ok(())
}

fn an_index_names_no_files_elsewhere() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let out = folder.path().join("out");
    burner(&["-F", "199"])?.into(&out).run()?.exits(0)?;
    let letter = folder.path().join("letter.txt");
    fs::write(&letter, "dear reader")?;
    fs::create_dir(out.join("deeper"))?;
    fs::write(out.join("deeper/note.txt"), "keep")?;

    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(out.join("index.json"))?)?;
    let template = index["files"][0].clone();
    let files = index["files"].as_array_mut().ok_or("files is no list")?;
    for name in ["../letter.txt", "deeper/note.txt", "deeper", "", ".", ".."] {
        let mut entry = template.clone();
        entry["file"] = name.into();
        files.push(entry);
    }
    let mut entry = template.clone();
    entry["file"] = letter.to_string_lossy().into();
    files.push(entry);
    fs::write(out.join("index.json"), serde_json::to_vec(&index)?)?;

    burner(&["-F", "199", "--force"])?.into(&out).run()?;
    ensure!(letter.exists(), "a file outside of the directory is gone");
    ensure!(
        out.join("deeper/note.txt").exists(),
        "a file below the directory is gone"
    );
    Ok(())
}

fn an_empty_directory_is_used() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let run = burner(&["-F", "199"])?.into(folder.path()).run()?;
    run.exits(0)?;
    ensure!(
        folder.path().join("index.json").exists(),
        "nothing was written into an empty directory"
    );
    Ok(())
}

fn nobody_reads_stdout() -> Verdict {
    need::root()?;
    let _burner = Background::fixture("burn", &["60000"])?;
    for (what, script) in [
        ("closed", "exec \"$@\" >&-"),
        (
            "a pipe without a reader",
            "\"$@\" | true; exit \"${PIPESTATUS[0]}\"",
        ),
        ("full", "exec \"$@\" > /dev/full"),
    ] {
        let recorder = Recorder::new(&["-d", "500ms"])?;
        let (words, out) = recorder.words();
        let run = Command::new("bash")
            .args(["-c", script, "bash"])
            .args(words)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&run.stderr);
        ensure!(
            run.status.code() == Some(0),
            "stdout {what}: {}\n{said}",
            run.status
        );
        ensure!(!said.contains("panicked"), "stdout {what}: {said}");
        Recording::open(&out)?;
    }
    Ok(())
}

fn two_recordings_at_once() -> Verdict {
    need::root()?;
    let _load = Background::load_every_cpu()?;
    let first = Recorder::new(&["-d", "2s", "-F", "499"])?.start()?;
    let second = Recorder::new(&["-d", "2s", "-F", "499"])?.start()?;
    for run in [first.finish()?, second.finish()?] {
        let recording = run.recording()?;
        ensure!(
            recording.count(|sample| sample.holds("burn_leaf")) > 500,
            "one of two recordings missed the load"
        );
        ensure!(
            recording.index.ledger.lost_total() == 0,
            "lost: {:?}",
            recording.index.ledger.lost
        );
    }
    Ok(())
}

fn a_kernel_thread_is_no_error() -> Verdict {
    need::root()?;
    // kthreadd, the parent of all kernel threads.
    let run = Recorder::new(&["-p", "2", "-d", "500ms"])?.run()?;
    let recording = run.recording()?;
    for (file, profile) in recording.files() {
        ensure!(
            profile
                .samples
                .iter()
                .all(|sample| sample.user_frames() == 0),
            "{}: user frames in a kernel thread",
            file.name
        );
    }
    Ok(())
}

fn nothing_matched_is_a_warning() -> Verdict {
    need::root()?;
    let run = Recorder::new(&["--comm", "no-such-comm", "-d", "500ms"])?.run()?;
    let recording = run.recording()?;
    ensure!(recording.index.files.is_empty(), "files of nothing");
    ensure!(
        !run.talk().trim().is_empty(),
        "a recording without samples does not warn"
    );
    Ok(())
}
