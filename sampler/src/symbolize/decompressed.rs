//! An ELF file as it would be had nobody compressed its debug information.
//!
//! It holds what functions and lines are found by, and the headers of all sections,
//! so that each symbol still lies in the one that it names. Who reads it inflates
//! nothing. Only files of 64 bits with sections have one.

use std::io::{self, Read as _, Write};
use std::ops::Range;

use super::headers::{
    ElfError, Header, ReadAt, SECTION_COMPRESSED, SECTION_NO_BITS, SECTION_NOTE, Section,
};
use super::inflation::{Allowance, Window, inflate_section, promised_bytes};

/// Where parts begin: at multiples of this, as strict as any table in them.
const ALIGNMENT: u64 = 16;
/// What is read at once where there is nothing to inflate.
const STEP_BYTES: u64 = 64 << 10;

/// The sizes of headers, and fields in them: where they are, and how wide.
const HEADER_BYTES: u64 = 64;
const SECTION_BYTES: usize = 64;
const PROGRAM_OFFSET: Range<usize> = 32..40;
const SECTION_OFFSET: Range<usize> = 40..48;
const KIND: Range<usize> = 4..8;
const FLAGS: Range<usize> = 8..16;
const OFFSET: Range<usize> = 24..32;
const SIZE: Range<usize> = 32..40;

/// `SHF_ALLOC`.
const SECTION_ALLOCATED: u64 = 2;

/// DWARF that neither functions nor lines are found by: variables, macros,
/// unwinding, and indexes of names.
const WITHOUT_NAMES: &[&[u8]] = &[
    b".debug_loc",
    b".debug_loclists",
    b".debug_macro",
    b".debug_macinfo",
    b".debug_frame",
    b".debug_names",
    b".debug_pubnames",
    b".debug_pubtypes",
    b".debug_gnu_pubnames",
    b".debug_gnu_pubtypes",
];

/// Other sections that names are found by.
const WITH_NAMES: &[&[u8]] = &[
    b".symtab",
    b".strtab",
    b".dynsym",
    b".dynstr",
    b".gnu_debugdata",
    b".gnu_debuglink",
    b".gnu_debugaltlink",
];

/// What the file without compression is made of.
#[derive(Debug)]
pub(super) struct Decompressed {
    /// In ascending order, each behind the one before.
    parts: Vec<Part>,
    size_bytes: u64,
}

#[derive(Debug)]
struct Part {
    start: u64,
    size_bytes: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Headers, with the places where things are now.
    Made(Vec<u8>),
    /// As it is in the file that it is made from.
    Plain(Range<u64>),
    /// What a section of that file inflates to.
    Compressed(Section),
}

impl Decompressed {
    /// Of a file, by its headers alone. Whether its sections hold what they promise
    /// shows when it is [written](Self::write).
    pub(super) fn of(file: &(impl ReadAt + ?Sized)) -> Result<Option<Self>, ElfError> {
        let header = Header::read(file)?;
        if !header.wide || !header.has_section_names() {
            return Ok(None);
        }
        let mut front = vec![0; HEADER_BYTES as usize];
        file.fill(&mut front, 0)?;
        let mut made = Self {
            parts: Vec::new(),
            size_bytes: HEADER_BYTES,
        };
        let segments = header.raw_segments(file)?;
        let segments_start = made.add_table(segments)?;
        let mut sections = header.raw_sections(file)?;
        let raw = sections.chunks_exact_mut(SECTION_BYTES);
        let all = header.sections(file)?.into_iter().zip(raw);
        for (number, (section, raw)) in all.enumerate() {
            // Whoever looks for names of sections does not ask of what kind they are.
            let holds_names = header.is_section_names(number);
            if section.has_content() || holds_names {
                let is_needed = is_needed(&section) || holds_names;
                made.add_section(file, &header, section, is_needed, raw)?;
            }
        }
        let sections_start = made.add_table(sections)?;
        set(&mut front, PROGRAM_OFFSET, segments_start);
        set(&mut front, SECTION_OFFSET, sections_start);
        let front = Part {
            start: 0,
            size_bytes: HEADER_BYTES,
            content: Content::Made(front),
        };
        made.parts.insert(0, front);
        Ok(Some(made))
    }

    /// Adds a table of headers. Returns where it begins, which is 0 for none.
    fn add_table(&mut self, table: Vec<u8>) -> Result<u64, ElfError> {
        if table.is_empty() {
            return Ok(0);
        }
        self.add(table.len() as u64, Content::Made(table))
    }

    /// Adds a section, whose header is changed to say what it is now.
    fn add_section(
        &mut self,
        file: &(impl ReadAt + ?Sized),
        header: &Header,
        section: Section,
        is_needed: bool,
        raw: &mut [u8],
    ) -> Result<(), ElfError> {
        let flags = section.flags & !SECTION_COMPRESSED;
        let (start, size_bytes) = if !is_needed {
            set(raw, KIND, SECTION_NO_BITS);
            // What is loaded has to keep its addresses.
            let is_loaded = flags & SECTION_ALLOCATED != 0;
            let size_bytes = if is_loaded { section.held_bytes() } else { 0 };
            (0, size_bytes)
        } else if section.flags == flags {
            let range = section.file_range()?;
            let size_bytes = range.end - range.start;
            (self.add(size_bytes, Content::Plain(range))?, size_bytes)
        } else {
            let size_bytes = promised_bytes(file, header, &section)?;
            let content = Content::Compressed(section);
            (self.add(size_bytes, content)?, size_bytes)
        };
        set(raw, FLAGS, flags);
        set(raw, OFFSET, start);
        set(raw, SIZE, size_bytes);
        Ok(())
    }

    /// Adds a part behind the others. Returns where it begins.
    fn add(&mut self, size_bytes: u64, content: Content) -> Result<u64, ElfError> {
        let start = self.size_bytes.checked_next_multiple_of(ALIGNMENT);
        let start = start.ok_or(ElfError::BrokenHeaders)?;
        let end = start.checked_add(size_bytes);
        self.size_bytes = end.ok_or(ElfError::BrokenHeaders)?;
        self.parts.push(Part {
            start,
            size_bytes,
            content,
        });
        Ok(start)
    }

    /// How large it is.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes it, from the file that it was made of. An error says that a section is
    /// not what its header promises, that the allowance does not suffice, or that the
    /// writer wants no more. No more comes than it was to be large.
    pub(super) fn write(
        &self,
        file: &(impl ReadAt + ?Sized),
        allowance: &mut Allowance,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let header = Header::read(file).map_err(broken)?;
        let mut at = 0;
        for part in &self.parts {
            let gap = part.start - at;
            out.write_all(&[0; ALIGNMENT as usize][..gap as usize])?;
            match &part.content {
                Content::Made(bytes) => out.write_all(bytes)?,
                Content::Plain(range) => {
                    let content = Window::new(file, range.clone());
                    let mut content = io::BufReader::with_capacity(STEP_BYTES as usize, content);
                    io::copy(&mut content.by_ref().take(part.size_bytes), out)?;
                }
                Content::Compressed(section) => {
                    let max_bytes = part.size_bytes;
                    inflate_section(file, &header, section, max_bytes, allowance, out)
                        .ok_or_else(|| broken("not what its header promises"))?;
                }
            }
            at = part.start + part.size_bytes;
        }
        out.flush()
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn is_needed(section: &Section) -> bool {
    let name = section.name.as_slice();
    let is_dwarf = name.starts_with(b".debug_") && !WITHOUT_NAMES.contains(&name);
    is_dwarf || WITH_NAMES.contains(&name) || section.kind == SECTION_NOTE
}

/// Sets a field of a header.
fn set(header: &mut [u8], field: Range<usize>, value: u64) {
    let bytes = field.len();
    header[field].copy_from_slice(&value.to_le_bytes()[..bytes]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::super::inspect::inspect;
    use super::super::inspect::tests::{library, zlib_section};
    use super::*;

    fn compressed_library() -> Vec<u8> {
        library(&[
            (".text", 1, SECTION_ALLOCATED, vec![0x90; 40]),
            (".note", 7, 0, vec![3; 33]),
            (
                ".debug_info",
                1,
                SECTION_COMPRESSED,
                zlib_section(&[7; 1000], 1000),
            ),
            (
                ".debug_loclists",
                1,
                SECTION_COMPRESSED,
                zlib_section(&[8; 500], 500),
            ),
            (".debug_str", 1, 0, b"a\0b\0".to_vec()),
        ])
    }

    fn written(file: &[u8], allowed_bytes: u64) -> (Option<Decompressed>, Vec<u8>, bool) {
        let Ok(Some(plan)) = Decompressed::of(file) else {
            return (None, Vec::new(), false);
        };
        let mut out = Vec::new();
        let mut allowance = Allowance::new(allowed_bytes);
        let is_whole = plan.write(file, &mut allowance, &mut out).is_ok();
        (Some(plan), out, is_whole)
    }

    fn content(file: &[u8], name: &[u8]) -> Vec<u8> {
        let sections = Header::read(file).unwrap().sections(file).unwrap();
        let section = sections.iter().find(|section| section.name == name);
        section.unwrap().content(file, 1 << 20).unwrap()
    }

    #[test]
    fn names_are_found_as_before_and_nothing_is_inflated() {
        let file = compressed_library();
        let (plan, out, is_whole) = written(&file, 1 << 20);
        assert!(is_whole);
        assert_eq!(plan.unwrap().size_bytes(), out.len() as u64);
        assert_eq!(content(&out, b".debug_info"), [7; 1000]);
        assert_eq!(content(&out, b".debug_str"), b"a\0b\0");
        assert_eq!(content(&out, b".note"), [3; 33]);
        let image = inspect(out.as_slice(), &mut Allowance::new(0)).unwrap();
        assert!(image.has_usable_debug_info() && !image.is_compressed());
        let sections = Header::read(out.as_slice()).unwrap();
        for section in sections.sections(out.as_slice()).unwrap() {
            assert_eq!(section.flags & SECTION_COMPRESSED, 0);
            let is_empty = section.virtual_range().is_empty();
            match section.name.as_slice() {
                b".text" => assert!(section.kind == SECTION_NO_BITS && !is_empty),
                b".debug_loclists" => assert!(section.kind == SECTION_NO_BITS && is_empty),
                _ => assert_ne!(section.kind, SECTION_NO_BITS),
            }
        }
    }

    #[test]
    fn what_is_not_allowed_or_not_as_promised_is_told() {
        assert!(!written(&compressed_library(), 500).2);
        for promised_bytes in [999, 1001] {
            let section = zlib_section(&[7; 1000], promised_bytes);
            let sections = [(".debug_info", 1, SECTION_COMPRESSED, section)];
            let (plan, out, is_whole) = written(&library(&sections), 1 << 20);
            assert!(!is_whole && out.len() as u64 <= plan.unwrap().size_bytes());
        }
        let section = zlib_section(&[7; 1000], u64::MAX);
        let sections = [(".debug_info", 1, SECTION_COMPRESSED, section)];
        assert!(Decompressed::of(library(&sections).as_slice()).is_err());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let file = compressed_library();
        for length in 0..file.len() {
            assert!(!written(&file[..length], 1 << 20).2, "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_no_more_comes_than_was_said(
            position in 4usize..2000, noise in proptest::collection::vec(0u8.., 1..64)
        ) {
            let mut file = compressed_library();
            let position = position % file.len();
            let end = (position + noise.len()).min(file.len());
            file[position..end].copy_from_slice(&noise[..end - position]);
            let (plan, out, is_whole) = written(&file, 1 << 20);
            if let Some(plan) = plan {
                proptest::prop_assert!(out.len() as u64 <= plan.size_bytes());
                proptest::prop_assert_eq!(is_whole, out.len() as u64 == plan.size_bytes());
            }
        }
    }
}
