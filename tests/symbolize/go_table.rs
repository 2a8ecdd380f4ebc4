//! A table of Go functions, written out, and a program around one.

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

/// A function in the making.
#[derive(Debug, Clone, Default)]
pub struct Function {
    pub name: &'static str,
    pub code_bytes: u64,
    /// Its line, for so many bytes of code each.
    pub lines: Vec<(i32, u32)>,
    /// The inlined call that its code belongs to, or -1, for so many bytes.
    pub belongs: Vec<(i32, u32)>,
    /// Name and place of each inlined call.
    pub calls: Vec<(&'static str, u32)>,
}

/// A table of these functions, all in one file, and their data.
pub fn table(magic: u32, functions: &[Function]) -> (Vec<u8>, Vec<u8>) {
    let is_oldest = magic == MAGICS[0];
    // Place 0 of the values says that there are none.
    let (mut names, mut values, mut data) = (vec![0], vec![0], Vec::new());
    let place = |text: &mut Vec<u8>, bytes: &[u8]| {
        text.extend(bytes);
        (text.len() - bytes.len()) as u32
    };
    let mut records: Vec<Vec<u8>> = Vec::new();
    for function in functions {
        let mut name = |name: &str| place(&mut names, &[name.as_bytes(), &[0]].concat());
        let own_name = name(function.name);
        let mut calls = Vec::new();
        for (called, at) in &function.calls {
            let called = name(called);
            let call = match magic {
                magic if magic == MAGICS[2] => vec![0, called, *at, 7],
                _ => vec![0, 0, 0, called, *at],
            };
            calls.extend(call.iter().flat_map(|field| field.to_le_bytes()));
        }
        let mut value = |pairs: &[(i32, u32)]| match pairs {
            [] => 0,
            pairs => place(&mut values, &written(pairs)),
        };
        let whole = function.code_bytes as u32;
        let files = value(&[(0, whole)]);
        let lines = value(&function.lines);
        let belongs = value(&function.belongs);
        let calls_at = match calls.as_slice() {
            [] => u32::MAX,
            calls => place(&mut data, calls),
        };
        // Arguments, deferred calls, stack; files, lines; tables, unit.
        let mut fields = vec![own_name, 0, 0, 0, files, lines, 3, 0];
        if magic == MAGICS[2] {
            fields.push(7);
        }
        let mut record: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        record.extend([0, 0, 0, 4]);
        for field in [0, 0, belongs, u32::MAX, u32::MAX, u32::MAX, calls_at] {
            record.extend(field.to_le_bytes());
        }
        records.push(record);
    }

    let number = |value: u64| value.to_le_bytes()[..if is_oldest { 8 } else { 4 }].to_vec();
    let entry_bytes = if is_oldest { 16 } else { 8 };
    let mut list = Vec::new();
    let mut record_at = (functions.len() * entry_bytes + entry_bytes / 2) as u64;
    let mut start = if is_oldest { CODE } else { 0 };
    let mut all_records = Vec::new();
    for (function, record) in functions.iter().zip(&records) {
        list.extend([number(start), number(record_at)].concat());
        let record = [&number(start), record.as_slice()].concat();
        record_at += record.len() as u64;
        all_records.extend(record);
        start += function.code_bytes;
    }
    list.extend(number(start));
    list.extend(all_records);

    let units = 0_u32.to_le_bytes().to_vec();
    let mut parts = vec![names, units, b"main.go\0".to_vec(), values, list];
    let mut table = magic.to_le_bytes().to_vec();
    table.extend([0, 0, 1, 8]);
    let mut header = vec![functions.len() as u64, 1];
    if !is_oldest {
        header.push(0);
    }
    let mut offset = 8 + 8 * (header.len() + parts.len()) as u64;
    for part in &mut parts {
        header.push(offset);
        offset += part.len() as u64;
    }
    table.extend(header.iter().flat_map(|field| field.to_le_bytes()));
    table.extend(parts.concat());
    (table, data)
}

/// Values with the bytes that each holds for, as Go's linker writes them.
fn written(pairs: &[(i32, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = -1;
    for (value, code_bytes) in pairs {
        let change = value - before;
        before = *value;
        for mut number in [(change << 1 ^ change >> 31).cast_unsigned(), *code_bytes] {
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
        }
    }
    bytes.push(0);
    bytes
}
