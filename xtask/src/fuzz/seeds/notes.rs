//! The first inputs of `notes`: files of this machine up to where their notes
//! are, those notes, and lists of sound ones.

use object::{LittleEndian, Object as _, ObjectSection as _, SectionKind};
use std::fs;

use super::Seed;

const FILES: [&str; 5] = [
    "/bin/true",
    "/bin/grep",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libz.so.1",
    "/lib64/ld-linux-x86-64.so.2",
];
/// Headers, and notes behind them.
const HEAD_BYTES: usize = 4 << 10;

/// The first byte of an input: a file, notes, or what sound notes are made of;
/// and what their parts are padded to.
const FILE: u8 = 0;
const NOTES: u8 = 1;
const SOUND: u8 = 2;
const PADDED_TO_EIGHT: u8 = 4;

/// The seeds.
pub fn seeds() -> Vec<Seed> {
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for path in FILES {
        let Ok(file) = fs::read(path) else { continue };
        let head = &file[..file.len().min(HEAD_BYTES)];
        inputs.push([&[FILE], head].concat());
        inputs.extend(notes(&file).into_iter().flat_map(|notes| {
            [NOTES, NOTES | PADDED_TO_EIGHT].map(|shape| [&[shape], notes.as_slice()].concat())
        }));
    }
    let first = [[1, 0, 4, 0].as_slice(), &[9; 4]].concat();
    let id = [[3, 0, 20, 0].as_slice(), &[7; 20]].concat();
    for shape in [SOUND, SOUND | PADDED_TO_EIGHT] {
        inputs.push([&[shape], first.as_slice(), &id].concat());
    }
    let numbered = inputs.into_iter().enumerate();
    let seed = |(number, bytes): (usize, Vec<u8>)| Seed {
        name: number.to_string(),
        bytes,
    };
    numbered.map(seed).collect()
}

/// Contents of the sections that hold notes.
fn notes(file: &[u8]) -> Vec<Vec<u8>> {
    let Ok(elf) = object::read::elf::ElfFile64::<LittleEndian>::parse(file) else {
        return Vec::new();
    };
    let sections = elf.sections();
    let notes = sections.filter(|section| section.kind() == SectionKind::Note);
    let contents = notes.filter_map(|section| section.data().ok());
    contents.map(<[u8]>::to_vec).collect()
}
