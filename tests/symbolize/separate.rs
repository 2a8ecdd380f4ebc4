//! Programs whose debug information lies in another file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sampler::object::PinnedFile;
use sampler::symbolize::{Options, Place, Symbolizer};

use crate::fixture::{Built, C_SOURCE, build, file_offset, function, in_file, pin};
use crate::tool::{Outcome, Stop, fail, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_debug_file_beside_the_program_is_used", beside),
        trial("a_debug_file_is_found_by_build_id_alone", by_build_id),
        trial("a_stale_debug_file_is_not_used", stale),
        trial("symbols_in_xz_inside_the_program_are_used", mini_debug_info),
        trial("a_debug_link_to_a_fifo_does_not_hang", fifo),
    ]
}

/// A stripped program; what was stripped is in `program.debug` beside it, and
/// it says so. `dynamic` symbols stay.
pub fn stripped() -> Result<(Built, u64), Stop> {
    let arguments = ["-g", "-O2", "-rdynamic", "-Wl,--build-id=sha1"];
    let built = build("cc", "c", C_SOURCE, &arguments)?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    strip(&built.program)?;
    Ok((built, offset))
}

/// Moves what can be stripped of a program to a file beside it, whose name ends
/// in `.debug`, and leaves its name in the program.
pub fn strip(program: &Path) -> Result<(), Stop> {
    let program = program.to_string_lossy();
    let debug = format!("{program}.debug");
    run("objcopy", ["--only-keep-debug", &*program, &debug])?;
    run("objcopy", ["--strip-all", &*program])?;
    let link = format!("--add-gnu-debuglink={debug}");
    run("objcopy", [link.as_str(), &*program])?;
    Ok(())
}

/// Moves the debug file beside a program to where a directory of debug files has
/// it, which is returned.
pub fn to_debug_dir(built: &Built) -> Result<PathBuf, Stop> {
    let id = build_id(&built.program)?;
    let debug_dir = built.dir.path().join("debug");
    let dir = debug_dir.join(".build-id").join(&id[..2]);
    fs::create_dir_all(&dir)?;
    fs::rename(
        built.dir.path().join("program.debug"),
        dir.join(format!("{}.debug", &id[2..])),
    )?;
    Ok(debug_dir)
}

/// The build ID of a program, in hexadecimal.
pub fn build_id(program: &Path) -> Result<String, Stop> {
    let notes = run("readelf", ["-n".as_ref(), program.as_os_str()])?;
    let mut lines = notes.lines().map(str::trim);
    match lines.find_map(|line| line.strip_prefix("Build ID: ")) {
        Some(id) => Ok(id.to_owned()),
        None => fail("no build ID"),
    }
}

/// Name and line of the outermost frame, and how many frames there are.
pub fn outermost(
    file: &Arc<PinnedFile>,
    offset: u64,
    debug_dir: &Path,
) -> Result<Option<(String, u32, usize)>, Stop> {
    let options = Options {
        debug_dirs: vec![debug_dir.to_owned()],
        ..Options::default()
    };
    outermost_with(file, offset, options)
}

/// The same, with these options.
pub fn outermost_with(
    file: &Arc<PinnedFile>,
    offset: u64,
    options: Options,
) -> Result<Option<(String, u32, usize)>, Stop> {
    let symbolizer = Symbolizer::spawn(options)?;
    symbolizer.submit(in_file(file, &[offset]));
    let names = symbolizer.finish();
    let answer = names.get(&Place::File(Arc::clone(file)).key(), offset);
    Ok(answer.and_then(|answer| {
        let frame = answer.last()?;
        Some((frame.name.clone(), frame.line, answer.len()))
    }))
}

fn beside() -> Outcome {
    let (built, offset) = stripped()?;
    match outermost(&pin(&built.program)?, offset, Path::new("/nonexistent"))? {
        Some((name, line, _)) if name == "outer" && line > 0 => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

fn by_build_id() -> Outcome {
    let (built, offset) = stripped()?;
    let program = built.program.to_string_lossy();
    run("objcopy", ["--remove-section=.gnu_debuglink", &*program])?;
    let debug_dir = to_debug_dir(&built)?;
    match outermost(&pin(&built.program)?, offset, &debug_dir)? {
        Some((name, line, _)) if name == "outer" && line > 0 => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

fn stale() -> Outcome {
    let (built, offset) = stripped()?;
    let other = C_SOURCE.replace("outer", "wrong");
    let other = build("cc", "c", &other, &["-g", "-O2", "-Wl,--build-id=sha1"])?;
    fs::copy(&other.program, built.dir.path().join("program.debug"))?;
    match outermost(&pin(&built.program)?, offset, Path::new("/nonexistent"))? {
        Some((name, 0, 1)) if name == "outer" => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

/// `MiniDebugInfo`, made as Fedora makes it.
fn mini_debug_info() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    let program = built.program.to_string_lossy();
    let symbols = format!("{program}.symbols");
    run("objcopy", ["--only-keep-debug", &*program, &symbols])?;
    run("objcopy", ["--strip-debug", &*symbols])?;
    run("objcopy", ["--strip-all", &*program])?;
    let stripped = pin(&built.program)?;
    if let Some(other) = outermost(&stripped, offset, Path::new("/nonexistent"))? {
        return fail(format!("without symbols: {other:?}"));
    }
    run("xz", [&*symbols])?;
    let section = format!("--add-section=.gnu_debugdata={symbols}.xz");
    run("objcopy", [&*section, &*program])?;
    match outermost(&pin(&built.program)?, offset, Path::new("/nonexistent"))? {
        Some((name, 0, 1)) if name == "outer" => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

fn fifo() -> Outcome {
    let (built, offset) = stripped()?;
    let debug = built.dir.path().join("program.debug");
    fs::remove_file(&debug)?;
    run("mkfifo", [debug.as_os_str()])?;
    let start = Instant::now();
    let found = outermost(&pin(&built.program)?, offset, Path::new("/nonexistent"))?;
    if start.elapsed() > Duration::from_secs(10) {
        return fail("it waited");
    }
    match found {
        Some((name, 0, 1)) if name == "outer" => Ok(()),
        other => fail(format!("{other:?}")),
    }
}
