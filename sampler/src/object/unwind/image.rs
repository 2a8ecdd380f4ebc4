//! What the builder needs of an ELF file: where its code is, and the sections
//! that describe it.

use std::borrow::Cow;
use std::io::Read;

use object::LittleEndian;
use object::elf::{
    self, EM_AARCH64, EM_X86_64, ET_EXEC, FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_INTERP, PT_LOAD,
    ProgramHeader64, SectionHeader64, Sym64,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use super::landmark::is_entry;
use super::{BuildError, Machine, Segment};

/// Program headers looked at; linkers write a dozen.
const MAX_PROGRAM_HEADERS: usize = 256;
/// Section headers looked at.
const MAX_SECTIONS: usize = 1 << 16;
/// The most that a compressed section may unpack to, in bytes: as many entries
/// as are read have room in it.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;
/// Symbols looked at in each of two tables.
const MAX_SYMBOLS: usize = 4 << 20;

type Header = FileHeader64<LittleEndian>;

const LITTLE: LittleEndian = LittleEndian;

/// A section that describes code.
pub(super) struct Section<'a> {
    /// Its virtual address; 0 if it is not loaded.
    pub address: u64,
    pub bytes: Cow<'a, [u8]>,
}

/// A file, taken apart.
pub(super) struct Image<'a> {
    file: &'a [u8],
    header: &'a Header,
    sections: &'a [SectionHeader64<LittleEndian>],
    segments: &'a [ProgramHeader64<LittleEndian>],
    /// Whose instructions it holds.
    pub machine: Machine,
    /// Executable segments in order of address, without overlaps.
    pub executable: Vec<Segment>,
}

impl<'a> Image<'a> {
    /// Takes the headers apart.
    pub fn parse(file: &'a [u8]) -> Result<Self, BuildError> {
        let header = Header::parse(file).map_err(|_| BuildError::NotElf)?;
        if !header.is_little_endian() {
            return Err(BuildError::NotElf);
        }
        let machine = match header.e_machine(LITTLE) {
            EM_X86_64 => Machine::X86_64,
            EM_AARCH64 => Machine::Aarch64,
            other => return Err(BuildError::OtherMachine(other)),
        };
        let segments = header
            .program_headers(LITTLE, file)
            .map_err(|_| BuildError::NotElf)?;
        let segments = &segments[..segments.len().min(MAX_PROGRAM_HEADERS)];
        // Section headers are not loaded, so they may be missing or cut off.
        let sections = header.section_headers(LITTLE, file).unwrap_or_default();
        let sections = &sections[..sections.len().min(MAX_SECTIONS)];
        Ok(Self {
            file,
            header,
            sections,
            segments,
            machine,
            executable: executable(segments, file.len() as u64)?,
        })
    }

    /// Where the kernel starts the file, if it is a program or an interpreter.
    /// The entry of a library may be any address.
    pub fn entry(&self) -> Option<u64> {
        let entry = self.header.e_entry(LITTLE);
        let program = self.header.e_type(LITTLE) == ET_EXEC
            || self
                .segments
                .iter()
                .any(|segment| segment.p_type(LITTLE) == PT_INTERP);
        let code = self.loaded_from(entry)?;
        (program || is_entry(self.machine, code)).then_some(entry)
    }

    fn section(&self, name: &[u8]) -> Option<&'a SectionHeader64<LittleEndian>> {
        let names = usize::from(self.header.e_shstrndx(LITTLE));
        let names = self.sections.get(names)?;
        let strings = names.data(LITTLE, self.file).ok()?;
        self.sections.iter().find(|section| {
            strings
                .get(section.sh_name(LITTLE) as usize..)
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    }

    /// The virtual address of a section, for pointers relative to it.
    pub fn section_address(&self, name: &[u8]) -> Option<u64> {
        self.section(name).map(|section| section.sh_addr(LITTLE))
    }

    /// `.eh_frame`: by name, or, in a file without section headers, by the
    /// pointer in the segment that `ld --eh-frame-hdr` writes.
    pub fn eh_frame(&self) -> Option<Section<'a>> {
        let named = self.section(b".eh_frame").and_then(|section| {
            let bytes = section.data(LITTLE, self.file).ok()?;
            // A separate debug file names the section but does not hold it.
            (section.sh_type(LITTLE) != elf::SHT_NOBITS).then(|| Section {
                address: section.sh_addr(LITTLE),
                bytes: Cow::Borrowed(bytes),
            })
        });
        named.or_else(|| self.eh_frame_by_segment())
    }

    /// `.eh_frame_hdr`, by the segment that the run time finds it by.
    pub fn eh_frame_hdr(&self) -> Option<Section<'a>> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.p_type(LITTLE) == PT_GNU_EH_FRAME)?;
        let bytes = segment.data(LITTLE, self.file).ok()?;
        Some(Section {
            address: segment.p_vaddr(LITTLE),
            bytes: Cow::Borrowed(bytes),
        })
    }

    fn eh_frame_by_segment(&self) -> Option<Section<'a>> {
        let header = self.eh_frame_hdr()?;
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(header.address);
        let parsed = gimli::EhFrameHdr::new(&header.bytes, gimli::LittleEndian)
            .parse(&bases, 8)
            .ok()?;
        let address = parsed.eh_frame_ptr().direct().ok()?;
        // Where it ends is not said; a zero length inside ends it.
        Some(Section {
            address,
            bytes: Cow::Borrowed(self.loaded_from(address)?),
        })
    }

    /// `.debug_frame`, unpacked if it is compressed.
    pub fn debug_frame(&self) -> Option<Section<'a>> {
        let section = self.section(b".debug_frame")?;
        let bytes = match section.compression(LITTLE, self.file).ok()? {
            None => Cow::Borrowed(section.data(LITTLE, self.file).ok()?),
            Some((header, offset, size)) => {
                let from = usize::try_from(offset).ok()?;
                let bytes = usize::try_from(size).ok()?;
                let packed = self.file.get(from..from.checked_add(bytes)?)?;
                Cow::Owned(unpack(
                    header.ch_type.get(LITTLE),
                    header.ch_size.get(LITTLE),
                    packed,
                )?)
            }
        };
        Some(Section { address: 0, bytes })
    }

    /// The file's bytes from a virtual address to the end of its segment.
    pub fn loaded_from(&self, address: u64) -> Option<&'a [u8]> {
        self.segments
            .iter()
            .filter(|segment| segment.p_type(LITTLE) == PT_LOAD)
            .find_map(|segment| {
                let into = address.checked_sub(segment.p_vaddr(LITTLE))?;
                let bytes = segment.data(LITTLE, self.file).ok()?;
                bytes
                    .get(usize::try_from(into).ok()?..)
                    .filter(|rest| !rest.is_empty())
            })
    }

    /// The executable segment that holds a virtual address.
    pub fn segment_of(&self, address: u64) -> Option<&Segment> {
        let after = self
            .executable
            .partition_point(|segment| segment.address <= address);
        self.executable
            .get(after.checked_sub(1)?)
            .filter(|segment| segment.holds(address))
    }

    /// Where functions start, by the symbol tables, in order of address.
    /// Labels without a type are none: assembly has them inside functions.
    pub fn function_starts(&self) -> Vec<u64> {
        let mut starts = Vec::new();
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            let table = self
                .sections
                .iter()
                .find(|section| section.sh_type(LITTLE) == kind)
                .and_then(|section| section.data_as_array(LITTLE, self.file).ok());
            let symbols: &[Sym64<LittleEndian>] = table.unwrap_or_default();
            for symbol in symbols.iter().take(MAX_SYMBOLS) {
                let defined = symbol.st_shndx.get(LITTLE) != elf::SHN_UNDEF;
                let address = symbol.st_value.get(LITTLE);
                if defined
                    && symbol.st_type() == elf::STT_FUNC
                    && self.segment_of(address).is_some()
                {
                    starts.push(address);
                }
            }
        }
        starts.sort_unstable();
        starts.dedup();
        starts
    }
}

/// Executable segments, ordered, with what overlaps an earlier one left out.
fn executable(
    headers: &[ProgramHeader64<LittleEndian>],
    file_bytes: u64,
) -> Result<Vec<Segment>, BuildError> {
    let mut segments: Vec<Segment> = headers
        .iter()
        .filter(|header| header.p_type(LITTLE) == PT_LOAD && header.p_flags(LITTLE) & PF_X != 0)
        .filter_map(|header| {
            let offset = header.p_offset(LITTLE);
            let size = header.p_filesz(LITTLE).min(file_bytes.checked_sub(offset)?);
            let address = header.p_vaddr(LITTLE);
            address.checked_add(size)?;
            (size > 0).then_some(Segment {
                file_offset: offset,
                address,
                size,
            })
        })
        .collect();
    segments.sort_by_key(|segment| segment.address);
    let mut end = 0;
    segments.retain(|segment| {
        let fits = segment.address >= end;
        if fits {
            end = segment.address + segment.size;
        }
        fits
    });
    if segments.is_empty() {
        return Err(BuildError::NoCode);
    }
    Ok(segments)
}

/// The contents of a compressed section, if they have the size that it claims.
fn unpack(kind: u32, size: u64, packed: &[u8]) -> Option<Vec<u8>> {
    if size > MAX_UNPACKED_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    match kind {
        elf::ELFCOMPRESS_ZLIB => {
            flate2::read::ZlibDecoder::new(packed)
                .take(size)
                .read_to_end(&mut bytes)
                .ok()?;
        }
        elf::ELFCOMPRESS_ZSTD => {
            zstd::stream::read::Decoder::new(packed)
                .ok()?
                .take(size)
                .read_to_end(&mut bytes)
                .ok()?;
        }
        _ => return None,
    }
    (bytes.len() as u64 == size).then_some(bytes)
}
