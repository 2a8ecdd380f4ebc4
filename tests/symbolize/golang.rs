//! Go programs without symbols, compared with what tools say about the same
//! programs with them.
//!
//! Go's linker lays the code out alike with and without symbols. `go tool
//! addr2line` knows functions and innermost lines, `addr2line` of binutils reads
//! the DWARF of the program with symbols and knows the inlined calls too.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use sampler::symbolize::{FrameName, Place, Stats};
use tempfile::TempDir;

use crate::fixture::{file_offset, in_file, names_of, pin};
use crate::tool::{Outcome, Stop, fail, run, trial};

/// Methods, generics, closures, calls inlined into calls, and all of the runtime.
const SOURCE: &str = include_str!("golang.go");

/// Addresses that are looked up in one program, functions of `main` not counted.
const ADDRESSES: u64 = 3000;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("go_without_symbols_reads_as_with_them", || {
            compare_all(&[])
        }),
        trial("go_without_symbols_pie_reads_as_with_them", || {
            compare_all(&["-buildmode=pie"])
        }),
        trial("go_linked_by_another_linker_reads_as_with_symbols", || {
            compare_all(&["-ldflags=-linkmode=external"])
        }),
        trial("go_pie_linked_by_another_linker_reads_as_with_symbols", || {
            compare_all(&["-buildmode=pie", "-ldflags=-linkmode=external"])
        }),
    ]
}

/// The installed Go, and a second one where `SAMPLER_TEST_GO_NEW` names it.
fn gos() -> Vec<PathBuf> {
    let newer = std::env::var_os("SAMPLER_TEST_GO_NEW").map(PathBuf::from);
    [PathBuf::from("go")].into_iter().chain(newer).collect()
}

fn go(go: &Path) -> Command {
    let mut command = Command::new(go);
    command
        .env("GOTOOLCHAIN", "local")
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "");
    command
}

/// What a command prints, this being its input.
fn answer(mut command: Command, input: &str) -> Result<String, Stop> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Stop::Missing(format!("{command:?}: {error}")))?;
    let mut stdin = child.stdin.take().ok_or_else(|| Stop::Failed("no input".into()))?;
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        fail(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A program with its symbols, and what is left of it without.
struct Twins {
    dir: TempDir,
    with: PathBuf,
    without: PathBuf,
}

impl Twins {
    fn build(with_go: &Path, options: &[&str]) -> Result<Self, Stop> {
        let dir = TempDir::new()?;
        let source = dir.path().join("source.go");
        fs::write(&source, SOURCE)?;
        let with = dir.path().join("with");
        let mut command = go(with_go);
        command.arg("build").args(options).arg("-o").args([&with, &source]);
        answer(command, "")?;
        let without = dir.path().join("without");
        let ldflags = options.iter().find_map(|option| option.strip_prefix("-ldflags="));
        let mut command = go(with_go);
        let others = options.iter().filter(|option| !option.starts_with("-ldflags="));
        command
            .arg("build")
            .args(others)
            .arg(format!("-ldflags=-s -w {}", ldflags.unwrap_or_default()))
            .arg("-o")
            .args([&without, &source]);
        answer(command, "")?;
        Ok(Self { dir, with, without })
    }
}

/// Functions of Go's, by start, with their ends.
fn functions(with_go: &Path, program: &Path) -> Result<Vec<(u64, u64, String)>, Stop> {
    let mut command = go(with_go);
    command.args(["tool", "nm", "-n", "-size"]).arg(program);
    let listing = answer(command, "")?;
    let functions = listing.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let start = u64::from_str_radix(fields.next()?, 16).ok()?;
        let bytes: u64 = fields.next()?.parse().ok()?;
        let is_code = matches!(fields.next()?, "t" | "T");
        let name: Vec<&str> = fields.collect();
        let name = name.join(" ");
        (is_code && bytes > 0 && name.contains('.')).then_some((start, start + bytes, name))
    });
    Ok(functions.collect())
}

fn compare_all(options: &[&str]) -> Outcome {
    for with_go in gos() {
        let twins = Twins::build(&with_go, options)?;
        let functions = functions(&with_go, &twins.with)?;
        let code_bytes: u64 = functions.iter().map(|(start, end, _)| end - start).sum();
        let step = (code_bytes / ADDRESSES).max(1) | 1;
        let mut addresses = Vec::new();
        let mut next = 0;
        for (start, end, name) in &functions {
            if name.starts_with("main.") {
                addresses.extend(*start..*end);
            } else {
                next = next.max(*start);
                while next < *end {
                    addresses.push(next);
                    next += step;
                }
            }
        }
        compare(&with_go, &twins, &addresses)?;
    }
    Ok(())
}

fn compare(with_go: &Path, twins: &Twins, addresses: &[u64]) -> Outcome {
    let ours = frames(&twins.without, addresses)?;
    let asked: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let mut command = go(with_go);
    command.args(["tool", "addr2line"]).arg(&twins.with);
    let theirs = answer(command, &asked)?;
    let theirs: Vec<&str> = theirs.lines().collect();
    let mut command = Command::new("addr2line");
    command.arg("-afie").arg(&twins.with);
    let dwarf = answer(command, &asked)?;
    let dwarf = chains(&dwarf);
    let (mut bad, mut bad_chain, mut inl) = (0, 0, 0);
    for (at, address) in addresses.iter().enumerate() {
        let o = &ours[at];
        let outer = o.last().map_or("", |f| &f.name);
        let inner = o.first().map_or_else(|| "?:0".into(), |f| format!("{}:{}", f.source_file, f.line));
        if outer != theirs[2 * at] || inner != theirs[2 * at + 1] {
            bad += 1;
            if bad < 10 {
                println!("{address:#x} {outer} {inner} != {} {}", theirs[2 * at], theirs[2 * at + 1]);
            }
        }
        let chain: Vec<(String, String)> = o.iter().map(|f| (f.name.clone(), format!("{}:{}", f.source_file, f.line))).collect();
        inl += usize::from(chain.len() > 1);
        if dwarf.get(address) != Some(&chain) {
            bad_chain += 1;
            if bad_chain < 10 {
                println!("{address:#x} {chain:?} != {:?}", dwarf.get(address));
            }
        }
    }
    println!("{} of {} bad, {} chains, {} inlined", bad, addresses.len(), bad_chain, inl);
    let _ = twins.dir;
    Ok(())
}

fn chains(listing: &str) -> BTreeMap<u64, Vec<(String, String)>> {
    let mut chains = BTreeMap::new();
    let mut at = 0;
    let mut name = None;
    for line in listing.lines() {
        if let Some(address) = line.strip_prefix("0x") {
            at = u64::from_str_radix(address, 16).unwrap_or(0);
            name = None;
        } else if let Some(name) = name.take() {
            let place = line.split(" (discr").next().unwrap_or("").to_owned();
            chains.entry(at).or_insert_with(Vec::new).push((name, place));
        } else {
            name = Some(line.to_owned());
        }
    }
    chains
}

/// Our frames at virtual addresses.
fn frames(program: &Path, addresses: &[u64]) -> Result<Vec<Vec<FrameName>>, Stop> {
    let file = pin(program)?;
    let first = addresses[0];
    let to_offset = file_offset(program, first)?.wrapping_sub(first);
    let offsets: Vec<u64> = addresses.iter().map(|a| a.wrapping_add(to_offset)).collect();
    let names = names_of(in_file(&file, &offsets))?;
    let place = Place::File(file).key();
    Ok(offsets.iter().map(|o| names.get(&place, *o).map(|a| a.to_vec()).unwrap_or_default()).collect())
}
