//! What other programs make of the files.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::support::fixture::fixture;
use crate::support::guard::Background;
use crate::support::index::Index;
use crate::support::need;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};
use crate::support::viewer;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "formats::pprof_opens_every_file_of_the_host",
            pprof_opens_every_file,
        ),
        trial("formats::folded_and_svg_tell_the_same", folded_and_svg),
        trial("formats::json_is_the_index", json_is_the_index),
        trial(
            "formats::the_table_shows_every_process",
            the_table_shows_every_process,
        ),
    ]
}

fn pprof_opens_every_file() -> Verdict {
    need::root()?;
    let viewers = viewer::viewers()?;
    let _load = Background::load_every_cpu()?;
    let _kernel = Background::fixture("syscalls", &["60000"])?;
    let _threads = Background::fixture("threads", &["100"])?;
    let _cpp = Background::fixture("names_cpp", &["60000"])?;
    let _rust = Background::fixture("names_v0", &["60000"])?;
    let run = Recorder::new(&["-d", "2s", "-F", "499"])?.run()?;
    let recording = run.recording()?;
    let files: Vec<PathBuf> = recording
        .index
        .files
        .iter()
        .map(|file| run.out.join(&file.name))
        .collect();
    ensure!(files.len() >= 5, "{} files of a loaded host", files.len());
    for go in &viewers {
        for file in &files {
            for view in ["-top", "-raw", "-traces"] {
                viewer::pprof(go, &[view], &[file])?;
            }
        }
        let merged = viewer::merged_total(go, &files)?;
        ensure!(
            merged == recording.index.ledger.counted,
            "pprof adds up {merged} samples, {} were counted",
            recording.index.ledger.counted
        );
        for file in files.iter().take(3) {
            viewer::browse(go, file)?;
        }
    }
    Ok(())
}

fn folded_and_svg() -> Verdict {
    need::root()?;
    let run = Recorder::new(&["-F", "499", "--format", "pprof,folded,svg"])?
        .command(fixture("split")?, &["600"])
        .run()?;
    run.exits(0)?;
    let index = Index::parse(&fs::read(run.out.join("index.json"))?)?;
    let (mut folded, mut pictures) = (0_u64, 0);
    let (mut half, mut all) = (0_u64, 0_u64);
    for entry in fs::read_dir(&run.out)? {
        let path = entry?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("folded" | "txt") => {
                folded += 1;
                for line in fs::read_to_string(&path)?.lines() {
                    let (stack, count) = line.rsplit_once(' ').ok_or("a line without a count")?;
                    let count: u64 = count.parse()?;
                    all += count;
                    // Root first.
                    if stack.contains("chain_root;split_work;leaf_half") {
                        half += count;
                    }
                }
            }
            Some("svg") => {
                pictures += 1;
                let text = fs::read_to_string(&path)?;
                ensure!(
                    text.contains("<svg") && text.trim_end().ends_with("</svg>"),
                    "{} is no picture",
                    path.display()
                );
                ensure!(text.contains("leaf_half"), "no leaf in {}", path.display());
            }
            _ => {}
        }
    }
    ensure!(
        folded > 0 && pictures > 0,
        "{folded} folded files, {pictures} pictures"
    );
    ensure!(
        all == index.ledger.counted,
        "{all} samples in folded stacks, {} counted",
        index.ledger.counted
    );
    ensure!(
        half * 10 >= all * 4,
        "{half} of {all} folded samples are in the leaf that has half of the time"
    );
    Ok(())
}

fn json_is_the_index() -> Verdict {
    need::root()?;
    let _load = Background::fixture("burn", &["60000"])?;
    let run = Recorder::new(&["-d", "500ms", "--json"])?.run()?;
    run.recording()?;
    let printed: serde_json::Value = serde_json::from_slice(&run.stdout)?;
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(run.out.join("index.json"))?)?;
    ensure!(printed == written, "--json and index.json differ");
    Ok(())
}

fn the_table_shows_every_process() -> Verdict {
    need::root()?;
    let burner = Background::fixture("burn", &["60000"])?;
    let run = Recorder::new(&["-d", "1s", "-F", "199"])?.run()?;
    let recording = run.recording()?;
    let (file, _) = recording.only("burn")?;
    let table = run.result();
    let pid = burner.pid().to_string();
    let row = table
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == pid))
        .ok_or_else(|| format!("no row of {pid} in\n{table}"))?;
    for (what, word) in [("comm", "burn"), ("samples", &*file.samples.to_string())] {
        ensure!(
            row.split_whitespace().any(|found| found == word),
            "the row shows no {what} {word}: {row}"
        );
    }
    ensure!(
        row.contains(&file.name),
        "the row does not name {}: {row}",
        file.name
    );
    Ok(())
}
