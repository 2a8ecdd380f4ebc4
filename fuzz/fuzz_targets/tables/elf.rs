//! An ELF file, written out: `Elf64_Ehdr`, program headers, contents, section
//! headers.

use std::ops::Range;

use object::elf::{
    EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, PT_INTERP, PT_NULL, SHT_STRTAB,
};

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// Room for as many; those not used are null.
const PROGRAM_HEADERS: usize = 5;
const SECTION_HEADER_BYTES: usize = 64;

/// A file in the making.
pub struct Elf {
    file: Vec<u8>,
    segments: usize,
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
        file.extend((HEADER_BYTES as u64).to_le_bytes());
        // e_shoff, e_flags
        file.extend([0; 12]);
        for half in [
            HEADER_BYTES,
            PROGRAM_HEADER_BYTES,
            PROGRAM_HEADERS,
            SECTION_HEADER_BYTES,
            0,
            0,
        ] {
            file.extend((half as u16).to_le_bytes());
        }
        file.resize(HEADER_BYTES + PROGRAM_HEADERS * PROGRAM_HEADER_BYTES, 0);
        let mut elf = Self {
            file,
            segments: 0,
            sections: Vec::new(),
            names: Vec::new(),
        };
        elf.segment(if program { PT_INTERP } else { PT_NULL }, 0, 0, &(0..0));
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
        let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
        for word in [offset, address, address, bytes, bytes, 1] {
            header.extend(word.to_le_bytes());
        }
        let at = HEADER_BYTES + self.segments * PROGRAM_HEADER_BYTES;
        self.file[at..at + PROGRAM_HEADER_BYTES].copy_from_slice(&header);
        self.segments += 1;
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

    /// The file, with the section headers if there are any.
    pub fn finish(mut self) -> Vec<u8> {
        if self.sections.is_empty() {
            return self.file;
        }
        let names = [&self.names, &b".shstrtab\0"[..]].concat();
        let place = self.contents(&names);
        self.section(".shstrtab", SHT_STRTAB, 0, 0, &place);
        let sections = std::mem::take(&mut self.sections);
        // The first is null, and the last has the names.
        let sections = [&[0; SECTION_HEADER_BYTES][..], &sections].concat();
        let place = self.contents(&sections);
        let count = sections.len() / SECTION_HEADER_BYTES;
        self.file[0x28..0x30].copy_from_slice(&(place.start as u64).to_le_bytes());
        self.file[0x3c..0x3e].copy_from_slice(&(count as u16).to_le_bytes());
        self.file[0x3e..0x40].copy_from_slice(&(count as u16 - 1).to_le_bytes());
        self.file
    }
}
