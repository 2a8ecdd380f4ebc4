//! The build ID of an ELF file.
//!
//! Layouts: the System V ABI, "ELF Header", "Sections", "Note Section", "Program
//! Header".
//! Only little-endian files are read: the profiler runs on nothing else.

use std::io;

use super::BuildId;

/// Program headers looked at; linkers write a dozen.
const MAX_PROGRAM_HEADERS: usize = 256;
/// Section headers looked at; linkers write tens.
const MAX_SECTION_HEADERS: usize = 1024;
/// Bytes read of one segment or section of notes; a build ID is among the first.
const MAX_NOTE_BYTES: usize = 64 << 10;
/// Segments of notes read per file, and sections.
const MAX_NOTES: usize = 16;
/// The longest identifier accepted; linkers write 8, 16, 20 or 32 bytes.
const MAX_BUILD_ID_BYTES: usize = 64;

const PT_NOTE: u32 = 4;
const SHT_NOTE: u32 = 7;
const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";

/// Finds the build ID of the ELF file that `read_at` reads.
///
/// `read_at(offset, buffer)` behaves as `pread`: it may read less than asked
/// and returns how much. Whatever is wrong with the file, it has no build ID.
/// At most 16 note segments and as many note sections are read, and 64 KiB of
/// each.
pub fn find_build_id(
    mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> Option<BuildId> {
    let header = read_up_to(&mut read_at, 0, 64)?;
    let class = Class::of(&header)?;
    // A debug file made by elfutils has the program headers of the program, and
    // its notes are elsewhere.
    [Table::segments(class), Table::sections(class)]
        .iter()
        .find_map(|table| table.find_build_id(class, &header, &mut read_at))
}

/// A table of headers, and where in an ELF header and in its entries the fields
/// are that matter.
struct Table {
    /// Of the table, in the ELF header.
    offset: usize,
    entry_bytes: usize,
    entries: usize,
    expected_entry_bytes: usize,
    max_entries: usize,
    /// The type of an entry, and that of notes.
    kind: usize,
    note: u32,
    /// Of the notes, in an entry.
    notes_offset: usize,
    notes_bytes: usize,
    notes_align: usize,
}

impl Table {
    fn segments(class: Class) -> Self {
        Self {
            offset: class.pick(28, 32),
            entry_bytes: class.pick(42, 54),
            entries: class.pick(44, 56),
            expected_entry_bytes: class.pick(32, 56),
            max_entries: MAX_PROGRAM_HEADERS,
            kind: 0,
            note: PT_NOTE,
            notes_offset: class.pick(4, 8),
            notes_bytes: class.pick(16, 32),
            notes_align: class.pick(28, 48),
        }
    }

    fn sections(class: Class) -> Self {
        Self {
            offset: class.pick(32, 40),
            entry_bytes: class.pick(46, 58),
            entries: class.pick(48, 60),
            expected_entry_bytes: class.pick(40, 64),
            max_entries: MAX_SECTION_HEADERS,
            kind: 4,
            note: SHT_NOTE,
            notes_offset: class.pick(16, 24),
            notes_bytes: class.pick(20, 32),
            notes_align: class.pick(32, 48),
        }
    }

    fn find_build_id(
        &self,
        class: Class,
        header: &[u8],
        read_at: &mut impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    ) -> Option<BuildId> {
        let offset = class.word(header, self.offset)?;
        let entry_bytes = usize::from(u16_at(header, self.entry_bytes)?);
        let entries = usize::from(u16_at(header, self.entries)?).min(self.max_entries);
        if entry_bytes != self.expected_entry_bytes {
            return None;
        }
        let table = read_up_to(read_at, offset, entries * entry_bytes)?;
        table
            .chunks_exact(entry_bytes)
            .filter(|entry| u32_at(entry, self.kind) == Some(self.note))
            .take(MAX_NOTES)
            .find_map(|entry| {
                let offset = class.word(entry, self.notes_offset)?;
                let size_bytes = class.word(entry, self.notes_bytes)?;
                let align = class.word(entry, self.notes_align)?;
                let size_bytes = usize::try_from(size_bytes)
                    .unwrap_or(usize::MAX)
                    .min(MAX_NOTE_BYTES);
                let notes = read_up_to(read_at, offset, size_bytes)?;
                build_id_in_notes(&notes, if align == 8 { 8 } else { 4 })
            })
    }
}

/// The build ID among notes that are padded to 4 bytes: the running kernel's in
/// `/sys/kernel/notes`, and those of a section for it.
pub fn build_id_of_notes(notes: &[u8]) -> Option<BuildId> {
    build_id_in_notes(notes, 4)
}

/// The build ID among notes whose parts are padded to `align` bytes.
pub fn build_id_in_notes(mut notes: &[u8], align: usize) -> Option<BuildId> {
    loop {
        let name_bytes = u32_at(notes, 0)? as usize;
        let content_bytes = u32_at(notes, 4)? as usize;
        let kind = u32_at(notes, 8)?;
        let name_end = 12_usize.checked_add(name_bytes)?;
        let content_start = name_end.checked_next_multiple_of(align)?;
        let content_end = content_start.checked_add(content_bytes)?;
        let name = notes.get(12..name_end)?;
        let content = notes.get(content_start..content_end)?;
        if kind == NT_GNU_BUILD_ID && name == GNU {
            return (1..=MAX_BUILD_ID_BYTES)
                .contains(&content.len())
                .then(|| BuildId(content.into()));
        }
        notes = notes.get(content_end.checked_next_multiple_of(align)?..)?;
    }
}

/// The two shapes of an ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Bits32,
    Bits64,
}

impl Class {
    /// Of a little-endian ELF header; nothing for anything else.
    pub(super) fn of(header: &[u8]) -> Option<Self> {
        match header.get(..6)? {
            [0x7f, b'E', b'L', b'F', 1, 1] => Some(Self::Bits32),
            [0x7f, b'E', b'L', b'F', 2, 1] => Some(Self::Bits64),
            _ => None,
        }
    }

    /// The offset of a field, which differs between the two.
    pub(super) fn pick(self, in_32: usize, in_64: usize) -> usize {
        match self {
            Self::Bits32 => in_32,
            Self::Bits64 => in_64,
        }
    }

    /// An address-sized field.
    pub(super) fn word(self, bytes: &[u8], at: usize) -> Option<u64> {
        match self {
            Self::Bits32 => u32_at(bytes, at).map(u64::from),
            Self::Bits64 => Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?)),
        }
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads up to `bytes` from `offset`: less where the file ends before.
pub(super) fn read_up_to(
    read_at: &mut impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    offset: u64,
    bytes: usize,
) -> Option<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        let at = offset.checked_add(filled as u64)?;
        match read_at(at, &mut buffer[filled..]) {
            Ok(0) => break,
            // A reader that claims more than it was given room for is cut.
            Ok(read) => filled = (filled + read).min(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    buffer.truncate(filled);
    Some(buffer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    fn in_bytes(file: &[u8]) -> Option<BuildId> {
        find_build_id(|offset, buffer| {
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|offset| file.get(offset..))
                .unwrap_or_default();
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        })
    }

    fn note(name: &[u8], kind: u32, content: &[u8], align: usize) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend((name.len() as u32).to_le_bytes());
        note.extend((content.len() as u32).to_le_bytes());
        note.extend(kind.to_le_bytes());
        note.extend(name);
        note.resize(note.len().next_multiple_of(align), 0);
        note.extend(content);
        note.resize(note.len().next_multiple_of(align), 0);
        note
    }

    /// A 64-bit file: header, one program header, the notes.
    fn elf64(notes: &[u8], align: u64) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        file.resize(64, 0);
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        let mut entry = vec![0; 56];
        entry[..4].copy_from_slice(&PT_NOTE.to_le_bytes());
        entry[8..16].copy_from_slice(&120_u64.to_le_bytes());
        entry[32..40].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        entry[48..56].copy_from_slice(&align.to_le_bytes());
        file.extend(entry);
        file.extend(notes);
        file
    }

    /// A 32-bit file: header, one program header, the notes.
    fn elf32(notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1];
        file.resize(52, 0);
        file[28..32].copy_from_slice(&52_u32.to_le_bytes());
        file[42..44].copy_from_slice(&32_u16.to_le_bytes());
        file[44..46].copy_from_slice(&1_u16.to_le_bytes());
        let mut entry = vec![0; 32];
        entry[..4].copy_from_slice(&PT_NOTE.to_le_bytes());
        entry[4..8].copy_from_slice(&84_u32.to_le_bytes());
        entry[16..20].copy_from_slice(&(notes.len() as u32).to_le_bytes());
        entry[28..32].copy_from_slice(&4_u32.to_le_bytes());
        file.extend(entry);
        file.extend(notes);
        file
    }

    #[test]
    fn the_build_id_stands_behind_other_notes() {
        let mut notes = note(b"GNU\0", 1, &[0; 16], 4);
        notes.extend(note(b"Go\0\0", NT_GNU_BUILD_ID, b"not this one", 4));
        notes.extend(note(GNU, NT_GNU_BUILD_ID, &[0xab, 0xcd, 0xef], 4));
        assert_eq!(in_bytes(&elf64(&notes, 4)).unwrap().to_string(), "abcdef");
        assert_eq!(in_bytes(&elf32(&notes)).unwrap().to_string(), "abcdef");
    }

    /// As elfutils write debug files: the program headers are the program's and
    /// lead nowhere, the section headers lead to the notes.
    #[test]
    fn the_sections_have_it_where_the_segments_do_not() {
        let notes = note(GNU, NT_GNU_BUILD_ID, &[7; 20], 4);
        let mut file = elf64(&notes, 4);
        file[72..80].copy_from_slice(&4000_u64.to_le_bytes());
        assert_eq!(in_bytes(&file), None);
        let table_offset = file.len() as u64;
        file[40..48].copy_from_slice(&table_offset.to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&1_u16.to_le_bytes());
        let mut entry = vec![0; 64];
        entry[4..8].copy_from_slice(&SHT_NOTE.to_le_bytes());
        entry[24..32].copy_from_slice(&120_u64.to_le_bytes());
        entry[32..40].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        entry[48..56].copy_from_slice(&4_u64.to_le_bytes());
        file.extend(entry);
        assert_eq!(in_bytes(&file), Some(BuildId([7; 20].into())));
    }

    #[test]
    fn notes_aligned_to_eight_bytes_are_followed() {
        let mut notes = note(GNU, 5, &[1; 12], 8);
        notes.extend(note(GNU, NT_GNU_BUILD_ID, &[7; 20], 8));
        assert_eq!(in_bytes(&elf64(&notes, 8)), Some(BuildId([7; 20].into())));
    }

    #[test]
    fn sizes_that_lie_cost_the_build_id_only() {
        let mut huge = note(GNU, NT_GNU_BUILD_ID, &[1; 20], 4);
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(in_bytes(&elf64(&huge, 4)), None);

        let long = note(GNU, NT_GNU_BUILD_ID, &[1; 65], 4);
        assert_eq!(in_bytes(&elf64(&long, 4)), None);

        let mut file = elf64(&note(GNU, NT_GNU_BUILD_ID, &[1; 20], 4), 4);
        file[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(in_bytes(&file), None);
    }

    #[test]
    fn a_text_file_has_none() {
        assert_eq!(in_bytes(b"#!/bin/sh\nexit 0\n"), None);
        assert_eq!(in_bytes(b""), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            in_bytes(&bytes);
        }

        #[test]
        fn no_notes_make_it_panic(
            notes in proptest::collection::vec(any::<u8>(), 0..512),
            flips in proptest::collection::vec((0..120_usize, any::<u8>()), 0..4),
        ) {
            let mut file = elf64(&notes, 4);
            for (at, byte) in flips {
                if at >= 6 {
                    file[at] = byte;
                }
            }
            in_bytes(&file);
        }
    }
}
