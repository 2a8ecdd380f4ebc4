//! What one recording worked out serves the next.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "cache::a_second_recording_takes_what_the_first_built",
            second_recording,
        ),
        trial("cache::a_damaged_entry_is_built_anew", damaged),
        trial("cache::without_a_place_for_it_all_goes_on", no_place),
    ]
}

/// Records a program that spends its time in libc and in itself.
fn record_with(cache: &Path) -> Verdict<Recording> {
    let run = Recorder::new(&["-F", "499"])?
        .option("--cache", cache)
        .command(fixture("nofp")?, &["1000"])
        .run()?;
    let recording = run.exits(0)?.recording()?;
    let (file, _) = recording.only("nofp")?;
    ensure!(
        file.samples >= 200 && file.stacks.complete * 100 >= file.samples * 98,
        "{} of {} stacks are complete",
        file.stacks.complete,
        file.samples
    );
    Ok(recording)
}

fn entries(cache: &Path) -> Verdict<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(cache)?.map(|entry| Ok(entry?.path()));
    entries.collect()
}

fn second_recording() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let cache = folder.path().join("cache");
    let first = record_with(&cache)?.index.unwind_tables;
    ensure!(
        first.cached == 0 && first.built > 0,
        "{} cached tables in the first recording",
        first.cached
    );
    ensure!(
        fs::metadata(&cache)?.permissions().mode() & 0o777 == 0o700,
        "others may look into the cache"
    );
    let kept = kept_tables(&cache)?;
    ensure!(!kept.is_empty(), "the first recording kept none");
    let second = record_with(&cache)?.index.unwind_tables;
    ensure!(
        second.cached > 0,
        "{} built and none taken, after {} built",
        second.built,
        first.built
    );
    // One that is built again takes the place of the old one as another file. How
    // many others are built depends on what is sampled before the command starts.
    let still = kept_tables(&cache)?;
    let again = kept
        .iter()
        .find(|(name, inode)| still.get(*name) != Some(*inode));
    ensure!(again.is_none(), "{again:?} was kept, and built again");
    Ok(())
}

/// The kept tables: their names, and which files they are.
fn kept_tables(cache: &Path) -> Verdict<BTreeMap<OsString, u64>> {
    let mut tables = BTreeMap::new();
    for entry in entries(cache)? {
        let name = entry.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b"table-") {
            tables.insert(name.to_owned(), fs::metadata(&entry)?.ino());
        }
    }
    Ok(tables)
}

fn damaged() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let cache = folder.path().join("cache");
    record_with(&cache)?;
    for entry in entries(&cache)? {
        let file = OpenOptions::new().write(true).open(entry)?;
        file.set_len(file.metadata()?.len() - 1)?;
    }
    let tables = record_with(&cache)?.index.unwind_tables;
    ensure!(
        tables.cached == 0 && tables.built > 0,
        "{} damaged entries were believed",
        tables.cached
    );
    let tables = record_with(&cache)?.index.unwind_tables;
    ensure!(tables.cached > 0, "the damaged entries were not replaced");
    Ok(())
}

fn no_place() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let file = folder.path().join("a file");
    fs::write(&file, "not a directory")?;
    let tables = record_with(&file)?.index.unwind_tables;
    ensure!(
        tables.built > 0 && tables.cached == 0,
        "tables out of a file"
    );
    ensure!(
        fs::read(&file)? == b"not a directory",
        "what was there is gone"
    );
    let shared = folder.path().join("shared");
    fs::create_dir(&shared)?;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777))?;
    record_with(&shared)?;
    ensure!(
        entries(&shared)?.is_empty(),
        "something was put where others may write"
    );
    Ok(())
}
