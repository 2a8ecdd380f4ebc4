//! ELF files made of what their sections hold.

use super::elf::Elf;

/// The first byte of an input that is a file as it is.
pub const FILE: u8 = 0;
/// Bits of others: `.debug_info` is compressed, by zstd.
pub const COMPRESSED: u8 = 1;
pub const ZSTD: u8 = 2;

const SECTION_PLAIN: u32 = 1;
const SECTION_SYMBOLS: u32 = 2;
const SECTION_TEXTS: u32 = 3;
const FLAG_ALLOCATED: u32 = 2;
const FLAG_EXECUTABLE: u32 = 4;
const FLAG_COMPRESSED: u32 = 0x800;
const SEGMENT_LOAD: u32 = 1;
const SYMBOL_BYTES: usize = 24;
const CODE: u64 = 0x1000;
const CODE_BYTES: usize = 0x1000;

/// A library with code. In `content` are symbols, names of symbols and debug
/// information; before the first stands how many there are, before the second how many
/// bytes.
pub fn file(shape: u8, content: &[u8]) -> Vec<u8> {
    let (symbols, rest) = counted(content, SYMBOL_BYTES);
    let (names, debug_info) = counted(rest, 1);
    let mut elf = Elf::new(false, false, CODE);
    let code = elf.contents(&[0x90; CODE_BYTES]);
    elf.segment(SEGMENT_LOAD, 5, CODE, &code);
    elf.section(
        ".text",
        SECTION_PLAIN,
        FLAG_ALLOCATED | FLAG_EXECUTABLE,
        CODE,
        &code,
    );
    let place = elf.contents(symbols);
    elf.section(".symtab", SECTION_SYMBOLS, 0, 0, &place);
    let place = elf.contents(names);
    elf.section(".strtab", SECTION_TEXTS, 0, 0, &place);
    let (bytes, flags) = if shape & COMPRESSED == 0 {
        (debug_info.to_vec(), 0)
    } else {
        (compressed(shape, debug_info), FLAG_COMPRESSED)
    };
    let place = elf.contents(&bytes);
    elf.section(".debug_info", SECTION_PLAIN, flags, 0, &place);
    let place = elf.contents(b"one\0two\0");
    elf.section(".debug_str", SECTION_PLAIN, 0, 0, &place);
    elf.finish()
}

/// What a number at the start counts, whole ones only, and the rest.
fn counted(content: &[u8], bytes: usize) -> (&[u8], &[u8]) {
    let Some((count, rest)) = content.split_first() else {
        return (&[], &[]);
    };
    rest.split_at(usize::from(*count).min(rest.len() / bytes) * bytes)
}

/// A compressed section, whose first two bytes say how much it promises.
fn compressed(shape: u8, content: &[u8]) -> Vec<u8> {
    let Some((promised, stream)) = content.split_first_chunk() else {
        return content.to_vec();
    };
    let kind = if shape & ZSTD == 0 { 1_u32 } else { 2 };
    let promised = u64::from(u16::from_le_bytes(*promised));
    let mut section = u64::from(kind).to_le_bytes().to_vec();
    section.extend(promised.to_le_bytes());
    section.extend(1_u64.to_le_bytes());
    section.extend(stream);
    section
}
