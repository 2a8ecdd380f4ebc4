//! Programs of whose DWARF `dwz` has put a part into another file, a supplement.

use std::path::PathBuf;

use libtest_mimic::Trial;
use sampler::symbolize::{Options, Place, Symbolizer};

use crate::fixture::{
    Built, C_SOURCE, CPP_SOURCE, Said, addr2line, build, file_offset, function, in_file, pin,
};
use crate::separate::{strip, to_debug_dir};
use crate::tool::{Outcome, Stop, fail, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_supplement_costs_names_of_inlined_functions_only", || {
            costs_no_more(C, Kept::InProgram)
        }),
        trial("a_supplement_of_the_systems_costs_no_more", || {
            costs_no_more(C, Kept::InSystem)
        }),
        trial("a_supplement_of_a_targets_debug_file_costs_no_more", || {
            costs_no_more(C, Kept::BesideProgram)
        }),
        trial("a_supplement_costs_no_name_of_a_cpp_function", || {
            costs_no_more(CPP, Kept::InProgram)
        }),
        trial("a_supplement_costs_a_cpp_debug_file_no_more", || {
            costs_no_more(CPP, Kept::InSystem)
        }),
        trial(
            "a_link_to_what_the_parser_was_handed_costs_lines",
            to_descriptor,
        ),
    ]
}

/// What is shown of an inlined function whose name is in the supplement.
const NAMELESS: &str = "[inlined]";

/// Where the DWARF is that has a supplement.
#[derive(Clone, Copy)]
enum Kept {
    InProgram,
    BesideProgram,
    InSystem,
}

/// A compiler, a source, and functions in it.
#[derive(Clone, Copy)]
struct Language {
    compiler: &'static str,
    extension: &'static str,
    source: &'static str,
    functions: &'static [&'static str],
}

const C: Language = Language {
    compiler: "cc",
    extension: "c",
    source: C_SOURCE,
    functions: &["outer", "main"],
};

const CPP: Language = Language {
    compiler: "c++",
    extension: "cc",
    source: CPP_SOURCE,
    functions: &["areaIiE", "6hidden", "4both", "Circle4grow"],
};

impl Language {
    fn build(self, source: &str) -> Result<Built, Stop> {
        let arguments = ["-g", "-O2", "-Wl,--build-id=sha1"];
        build(self.compiler, self.extension, source, &arguments)
    }

    /// A program of which dwz has put into a file beside it what it has in
    /// common with another one, the names of functions among it; and what there
    /// is to be said of its addresses.
    fn supplemented(self) -> Result<(Built, Vec<Asked>), Stop> {
        let built = self.build(self.source)?;
        let asked = asked(&built, self.functions)?;
        let other = self.build(&self.source.replace("return", "sink++; return"))?;
        let common = built.dir.path().join("common.debug");
        let files = [
            "-m".as_ref(),
            common.as_os_str(),
            built.program.as_os_str(),
            other.program.as_os_str(),
        ];
        run("dwz", files)?;
        let sections = run("readelf", ["-SW".as_ref(), built.program.as_os_str()])?;
        if !sections.contains(".gnu_debugaltlink") {
            return fail(format!("dwz made no supplement: {sections}"));
        }
        Ok((built, asked))
    }
}

/// An address as it is asked for, and what addr2line says while nothing is in a
/// supplement.
struct Asked {
    offset: u64,
    expected: Vec<Said>,
}

fn asked(built: &Built, functions: &[&str]) -> Result<Vec<Asked>, Stop> {
    let mut all = Vec::new();
    for part in functions {
        let function = function(&built.program, part)?;
        let start = file_offset(&built.program, function.start)?;
        for address in function.start..function.end {
            all.push(Asked {
                offset: start + address - function.start,
                expected: addr2line(&built.program, address)?,
            });
        }
    }
    Ok(all)
}

/// Every frame is there, with its line, and no name is another.
fn costs_no_more(language: Language, kept: Kept) -> Outcome {
    let (built, asked) = language.supplemented()?;
    let mut debug_dirs: Vec<PathBuf> = Vec::new();
    match kept {
        Kept::InProgram => {}
        Kept::BesideProgram => strip(&built.program)?,
        Kept::InSystem => {
            strip(&built.program)?;
            debug_dirs.push(to_debug_dir(&built)?);
        }
    }
    let file = pin(&built.program)?;
    let symbolizer = Symbolizer::spawn(Options {
        debug_dirs,
        ..Options::default()
    })?;
    let offsets: Vec<u64> = asked.iter().map(|asked| asked.offset).collect();
    symbolizer.submit(in_file(&file, &offsets));
    let names = symbolizer.finish();
    let key = Place::File(file).key();
    let mut nameless = 0;
    for Asked { offset, expected } in &asked {
        let answer = names.get(&key, *offset);
        let frames = answer.map(|answer| answer.to_vec()).unwrap_or_default();
        let found: Vec<Said> = frames
            .iter()
            .map(|frame| {
                (
                    frame.name.clone(),
                    format!("{}:{}", frame.source_file, frame.line),
                )
            })
            .collect();
        let inlined = expected.len().saturating_sub(1);
        let is_right = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .enumerate()
                .all(|(at, (found, expected))| {
                    let is_nameless = found.0 == NAMELESS && at < inlined;
                    nameless += usize::from(is_nameless);
                    found.1 == expected.1 && (is_nameless || found.0 == expected.0)
                });
        if !is_right {
            return fail(format!("{offset:#x}: {found:?} is not {expected:?}"));
        }
    }
    if asked.iter().any(|asked| asked.expected.len() > 1) && nameless == 0 {
        return fail("no name was in the supplement");
    }
    let stats = names.stats();
    let counted = (
        stats.files_without_supplement,
        stats.files_without_debug_info,
    );
    if counted != (1, 0) {
        return fail(format!("{stats:?}"));
    }
    Ok(())
}

/// The supplement's path is that of a file which the parser has open: its own.
fn to_descriptor() -> Outcome {
    let built = C.build(C.source)?;
    let start = function(&built.program, "outer")?.start;
    let offset = file_offset(&built.program, start)?;
    let link = built.dir.path().join("link");
    std::fs::write(&link, b"/proc/self/fd/3\0\x01\x02\x03\x04\x05\x06\x07\x08")?;
    let section = format!("--add-section=.gnu_debugaltlink={}", link.display());
    run(
        "objcopy",
        [section.as_str(), &built.program.to_string_lossy()],
    )?;
    let file = pin(&built.program)?;
    let symbolizer = Symbolizer::spawn(Options::default())?;
    symbolizer.submit(in_file(&file, &[offset]));
    let names = symbolizer.finish();
    let stats = names.stats();
    let counted = (stats.files_without_debug_info, stats.parser_deaths);
    let answer = names.get(&Place::File(file).key(), offset);
    match answer.map(|answer| &answer[..]) {
        Some([frame]) if frame.name == "outer" && frame.line == 0 && counted == (1, 0) => Ok(()),
        other => fail(format!("{other:?}, {stats:?}")),
    }
}
