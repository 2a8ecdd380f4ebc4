//! A table of Go functions, written out.

use super::go_program::{CODE, MAGICS};

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
