//! Names that are kept for the next time are those that would be found then.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::Trial;
use sampler::cache::Cache;
use sampler::object::PinnedFile;
use sampler::symbolize::{Names, Options, Symbolizer};

use crate::fixture::{C_SOURCE, build, file_offset, functions, in_file, pin, said};
use crate::tool::{Outcome, Stop, fail, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("what_is_kept_of_symbols_holds_everywhere", symbols),
        trial("what_is_kept_of_real_symbols_is_what_they_say", real_files),
        trial("what_is_kept_of_lines_holds_where_it_was_found", lines),
    ]
}

fn named(
    file: &Arc<PinnedFile>,
    addresses: &[u64],
    cache: Option<&Arc<Cache>>,
) -> Result<Names, Stop> {
    let symbolizer = Symbolizer::spawn(Options {
        cache: cache.cloned(),
        debug_dirs: Vec::new(),
        ..Options::default()
    })?;
    symbolizer.submit(in_file(file, addresses));
    Ok(symbolizer.finish())
}

/// Asks for the first addresses of a file, and then, with what was kept of that, for
/// the others: each has to have the name that it has without. Returns how many of
/// these were known.
fn again(file: &Arc<PinnedFile>, few: &[u64], many: &[u64]) -> Result<usize, Stop> {
    let folder = tempfile::tempdir()?;
    let cache = Arc::new(Cache::open(&folder.path().join("cache"))?);
    // Whoever drops the names waits until they are kept.
    drop(named(file, few, Some(&cache))?);
    let second = named(file, many, Some(&cache))?;
    let anew = named(file, many, None)?;
    if (second.stats().unanswered, anew.stats().kept) != (0, 0) {
        return fail(format!("{:?}, {:?}", second.stats(), anew.stats()));
    }
    let (kept, found) = (said(&second, file, many), said(&anew, file, many));
    let mut differing = many.iter().zip(kept.iter().zip(&found));
    if let Some((address, (kept, found))) = differing.find(|(_, (kept, found))| kept != found) {
        return fail(format!(
            "{address:#x} of {} was kept as {kept:?} and is {found:?}",
            file.path.display()
        ));
    }
    Ok(second.stats().kept as usize)
}

/// The same of a program built with these flags. Returns how many addresses were
/// asked for each time, and how many of the second ones were known.
fn built_with(flags: &[&str]) -> Result<[usize; 3], Stop> {
    let built = build("cc", "c", C_SOURCE, flags)?;
    let file = pin(&built.program)?;
    let functions = functions(&built.program)?;
    let first = functions.iter().map(|function| function.start).min();
    let end = functions.iter().map(|function| function.end).max();
    let (Some(first), Some(end)) = (first, end) else {
        return fail("no functions");
    };
    // Past both ends, where there is no function.
    let start = file_offset(&built.program, first)? - 64;
    let addresses = start..start + (end - first) + 128;
    let few: Vec<u64> = addresses.clone().step_by(97).collect();
    let many: Vec<u64> = addresses.step_by(11).collect();
    let known = again(&file, &few, &many)?;
    Ok([few.len(), many.len(), known])
}

fn symbols() -> Outcome {
    // With a C library in it, whose assembly has symbols within symbols.
    let [few, many, known] = built_with(&["-O2", "-static"])?;
    if few < 1000 || known * 100 < many * 99 {
        return fail(format!("{known} of {many} were known from {few}"));
    }
    Ok(())
}

fn lines() -> Outcome {
    let [few, many, known] = built_with(&["-O2", "-g"])?;
    if known == 0 || known > few || known >= many {
        return fail(format!("{known} of {many} were known from {few}"));
    }
    Ok(())
}

/// The libraries of this process and those of the compiler, whose symbols overlap,
/// have no size, or are there under two names.
fn real_files() -> Outcome {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mapped = maps.lines().filter_map(|line| {
        let path = line.split_once('/')?.1;
        Some(PathBuf::from(format!("/{path}")))
    });
    let sysroot = run("rustc", ["--print", "sysroot"])?;
    let compiler = fs::read_dir(Path::new(sysroot.trim_end()).join("lib"))?;
    let compiler = compiler.filter_map(|entry| Some(entry.ok()?.path()));
    let is_elf = |path: &PathBuf| {
        let mut magic = [0; 4];
        let file = fs::File::open(path);
        file.is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == *b"\x7fELF"
    };
    let files: BTreeSet<PathBuf> = mapped.chain(compiler).filter(is_elf).collect();
    if files.len() < 4 {
        return fail(format!("too few files: {files:?}"));
    }
    let mut whole = 0;
    for path in files {
        let file = pin(&path)?;
        let code = code(&path)?;
        let bytes: u64 = code.iter().map(|code| code.end - code.start).sum();
        // Odd, so that it meets all of what is aligned.
        let step = (bytes as usize / 20_000) | 1;
        let many: Vec<u64> = code
            .into_iter()
            .flat_map(|code| code.step_by(step))
            .collect();
        let known = again(&file, &many[..1], &many)?;
        // Of one with debug information, what was found is kept.
        whole += usize::from(known == many.len());
        if known != many.len() && known != 1 {
            let (many, path) = (many.len(), path.display());
            return fail(format!("{known} of {many} in {path} were known"));
        }
    }
    if whole < 4 {
        return fail(format!("of {whole} files all was known"));
    }
    Ok(())
}

/// Where code is in a file, as `readelf` tells it.
fn code(file: &Path) -> Result<Vec<Range<u64>>, Stop> {
    let listing = run("readelf", ["-lW".as_ref(), file.as_os_str()])?;
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let code = listing.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ["LOAD", offset, _, _, bytes, _, flags @ .., _] = &fields[..] else {
            return None;
        };
        let start = number(offset)?;
        let is_code = flags.iter().any(|flags| flags.contains('E'));
        is_code.then_some(start..start + number(bytes)?)
    });
    Ok(code.collect())
}
