//! The running kernel and its vDSO.

use std::fs;
use std::sync::Arc;

use libtest_mimic::Trial;
use sampler::cache::Cache;
use sampler::symbolize::{Options, Place, PlaceKey, Query, Symbolizer};

use crate::fixture::{functions, names_of};
use crate::tool::{Outcome, Stop, fail, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_kernel_function_has_its_name", kernel_function),
        trial("the_kernel_is_called_the_same_by_what_is_kept", kept_kernel),
        trial("the_vdso_names_its_clock", vdso_clock),
    ]
}

fn kernel_function() -> Outcome {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let found = symbols.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, "schedule"] = fields[..] else {
            return None;
        };
        u64::from_str_radix(address, 16).ok()
    });
    let Some(address) = found.filter(|address| *address != 0) else {
        return Err(Stop::Missing("/proc/kallsyms shows no addresses".into()));
    };
    let query = |address| Query {
        place: Place::Kernel,
        address,
    };
    // User addresses, and the end of memory, are nobody's.
    let names = names_of(vec![query(address + 4), query(0x1000), query(u64::MAX)])?;
    let name_at = |address| {
        let answer = names.get(&PlaceKey::Kernel, address)?;
        answer.first().map(|frame| frame.name.clone())
    };
    let found = [name_at(address + 4), name_at(0x1000), name_at(u64::MAX)];
    if found != [Some("schedule".to_owned()), None, None] {
        return fail(format!("{found:?}"));
    }
    if names.stats().kernel_names_hidden {
        return fail("named, and yet called hidden");
    }
    Ok(())
}

/// Every 50th symbol but the first of all: at its start, within it, and just before
/// it. Of several that start where the first one does, the parser takes any.
fn kept_kernel() -> Outcome {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let starts = symbols.lines().step_by(50).skip(1).filter_map(|line| {
        let address = line.split_whitespace().next()?;
        u64::from_str_radix(address, 16)
            .ok()
            .filter(|at| *at > 1 << 63)
    });
    let addresses: Vec<u64> = starts.flat_map(|at| [at - 1, at, at + 5]).collect();
    if addresses.len() < 1000 {
        return Err(Stop::Missing("/proc/kallsyms shows no addresses".into()));
    }
    let folder = tempfile::tempdir()?;
    let cache = Arc::new(Cache::open(&folder.path().join("cache"))?);
    let named = |cache: Option<&Arc<Cache>>| -> Result<Vec<Vec<String>>, Stop> {
        let symbolizer = Symbolizer::spawn(Options {
            cache: cache.cloned(),
            boot_id: Some("1b4e28ba-2fa1-11d2-883f-b9a761bde3fb".to_owned()),
            ..Options::default()
        })?;
        let query = |address: &u64| Query {
            place: Place::Kernel,
            address: *address,
        };
        symbolizer.submit(addresses.iter().map(query).collect());
        // Whoever drops the names waits until they are kept.
        let names = symbolizer.finish();
        let at = |address: &u64| {
            let found = names.get(&PlaceKey::Kernel, *address);
            let frames = found.iter().flat_map(|frames| frames.iter());
            frames
                .flat_map(|frame| [frame.name.clone(), frame.system_name.clone()])
                .collect()
        };
        Ok(addresses.iter().map(at).collect())
    };
    let anew = named(Some(&cache))?;
    let kept = named(Some(&cache))?;
    let entries = fs::read_dir(folder.path().join("cache"))?.count();
    if entries != 1 {
        return fail(format!("{entries} entries were kept"));
    }
    let mut differing = addresses.iter().zip(anew.iter().zip(&kept));
    match differing.find(|(_, (anew, kept))| anew != kept) {
        Some((address, (anew, kept))) => fail(format!("{address:#x} is {anew:?}, and {kept:?}")),
        None => Ok(()),
    }
}

fn vdso_clock() -> Outcome {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let range = maps.lines().find_map(|line| {
        let (start, end) = line
            .strip_suffix("[vdso]")?
            .split_whitespace()
            .next()?
            .split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?, number(end)?))
    });
    let Some((start, end)) = range else {
        return Err(Stop::Missing("no vDSO".into()));
    };
    // `nm` needs a file; the vDSO has dynamic symbols only.
    let dir = tempfile::TempDir::new()?;
    let image = dir.path().join("vdso.so");
    let memory = fs::File::open("/proc/self/mem")?;
    let mut bytes = vec![0; end - start];
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start as u64)?;
    fs::write(&image, bytes)?;
    let listing = run("nm", ["-D".as_ref(), image.as_os_str()])?;
    if !functions(&image)?.is_empty() {
        return fail("a vDSO with a full symbol table: this test can ask for more");
    }
    let clock = listing.lines().find_map(|line| {
        let (address, rest) = line.split_once(' ')?;
        let is_clock = rest
            .split(['@', ' '])
            .any(|name| name == "__vdso_clock_gettime");
        is_clock.then(|| u64::from_str_radix(address, 16).ok())?
    });
    let Some(clock) = clock else {
        return Err(Stop::Missing(format!(
            "no __vdso_clock_gettime:\n{listing}"
        )));
    };
    let names = names_of(vec![Query {
        place: Place::Vdso,
        address: clock + 1,
    }])?;
    let answer = names.get(&PlaceKey::Vdso, clock + 1);
    match answer.and_then(|answer| answer.first()) {
        // An alias at the same address is as right.
        Some(frame) if frame.name.ends_with("clock_gettime") => Ok(()),
        other => fail(format!("{other:?}")),
    }
}
