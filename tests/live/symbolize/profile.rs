//! Profiles without their names, and what is said of those that got them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use libdd_profiling_protobuf::prost_impls::{Message as _, Profile};

use crate::support::need;
use crate::support::run::{Recorder, sampler};
use crate::support::verdict::{Verdict, ensure};

/// Each location: its mapping, its address, and its lines.
pub(super) type Locations = Vec<(String, u64, Vec<Said>)>;
/// Name, raw name, source file, line.
pub(super) type Said = (String, String, String, i64);

pub(super) fn read(path: &Path) -> Verdict<Profile> {
    let mut message = Vec::new();
    GzDecoder::new(File::open(path)?).read_to_end(&mut message)?;
    Ok(Profile::decode(message.as_slice())?)
}

pub(super) fn write(path: &Path, profile: &Profile) -> Verdict {
    let mut out = GzEncoder::new(File::create(path)?, Compression::fast());
    out.write_all(&profile.encode_to_vec())?;
    out.finish()?;
    Ok(())
}

pub(super) fn text(profile: &Profile, index: i64) -> String {
    profile.string_table[index as usize].clone()
}

pub(super) fn module(profile: &Profile, mapping_id: u64) -> String {
    let mapping = &profile.mappings[mapping_id as usize - 1];
    text(profile, mapping.filename)
}

pub(super) fn locations(profile: &Profile) -> Locations {
    let said = |id: u64, line: i64| {
        let function = &profile.functions[id as usize - 1];
        let text = |index| text(profile, index);
        (
            text(function.name),
            text(function.system_name),
            text(function.filename),
            line,
        )
    };
    profile
        .locations
        .iter()
        .map(|location| {
            let lines = location.lines.iter();
            let lines = lines
                .map(|line| said(line.function_id, line.line))
                .collect();
            (
                module(profile, location.mapping_id),
                location.address,
                lines,
            )
        })
        .collect()
}

/// The profile as it would be had nobody looked for names.
pub(super) fn without_names(profile: &Profile) -> Verdict<Profile> {
    let mut bare = copy(profile)?;
    for location in &mut bare.locations {
        // Remarks such as `[truncated: …]` are no names.
        if module(profile, location.mapping_id) != "[sampler]" {
            location.lines.clear();
        }
    }
    for mapping in &mut bare.mappings {
        mapping.has_functions = false;
        mapping.has_filenames = false;
        mapping.has_line_numbers = false;
        mapping.has_inline_frames = false;
    }
    Ok(bare)
}

pub(super) fn copy(profile: &Profile) -> Verdict<Profile> {
    Ok(Profile::decode(profile.encode_to_vec().as_slice())?)
}

/// The profile of a program, as its recording names it; alone in the folder.
pub(super) fn recorded(program: &Path, options: &[&str], into: &Path) -> Verdict<Profile> {
    let out = into.join("recording");
    let run = Recorder::new(options)?
        .into(&out)
        .command(program, &["700"])
        .run()?;
    run.exits(0)?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let file = profile_file(&out, &name)?;
    let profile = read(&file)?;
    fs::remove_dir_all(&out)?;
    Ok(profile)
}

pub(super) fn profile_file(out: &Path, comm: &str) -> Verdict<PathBuf> {
    let begins = format!("cpu-{comm}-");
    let names = fs::read_dir(out)?.map_while(Result::ok);
    let found = names.map(|entry| entry.path()).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&begins))
    });
    found.ok_or_else(|| format!("no file of {comm}").into())
}

pub(super) fn symbolize<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Verdict<Output> {
    Ok(command(words).output()?)
}

/// What runs it, and asks no server that these words do not name.
pub(super) fn command<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(sampler());
    command
        .arg("symbolize")
        .args(words)
        .env_remove("DEBUGINFOD_URLS");
    command
}

/// Runs it on one file; the result and what was said on stdout.
pub(super) fn named(
    folder: &Path,
    bare: &Profile,
    options: &[&OsStr],
) -> Verdict<(Profile, String)> {
    named_with(folder, bare, options, &folder.join("debuginfod"))
}

/// The same, with this cache of what servers gave.
pub(super) fn named_with(
    folder: &Path,
    bare: &Profile,
    options: &[&OsStr],
    cache: &Path,
) -> Verdict<(Profile, String)> {
    let (input, result) = (folder.join("bare.pb.gz"), folder.join("result.pb.gz"));
    write(&input, bare)?;
    let mut words: Vec<&OsStr> = options.to_vec();
    words.extend([
        OsStr::new("--force"),
        OsStr::new("-o"),
        result.as_ref(),
        input.as_ref(),
    ]);
    let output = command(words)
        .env("DEBUGINFOD_CACHE_PATH", cache)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    let profile = read(&result)?;
    same_but_for_names(bare, &profile)?;
    Ok((
        profile,
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ))
}

/// All that is measured is as it was.
pub(super) fn same_but_for_names(before: &Profile, after: &Profile) -> Verdict {
    let mut after = copy(after)?;
    ensure!(
        after.locations.len() == before.locations.len(),
        "other locations"
    );
    for (new, old) in after.locations.iter_mut().zip(&before.locations) {
        new.lines.clone_from(&old.lines);
    }
    for (new, old) in after.mappings.iter_mut().zip(&before.mappings) {
        new.has_functions = old.has_functions;
        new.has_filenames = old.has_filenames;
        new.has_line_numbers = old.has_line_numbers;
        new.has_inline_frames = old.has_inline_frames;
    }
    after.functions.truncate(before.functions.len());
    after.string_table.truncate(before.string_table.len());
    ensure!(after == *before, "more than names changed");
    Ok(())
}

/// The locations of one module, by the end of its path.
pub(super) fn of_module(profile: &Profile, ending: &str) -> BTreeMap<u64, Vec<Said>> {
    let all = locations(profile).into_iter();
    all.filter(|(module, ..)| module.ends_with(ending))
        .map(|(_, address, lines)| (address, lines))
        .collect()
}

/// The burning program, built in a way of its own.
pub(super) fn burner(folder: &Path, flags: &[&str]) -> Verdict<PathBuf> {
    let program = folder.join("burner");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/burn.c");
    let status = Command::new(need::tool("gcc")?)
        .args(["-g", "-O2", "-fno-omit-frame-pointer", "-pthread"])
        .args(flags)
        .arg("-o")
        .args([&program, &source])
        .status()?;
    ensure!(status.success(), "gcc: {status}");
    Ok(program)
}

pub(super) fn run(tool: &str, words: &[&OsStr]) -> Verdict {
    let status = Command::new(need::tool(tool)?).args(words).status()?;
    ensure!(status.success(), "{tool}: {status}");
    Ok(())
}
