//! The first inputs of `tables`: small files of this machine, and those that
//! the tests of the walk are made of, whole and as skeletons.

use crate::project;
use anyhow::Result;
use object::{LittleEndian, Object as _, ObjectSection as _, ObjectSegment as _, SegmentFlags};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

use super::Seed;
use crate::fuzz::MAX_INPUT_BYTES;

/// Every Debian has most of them.
const FILES: [&str; 14] = [
    "/bin/cat",
    "/bin/dash",
    "/bin/echo",
    "/bin/grep",
    "/bin/ls",
    "/bin/sed",
    "/bin/true",
    "/lib64/ld-linux-x86-64.so.2",
    "/usr/bin/env",
    "/usr/bin/gcc",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "/usr/lib/x86_64-linux-gnu/libz.so.1",
];

/// The sources of the tests' programs.
const PROGRAMS: &str = "tests/unwind/programs";

/// How the sources are compiled: with either section.
const WAYS: [&[&str]; 3] = [
    &["-O1"],
    &["-O2", "-fno-asynchronous-unwind-tables", "-g"],
    &[
        "-O2",
        "-fno-omit-frame-pointer",
        "-gz=zlib",
        "-g",
        "-Wa,--gdwarf-5",
    ],
];

/// Bytes of each section in a skeleton: small inputs are tried more often.
const SECTION_BYTES: usize = 8 << 10;
/// Bytes of code in a skeleton, as a pattern.
const PATTERN_BYTES: usize = 1 << 10;
/// Words of a stack, two bytes each.
const STACK_BYTES: usize = 128;

/// The first byte of an input: a file as it is, or a skeleton with parts.
const WHOLE: u8 = 0;
const SKELETON: u8 = 1;
const AARCH64: u8 = 1 << 1;
const HEADERLESS: u8 = 1 << 2;
const PROGRAM: u8 = 1 << 3;
const TWICE: u8 = 1 << 5;

/// The seeds.
pub fn seeds(root: &Path) -> Result<Vec<Seed>> {
    let scratch = TempDir::new()?;
    let mut paths: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    paths.extend(compiled(&root.join(PROGRAMS), scratch.path())?);
    let mut seeds = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let Ok(file) = fs::read(path) else { continue };
        let of_file = of_file(&file).into_iter();
        seeds.extend(of_file.map(|(kind, bytes)| Seed {
            name: format!("{number}-{kind}"),
            bytes,
        }));
    }
    Ok(seeds)
}

/// The tests' programs, as shared libraries: they need not be whole.
fn compiled(sources: &Path, scratch: &Path) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let mut sources: Vec<PathBuf> = fs::read_dir(sources)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    sources.sort();
    for source in sources {
        for way in WAYS {
            let out = scratch.join(format!("{}.so", made.len()));
            project::run(
                Command::new("gcc")
                    .args(["-shared", "-fPIC", "-nostdlib", "-w"])
                    .args(way)
                    .arg("-o")
                    .args([&out, &source]),
            )?;
            made.push(out);
        }
    }
    Ok(made)
}

/// The inputs that a file becomes.
fn of_file(file: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    if file.len() < MAX_INPUT_BYTES / 8 {
        seeds.push(("whole", [&[WHOLE], file].concat()));
    }
    for (kind, shape) in [
        ("library", SKELETON),
        ("program", SKELETON | PROGRAM | TWICE),
        ("headerless", SKELETON | HEADERLESS),
        ("aarch64", SKELETON | AARCH64),
    ] {
        seeds.extend(skeleton(file, shape).map(|seed| (kind, seed)));
    }
    seeds
}

/// A file's sections as a skeleton has them: see `Skeleton::of` in the target.
fn skeleton(file: &[u8], shape: u8) -> Option<Vec<u8>> {
    let elf = object::read::elf::ElfFile64::<LittleEndian>::parse(file).ok()?;
    let code = elf.segments().find(|segment| {
        matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0)
    })?;
    let section = |name| {
        let section = elf.section_by_name(name)?;
        let bytes = section.data().ok()?;
        Some((section.address(), &bytes[..bytes.len().min(SECTION_BYTES)]))
    };
    let (eh_frame_at, eh_frame) = section(".eh_frame").unwrap_or_default();
    let (_, debug_frame) = section(".debug_frame").unwrap_or_default();
    let pattern = code.data().ok()?;
    let pattern = &pattern[..pattern.len().min(PATTERN_BYTES)];
    let stack: Vec<u8> = (0..STACK_BYTES).map(|at| (at * 37) as u8).collect();

    let mut seed = vec![shape];
    seed.extend((code.address() as u32).to_le_bytes());
    seed.extend((eh_frame_at as u32).to_le_bytes());
    seed.extend((code.size() as u32).to_le_bytes());
    seed.extend((pattern.len() as u16).to_le_bytes());
    seed.extend((stack.len() as u16).to_le_bytes());
    seed.extend((eh_frame.len() as u32).to_le_bytes());
    for part in [&stack, pattern, eh_frame, debug_frame] {
        seed.extend(part);
    }
    Some(seed)
}
