//! A first look at an ELF file: what may the real parser be shown?
//!
//! The parser trusts a file in two ways that a hostile one can use: it opens
//! the other files that this one names (and would wait for ever on a FIFO), and
//! it inflates compressed sections as far as they go. Both are found out here.

use std::io::{self, Read};
use std::ops::Range;

use crate::object::{BuildId, FileOffset};

use super::headers::{ElfError, Header, ReadAt, Section, Segment, word};

/// Notes are tens of bytes; more than this is not read.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// What all compressed sections of a file together may inflate to.
const MAX_INFLATED_BYTES: u64 = 1 << 30;

const SEGMENT_LOAD: u64 = 1;
const SEGMENT_EXECUTABLE: u64 = 1;
const SECTION_NOTE: u64 = 7;
const SECTION_NO_BITS: u64 = 8;
const SECTION_EXECUTABLE: u64 = 4;
const SECTION_COMPRESSED: u64 = 0x800;
const COMPRESSED_ZLIB: u64 = 1;
const COMPRESSED_ZSTD: u64 = 2;
const NOTE_GNU_BUILD_ID: u64 = 3;

/// What the headers of an ELF file say, as far as symbolization cares.
#[derive(Debug, Default)]
pub(super) struct Image {
    code: Vec<Segment>,
    code_sections: Vec<Range<u64>>,
    /// It carries DWARF itself.
    pub has_debug_info: bool,
    /// Its compressed sections, should there be any, inflate within bounds.
    pub inflates_within_bounds: bool,
    /// It names other files that the parser would open.
    pub links_to_files: bool,
    /// The name in `.gnu_debuglink`, if it has one.
    pub debug_link: Option<Vec<u8>>,
    /// Its GNU build ID.
    pub build_id: Option<BuildId>,
}

impl Image {
    /// The address, as the file's own symbol tables count it, of the code at a
    /// file offset.
    pub(super) fn virtual_address(&self, offset: FileOffset) -> Option<u64> {
        let holds = |segment: &&Segment| segment.file.contains(&offset.0);
        let segment = self.code.iter().find(holds)?;
        segment
            .virtual_start
            .checked_add(offset.0 - segment.file.start)
    }

    /// Whether two virtual addresses lie in the same section of code. A symbol
    /// without a size reaches to the end of its section at most: `_init` does
    /// not cover the PLT behind it.
    pub(super) fn is_one_section(&self, one: u64, other: u64) -> bool {
        let holds_both = |section: &Range<u64>| section.contains(&one) && section.contains(&other);
        self.code_sections.is_empty() || self.code_sections.iter().any(holds_both)
    }
}

/// Looks at the headers of an ELF file, and through its compressed sections.
pub(super) fn inspect(file: &(impl ReadAt + ?Sized)) -> Result<Image, ElfError> {
    let header = Header::read(file)?;
    let mut image = Image {
        code: header.segments(file)?,
        inflates_within_bounds: true,
        ..Image::default()
    };
    image
        .code
        .retain(|segment| segment.kind == SEGMENT_LOAD && segment.flags & SEGMENT_EXECUTABLE != 0);

    let mut budget_bytes = MAX_INFLATED_BYTES;
    for section in header.sections(file)? {
        match section.name.as_slice() {
            b".debug_info" => image.has_debug_info |= section.kind != SECTION_NO_BITS,
            b".gnu_debugaltlink" | b".debug_sup" => image.links_to_files = true,
            b".gnu_debuglink" => {
                image.links_to_files = true;
                image.debug_link = Some(until_nul(section.content(file, MAX_NOTE_BYTES)?));
            }
            // MiniDebugInfo: the parser reads it for the symbols, with or
            // without DWARF, so it decides over the whole file.
            b".gnu_debugdata" => {
                let content = Window::new(file, section.file_range()?);
                budget_bytes -= inflated_bytes(xz2::read::XzDecoder::new(content), budget_bytes)
                    .ok_or(ElfError::SymbolsTooLarge)?;
            }
            _ => {}
        }
        if section.flags & SECTION_EXECUTABLE != 0 {
            image.code_sections.push(section.virtual_range());
        }
        if section.kind == SECTION_NOTE && image.build_id.is_none() {
            // A note section too large to be one holds no build ID.
            let notes = section.content(file, MAX_NOTE_BYTES).unwrap_or_default();
            image.build_id = find_build_id(&notes);
        }
        if section.flags & SECTION_COMPRESSED != 0 && image.inflates_within_bounds {
            match inflate_section(file, &header, &section, budget_bytes) {
                Some(size_bytes) => budget_bytes -= size_bytes,
                None => image.inflates_within_bounds = false,
            }
        }
    }
    Ok(image)
}

/// The size of a compressed section once inflated; `None` if that is more than
/// `max_bytes`, not what its header says, or it is broken.
fn inflate_section(
    file: &(impl ReadAt + ?Sized),
    header: &Header,
    section: &Section,
    max_bytes: u64,
) -> Option<u64> {
    let range = section.file_range().ok()?;
    let mut compression = [0; 24];
    let compression = &mut compression[..if header.wide { 24 } else { 12 }];
    file.fill(compression, range.start).ok()?;
    let promised_bytes = if header.wide {
        word(compression, 8, 8)
    } else {
        word(compression, 4, 4)
    };
    // The parser allocates what is promised before it reads anything.
    if promised_bytes > max_bytes {
        return None;
    }
    let content = Window::new(file, range.start + compression.len() as u64..range.end);
    let size_bytes = match word(compression, 0, 4) {
        COMPRESSED_ZLIB => inflated_bytes(flate2::read::ZlibDecoder::new(content), max_bytes),
        COMPRESSED_ZSTD => {
            inflated_bytes(zstd::stream::read::Decoder::new(content).ok()?, max_bytes)
        }
        _ => None,
    }?;
    (size_bytes == promised_bytes).then_some(size_bytes)
}

/// How many bytes a decoder yields, if at most `max_bytes` and without error.
/// They are thrown away as they come.
fn inflated_bytes(decoder: impl Read, max_bytes: u64) -> Option<u64> {
    let size_bytes = io::copy(&mut decoder.take(max_bytes + 1), &mut io::sink()).ok()?;
    (size_bytes <= max_bytes).then_some(size_bytes)
}

/// Finds the descriptor of `NT_GNU_BUILD_ID` among notes: name size, descriptor
/// size, type; name; descriptor, each padded to 4 bytes.
fn find_build_id(mut notes: &[u8]) -> Option<BuildId> {
    while notes.len() >= 12 {
        let name_bytes = word(notes, 0, 4) as usize;
        let descriptor_bytes = word(notes, 4, 4) as usize;
        let kind = word(notes, 8, 4);
        let descriptor_start = 12 + name_bytes.next_multiple_of(4);
        let name = notes.get(12..12 + name_bytes)?;
        let descriptor = notes.get(descriptor_start..descriptor_start + descriptor_bytes)?;
        if kind == NOTE_GNU_BUILD_ID && name == b"GNU\0" && !descriptor.is_empty() {
            return Some(BuildId(descriptor.into()));
        }
        notes = notes.get(descriptor_start + descriptor_bytes.next_multiple_of(4)..)?;
    }
    None
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|byte| *byte == 0);
    text.truncate(end.unwrap_or(text.len()));
    text
}

/// A part of a file as a stream, read in steps.
struct Window<'a, F: ?Sized> {
    file: &'a F,
    rest: Range<u64>,
}

impl<'a, F: ReadAt + ?Sized> Window<'a, F> {
    fn new(file: &'a F, rest: Range<u64>) -> Self {
        Self { file, rest }
    }
}

impl<F: ReadAt + ?Sized> Read for Window<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left_bytes = self.rest.end.saturating_sub(self.rest.start);
        let step_bytes = left_bytes.min(buffer.len() as u64);
        self.file
            .fill(&mut buffer[..step_bytes as usize], self.rest.start)?;
        self.rest.start += step_bytes;
        Ok(step_bytes as usize)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::io::Write as _;

    use super::*;

    /// A 64-bit library: one executable segment (file 0x1000.. at 0x401000) and
    /// the given sections (name, type, flags, content).
    fn library(sections: &[(&str, u32, u64, Vec<u8>)]) -> Vec<u8> {
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

    fn zlib_section(content: &[u8], promised_bytes: u64) -> Vec<u8> {
        let mut section = 1u64.to_le_bytes().to_vec();
        section.extend(promised_bytes.to_le_bytes());
        section.extend(1u64.to_le_bytes());
        let mut encoder = flate2::write::ZlibEncoder::new(section, flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn code_is_found_at_its_virtual_address() {
        let image = inspect(library(&[]).as_slice()).unwrap();
        assert_eq!(image.virtual_address(FileOffset(0x1010)), Some(0x40_1010));
        assert_eq!(image.virtual_address(FileOffset(0x1800)), None);
        assert_eq!(image.virtual_address(FileOffset(0xfff)), None);
    }

    #[test]
    fn links_to_other_files_are_seen() {
        let link = b"../evil\0\0\0\0\0".to_vec();
        let image = inspect(library(&[(".gnu_debuglink", 1, 0, link)]).as_slice()).unwrap();
        assert!(image.links_to_files);
        assert_eq!(image.debug_link.unwrap(), b"../evil");
        for name in [".gnu_debugaltlink", ".debug_sup"] {
            let image = inspect(library(&[(name, 1, 0, vec![0])]).as_slice()).unwrap();
            assert!(image.links_to_files, "{name}");
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
        let image = inspect(library(&[(".note", 7, 0, notes)]).as_slice()).unwrap();
        assert_eq!(image.build_id.unwrap().to_string(), "09090909");
    }

    #[test]
    fn a_compressed_section_must_be_as_large_as_it_says() {
        for (promised_bytes, fine) in [(1000, true), (999, false), (u64::MAX, false)] {
            let section = zlib_section(&[7; 1000], promised_bytes);
            let file = library(&[(".debug_info", 1, SECTION_COMPRESSED, section)]);
            let image = inspect(file.as_slice()).unwrap();
            assert!(image.has_debug_info);
            assert_eq!(image.inflates_within_bounds, fine, "{promised_bytes}");
        }
    }

    #[test]
    fn a_decoder_is_stopped_at_the_bound() {
        assert_eq!(inflated_bytes(io::repeat(0), 1000), None);
        assert_eq!(inflated_bytes(io::repeat(0).take(1000), 1000), Some(1000));
    }

    #[test]
    fn broken_mini_debug_info_rules_the_file_out() {
        let file = library(&[(".gnu_debugdata", 1, 0, b"not xz".to_vec())]);
        assert!(matches!(
            inspect(file.as_slice()),
            Err(ElfError::SymbolsTooLarge)
        ));
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
            let _ = inspect(file.as_slice());
        }
    }
}
