//! Programs that carry their own symbols.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;
use sampler::symbolize::{FrameName, Place};

use crate::fixture::{
    Built, C_SOURCE, CPP_SOURCE, RUST_SOURCE, Said, addr2line, build, file_offset, function,
    functions, in_file, names_of, pin,
};
use crate::tool::{Outcome, Stop, fail, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("every_address_of_c_reads_as_in_addr2line", c_as_addr2line),
        trial(
            "every_address_of_cpp_reads_as_in_addr2line",
            cpp_as_addr2line,
        ),
        trial("dwarf_in_zlib_reads_like_plain", || {
            compressed_dwarf("zlib")
        }),
        trial("dwarf_in_zstd_reads_like_plain", || {
            compressed_dwarf("zstd")
        }),
        trial("dwarf_that_dwz_made_smaller_reads_like_plain", by_dwz),
        trial("dwarf_beside_a_link_to_no_file_reads_like_plain", || {
            linked(false)
        }),
        trial(
            "dwarf_beside_a_link_to_a_stale_file_reads_like_plain",
            || linked(true),
        ),
        trial("a_cpp_symbol_keeps_its_raw_name", cpp_raw_names),
        trial("rust_v0_reads_as_its_source", || rust("v0", "_R")),
        trial("rust_legacy_reads_as_its_source", || rust("legacy", "_ZN")),
        trial("a_program_without_dwarf_has_symbols", symbols_only),
        trial("a_plt_stub_is_not_what_lies_before_it", plt),
        trial("a_bad_file_costs_its_own_names_only", bad_files),
        trial("broken_dwarf_costs_lines_and_not_names", broken_dwarf),
        trial("a_name_of_foreign_bytes_is_harmless", foreign_bytes),
        trial("mutilated_files_cost_no_one_elses_names", mutilated),
        trial("a_deleted_file_has_names", deleted),
        trial("an_address_is_answered_once", answered_once),
    ]
}

/// Another program.
const RENAMED_SOURCE: &str = "int other(int x) { return x; }\nint main(void) { return other(0); }";

/// The frames at one virtual address of a program.
fn frames_at(program: &Path, address: u64) -> Result<Vec<FrameName>, Stop> {
    let file = pin(program)?;
    let offset = file_offset(program, address)?;
    let names = names_of(in_file(&file, &[offset]))?;
    let answer = names.get(&Place::File(file).key(), offset);
    Ok(answer.map(|answer| answer.to_vec()).unwrap_or_default())
}

/// Every address of every function built from our source, against addr2line.
fn compare_all(built: &Built, parts: &[&str]) -> Outcome {
    let program = &built.program;
    let file = pin(program)?;
    let mut addresses = Vec::new();
    for part in parts {
        let function = function(program, part)?;
        for address in function.start..function.end {
            addresses.push((
                address,
                file_offset(program, function.start)? + address - function.start,
            ));
        }
    }
    let offsets: Vec<u64> = addresses.iter().map(|(_, offset)| *offset).collect();
    let names = names_of(in_file(&file, &offsets))?;
    let mut deepest = 0;
    for (address, offset) in addresses {
        let answer = names.get(&Place::File(file.clone()).key(), offset);
        let frames = answer.map(|answer| answer.to_vec()).unwrap_or_default();
        let ours: Vec<Said> = frames
            .iter()
            .map(|frame| {
                let line = if frame.line == 0 {
                    "?".into()
                } else {
                    frame.line.to_string()
                };
                (frame.name.clone(), format!("{}:{line}", frame.source_file))
            })
            .collect();
        let theirs = addr2line(program, address)?;
        if ours != theirs {
            return fail(format!("{address:#x}: {ours:?} is not {theirs:?}"));
        }
        deepest = deepest.max(ours.len());
    }
    if parts.contains(&"outer") && deepest != 3 {
        return fail(format!(
            "no chain of three frames, the deepest has {deepest}"
        ));
    }
    Ok(())
}

fn c_as_addr2line() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    compare_all(&built, &["outer", "main"])
}

fn cpp_as_addr2line() -> Outcome {
    let built = build("c++", "cc", CPP_SOURCE, &["-g", "-O2"])?;
    compare_all(&built, &["areaIiE", "4both", "Circle4grow"])
}

fn compressed_dwarf(how: &str) -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    let program = built.program.to_string_lossy();
    let compress = format!("--compress-debug-sections={how}");
    if !run("objcopy", ["--help"])?.contains(how) {
        return Err(Stop::Missing(format!("objcopy knows no {how}")));
    }
    run("objcopy", [&*compress, &*program])?;
    let sections = run("readelf", ["-tW", &*program])?;
    if !sections.to_lowercase().contains(how) {
        return fail(format!("nothing is compressed: {sections}"));
    }
    compare_all(&built, &["outer"])
}

/// Without a supplement: what units have in common is in partial units.
fn by_dwz() -> Outcome {
    let built = build("c++", "cc", CPP_SOURCE, &["-g", "-O2"])?;
    run("dwz", [built.program.as_os_str()])?;
    compare_all(&built, &["areaIiE", "4both", "Circle4grow"])
}

/// With a debug link to a file that is not there, or is another program's.
fn linked(is_there: bool) -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2", "-Wl,--build-id=sha1"])?;
    let debug = built.dir.path().join("program.debug");
    fs::write(&debug, "what the checksum in the link is of")?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run("objcopy", [link.as_str(), &built.program.to_string_lossy()])?;
    fs::remove_file(&debug)?;
    if is_there {
        let arguments = ["-g", "-O2", "-Wl,--build-id=sha1"];
        let other = build("cc", "c", RENAMED_SOURCE, &arguments)?;
        fs::copy(&other.program, &debug)?;
    }
    compare_all(&built, &["outer", "main"])
}

fn cpp_raw_names() -> Outcome {
    let built = build("c++", "cc", CPP_SOURCE, &["-g", "-O2"])?;
    for (part, name) in [
        ("areaIiE", "int shapes::area<int>(int)"),
        ("6hidden", "shapes::hidden(int)"),
        ("Circle4grow", "shapes::Circle::grow(long)"),
    ] {
        let function = function(&built.program, part)?;
        let frames = frames_at(&built.program, function.start)?;
        let Some(frame) = frames.last() else {
            return fail(format!("{part} has no name"));
        };
        if (frame.name.as_str(), &frame.system_name) != (name, &function.symbol) {
            return fail(format!("{frame:?} is not {name} ({})", function.symbol));
        }
    }
    Ok(())
}

fn rust(mangling: &str, prefix: &str) -> Outcome {
    let scheme = format!("-Csymbol-mangling-version={mangling}");
    // A rustc that does not let the scheme be chosen may still use it.
    let built = match build("rustc", "rs", RUST_SOURCE, &["-g", "-O", &scheme]) {
        Err(Stop::Failed(_)) => build("rustc", "rs", RUST_SOURCE, &["-g", "-O"])?,
        other => other?,
    };
    let function = function(&built.program, "turn")?;
    if !function.symbol.starts_with(prefix) {
        return Err(Stop::Missing(format!(
            "this rustc does not mangle as {mangling}"
        )));
    }
    let frames = frames_at(&built.program, function.start)?;
    let Some(frame) = frames.last() else {
        return fail("no name");
    };
    let reads_well = frame.name.ends_with("::turn") || frame.name.ends_with("::turn::<u8>");
    if !reads_well
        || frame.system_name != function.symbol
        || !frame.source_file.ends_with("source.rs")
    {
        return fail(format!("{frame:?} for {}", function.symbol));
    }
    Ok(())
}

fn symbols_only() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-O2"])?;
    let function = function(&built.program, "outer")?;
    let frames = frames_at(&built.program, function.start + 1)?;
    match &frames[..] {
        [frame] if frame.name == "outer" && frame.line == 0 && frame.source_file.is_empty() => {
            Ok(())
        }
        other => fail(format!("{other:?}")),
    }
}

/// `_init` has no size and lies right before the PLT.
fn plt() -> Outcome {
    let source = "#include <stdio.h>\nint main(void) { return puts(\"\"); }";
    let arguments = ["-g", "-O2", "-no-pie", "-Wl,-z,lazy"];
    let built = build("cc", "c", source, &arguments)?;
    let program = built.program.to_string_lossy();
    let sections = run("readelf", ["-SW", &*program])?;
    let plt = sections.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip_while(|field| *field != ".plt");
        u64::from_str_radix(fields.nth(2)?, 16).ok()
    });
    let Some(plt) = plt else {
        return Err(Stop::Missing("a program without a PLT".into()));
    };
    let init = run("nm", [&*program])?;
    if !init.contains(" T _init") {
        return Err(Stop::Missing("a C library without _init".into()));
    }
    match &frames_at(&built.program, plt + 0x12)?[..] {
        [] => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

fn bad_files() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    let whole = fs::read(&built.program)?;
    let mut queries = Vec::new();
    let mut bad = Vec::new();
    let contents = [
        b"#!/bin/sh\nexit 0\n".to_vec(),
        Vec::new(),
        b"\x7fELF\x02\x01\x01"
            .iter()
            .copied()
            .chain([0xff; 4000])
            .collect(),
        whole[..whole.len() / 2].to_vec(),
        whole[..100].to_vec(),
    ];
    for (number, content) in contents.iter().enumerate() {
        let path = built.dir.path().join(format!("bad{number}"));
        fs::write(&path, content)?;
        let file = pin(&path)?;
        queries.extend(in_file(&file, &[0x1000, 0x1139]));
        bad.push(file);
    }
    let good = pin(&built.program)?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    queries.extend(in_file(&good, &[offset]));
    let names = names_of(queries)?;

    for file in bad {
        let answer = names.get(&Place::File(file.clone()).key(), 0x1139);
        if answer.is_none_or(|answer| !answer.is_empty()) {
            return fail(format!("{} has {answer:?}", file.path.display()));
        }
    }
    let answer = names.get(&Place::File(good).key(), offset);
    if answer.is_none_or(|answer| answer.is_empty()) {
        return fail("the good file has no names");
    }
    let stats = names.stats();
    if (stats.files, stats.failed_files, stats.named, stats.unnamed) != (6, 5, 1, 10) {
        return fail(format!("{stats:?}"));
    }
    Ok(())
}

fn broken_dwarf() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    let program = built.program.to_string_lossy();
    let abbreviations = built.dir.path().join("abbreviations");
    fs::write(&abbreviations, [0xff; 64])?;
    let section = format!(".debug_abbrev={}", abbreviations.display());
    run("objcopy", ["--update-section", &section, &*program])?;
    let start = function(&built.program, "outer")?.start;
    let offset = file_offset(&built.program, start)?;
    let file = pin(&built.program)?;
    let names = names_of(in_file(&file, &[offset]))?;
    if names.stats().files_without_debug_info != 1 {
        return fail(format!("{:?}", names.stats()));
    }
    let answer = names.get(&Place::File(file).key(), offset);
    match answer.map(|answer| &answer[..]) {
        Some([frame]) if frame.name == "outer" => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

fn foreign_bytes() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-O2"])?;
    let outer = function(&built.program, "outer")?;
    let mut bytes = fs::read(&built.program)?;
    let name = b"\0outer\0";
    let Some(at) = bytes.windows(name.len()).position(|window| window == name) else {
        return fail("the symbol is not in the string table");
    };
    bytes[at + 1..at + 6].copy_from_slice(b"\xff\xfe\x1b[m");
    fs::write(&built.program, bytes)?;
    let file = pin(&built.program)?;
    let main = functions(&built.program)?
        .into_iter()
        .find(|function| function.symbol == "main");
    let Some(main) = main else {
        return fail("no main");
    };
    let offsets = [
        file_offset(&built.program, outer.start)?,
        file_offset(&built.program, main.start)?,
    ];
    let names = names_of(in_file(&file, &offsets))?;
    let answer = names.get(&Place::File(file).key(), offsets[1]);
    if answer.is_none_or(|answer| answer.first().is_none_or(|frame| frame.name != "main")) {
        return fail(format!("main is {answer:?}"));
    }
    Ok(())
}

/// A few bytes changed at a time, all over the file; the sequence is fixed.
fn mutilated() -> Outcome {
    const FILES: u64 = 300;
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    let whole = fs::read(&built.program)?;
    let outer = function(&built.program, "outer")?;
    let start = file_offset(&built.program, outer.start)?;
    let offsets: Vec<u64> = (start..start + outer.end - outer.start).collect();
    let mut seed = 1u64;
    let mut random = |below: usize| {
        // Knuth's MMIX generator; its upper half is the better one.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut queries = Vec::new();
    for number in 0..FILES {
        let mut bytes = whole.clone();
        for _ in 0..8 {
            bytes[random(whole.len())] = random(256) as u8;
        }
        // In half of them also the DWARF and the section headers, at the end.
        if number % 2 == 0 {
            for _ in 0..8 {
                bytes[whole.len() - 1 - random(whole.len() / 4)] = random(256) as u8;
            }
        }
        let path = built.dir.path().join(format!("mutilated{number}"));
        fs::write(&path, bytes)?;
        queries.extend(in_file(&pin(&path)?, &offsets));
    }
    let good = pin(&built.program)?;
    queries.extend(in_file(&good, &offsets));
    let names = names_of(queries)?;
    let stats = names.stats();
    if stats.files != FILES + 1 || stats.named + stats.unnamed != (FILES + 1) * offsets.len() as u64
    {
        return fail(format!("{stats:?}"));
    }
    let unnamed = |offset: &u64| {
        let answer = names.get(&Place::File(good.clone()).key(), *offset);
        answer.is_none_or(|answer| answer.last().is_none_or(|frame| frame.name != "outer"))
    };
    if offsets.iter().any(unnamed) {
        return fail("the whole file lost names");
    }
    Ok(())
}

fn deleted() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    let file = pin(&built.program)?;
    drop(built);
    let names = names_of(in_file(&file, &[offset]))?;
    let answer = names.get(&Place::File(file).key(), offset);
    match answer.and_then(|answer| answer.last()) {
        Some(frame) if frame.name == "outer" && frame.line > 0 => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

fn answered_once() -> Outcome {
    let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    let file = pin(&built.program)?;
    let symbolizer = sampler::symbolize::Symbolizer::spawn(sampler::symbolize::Options::default())?;
    for _ in 0..100 {
        symbolizer.submit(in_file(&file, &[offset, offset, 0]));
    }
    let stats = symbolizer.finish().stats();
    if (stats.named, stats.unnamed, stats.files) != (1, 1, 1) {
        return fail(format!("{stats:?}"));
    }
    Ok(())
}
