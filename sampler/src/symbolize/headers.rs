//! The headers of an ELF file, every size checked before it is used.
//!
//! Layout: System V ABI, chapters 4 and 5 ("Object Files", "Program Loading").
//! Little-endian only, as are all machines we run on; both word sizes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt;

/// Section names longer than this in sum are no use to anyone.
const MAX_SECTION_NAMES_BYTES: u64 = 4 << 20;
/// The names that matter are shorter; a hostile file could let a million
/// sections share one long name.
const MAX_SECTION_NAME_BYTES: usize = 64;
/// `e_phnum` when the real number is in section 0.
const MANY_SEGMENTS: u64 = 0xffff;
/// A bound on the number of sections, and of segments. A program or library has
/// tens; only object files, which are none, have more than fit into 16 bits.
const MAX_SECTIONS: u64 = 1 << 16;
/// `SHT_NOTE`.
pub(super) const SECTION_NOTE: u64 = 7;
/// `SHT_NOBITS`: in memory only.
pub(super) const SECTION_NO_BITS: u64 = 8;
/// `SHF_COMPRESSED`.
pub(super) const SECTION_COMPRESSED: u64 = 0x800;
/// Extents of a section that are looked at, to tell data from holes.
const MAX_EXTENTS: usize = 1 << 12;

/// Why a file cannot be shown to a parser at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum ElfError {
    /// It ends before what its headers promise, or cannot be read.
    #[error("unreadable or truncated: {0}")]
    Unreadable(#[from] io::Error),
    /// It is something else.
    #[error("not a little-endian ELF program or library")]
    NotAnImage,
    /// Its headers contradict themselves or are absurdly large.
    #[error("broken ELF headers")]
    BrokenHeaders,
    /// Its symbol table is far too large, a hole, or compressed and broken.
    #[error("its symbol tables are broken or larger than the bounds")]
    SymbolsTooLarge,
}

/// Bytes that can be read anywhere.
pub(super) trait ReadAt {
    /// Fills `buffer` from `offset` on, or fails with `UnexpectedEof`.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Whether at least so many bytes of a range are data rather than holes.
    fn holds_data(&self, range: Range<u64>, least_bytes: u64) -> bool;
}

impl ReadAt for File {
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn holds_data(&self, range: Range<u64>, least_bytes: u64) -> bool {
        holds_data(self, range, least_bytes).unwrap_or(true)
    }
}

/// `holds_data` of a file. An error says that this file system cannot tell.
fn holds_data(file: &File, range: Range<u64>, least_bytes: u64) -> io::Result<bool> {
    let (mut at, mut data_bytes) = (range.start, 0);
    for _ in 0..MAX_EXTENTS {
        if data_bytes >= least_bytes {
            return Ok(true);
        }
        let Some(data_start) = seek(file, at, libc::SEEK_DATA)? else {
            return Ok(false);
        };
        if data_start >= range.end {
            return Ok(false);
        }
        at = seek(file, data_start, libc::SEEK_HOLE)?.unwrap_or(range.end);
        data_bytes += at.min(range.end).saturating_sub(data_start);
    }
    // Shot through with holes on purpose.
    Ok(false)
}

/// The first data or hole from an offset on; `None` if nothing but a hole, or
/// nothing at all, follows.
fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let Ok(from) = libc::off_t::try_from(from) else {
        return Ok(None);
    };
    // SAFETY: `lseek` touches no memory of ours.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

impl ReadAt for [u8] {
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn holds_data(&self, _: Range<u64>, _: u64) -> bool {
        true
    }
}

impl<F: ReadAt + ?Sized> ReadAt for &F {
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).fill(buffer, offset)
    }

    fn holds_data(&self, range: Range<u64>, least_bytes: u64) -> bool {
        (**self).holds_data(range, least_bytes)
    }
}

/// The ELF header: where the tables are.
#[derive(Debug)]
pub(super) struct Header {
    /// 64-bit file; else 32-bit.
    pub wide: bool,
    program_offset: u64,
    program_entry_bytes: u64,
    program_count: u64,
    section_offset: u64,
    section_entry_bytes: u64,
    section_count: u64,
    section_names_index: u64,
}

/// One entry of the program header table.
#[derive(Debug)]
pub(super) struct Segment {
    /// `p_type`.
    pub kind: u64,
    /// `p_flags`.
    pub flags: u64,
    /// Its bytes in the file.
    pub file: Range<u64>,
    /// `p_vaddr`.
    pub virtual_start: u64,
}

/// One entry of the section header table.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name.
    pub name: Vec<u8>,
    /// `sh_type`.
    pub kind: u64,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_addr`.
    pub virtual_start: u64,
    offset: u64,
    size_bytes: u64,
    link: u64,
    info: u64,
}

impl Header {
    const TYPE_EXECUTABLE: u64 = 2;
    const TYPE_SHARED: u64 = 3;

    /// Reads the header of a program or library; objects and cores are not
    /// images and refused.
    pub(super) fn read(file: &(impl ReadAt + ?Sized)) -> Result<Self, ElfError> {
        let mut ident = [0; 16];
        file.fill(&mut ident, 0)?;
        let wide = match ident {
            [0x7f, b'E', b'L', b'F', class @ (1 | 2), 1, ..] => class == 2,
            _ => return Err(ElfError::NotAnImage),
        };
        let mut bytes = vec![0; if wide { 64 } else { 52 }];
        file.fill(&mut bytes, 0)?;
        let at = |narrow: (usize, usize), wide_field: (usize, usize)| {
            let (offset, width) = if wide { wide_field } else { narrow };
            word(&bytes, offset, width)
        };
        let kind = at((16, 2), (16, 2));
        if kind != Self::TYPE_EXECUTABLE && kind != Self::TYPE_SHARED {
            return Err(ElfError::NotAnImage);
        }
        let mut header = Self {
            wide,
            program_offset: at((28, 4), (32, 8)),
            section_offset: at((32, 4), (40, 8)),
            program_entry_bytes: at((42, 2), (54, 2)),
            program_count: at((44, 2), (56, 2)),
            section_entry_bytes: at((46, 2), (58, 2)),
            section_count: at((48, 2), (60, 2)),
            section_names_index: at((50, 2), (62, 2)),
        };
        header.resolve_large_counts(file)?;
        Ok(header)
    }

    /// Numbers that do not fit into 16 bits are kept in section 0.
    fn resolve_large_counts(&mut self, file: &(impl ReadAt + ?Sized)) -> Result<(), ElfError> {
        if self.section_offset == 0 {
            self.section_count = 0;
            return Ok(());
        }
        let first = self.raw_section(file, 0)?.0;
        if self.section_count == 0 {
            self.section_count = first.size_bytes;
        }
        if self.section_names_index == 0xffff {
            self.section_names_index = first.link;
        }
        if self.program_count == MANY_SEGMENTS {
            self.program_count = first.info;
        }
        Ok(())
    }

    /// The program headers.
    pub(super) fn segments(&self, file: &(impl ReadAt + ?Sized)) -> Result<Vec<Segment>, ElfError> {
        let table = self.raw_segments(file)?;
        let entry_bytes = self.program_entry_bytes.max(1) as usize;
        table
            .chunks_exact(entry_bytes)
            .map(|bytes| {
                let at = |narrow, wide_field: (usize, usize)| {
                    let (offset, width) = if self.wide { wide_field } else { (narrow, 4) };
                    word(bytes, offset, width)
                };
                let offset = at(4, (8, 8));
                Ok(Segment {
                    kind: at(0, (0, 4)),
                    flags: at(24, (4, 4)),
                    file: offset..offset.saturating_add(at(16, (32, 8))),
                    virtual_start: at(8, (16, 8)),
                })
            })
            .collect()
    }

    /// The table of program headers, as it is in the file.
    pub(super) fn raw_segments(&self, file: &(impl ReadAt + ?Sized)) -> Result<Vec<u8>, ElfError> {
        let entry_bytes = if self.wide { 56 } else { 32 };
        if self.program_count > MAX_SECTIONS
            || (self.program_count > 0 && self.program_entry_bytes != entry_bytes)
        {
            return Err(ElfError::BrokenHeaders);
        }
        let mut table = vec![0; (self.program_count * entry_bytes) as usize];
        file.fill(&mut table, self.program_offset)?;
        Ok(table)
    }

    /// The table of section headers, as it is in the file.
    pub(super) fn raw_sections(&self, file: &(impl ReadAt + ?Sized)) -> Result<Vec<u8>, ElfError> {
        let entry_bytes = if self.wide { 64 } else { 40 };
        let is_right = self.section_count == 0 || self.section_entry_bytes == entry_bytes;
        if self.section_count > MAX_SECTIONS || !is_right {
            return Err(ElfError::BrokenHeaders);
        }
        let mut table = vec![0; (self.section_count * entry_bytes) as usize];
        file.fill(&mut table, self.section_offset)?;
        Ok(table)
    }

    /// Whether a section holds the names of all.
    pub(super) fn has_section_names(&self) -> bool {
        self.section_names_index < self.section_count
    }

    /// Whether the section of this number holds the names of all.
    pub(super) fn is_section_names(&self, number: usize) -> bool {
        number as u64 == self.section_names_index
    }

    /// The section headers with their names.
    pub(super) fn sections(&self, file: &(impl ReadAt + ?Sized)) -> Result<Vec<Section>, ElfError> {
        if self.section_count > MAX_SECTIONS {
            return Err(ElfError::BrokenHeaders);
        }
        if self.section_count == 0 {
            return Ok(Vec::new());
        }
        let (name_table, _) = self.raw_section(file, self.section_names_index)?;
        let names = name_table.content(file, MAX_SECTION_NAMES_BYTES)?;
        (0..self.section_count)
            .map(|index| {
                let (mut section, name_offset) = self.raw_section(file, index)?;
                let start = (name_offset as usize).min(names.len());
                let end = names.len().min(start + MAX_SECTION_NAME_BYTES);
                let name = names[start..end].split(|byte| *byte == 0).next();
                section.name = name.unwrap_or_default().to_vec();
                Ok(section)
            })
            .collect()
    }

    /// A section header without its name, and the offset of that name.
    fn raw_section(
        &self,
        file: &(impl ReadAt + ?Sized),
        index: u64,
    ) -> Result<(Section, u64), ElfError> {
        let entry_bytes = if self.wide { 64 } else { 40 };
        if self.section_entry_bytes != entry_bytes {
            return Err(ElfError::BrokenHeaders);
        }
        let mut bytes = [0; 64];
        let bytes = &mut bytes[..entry_bytes as usize];
        file.fill(bytes, entry_at(self.section_offset, entry_bytes, index)?)?;
        let at = |narrow, wide_field: (usize, usize)| {
            let (offset, width) = if self.wide { wide_field } else { (narrow, 4) };
            word(bytes, offset, width)
        };
        let section = Section {
            name: Vec::new(),
            kind: at(4, (4, 4)),
            flags: at(8, (8, 8)),
            virtual_start: at(12, (16, 8)),
            offset: at(16, (24, 8)),
            size_bytes: at(20, (32, 8)),
            link: at(24, (40, 4)),
            info: at(28, (44, 4)),
        };
        Ok((section, at(0, (0, 4))))
    }
}

impl Section {
    /// Whether it takes bytes of the file.
    pub(super) fn has_content(&self) -> bool {
        self.kind != 0 && self.kind != SECTION_NO_BITS
    }

    /// How many bytes of the file it takes.
    pub(super) fn held_bytes(&self) -> u64 {
        if self.kind == SECTION_NO_BITS {
            0
        } else {
            self.size_bytes
        }
    }

    /// Where its bytes are in the file.
    pub(super) fn file_range(&self) -> Result<Range<u64>, ElfError> {
        let end = self.offset.checked_add(self.size_bytes);
        Ok(self.offset..end.ok_or(ElfError::BrokenHeaders)?)
    }

    /// The addresses it is loaded at.
    pub(super) fn virtual_range(&self) -> Range<u64> {
        self.virtual_start..self.virtual_start.saturating_add(self.size_bytes)
    }

    /// Its bytes, if they are at most so many.
    pub(super) fn content(
        &self,
        file: &(impl ReadAt + ?Sized),
        max_bytes: u64,
    ) -> Result<Vec<u8>, ElfError> {
        if self.size_bytes > max_bytes {
            return Err(ElfError::BrokenHeaders);
        }
        let mut content = vec![0; self.size_bytes as usize];
        file.fill(&mut content, self.offset)?;
        Ok(content)
    }
}

fn entry_at(table: u64, entry_bytes: u64, index: u64) -> Result<u64, ElfError> {
    index
        .checked_mul(entry_bytes)
        .and_then(|distance| table.checked_add(distance))
        .ok_or(ElfError::BrokenHeaders)
}

/// The little-endian number of `width` bytes at `offset`; 0 beyond the end.
pub(super) fn word(bytes: &[u8], offset: usize, width: usize) -> u64 {
    let field = bytes.get(offset..offset + width).unwrap_or_default();
    field
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::*;

    #[test]
    fn a_hole_is_told_from_data() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 8 << 10], 1 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
        let data = 1 << 20..(1 << 20) + (8 << 10);
        assert!(file.holds_data(data.clone(), 8 << 10));
        assert!(file.holds_data(0..4 << 20, 8 << 10));
        assert!(!file.holds_data(0..4 << 20, 1 << 20));
        assert!(!file.holds_data(0..data.start, 1));
        assert!(!file.holds_data(data.end..4 << 20, 1));
        assert!(!file.holds_data(1 << 40..1 << 41, 1));
    }
}
