//! Go programs without symbols, compared with what tools say about the same
//! programs with them.
//!
//! Go's linker lays the code out alike with and without symbols. `go tool
//! addr2line` knows functions and innermost lines, by another reader of the
//! same tables; `llvm-symbolizer` reads the DWARF of the program with symbols
//! and knows the inlined calls too.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use sampler::symbolize::{FrameName, Place};
use tempfile::TempDir;

use crate::fixture::{file_offset, in_file, names_of, pin};
use crate::tool::{Outcome, Stop, fail, trial};

/// Methods, generics, closures, calls inlined into calls; and all of the
/// runtime.
const SOURCE: &str = include_str!("golang.go");
/// Prints addresses of its own callers, and who they are.
const CALLERS: &str = include_str!("callers.go");

/// Addresses that are looked up in one program, besides all of `main`'s.
const ADDRESSES: u64 = 3000;
/// The least of them that have inlined calls.
const LEAST_INLINED: usize = 300;

/// How `main` is linked.
const PLAIN: [&str; 0] = [];
const PIE: [&str; 1] = ["-buildmode=pie"];
const OTHER_LINKER: &str = "-linkmode=external";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("go_without_symbols_reads_as_with_them", || {
            each_go(|go| Twins::build(go, &PLAIN, "")?.compare(Compared::WithGoToo))
        }),
        trial("a_go_pie_without_symbols_reads_as_with_them", || {
            each_go(|go| Twins::build(go, &PIE, "")?.compare(Compared::ByDwarf))
        }),
        trial("go_by_another_linker_reads_as_with_symbols", || {
            each_go(|go| Twins::build(go, &PLAIN, OTHER_LINKER)?.compare(Compared::WithGoToo))
        }),
        trial("a_go_pie_by_another_linker_reads_as_with_symbols", || {
            each_go(|go| Twins::build(go, &PIE, OTHER_LINKER)?.compare(Compared::ByDwarf))
        }),
        trial("go_without_section_headers_reads_as_with_them", || {
            each_go(|go| {
                let twins = Twins::build(go, &PLAIN, "")?;
                drop_section_headers(&twins.without)?;
                twins.compare(Compared::ByDwarf)
            })
        }),
        trial(
            "a_go_pie_without_section_headers_reads_as_with_them",
            || {
                each_go(|go| {
                    let twins = Twins::build(go, &PIE, "")?;
                    drop_section_headers(&twins.without)?;
                    twins.compare(Compared::ByDwarf)
                })
            },
        ),
        trial("go_with_symbols_but_without_dwarf_has_lines", || {
            each_go(|go| {
                let mut twins = Twins::build(go, &PLAIN, "")?;
                twins.without = build(go, twins.dir.path(), "symbols", &PLAIN, "-w")?;
                twins.compare(Compared::ByDwarf)
            })
        }),
        trial("go_callers_read_as_its_runtime_says", || each_go(callers)),
    ]
}

/// The installed Go, and a second one where `SAMPLER_TEST_GO_NEW` names it.
fn each_go(check: fn(&Path) -> Outcome) -> Outcome {
    let newer = std::env::var_os("SAMPLER_TEST_GO_NEW").map(PathBuf::from);
    for go in [PathBuf::from("go")].into_iter().chain(newer) {
        check(&go)?;
    }
    Ok(())
}

fn command(go: &Path) -> Command {
    let mut command = Command::new(go);
    command
        .env("GOTOOLCHAIN", "local")
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "");
    command
}

/// What a command prints, given this input.
fn output(command: &mut Command, input: String) -> Result<String, Stop> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Stop::Missing(format!("{command:?}: {error}")))?;
    let stdin = child.stdin.take();
    let writer = std::thread::spawn(move || {
        stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()))
    });
    let output = child.wait_with_output()?;
    // Whoever does not read all of its input says why on its own.
    let _ = writer.join();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    fail(format!("{command:?}: {}: {said}", output.status))
}

/// Builds the source in a directory.
fn build(
    go: &Path,
    dir: &Path,
    name: &str,
    options: &[&str],
    linker: &str,
) -> Result<PathBuf, Stop> {
    let program = dir.join(name);
    let mut build = command(go);
    build
        .arg("build")
        .args(options)
        .arg(format!("-ldflags={linker}"))
        .arg("-o")
        .arg(&program)
        .arg(dir.join("source.go"));
    output(&mut build, String::new())?;
    Ok(program)
}

/// Takes the section headers away, as packers do.
fn drop_section_headers(program: &Path) -> Outcome {
    let file = OpenOptions::new().write(true).open(program)?;
    // e_shoff; e_shentsize is kept, e_shnum and e_shstrndx are not.
    file.write_all_at(&[0; 8], 40)?;
    file.write_all_at(&[0; 4], 60)?;
    Ok(())
}

/// Who else is asked.
#[derive(Clone, Copy, PartialEq)]
enum Compared {
    /// `llvm-symbolizer`.
    ByDwarf,
    /// And `go tool addr2line`, which older ones are not to be asked about
    /// position independent programs.
    WithGoToo,
}

/// A program with its symbols, and without.
struct Twins {
    go: PathBuf,
    dir: TempDir,
    with: PathBuf,
    without: PathBuf,
}

impl Twins {
    fn build(go: &Path, options: &[&str], linker: &str) -> Result<Self, Stop> {
        let dir = TempDir::new()?;
        fs::write(dir.path().join("source.go"), SOURCE)?;
        let stripped = format!("-s -w {linker}");
        Ok(Self {
            with: build(go, dir.path(), "with", options, linker)?,
            without: build(go, dir.path(), "without", options, &stripped)?,
            go: go.to_owned(),
            dir,
        })
    }

    /// Functions of Go's by start, each with its end.
    fn functions(&self) -> Result<Vec<(u64, u64, String)>, Stop> {
        let mut nm = command(&self.go);
        nm.args(["tool", "nm", "-n", "-size"]).arg(&self.with);
        let listing = output(&mut nm, String::new())?;
        let functions = listing.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let start = u64::from_str_radix(fields.next()?, 16).ok()?;
            let bytes: u64 = fields.next()?.parse().ok()?;
            let is_code = matches!(fields.next()?, "t" | "T");
            let name: Vec<&str> = fields.collect();
            let name = name.join(" ");
            // C's have no package.
            let is_go = name.contains('.') && !name.contains(".cold");
            (is_code && is_go && bytes > 0).then_some((start, start + bytes, name))
        });
        Ok(functions.collect())
    }

    /// Addresses all over the code, and all of `main`.
    fn addresses(&self) -> Result<Vec<u64>, Stop> {
        let functions = self.functions()?;
        let code_bytes: u64 = functions.iter().map(|(start, end, _)| end - start).sum();
        let step = (code_bytes / ADDRESSES).max(1) | 1;
        let mut addresses = Vec::new();
        let mut next = 0;
        for (start, end, name) in &functions {
            if name.starts_with("main.") {
                addresses.extend(*start..*end);
                continue;
            }
            next = next.max(*start);
            while next < *end {
                addresses.push(next);
                next += step;
            }
        }
        if (addresses.len() as u64) < ADDRESSES {
            return fail(format!("only {} addresses", addresses.len()));
        }
        Ok(addresses)
    }

    fn compare(&self, compared: Compared) -> Outcome {
        let addresses = self.addresses()?;
        let ours = frames(&self.without, &addresses)?;
        let chains = self.chains(&addresses)?;
        let mut inlined = 0;
        for (address, frames) in addresses.iter().zip(&ours) {
            let read: Vec<Read> = frames.iter().map(Read::of).collect();
            let mut spelled: Vec<Read> = read.iter().map(Read::spelled_alike).collect();
            let theirs = chains.get(address).map_or(&[][..], Vec::as_slice);
            if let [Read(_, place)] = theirs
                && spelled.last().is_some_and(Read::is_generated)
            {
                spelled = outermost(spelled);
                if place.ends_with(":0") {
                    spelled[0].1.clone_from(place);
                }
            }
            if spelled != theirs {
                return fail(format!("{address:#x}: {read:?} is not {theirs:?}"));
            }
            inlined += usize::from(read.len() > 1);
        }
        if inlined < LEAST_INLINED {
            return fail(format!("only {inlined} addresses with inlined calls"));
        }
        if compared == Compared::WithGoToo {
            self.compare_with_go(&addresses, &ours)?;
        }
        Ok(())
    }

    /// The chain of calls at each address by DWARF.
    fn chains(&self, addresses: &[u64]) -> Result<BTreeMap<u64, Vec<Read>>, Stop> {
        let mut symbolizer = Command::new("llvm-symbolizer");
        symbolizer
            .args(["--output-style=GNU", "--no-demangle", "--addresses"])
            .args(["--functions=linkage", "--inlines", "--obj"])
            .arg(&self.with);
        let listing = output(&mut symbolizer, lines(addresses))?;
        let mut chains: BTreeMap<u64, Vec<Read>> = BTreeMap::new();
        let mut chain = &mut Vec::new();
        let mut lines = listing.lines();
        while let Some(line) = lines.next() {
            if let Some(address) = line.strip_prefix("0x") {
                chain = chains.entry(u64::from_str_radix(address, 16)?).or_default();
            } else if let Some(place) = lines.next() {
                let read = Read(line.to_owned(), place.to_owned());
                chain.push(read.spelled_alike());
            }
        }
        Ok(chains)
    }

    /// Function and innermost line, as Go's own tool has them.
    fn compare_with_go(&self, addresses: &[u64], ours: &[Vec<FrameName>]) -> Outcome {
        let mut addr2line = command(&self.go);
        addr2line.args(["tool", "addr2line"]).arg(&self.with);
        let listing = output(&mut addr2line, lines(addresses))?;
        let listing: Vec<&str> = listing.lines().collect();
        for ((address, frames), theirs) in addresses.iter().zip(ours).zip(listing.chunks(2)) {
            let read: Vec<Read> = frames.iter().map(Read::of).collect();
            let (Some(Read(function, _)), Some(Read(_, place))) = (read.last(), read.first())
            else {
                return fail(format!("{address:#x}: nothing, not {theirs:?}"));
            };
            if [function, place] != theirs {
                return fail(format!("{address:#x}: {read:?} is not {theirs:?}"));
            }
        }
        Ok(())
    }
}

fn lines(addresses: &[u64]) -> String {
    let lines = addresses.iter().map(|address| format!("{address:#x}\n"));
    lines.collect()
}

/// A function, and `file:line`.
#[derive(Debug, PartialEq)]
struct Read(String, String);

impl Read {
    fn of(frame: &FrameName) -> Self {
        let place = format!("{}:{}", frame.source_file, frame.line);
        Self(frame.name.clone(), place)
    }

    fn is_generated(&self) -> bool {
        self.1 == "<autogenerated>:1"
    }

    /// DWARF, Go's own table and Go's runtime differ in what they leave out: which
    /// of two calling conventions a function has, and what is between brackets.
    fn spelled_alike(&self) -> Self {
        let mut name = String::new();
        let mut depth = 0;
        for letter in self.0.trim_end_matches(".abi0").chars() {
            depth -= i32::from(letter == ']');
            if depth == 0 {
                name.push(letter);
            }
            depth += i32::from(letter == '[');
        }
        Self(name, self.1.trim_start_matches("./").to_owned())
    }
}

/// The function of a chain, at the chain's innermost place. DWARF knows no more
/// of a function that the compiler made up.
fn outermost(mut chain: Vec<Read>) -> Vec<Read> {
    let innermost = chain.first().map(|read| read.1.clone());
    let function = chain.pop().map(|read| read.0);
    let both = function.zip(innermost);
    both.map(|(name, place)| Read(name, place))
        .into_iter()
        .collect()
}

/// Our frames at virtual addresses.
fn frames(program: &Path, addresses: &[u64]) -> Result<Vec<Vec<FrameName>>, Stop> {
    let file = pin(program)?;
    // All code is in one segment.
    let first = addresses.first().copied().unwrap_or_default();
    let first_offset = file_offset(program, first)?;
    let offset = |address: &u64| address.wrapping_sub(first).wrapping_add(first_offset);
    let offsets: Vec<u64> = addresses.iter().map(offset).collect();
    let names = names_of(in_file(&file, &offsets))?;
    let place = Place::File(file).key();
    let answers = offsets.iter().map(|offset| names.get(&place, *offset));
    Ok(answers
        .map(|answer| answer.map(|frames| frames.to_vec()).unwrap_or_default())
        .collect())
}

/// A stripped program says what its runtime makes of its own stack, a line for
/// each frame: `address function file:line`. An inlined function has an address
/// of its own, and so has the one that it was inlined into.
fn callers(go: &Path) -> Outcome {
    let dir = TempDir::new()?;
    fs::write(dir.path().join("source.go"), CALLERS)?;
    let program = build(go, dir.path(), "callers", &PLAIN, "-s -w")?;
    let said = output(&mut Command::new(&program), String::new())?;
    let (mut addresses, mut stack) = (Vec::new(), Vec::new());
    for line in said.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [address, function, place] = fields[..] else {
            return fail(format!("it says {line:?}"));
        };
        addresses.push(u64::from_str_radix(address, 16)?);
        stack.push(Read(function.to_owned(), place.to_owned()));
    }
    let mut deepest = 0;
    for (at, frames) in frames(&program, &addresses)?.iter().enumerate() {
        let read: Vec<Read> = frames.iter().map(Read::of).collect();
        let theirs = stack.get(at..at + read.len()).unwrap_or_default();
        let spelled = |reads: &[Read]| reads.iter().map(Read::spelled_alike).collect::<Vec<_>>();
        if read.is_empty() || spelled(&read) != spelled(theirs) {
            return fail(format!("{:#x}: {read:?} is not {theirs:?}", addresses[at]));
        }
        deepest = deepest.max(read.len());
    }
    if deepest < 4 {
        return fail(format!("at most {deepest} frames at an address"));
    }
    Ok(())
}
