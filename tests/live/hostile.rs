//! Names made to break terminals, paths, JSON and readers.

use std::fs;

use libtest_mimic::Trial;

use crate::support::guard::Background;
use crate::support::need;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};
use crate::support::viewer;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("hostile::comms_harm_nothing", comms_harm_nothing),
        trial(
            "hostile::comms_harm_no_group_and_no_picture",
            comms_harm_no_group,
        ),
    ]
}

/// As many names as `comm.c` knows.
const NAMES: usize = 8;

fn everyone() -> Verdict<Vec<Background>> {
    (0..NAMES)
        .map(|which| Background::fixture("comm", &[&which.to_string(), "60000"]))
        .collect()
}

/// No byte that moves a cursor, rings a bell or ends a line early.
fn harmless(what: &str, bytes: &[u8]) -> Verdict {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("{what} is not UTF-8: {e}"))?;
    let control = text
        .chars()
        .find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    ensure!(control.is_none(), "{what} holds {control:?}:\n{text:?}");
    Ok(())
}

fn comms_harm_nothing() -> Verdict {
    need::root()?;
    let named = everyone()?;
    // Whole host, so that the table of processes lists them all.
    let run = Recorder::new(&["-d", "2s", "-F", "499"])?.run()?;
    let recording = run.recording()?;
    harmless("the table", &run.stdout)?;
    harmless("stderr", &run.stderr)?;
    harmless("index.json", &fs::read(run.out.join("index.json"))?)?;
    for process in &named {
        let file = recording
            .index
            .files
            .iter()
            .find(|file| file.pid == Some(process.pid()));
        let file = file.ok_or_else(|| format!("no file of {}", process.pid()))?;
        ensure!(
            file.name
                .chars()
                .all(|c| !c.is_control() && c != '/' && c != '\u{fffd}'),
            "the file name {:?}",
            file.name
        );
        ensure!(
            file.name.starts_with("cpu-")
                && file.name.ends_with(&format!("-{}.pb.gz", process.pid())),
            "the file name {:?}",
            file.name
        );
    }
    let files: Vec<_> = recording
        .index
        .files
        .iter()
        .map(|file| run.out.join(&file.name))
        .collect();
    for go in viewer::viewers()? {
        viewer::pprof(&go, &["-raw"], &files)?;
    }
    Ok(())
}

fn comms_harm_no_group() -> Verdict {
    need::root()?;
    let _named = everyone()?;
    let run = Recorder::new(&["-d", "1s", "-F", "199", "--group", "comm"])?
        .option("--format", "pprof,folded,svg")
        .run()?;
    run.exits(0)?;
    harmless("stderr", &run.stderr)?;
    let mut pictures = 0;
    for entry in fs::read_dir(&run.out)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        ensure!(
            !name.chars().any(char::is_control),
            "the file name {name:?}"
        );
        let bytes = fs::read(&path)?;
        if path.extension().is_some_and(|e| e == "svg") {
            pictures += 1;
            harmless(&name, &bytes)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            ensure!(!text.contains("q'<&>"), "{name} holds a comm as markup");
        }
        if path
            .extension()
            .is_some_and(|e| e == "folded" || e == "txt")
        {
            harmless(&name, &bytes)?;
        }
    }
    ensure!(pictures > 0, "no SVG was written");
    Ok(())
}
