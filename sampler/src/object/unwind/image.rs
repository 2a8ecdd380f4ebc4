//! What the builder needs of an ELF file: where its code is, and the sections
//! that describe it.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;

use object::LittleEndian;
use object::elf::{
    self, CompressionHeader64, EM_AARCH64, EM_X86_64, ET_EXEC, FileHeader64, PF_X, PN_XNUM,
    PT_GNU_EH_FRAME, PT_INTERP, PT_LOAD, ProgramHeader64, SectionHeader64, Sym64,
};
use object::pod::{self, Pod};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

use super::landmark::is_entry;
use super::room::Room;
use super::{BuildError, Machine, Segment};
use crate::object::Contents;

/// Program headers looked at; linkers write a dozen.
const MAX_PROGRAM_HEADERS: u64 = 256;
/// Section headers looked at.
const MAX_SECTIONS: u64 = 1 << 16;
/// Bytes of section names looked at.
const MAX_NAME_BYTES: u64 = 1 << 20;
/// The most that a compressed section may unpack to, in bytes: as many entries
/// as are read have room in it.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;
/// Symbols looked at in each of two tables.
const MAX_SYMBOLS: u64 = 4 << 20;
/// Section headers and symbols that are read at once.
const RECORDS_AT_ONCE: u64 = 256;
/// The sections that are looked for, by name and by type.
const SECTION_NAMES: [&[u8]; 4] = [b".eh_frame", b".debug_frame", b".text", b".got"];
const SECTION_TYPES: [u32; 2] = [elf::SHT_SYMTAB, elf::SHT_DYNSYM];
/// As many of these as are kept of a file.
const MAX_KEPT_SECTIONS: usize = 64;
/// Data in an executable segment that is told from code, in bytes: less costs
/// nothing to look at.
const LEAST_DATA_BYTES: u64 = 4 << 10;
/// Code at an entry that is looked at, in bytes.
const ENTRY_BYTES: u64 = 16;

type Header = FileHeader64<LittleEndian>;
type SectionHeader = SectionHeader64<LittleEndian>;

const LITTLE: LittleEndian = LittleEndian;

/// A section that describes code.
pub(super) struct Section<'a> {
    /// Its virtual address; 0 if it is not loaded.
    pub address: u64,
    pub bytes: Cow<'a, [u8]>,
}

/// A file, taken apart. Its headers are held; everything else is read when it
/// is asked for.
pub(super) struct Image<'a> {
    file: &'a dyn Contents,
    room: &'a Room,
    header: Header,
    sections: Vec<SectionHeader>,
    section_names: Cow<'a, [u8]>,
    /// What is loaded and is no code, by its sections; in order, without overlaps.
    data: Vec<Range<u64>>,
    segments: Vec<ProgramHeader64<LittleEndian>>,
    /// Whose instructions it holds.
    pub machine: Machine,
    /// Executable segments in order of address, without overlaps.
    pub executable: Vec<Segment>,
}

impl<'a> Image<'a> {
    /// Takes the headers apart. What sections are read takes of the room.
    pub fn parse(file: &'a dyn Contents, room: &'a Room) -> Result<Self, BuildError> {
        let header: Header = *records(file, 0, 1, 1)
            .as_deref()
            .and_then(<[Header]>::first)
            .ok_or(BuildError::NotElf)?;
        if !header.is_supported() || !header.is_class_64() || !header.is_little_endian() {
            return Err(BuildError::NotElf);
        }
        let machine = match header.e_machine(LITTLE) {
            EM_X86_64 => Machine::X86_64,
            EM_AARCH64 => Machine::Aarch64,
            other => return Err(BuildError::OtherMachine(other)),
        };
        let segments = segments(file, &header).ok_or(BuildError::NotElf)?;
        let Sections {
            kept: sections,
            names: section_names,
            data,
        } = sections(file, &header).unwrap_or_default();
        Ok(Self {
            file,
            room,
            header,
            section_names,
            sections,
            data,
            machine,
            executable: executable(&segments, file.size_bytes())?,
            segments,
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
        let code = self.code(entry, ENTRY_BYTES)?;
        (program || is_entry(self.machine, &code)).then_some(entry)
    }

    fn section(&self, name: &[u8]) -> Option<&SectionHeader> {
        self.sections
            .iter()
            .find(|section| is_named(section, &self.section_names, name))
    }

    /// The virtual address of a section, for pointers relative to it.
    pub fn section_address(&self, name: &[u8]) -> Option<u64> {
        self.section(name).map(|section| section.sh_addr(LITTLE))
    }

    /// Reads what is to be held while the table is built.
    fn held(&self, offset: u64, bytes: u64) -> Option<Cow<'a, [u8]>> {
        let end = offset.checked_add(bytes)?;
        if end > self.file.size_bytes() || !self.room.take(bytes) {
            return None;
        }
        self.file.read(offset, usize::try_from(bytes).ok()?)
    }

    /// `.eh_frame`: by name, or, in a file without section headers, by the
    /// pointer in the segment that `ld --eh-frame-hdr` writes.
    pub fn eh_frame(&self) -> Option<Section<'a>> {
        let named = self.section(b".eh_frame").and_then(|section| {
            // A separate debug file names the section but does not hold it.
            if section.sh_type(LITTLE) == elf::SHT_NOBITS {
                return None;
            }
            Some(Section {
                address: section.sh_addr(LITTLE),
                bytes: self.held(section.sh_offset(LITTLE), section.sh_size(LITTLE))?,
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
        Some(Section {
            address: segment.p_vaddr(LITTLE),
            bytes: self.held(segment.p_offset(LITTLE), segment.p_filesz(LITTLE))?,
        })
    }

    fn eh_frame_by_segment(&self) -> Option<Section<'a>> {
        if self.room.is_exceeded() {
            return None;
        }
        let header = self.eh_frame_hdr()?;
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(header.address);
        let parsed = gimli::EhFrameHdr::new(&header.bytes, gimli::LittleEndian)
            .parse(&bases, 8)
            .ok()?;
        let address = parsed.eh_frame_ptr().direct().ok()?;
        // Where it ends is not said; a zero length inside ends it.
        let (offset, bytes) = self.loaded_from(address)?;
        Some(Section {
            address,
            bytes: self.held(offset, bytes)?,
        })
    }

    /// `.debug_frame`, unpacked if it is compressed.
    pub fn debug_frame(&self) -> Option<Section<'a>> {
        let section = self.section(b".debug_frame")?;
        let (offset, bytes) = (section.sh_offset(LITTLE), section.sh_size(LITTLE));
        if section.sh_type(LITTLE) == elf::SHT_NOBITS {
            return None;
        }
        if section.sh_flags(LITTLE) & u64::from(elf::SHF_COMPRESSED) == 0 {
            let bytes = self.held(offset, bytes)?;
            return Some(Section { address: 0, bytes });
        }
        let header: CompressionHeader64<LittleEndian> =
            *records(self.file, offset, 1, 1)?.first()?;
        let header_bytes = size_of_val(&header) as u64;
        let packed_bytes = bytes.checked_sub(header_bytes)?;
        let unpacked_bytes = header.ch_size.get(LITTLE);
        if unpacked_bytes > MAX_UNPACKED_BYTES || !self.room.take(unpacked_bytes) {
            return None;
        }
        let packed = self.held(offset + header_bytes, packed_bytes)?;
        let bytes = unpack(header.ch_type.get(LITTLE), unpacked_bytes, &packed);
        drop(packed);
        self.room.give_back(packed_bytes);
        Some(Section {
            address: 0,
            bytes: Cow::Owned(bytes?),
        })
    }

    /// Where the file holds what is loaded at a virtual address, and how much of
    /// the segment follows from there on.
    fn loaded_from(&self, address: u64) -> Option<(u64, u64)> {
        self.segments
            .iter()
            .filter(|segment| segment.p_type(LITTLE) == PT_LOAD)
            .find_map(|segment| {
                let into = address.checked_sub(segment.p_vaddr(LITTLE))?;
                let (offset, bytes) = (segment.p_offset(LITTLE), segment.p_filesz(LITTLE));
                let end = offset.checked_add(bytes)?;
                let left = bytes.checked_sub(into).filter(|left| *left > 0)?;
                (end <= self.file.size_bytes()).then_some((offset + into, left))
            })
    }

    /// So many of the file's bytes from a virtual address on; fewer at the end of
    /// its segment, but never none.
    pub fn code(&self, address: u64, bytes: u64) -> Option<Cow<'a, [u8]>> {
        let (offset, left) = self.loaded_from(address)?;
        self.file
            .read(offset, usize::try_from(left.min(bytes)).ok()?)
    }

    /// The first data at or behind a virtual address, which an executable segment
    /// may hold too.
    pub fn data_from(&self, address: u64) -> Option<&Range<u64>> {
        let first = self.data.partition_point(|data| data.end <= address);
        self.data.get(first)
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
        for kind in SECTION_TYPES {
            let table = self
                .sections
                .iter()
                .find(|section| section.sh_type(LITTLE) == kind);
            if let Some(table) = table {
                self.read_function_starts(table, &mut starts);
            }
        }
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    fn read_function_starts(&self, table: &SectionHeader, starts: &mut Vec<u64>) {
        const SYMBOL_BYTES: u64 = size_of::<Sym64<LittleEndian>>() as u64;
        let count = (table.sh_size(LITTLE) / SYMBOL_BYTES).min(MAX_SYMBOLS);
        let mut read = 0;
        while read < count {
            let offset = table.sh_offset(LITTLE).saturating_add(read * SYMBOL_BYTES);
            let wanted = (count - read).min(RECORDS_AT_ONCE);
            let Some(symbols) = records::<Sym64<LittleEndian>>(self.file, offset, wanted, wanted)
            else {
                return;
            };
            read += wanted;
            let before = starts.len();
            starts.extend(symbols.iter().filter_map(|symbol| {
                let defined = symbol.st_shndx.get(LITTLE) != elf::SHN_UNDEF;
                let address = symbol.st_value.get(LITTLE);
                (defined && symbol.st_type() == elf::STT_FUNC && self.segment_of(address).is_some())
                    .then_some(address)
            }));
            if !self.room.take(8 * (starts.len() - before) as u64) {
                return;
            }
        }
    }
}

/// Records that lie one after the other, the first so many of them; all have to
/// be there.
fn records<T: Pod>(file: &dyn Contents, offset: u64, count: u64, max: u64) -> Option<Vec<T>> {
    let all = count.checked_mul(size_of::<T>() as u64)?;
    offset
        .checked_add(all)
        .filter(|end| *end <= file.size_bytes())?;
    let count = usize::try_from(count.min(max)).ok()?;
    let bytes = file.read(offset, count * size_of::<T>())?;
    let (records, _) = pod::slice_from_bytes(&bytes, count).ok()?;
    Some(records.to_vec())
}

/// The program headers: none if the file has none.
fn segments(file: &dyn Contents, header: &Header) -> Option<Vec<ProgramHeader64<LittleEndian>>> {
    let offset = header.e_phoff(LITTLE);
    let count = match header.e_phnum(LITTLE) {
        PN_XNUM => u64::from(first_section(file, header)?.sh_info(LITTLE)),
        count => count.into(),
    };
    if offset == 0 || count == 0 {
        return Some(Vec::new());
    }
    let whole = size_of::<ProgramHeader64<LittleEndian>>();
    if usize::from(header.e_phentsize(LITTLE)) != whole {
        return None;
    }
    records(file, offset, count, MAX_PROGRAM_HEADERS)
}

/// What the section headers say.
#[derive(Default)]
struct Sections<'a> {
    /// Those that matter here.
    kept: Vec<SectionHeader>,
    /// The names of all.
    names: Cow<'a, [u8]>,
    /// [`Image::data`].
    data: Vec<Range<u64>>,
}

/// Nothing, if the headers are missing or cut off, since they are not loaded.
fn sections<'a>(file: &'a dyn Contents, header: &Header) -> Option<Sections<'a>> {
    let first = header.e_shoff(LITTLE);
    let count = match header.e_shnum(LITTLE) {
        0 => first_section(file, header)?.sh_size(LITTLE),
        count => count.into(),
    };
    let size_bytes = size_of::<SectionHeader>() as u64;
    let end = first.checked_add(count.checked_mul(size_bytes)?)?;
    if first == 0 || end > file.size_bytes() || u64::from(header.e_shentsize(LITTLE)) != size_bytes
    {
        return None;
    }
    let names_at = first + u64::from(header.e_shstrndx(LITTLE)) * size_bytes;
    let names = records::<SectionHeader>(file, names_at, 1, 1).filter(|_| names_at < end);
    let names = names.as_deref().and_then(<[SectionHeader]>::first);
    let names = names.and_then(|names| {
        let bytes = names.sh_size(LITTLE).min(MAX_NAME_BYTES);
        file.read(names.sh_offset(LITTLE), bytes as usize)
    });
    let names = names.unwrap_or_default();
    let mut sections = Vec::new();
    let mut data: Vec<Range<u64>> = Vec::new();
    let mut number = 0;
    while number < count.min(MAX_SECTIONS) {
        let some = (count - number).min(RECORDS_AT_ONCE);
        let headers = records::<SectionHeader>(file, first + number * size_bytes, some, some)?;
        number += some;
        data.extend(headers.iter().filter_map(data_of));
        sections.extend(headers.into_iter().filter(|section| {
            SECTION_TYPES.contains(&section.sh_type(LITTLE))
                || SECTION_NAMES
                    .iter()
                    .any(|name| is_named(section, &names, name))
        }));
        // There is one of each in any file that is not made to have more.
        sections.truncate(MAX_KEPT_SECTIONS);
    }
    data.sort_unstable_by_key(|data| data.start);
    let mut end = 0;
    data.retain(|data| {
        let is_apart = data.start >= end;
        if is_apart {
            end = data.end;
        }
        is_apart
    });
    Some(Sections {
        kept: sections,
        names,
        data,
    })
}

/// The addresses of a section that is loaded and not executed, if it is of some
/// size.
fn data_of(section: &SectionHeader) -> Option<Range<u64>> {
    let flags = section.sh_flags(LITTLE);
    let is_data = flags & u64::from(elf::SHF_ALLOC) != 0
        && flags & u64::from(elf::SHF_EXECINSTR) == 0
        && section.sh_type(LITTLE) != elf::SHT_NOBITS;
    let (start, bytes) = (section.sh_addr(LITTLE), section.sh_size(LITTLE));
    let end = start.checked_add(bytes)?;
    (is_data && bytes >= LEAST_DATA_BYTES).then_some(start..end)
}

fn is_named(section: &SectionHeader, names: &[u8], name: &[u8]) -> bool {
    names
        .get(section.sh_name(LITTLE) as usize..)
        .and_then(|rest| rest.strip_prefix(name))
        .is_some_and(|rest| rest.first() == Some(&0))
}

/// The one that holds the counts that have no room in the file's header.
fn first_section(file: &dyn Contents, header: &Header) -> Option<SectionHeader> {
    let offset = header.e_shoff(LITTLE);
    let whole = size_of::<SectionHeader>();
    if offset == 0 || usize::from(header.e_shentsize(LITTLE)) != whole {
        return None;
    }
    records(file, offset, 1, 1)?.first().copied()
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
