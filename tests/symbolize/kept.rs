//! Names that are kept for the next time are those that would be found then.

use std::sync::Arc;

use libtest_mimic::Trial;
use sampler::cache::Cache;
use sampler::object::PinnedFile;
use sampler::symbolize::{Names, Options, Symbolizer};

use crate::fixture::{C_SOURCE, build, file_offset, functions, in_file, pin, said};
use crate::tool::{Outcome, Stop, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("what_is_kept_of_symbols_holds_for_their_functions", symbols),
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

/// Asks for few addresses of a program's code, and then, with what was kept of
/// that, for many: each has to have the name that it has without. Returns how many
/// were asked for each time, and how many of the second ones were known.
fn again(flags: &[&str]) -> Result<[usize; 3], Stop> {
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

    let cache = Arc::new(Cache::open(&built.dir.path().join("cache"))?);
    // Whoever drops the names waits until they are kept.
    drop(named(&file, &few, Some(&cache))?);
    let second = named(&file, &many, Some(&cache))?;
    let anew = named(&file, &many, None)?;
    if (second.stats().unanswered, anew.stats().kept) != (0, 0) {
        return fail(format!("{:?}, {:?}", second.stats(), anew.stats()));
    }
    let (kept, found) = (said(&second, &file, &many), said(&anew, &file, &many));
    let mut differing = many.iter().zip(kept.iter().zip(&found));
    if let Some((address, (kept, found))) = differing.find(|(_, (kept, found))| kept != found) {
        return fail(format!(
            "{address:#x} was kept as {kept:?} and is {found:?}"
        ));
    }
    Ok([few.len(), many.len(), second.stats().kept as usize])
}

fn symbols() -> Outcome {
    // With a C library in it, whose assembly has symbols within symbols.
    let [few, many, known] = again(&["-O2", "-static"])?;
    if few < 1000 || known < many / 2 {
        return fail(format!("{known} of {many} were known from {few}"));
    }
    Ok(())
}

fn lines() -> Outcome {
    let [few, many, known] = again(&["-O2", "-g"])?;
    if known == 0 || known > few || known >= many {
        return fail(format!("{known} of {many} were known from {few}"));
    }
    Ok(())
}
