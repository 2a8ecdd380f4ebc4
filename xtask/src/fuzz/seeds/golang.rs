//! The first inputs of `golang`: tables of every version, as the tests make
//! them. Those of real programs are too large.

use super::{Seed, elf};

#[path = "../../../../tests/symbolize/go_program.rs"]
mod go_program;
#[path = "../../../../tests/symbolize/go_table.rs"]
mod go_table;

use go_program::{MAGICS, program};
use go_table::{Function, table};

/// The first byte of an input: a file as it is, or a table; with section
/// headers.
const FILE: u8 = 0;
const TABLE: u8 = 1;
const SECTIONS: u8 = 2;

/// The seeds.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (number, magic) in MAGICS.into_iter().enumerate() {
        let (table, data) = table(magic, &functions());
        let mut seed = |kind: &str, bytes: Vec<u8>| {
            seeds.push(Seed {
                name: format!("{number}-{kind}"),
                bytes,
            });
        };
        for (kind, shape) in [("table", TABLE | SECTIONS), ("hidden", TABLE)] {
            let data_bytes = data.len() as u16;
            let header = [&[shape], &data_bytes.to_le_bytes()[..]].concat();
            seed(kind, [&header[..], &data, &table].concat());
        }
        let file = program(&table, &data, true);
        seed("file", [&[FILE], file.as_slice()].concat());
    }
    seeds
}

/// Chains of inlined calls of several depths, and a function without any.
fn functions() -> Vec<Function> {
    let names = ["main.f", "main.(*T).g", "main.h[...]", "main.main.func1"];
    let deep = names.into_iter().enumerate().map(|(depth, name)| Function {
        name,
        code_bytes: 64,
        lines: vec![(10, 16), (200, 16), (15, 32)],
        belongs: vec![(-1, 8), (depth as i32, 40), (0, 16)],
        calls: vec![
            ("main.inner", 9),
            ("main.middle", 50),
            ("fmt.Println", 20),
            ("x", 1),
        ],
    });
    let bare = Function {
        name: "runtime.bare",
        code_bytes: 32,
        ..Function::default()
    };
    deep.chain([bare]).collect()
}
