//! A first look at an ELF file: what may the real parser be shown?
//!
//! The parser trusts a file in ways that a hostile one can use: it opens the
//! other files that this one names, it inflates compressed sections as far as
//! they go, and it sorts symbol tables of any size, though a hole of many GiB
//! costs their maker nothing. All of it is found out here.
//!
//! Of the files that are named, none is there in a child without rights but
//! those that it was handed. So a link is harmless unless it names one of them.

use std::ops::Range;

use crate::object::{BuildId, FileOffset, build_id_of_notes};

use super::headers::{
    ElfError, Header, ReadAt, SECTION_COMPRESSED, SECTION_NO_BITS, SECTION_NOTE, Section, Segment,
};
use super::inflation::{Allowance, Inflated};
use super::symbol_rows::{SymbolLayout, SymbolRows, SymbolTables};

/// Notes are tens of bytes; more than this is not read.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// The largest symbol table: five million symbols of 24 bytes, more than a
/// browser has.
const MAX_SYMBOL_TABLE_BYTES: u64 = 128 << 20;
/// The largest string table of symbols.
const MAX_STRING_TABLE_BYTES: u64 = 512 << 20;
/// The most DWARF that a file may hold as it is. It is mapped and not copied.
const MAX_DEBUG_BYTES: u64 = 4 << 30;
/// Sections up to here may be holes: they are read in no time.
const MAX_HOLE_BYTES: u64 = 1 << 20;

const SEGMENT_LOAD: u64 = 1;
const SEGMENT_EXECUTABLE: u64 = 1;
const SECTION_EXECUTABLE: u64 = 4;

/// What the headers of an ELF file say, as far as symbolization cares.
#[derive(Debug, Default)]
pub(super) struct Image {
    code: Vec<Segment>,
    code_sections: Vec<Range<u64>>,
    /// It carries DWARF itself.
    pub has_debug_info: bool,
    /// Its DWARF is of a size that the parser may be shown, and leads to no file that
    /// a child was handed. Of what is compressed, that shows when it is
    /// [inflated](Self::inflate).
    pub debug_info_is_harmless: bool,
    /// Those that are compressed, and were not inflated so far.
    compressed: Vec<Section>,
    /// What its compressed sections inflate to.
    pub inflated: Inflated,
    /// Its DWARF, as it lies in the file.
    pub debug_bytes: u64,
    /// Its symbol tables, as they lie in the file.
    symbol_table_bytes: u64,
    symbol_tables: SymbolTables,
    /// Some of its DWARF lies in another file, which is not read.
    pub has_supplement: bool,
    /// The name in `.gnu_debuglink`, if it has one.
    pub debug_link: Option<Vec<u8>>,
    /// Its GNU build ID.
    pub build_id: Option<BuildId>,
}

impl Image {
    /// The DWARF that the parser may be shown.
    pub(super) fn has_usable_debug_info(&self) -> bool {
        self.has_debug_info && self.debug_info_is_harmless
    }

    /// Whether it holds compressed sections that are to be inflated.
    pub(super) fn is_compressed(&self) -> bool {
        !self.compressed.is_empty()
    }

    /// Inflates what is compressed, of the same file, as the parser will: there has to
    /// be as much as it says, and not too much.
    pub(super) fn inflate(
        &mut self,
        file: &(impl ReadAt + ?Sized),
        allowance: &mut Allowance,
    ) -> Result<(), ElfError> {
        let header = Header::read(file)?;
        for section in std::mem::take(&mut self.compressed) {
            self.debug_info_is_harmless &=
                self.inflated.add_debug(file, &header, &section, allowance);
            if !self.debug_info_is_harmless {
                // Nobody will inflate them.
                self.inflated.debug_bytes = 0;
                break;
            }
        }
        Ok(())
    }

    /// The most memory that a parser takes for it, mapped files excluded.
    ///
    /// Of `MiniDebugInfo` it holds a copy of the tables besides the inflated
    /// bytes, while it reads them; symbols are sorted in an index of 8 bytes
    /// each, where the table has at least 16.
    pub(super) fn parser_bytes(&self) -> u64 {
        let Inflated {
            debug_bytes,
            symbols_bytes,
        } = self.inflated;
        debug_bytes + 3 * symbols_bytes + self.symbol_table_bytes / 2
    }

    /// Whether the parser may be shown a section, should it be one of those with
    /// symbols. It reads them with or without DWARF.
    fn admit_symbols(
        &mut self,
        file: &(impl ReadAt + ?Sized),
        section: &Section,
        allowance: &mut Allowance,
    ) -> Result<bool, ElfError> {
        let is_within_bounds = match section.name.as_slice() {
            b".symtab" | b".dynsym" => {
                let sum_bytes = self.symbol_table_bytes.saturating_add(section.held_bytes());
                self.symbol_table_bytes = sum_bytes;
                sum_bytes <= MAX_SYMBOL_TABLE_BYTES
            }
            b".strtab" | b".dynstr" => section.held_bytes() <= MAX_STRING_TABLE_BYTES,
            // MiniDebugInfo.
            b".gnu_debugdata" => {
                return Ok(
                    !is_hole(file, section)? && self.inflated.add_symbols(file, section, allowance)
                );
            }
            _ => return Ok(true),
        };
        Ok(is_within_bounds && !is_hole(file, section)?)
    }

    /// The address, as the file's own symbol tables count it, of the code at a
    /// file offset.
    pub(super) fn virtual_address(&self, offset: FileOffset) -> Option<u64> {
        let holds = |segment: &&Segment| segment.file.contains(&offset.0);
        let segment = self.code.iter().find(holds)?;
        segment
            .virtual_start
            .checked_add(offset.0 - segment.file.start)
    }

    /// Notes where a section lies, if it is one of those with symbols; of several
    /// with the same name, the first.
    fn note_symbols(&mut self, section: &Section) -> Result<(), ElfError> {
        let tables = &mut self.symbol_tables;
        let place = match section.name.as_slice() {
            b".symtab" => &mut tables.all.symbols,
            b".strtab" => &mut tables.all.names,
            b".dynsym" => &mut tables.dynamic.symbols,
            b".dynstr" => &mut tables.dynamic.names,
            _ => return Ok(()),
        };
        if place.is_empty() && section.kind != SECTION_NO_BITS {
            *place = section.file_range()?;
        }
        Ok(())
    }

    /// What its own symbol tables say of all of its code; `None` if it is too large
    /// for that.
    pub(super) fn symbol_rows(
        &self,
        file: &(impl ReadAt + ?Sized),
    ) -> Result<Option<SymbolRows>, ElfError> {
        self.symbol_tables
            .rows(file, &self.code, &self.code_sections)
    }

    /// Whether two virtual addresses lie in the same section of code. A symbol
    /// without a size reaches to the end of its section at most: `_init` does
    /// not cover the PLT behind it.
    pub(super) fn is_one_section(&self, one: u64, other: u64) -> bool {
        let holds_both = |section: &Range<u64>| section.contains(&one) && section.contains(&other);
        self.code_sections.is_empty() || self.code_sections.iter().any(holds_both)
    }
}

/// Looks at the headers of an ELF file, and through its `MiniDebugInfo` as far as the
/// allowance goes.
pub(super) fn inspect(
    file: &(impl ReadAt + ?Sized),
    allowance: &mut Allowance,
) -> Result<Image, ElfError> {
    let header = Header::read(file)?;
    let mut image = Image {
        code: header.segments(file)?,
        symbol_tables: SymbolTables {
            layout: if header.wide {
                SymbolLayout::Wide
            } else {
                SymbolLayout::Narrow
            },
            ..SymbolTables::default()
        },
        debug_info_is_harmless: true,
        ..Image::default()
    };
    image
        .code
        .retain(|segment| segment.kind == SEGMENT_LOAD && segment.flags & SEGMENT_EXECUTABLE != 0);

    let mut left_debug_bytes = MAX_DEBUG_BYTES;
    for section in header.sections(file)? {
        if !image.admit_symbols(file, &section, allowance)? {
            return Err(ElfError::SymbolsTooLarge);
        }
        image.note_symbols(&section)?;
        match section.name.as_slice() {
            b".gnu_debugaltlink" | b".debug_sup" => {
                let link = section.content(file, MAX_NOTE_BYTES)?;
                image.debug_info_is_harmless &= !names_descriptor(&link);
                image.has_supplement = true;
            }
            b".gnu_debuglink" => {
                let link = until_nul(section.content(file, MAX_NOTE_BYTES)?);
                image.debug_info_is_harmless &= !names_descriptor(&link);
                image.debug_link = Some(link);
            }
            name if name.starts_with(b".debug_") => {
                image.has_debug_info |= name == b".debug_info" && section.kind != SECTION_NO_BITS;
                image.debug_bytes = image.debug_bytes.saturating_add(section.held_bytes());
                let left_bytes = left_debug_bytes.checked_sub(section.held_bytes());
                left_debug_bytes = left_bytes.unwrap_or(0);
                image.debug_info_is_harmless &= left_bytes.is_some() && !is_hole(file, &section)?;
            }
            _ => {}
        }
        if section.flags & SECTION_EXECUTABLE != 0 {
            image.code_sections.push(section.virtual_range());
        }
        if section.kind == SECTION_NOTE && image.build_id.is_none() {
            // A note section too large to be one holds no build ID.
            let notes = section.content(file, MAX_NOTE_BYTES).unwrap_or_default();
            image.build_id = build_id_of_notes(&notes);
        }
        if section.flags & SECTION_COMPRESSED != 0 {
            image.compressed.push(section);
        }
    }
    if !image.debug_info_is_harmless {
        // Nobody will inflate them.
        image.compressed.clear();
    }
    Ok(image)
}

/// Whether a section is large for nothing: more than half of it is not in the
/// file. Blocks on disk would not tell, since some file systems compress.
fn is_hole(file: &(impl ReadAt + ?Sized), section: &Section) -> Result<bool, ElfError> {
    if section.held_bytes() <= MAX_HOLE_BYTES {
        return Ok(false);
    }
    let least_bytes = section.held_bytes() / 2;
    Ok(!file.holds_data(section.file_range()?, least_bytes))
}

/// Whether a link could lead to a file that a child was handed: by the whole path
/// of its descriptor, or by the number where the parser looks beside one.
fn names_descriptor(link: &[u8]) -> bool {
    let directory = b"/proc/";
    let holds_directory = link.windows(directory.len()).any(|part| part == directory);
    holds_directory || link.iter().all(u8::is_ascii_digit)
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|byte| *byte == 0);
    text.truncate(end.unwrap_or(text.len()));
    text
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::io::Write as _;

    use super::super::headers::word;
    use super::*;

    fn inspect(file: &[u8]) -> Result<Image, ElfError> {
        inspect_with(file, &mut Allowance::default())
    }

    fn inspect_with(file: &[u8], allowance: &mut Allowance) -> Result<Image, ElfError> {
        let mut image = super::inspect(file, allowance)?;
        image.inflate(file, allowance)?;
        Ok(image)
    }

    /// A 64-bit library: one executable segment (file 0x1000.. at 0x401000) and
    /// the given sections (name, type, flags, content).
    pub(in super::super) fn library(sections: &[(&str, u32, u64, Vec<u8>)]) -> Vec<u8> {
        let mut names = vec![0];
        let mut content = Vec::new();
        let content_start = 64 + 56;
        let mut table = vec![0; 64];
        let mut push = |name: &str, kind: u32, flags: u64, bytes: &[u8], names: &mut Vec<u8>| {
            let mut entry = Vec::new();
            entry.extend((names.len() as u32).to_le_bytes());
            entry.extend(kind.to_le_bytes());
            entry.extend(flags.to_le_bytes());
            entry.extend(0u64.to_le_bytes());
            entry.extend((content_start + content.len() as u64).to_le_bytes());
            names.extend(name.as_bytes());
            names.push(0);
            let bytes = if kind == 3 {
                names.clone()
            } else {
                bytes.to_vec()
            };
            entry.extend((bytes.len() as u64).to_le_bytes());
            entry.resize(64, 0);
            content.extend(bytes);
            table.extend(entry);
        };
        for (name, kind, flags, bytes) in sections {
            push(name, *kind, *flags, bytes, &mut names);
        }
        push(".shstrtab", 3, 0, &[], &mut names);

        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend(3u16.to_le_bytes());
        file.resize(32, 0);
        file.extend(64u64.to_le_bytes());
        file.extend((content_start + content.len() as u64).to_le_bytes());
        file.resize(54, 0);
        let section_count = sections.len() as u16 + 2;
        for value in [56, 1, 64, section_count, section_count - 1] {
            file.extend(value.to_le_bytes());
        }
        file.extend(1u32.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        for value in [0x1000u64, 0x40_1000, 0x40_1000, 0x800, 0x800, 0x1000] {
            file.extend(value.to_le_bytes());
        }
        file.extend(content);
        file.extend(table);
        file
    }

    pub(in super::super) fn zlib_section(content: &[u8], promised_bytes: u64) -> Vec<u8> {
        let mut section = 1u64.to_le_bytes().to_vec();
        section.extend(promised_bytes.to_le_bytes());
        section.extend(1u64.to_le_bytes());
        let mut encoder = flate2::write::ZlibEncoder::new(section, flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn code_is_found_at_its_virtual_address() {
        let image = inspect(&library(&[])).unwrap();
        assert_eq!(image.virtual_address(FileOffset(0x1010)), Some(0x40_1010));
        assert_eq!(image.virtual_address(FileOffset(0x1800)), None);
        assert_eq!(image.virtual_address(FileOffset(0xfff)), None);
    }

    /// What the headers say of a library with DWARF and such a link.
    fn linked(name: &str, link: &[u8]) -> Image {
        let debug_info = (".debug_info", 1, 0, vec![0; 8]);
        inspect(&library(&[debug_info, (name, 1, 0, link.to_vec())])).unwrap()
    }

    #[test]
    fn a_link_to_another_file_is_seen_and_harmless() {
        let image = linked(".gnu_debuglink", b"../evil\0\0\0\0\0");
        assert!(image.has_usable_debug_info() && !image.has_supplement);
        assert_eq!(image.debug_link.unwrap(), b"../evil");
        for name in [".gnu_debugaltlink", ".debug_sup"] {
            let image = linked(name, b"\x05\0\0/usr/lib/debug/.dwz/common\0\x01\x02");
            assert!(
                image.has_usable_debug_info() && image.has_supplement,
                "{name}"
            );
        }
    }

    #[test]
    fn a_link_to_what_a_child_was_handed_rules_the_dwarf_out() {
        for (name, link) in [
            (".gnu_debuglink", &b"/proc/self/fd/3\0\x01\x02\x03\x04"[..]),
            (".gnu_debuglink", b"3\0\0\0\x01\x02\x03\x04"),
            (".gnu_debugaltlink", b"/proc/self/fd/3\0\x01\x02"),
            (".debug_sup", b"\x05\0\0/proc/self/fd/3\0\x01\x02"),
        ] {
            assert!(!linked(name, link).has_usable_debug_info(), "{name}");
        }
    }

    #[test]
    fn the_build_id_is_the_gnu_note() {
        let mut notes = Vec::new();
        for (name, kind, descriptor) in [(b"ABCD", 3u32, 1u8), (b"GNU\0", 1, 2), (b"GNU\0", 3, 9)] {
            notes.extend([4u32.to_le_bytes(), 4u32.to_le_bytes(), kind.to_le_bytes()].concat());
            notes.extend(name);
            notes.extend([descriptor; 4]);
        }
        let image = inspect(&library(&[(".note", 7, 0, notes)])).unwrap();
        assert_eq!(image.build_id.unwrap().to_string(), "09090909");
    }

    #[test]
    fn a_compressed_section_must_be_as_large_as_it_says() {
        for (promised_bytes, fine) in [(1000, true), (999, false), (u64::MAX, false)] {
            let section = zlib_section(&[7; 1000], promised_bytes);
            let file = library(&[(".debug_info", 1, SECTION_COMPRESSED, section)]);
            let image = inspect(&file).unwrap();
            assert!(image.has_debug_info);
            assert_eq!(image.has_usable_debug_info(), fine, "{promised_bytes}");
        }
    }

    /// A file that holds `held` and then nothing but a hole.
    struct Sparse {
        held: Vec<u8>,
    }

    impl ReadAt for Sparse {
        fn fill(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            for (at, byte) in (offset..).zip(buffer) {
                *byte = self.held.get(at as usize).copied().unwrap_or(0);
            }
            Ok(())
        }

        fn holds_data(&self, range: Range<u64>, least_bytes: u64) -> bool {
            let held_bytes = (self.held.len() as u64).min(range.end);
            held_bytes.saturating_sub(range.start) >= least_bytes
        }
    }

    /// The library whose first section claims to be so large.
    fn claims(name: &str, size_bytes: u64) -> Vec<u8> {
        let mut file = library(&[(name, 1, 0, vec![1; 16])]);
        let table = word(&file, 40, 8) as usize;
        file[table + 64 + 32..table + 64 + 40].copy_from_slice(&size_bytes.to_le_bytes());
        file
    }

    #[test]
    fn a_table_that_is_a_hole_is_not_shown_to_the_parser() {
        let look = |name, size_bytes| {
            let held = claims(name, size_bytes);
            super::inspect(&Sparse { held }, &mut Allowance::default())
        };
        for name in [".symtab", ".dynsym", ".strtab", ".dynstr", ".gnu_debugdata"] {
            let refused = matches!(look(name, 2 << 20), Err(ElfError::SymbolsTooLarge));
            assert!(refused, "{name}");
        }
        for name in [".debug_info", ".debug_str"] {
            assert!(
                !look(name, 2 << 20).unwrap().debug_info_is_harmless,
                "{name}"
            );
        }
        assert!(look(".symtab", 1 << 20).is_ok());
        assert!(look(".data", 12 << 30).is_ok());
    }

    #[test]
    fn tables_larger_than_any_program_has_are_refused() {
        for (name, max_bytes) in [
            (".symtab", MAX_SYMBOL_TABLE_BYTES),
            (".strtab", MAX_STRING_TABLE_BYTES),
        ] {
            assert!(inspect(&claims(name, max_bytes)).is_ok(), "{name}");
            let larger = inspect(&claims(name, max_bytes + 1));
            assert!(matches!(larger, Err(ElfError::SymbolsTooLarge)), "{name}");
        }
        for (size_bytes, fine) in [(MAX_DEBUG_BYTES, true), (MAX_DEBUG_BYTES + 1, false)] {
            let image = inspect(&claims(".debug_info", size_bytes)).unwrap();
            assert_eq!(image.has_usable_debug_info(), fine);
        }
    }

    #[test]
    fn two_tables_do_not_get_twice_the_room() {
        let section = zlib_section(&[0; 600], 600);
        let twice = [".debug_info", ".debug_str"]
            .map(|name| (name, 1, SECTION_COMPRESSED, section.clone()));
        let file = library(&twice);
        for (allowed_bytes, fine) in [(1000, false), (2000, true)] {
            let mut allowance = Allowance::new(allowed_bytes);
            let image = inspect_with(&file, &mut allowance).unwrap();
            assert_eq!(image.has_usable_debug_info(), fine);
            assert_eq!(image.inflated.debug_bytes, if fine { 1200 } else { 0 });
        }
    }

    #[test]
    fn broken_mini_debug_info_rules_the_file_out() {
        let file = library(&[(".gnu_debugdata", 1, 0, b"not xz".to_vec())]);
        assert!(matches!(inspect(&file), Err(ElfError::SymbolsTooLarge)));
    }

    #[test]
    fn every_truncation_is_an_error_or_harmless() {
        let file = library(&[(".debug_info", 1, 0, vec![0; 10])]);
        for length in 0..file.len() {
            assert!(inspect(&file[..length]).is_err(), "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            position in 4usize..400, noise in proptest::collection::vec(0u8.., 1..64)
        ) {
            let mut file = library(&[(".note", 7, 0, vec![0; 40]), (".debug_info", 1, 0, vec![])]);
            let end = (position + noise.len()).min(file.len());
            let position = position.min(end);
            file[position..end].copy_from_slice(&noise[..end - position]);
            let _ = inspect(&file);
        }
    }
}
