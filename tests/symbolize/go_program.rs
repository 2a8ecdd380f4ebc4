//! A program around a table of Go functions.

use object::elf::{PF_R, PF_W, PF_X, PT_LOAD, SHT_PROGBITS};

use super::elf::Elf;

/// Where the code starts.
pub const CODE: u64 = 0x40_1000;
/// Where the table is.
pub const TABLE: u64 = 0x50_0000;
/// Where the functions' data is.
const DATA: u64 = 0x6000_0000;
/// Where the module is.
const MODULE: u64 = 0x7000_0000;

/// Go 1.16, 1.18 and 1.20.
pub const MAGICS: [u32; 3] = [0xffff_fffa, 0xffff_fff0, 0xffff_fff1];
/// Its place among a module's words, in Go 1.19.
const DATA_WORD: usize = 38;
const MODULE_WORDS: usize = 48;

/// A program around a table, which need not be sound, and its functions' data.
/// Without section headers, whoever reads it has to search.
pub fn program(table: &[u8], data: &[u8], with_sections: bool) -> Vec<u8> {
    let mut elf = Elf::new(false, true, CODE);
    let code = elf.contents(&[0xc3; 64]);
    let module = elf.contents(&module(table));
    let place = elf.contents(table);
    let data = elf.contents(data);
    elf.segment(PT_LOAD, PF_R | PF_X, CODE, &code);
    elf.segment(PT_LOAD, PF_R, TABLE, &place);
    elf.segment(PT_LOAD, PF_R, DATA, &data);
    elf.segment(PT_LOAD, PF_R | PF_W, MODULE, &module);
    if with_sections {
        elf.section(".gopclntab", SHT_PROGBITS, 0, TABLE, &place);
    }
    elf.finish()
}

/// The module that belongs to a table, by its header.
fn module(table: &[u8]) -> Vec<u8> {
    let pointer_bytes = match table.get(7) {
        Some(4) => 4,
        _ => 8,
    };
    let number = |at: usize, width: usize| {
        let bytes = table.get(at..at.saturating_add(width)).unwrap_or_default();
        let bytes = bytes.iter().rev();
        bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let is_oldest = number(0, 4) == u64::from(MAGICS[0]);
    let first_offset = if is_oldest { 2 } else { 3 };
    let field = |index: usize| number(8 + index * pointer_bytes, pointer_bytes);
    let part = |index: usize| field(first_offset + index);
    let (count, code, entry_bytes) = if is_oldest {
        (field(0), 0, pointer_bytes)
    } else {
        (field(0), CODE, 4)
    };
    let limit = |index: u64| {
        let at = index.saturating_mul(2 * entry_bytes as u64);
        let at = part(4).saturating_add(at);
        code.wrapping_add(number(
            usize::try_from(at).unwrap_or(usize::MAX),
            entry_bytes,
        ))
    };
    let mut words = vec![0; MODULE_WORDS];
    words[0] = TABLE;
    for (slice, index) in [0, 1, 2, 3, 4, 4].into_iter().enumerate() {
        words[1 + 3 * slice] = TABLE.wrapping_add(part(index));
    }
    words[17..19].fill(count.wrapping_add(1));
    words[20] = limit(0);
    words[21] = limit(count);
    words[22] = code;
    words[DATA_WORD] = DATA;
    let bytes = words.iter().map(|word| word.to_le_bytes());
    bytes
        .flat_map(|word| word[..pointer_bytes].to_vec())
        .collect()
}
