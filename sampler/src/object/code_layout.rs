//! Where the code of an ELF file lies, in the file and in memory, and whether it
//! is there at all: a separate debug file has headers that speak of code, and
//! none.
//!
//! Layouts: the System V ABI, "ELF Header", "Program Header", "Sections".

use std::io;
use std::ops::Range;

use super::FileOffset;
use super::build_id::{Class, read_up_to, u16_at, u32_at};

/// Headers looked at; linkers write a dozen segments and dozens of sections.
const MAX_PROGRAM_HEADERS: usize = 256;
const MAX_SECTIONS: usize = 1 << 16;
/// What mappings are a multiple of, in bytes, wherever we run.
const PAGE_BYTES: u64 = 4096;

const PT_LOAD: u32 = 1;
const PF_X: u32 = 1;
const ET_EXEC: u16 = 2;
const SHT_NOBITS: u32 = 8;
const SHF_EXECINSTR: u64 = 4;

/// A segment that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeSegment {
    /// `p_offset`.
    pub file_start: u64,
    /// `p_filesz`.
    pub file_bytes: u64,
    /// `p_vaddr`.
    pub virtual_start: u64,
    /// `p_memsz`.
    pub memory_bytes: u64,
}

/// The code of an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeLayout {
    /// Its virtual addresses are those in memory.
    pub is_fixed: bool,
    /// Its code is in it, and not only spoken of.
    pub holds_code: bool,
    /// The executable segments.
    pub segments: Vec<CodeSegment>,
    /// The pages that all segments together reach over, as virtual addresses.
    pub memory: Range<u64>,
}

/// A mapping of a file, as a profile tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedRange {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub limit: u64,
    /// Where in the file `start` lies.
    pub file_offset: u64,
}

impl CodeLayout {
    /// Reads the headers of the file that `read_at` reads, which behaves as
    /// `pread`. `None` for what is no little-endian ELF file.
    pub fn read(mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<usize>) -> Option<Self> {
        let header = read_up_to(&mut read_at, 0, 64)?;
        let class = Class::of(&header)?;
        let table_offset = class.word(&header, class.pick(28, 32))?;
        let entry_bytes = usize::from(u16_at(&header, class.pick(42, 54))?);
        let entries = usize::from(u16_at(&header, class.pick(44, 56))?).min(MAX_PROGRAM_HEADERS);
        if entry_bytes != class.pick(32, 56) {
            return None;
        }
        let table = read_up_to(&mut read_at, table_offset, entries * entry_bytes)?;
        let entries = || table.chunks_exact(entry_bytes);
        let loaded = entries().filter_map(|entry| segment(class, entry));
        let memory = loaded
            .filter_map(CodeSegment::pages)
            .reduce(|one, other| one.start.min(other.start)..one.end.max(other.end));
        let is_code = |entry: &&[u8]| {
            let flags = u32_at(entry, class.pick(24, 4));
            flags.is_some_and(|flags| flags & PF_X != 0)
        };
        let segments: Vec<_> = entries()
            .filter(is_code)
            .filter_map(|entry| segment(class, entry))
            .collect();
        let holds_code = section_code(class, &header, &mut read_at)
            .unwrap_or_else(|| segments.iter().any(|segment| segment.file_bytes > 0));
        Some(Self {
            is_fixed: u16_at(&header, 16) == Some(ET_EXEC),
            holds_code,
            segments,
            memory: memory.unwrap_or_default(),
        })
    }

    /// The virtual address of the code at a file offset, if this is the file that
    /// the offset is of.
    pub fn virtual_address(&self, offset: FileOffset) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let into = offset.0.checked_sub(segment.file_start)?;
            let is_inside = into < segment.file_bytes;
            is_inside.then(|| segment.virtual_start.checked_add(into))?
        })
    }

    /// The virtual address of what lies at `address` of a mapping, if this is a
    /// debug file of the mapped one.
    ///
    /// Tools that make debug files keep where a segment lies in memory and its
    /// size there, and not where it lay in the original. So the mapping has to be
    /// exactly one of the segments, as the kernel and the dynamic linker map them:
    /// as large, and, in a file with fixed addresses, where the segment says. Of a
    /// file that begins with code they map all pages as code first.
    pub fn virtual_address_of_mapped(&self, mapped: MappedRange, address: u64) -> Option<u64> {
        let mapped_bytes = mapped.limit.checked_sub(mapped.start)?;
        let into = address.checked_sub(mapped.start)?;
        let is_alike = |pages: &Range<u64>| {
            pages.end - pages.start == mapped_bytes
                && mapped.file_offset.is_multiple_of(PAGE_BYTES)
                && (!self.is_fixed || pages.start == mapped.start)
        };
        let mut alike = self.segments.iter().filter_map(|segment| {
            let pages = segment.pages()?;
            let begins_the_file = pages.start == self.memory.start && mapped.file_offset == 0;
            let is_this = is_alike(&pages) || (begins_the_file && is_alike(&self.memory));
            is_this.then_some((*segment, pages.start))
        });
        let (segment, first) = alike.next()?;
        let virtual_address = first.checked_add(into)?;
        let is_inside = virtual_address
            .checked_sub(segment.virtual_start)
            .is_some_and(|into| into < segment.memory_bytes);
        (alike.next().is_none() && is_inside).then_some(virtual_address)
    }
}

impl CodeSegment {
    /// The pages that it lies in, as virtual addresses.
    fn pages(self) -> Option<Range<u64>> {
        let end = self.virtual_start.checked_add(self.memory_bytes)?;
        let start = self.virtual_start / PAGE_BYTES * PAGE_BYTES;
        Some(start..end.checked_next_multiple_of(PAGE_BYTES)?)
    }
}

/// A segment that is loaded, if the entry is one.
fn segment(class: Class, entry: &[u8]) -> Option<CodeSegment> {
    if u32_at(entry, 0)? != PT_LOAD {
        return None;
    }
    Some(CodeSegment {
        file_start: class.word(entry, class.pick(4, 8))?,
        virtual_start: class.word(entry, class.pick(8, 16))?,
        file_bytes: class.word(entry, class.pick(16, 32))?,
        memory_bytes: class.word(entry, class.pick(20, 40))?,
    })
}

/// Whether a section of code has its bytes in the file; `None` where no section
/// of code is listed.
fn section_code(
    class: Class,
    header: &[u8],
    read_at: &mut impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> Option<bool> {
    let offset = class.word(header, class.pick(32, 40))?;
    let entry_bytes = usize::from(u16_at(header, class.pick(46, 58))?);
    let sections = usize::from(u16_at(header, class.pick(48, 60))?).min(MAX_SECTIONS);
    if offset == 0 || entry_bytes != class.pick(40, 64) {
        return None;
    }
    let table = read_up_to(read_at, offset, sections * entry_bytes)?;
    let is_code = |entry: &&[u8]| {
        let flags = class.word(entry, 8);
        flags.is_some_and(|flags| flags & SHF_EXECINSTR != 0)
    };
    let mut code = table.chunks_exact(entry_bytes).filter(is_code).peekable();
    code.peek()?;
    Some(code.any(|entry| u32_at(entry, 4).is_some_and(|kind| kind != SHT_NOBITS)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn reader(file: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<usize> {
        |offset, buffer| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = file.get(start..).unwrap_or_default();
            let bytes = buffer.len().min(rest.len());
            buffer[..bytes].copy_from_slice(&rest[..bytes]);
            Ok(bytes)
        }
    }

    /// As `objcopy --only-keep-debug` leaves a segment: nothing in the file.
    fn segment(virtual_start: u64, memory_bytes: u64) -> CodeSegment {
        CodeSegment {
            file_start: 0,
            file_bytes: 0,
            virtual_start,
            memory_bytes,
        }
    }

    /// With data behind the code.
    fn layout(is_fixed: bool, segments: &[CodeSegment]) -> CodeLayout {
        CodeLayout {
            memory: 0x2000..0xc000,
            is_fixed,
            holds_code: false,
            segments: segments.to_vec(),
        }
    }

    fn mapped(start: u64, limit: u64) -> MappedRange {
        MappedRange {
            start,
            limit,
            file_offset: 0x1000,
        }
    }

    #[test]
    fn a_mapping_is_the_segment_of_its_size() {
        let layout = layout(false, &[segment(0x2010, 0x1800), segment(0x8000, 0x1000)]);
        let asked = |mapped, address| layout.virtual_address_of_mapped(mapped, address);
        let range = mapped(0x7000_0000, 0x7000_2000);
        assert_eq!(asked(range, 0x7000_0010), Some(0x2010));
        assert_eq!(asked(range, 0x7000_180f), Some(0x380f));
        assert_eq!(
            asked(mapped(0x7000_0000, 0x7000_1000), 0x7000_0123),
            Some(0x8123)
        );
        // In front of the segment, behind it, outside of the mapping.
        for address in [0x7000_000f, 0x7000_1810, 0x6fff_ffff] {
            assert_eq!(asked(range, address), None, "{address:#x}");
        }
        // Part of a segment, or more than one.
        for limit in [0x7000_3000, 0x7000_0800, 0x6000_0000] {
            assert_eq!(asked(mapped(0x7000_0000, limit), 0x7000_0123), None);
        }
    }

    #[test]
    fn a_file_that_begins_with_code_is_mapped_as_a_whole() {
        let layout = layout(false, &[segment(0x2010, 0x1800)]);
        let asked = |file_offset: u64, address| {
            let whole = MappedRange {
                file_offset,
                ..mapped(0x7000_0000, 0x7000_a000)
            };
            layout.virtual_address_of_mapped(whole, address)
        };
        assert_eq!(asked(0, 0x7000_0010), Some(0x2010));
        // Not the beginning of the file; data.
        assert_eq!(asked(0x1000, 0x7000_0010), None);
        assert_eq!(asked(0, 0x7000_4000), None);
    }

    #[test]
    fn two_segments_of_one_size_leave_a_doubt() {
        let layout = layout(false, &[segment(0x1000, 0x800), segment(0x3000, 0x900)]);
        let range = mapped(0x7000_0000, 0x7000_1000);
        assert_eq!(layout.virtual_address_of_mapped(range, 0x7000_0010), None);
    }

    #[test]
    fn fixed_addresses_are_where_they_say() {
        let layout = layout(true, &[segment(0x40_1000, 0x800)]);
        let asked = |start: u64| {
            layout.virtual_address_of_mapped(mapped(start, start + 0x1000), start + 0x10)
        };
        assert_eq!(asked(0x40_1000), Some(0x40_1010));
        assert_eq!(asked(0x50_1000), None);
    }

    #[test]
    fn a_running_program_is_found_either_way() {
        let file = fs::read(std::env::current_exe().unwrap()).unwrap();
        let layout = CodeLayout::read(reader(&file)).unwrap();
        assert!(layout.holds_code);
        let address = CodeLayout::virtual_address as *const () as u64;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let mapped = maps
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (start, limit) = fields[0].split_once('-').unwrap();
                MappedRange {
                    start: number(start),
                    limit: number(limit),
                    file_offset: number(fields[2]),
                }
            })
            .find(|mapped| (mapped.start..mapped.limit).contains(&address))
            .unwrap();
        let offset = FileOffset(address - mapped.start + mapped.file_offset);
        let by_offset = layout.virtual_address(offset);
        assert!(by_offset.is_some());
        assert_eq!(layout.virtual_address_of_mapped(mapped, address), by_offset);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            at in 0_usize..64,
            noise in proptest::collection::vec(any::<u8>(), 0..64),
            start: u64,
            bytes: u64,
        ) {
            let mut file = b"\x7fELF\x02\x01\x01".to_vec();
            file.resize(512, 7);
            let end = at + noise.len();
            file[at..end].copy_from_slice(&noise);
            if let Some(layout) = CodeLayout::read(reader(&file)) {
                let limit = start.wrapping_add(bytes);
                let mapped = MappedRange { start, limit, file_offset: bytes };
                layout.virtual_address_of_mapped(mapped, start.wrapping_add(1));
                layout.virtual_address(FileOffset(start));
            }
        }
    }
}
