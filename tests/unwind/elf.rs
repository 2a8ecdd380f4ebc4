//! An ELF file, written out: `Elf64_Ehdr`, contents, section headers, program
//! headers.

use std::ops::Range;

use object::elf::{EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, PT_INTERP, SHT_STRTAB};

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const SECTION_HEADER_BYTES: usize = 64;

/// A file in the making.
pub struct Elf {
    file: Vec<u8>,
    segments: Vec<u8>,
    sections: Vec<u8>,
    names: Vec<u8>,
}

impl Elf {
    /// With its header; a program also names an interpreter.
    pub fn new(aarch64: bool, program: bool, entry: u64) -> Self {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        file.resize(16, 0);
        file.extend((if program { ET_EXEC } else { ET_DYN }).to_le_bytes());
        file.extend((if aarch64 { EM_AARCH64 } else { EM_X86_64 }).to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(entry.to_le_bytes());
        // e_phoff, e_shoff, e_flags
        file.extend([0; 20]);
        for half in [HEADER_BYTES, PROGRAM_HEADER_BYTES, 0, SECTION_HEADER_BYTES] {
            file.extend((half as u16).to_le_bytes());
        }
        file.resize(HEADER_BYTES, 0);
        let mut elf = Self {
            file,
            segments: Vec::new(),
            sections: Vec::new(),
            // The first section has no name.
            names: vec![0],
        };
        if program {
            elf.segment(PT_INTERP, 0, 0, &(0..0));
        }
        elf
    }

    /// Adds bytes; where they are.
    pub fn contents(&mut self, bytes: &[u8]) -> Range<usize> {
        self.file.resize(self.file.len().next_multiple_of(8), 0);
        let start = self.file.len();
        self.file.extend(bytes);
        start..self.file.len()
    }

    /// Adds a program header.
    pub fn segment(&mut self, kind: u32, flags: u32, address: u64, contents: &Range<usize>) {
        let [offset, bytes] = [contents.start, contents.len()].map(|number| number as u64);
        self.segments.extend(kind.to_le_bytes());
        self.segments.extend(flags.to_le_bytes());
        for word in [offset, address, address, bytes, bytes, 1] {
            self.segments.extend(word.to_le_bytes());
        }
    }

    /// Adds a section header.
    pub fn section(
        &mut self,
        name: &str,
        kind: u32,
        flags: u32,
        address: u64,
        contents: &Range<usize>,
    ) {
        let name_at = self.names.len() as u32;
        self.names.extend(name.as_bytes());
        self.names.push(0);
        self.sections.extend(name_at.to_le_bytes());
        self.sections.extend(kind.to_le_bytes());
        let [offset, bytes] = [contents.start, contents.len()].map(|number| number as u64);
        // Its link and its extra information are nothing; then alignment and
        // the size of a symbol.
        for word in [flags.into(), address, offset, bytes, 0, 1, 24] {
            self.sections.extend(word.to_le_bytes());
        }
    }

    /// The file, with section headers if there are any.
    pub fn finish(mut self) -> Vec<u8> {
        let segments = std::mem::take(&mut self.segments);
        let place = self.contents(&segments);
        self.put(0x20, &(place.start as u64).to_le_bytes());
        let count = segments.len() / PROGRAM_HEADER_BYTES;
        self.put(0x38, &(count as u16).to_le_bytes());
        if self.sections.is_empty() {
            return self.file;
        }
        let names = [&self.names, &b".shstrtab\0"[..]].concat();
        let place = self.contents(&names);
        self.section(".shstrtab", SHT_STRTAB, 0, 0, &place);
        // The first is null, and the last has the names.
        let sections = [&[0; SECTION_HEADER_BYTES][..], &self.sections].concat();
        let place = self.contents(&sections);
        self.put(0x28, &(place.start as u64).to_le_bytes());
        let count = sections.len() / SECTION_HEADER_BYTES;
        self.put(0x3c, &(count as u16).to_le_bytes());
        self.put(0x3e, &(count as u16 - 1).to_le_bytes());
        self.file
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.file[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
