#![allow(clippy::unwrap_used)] // a test that unwraps says what it expects

#[path = "../../../../tests/unwind/elf.rs"]
mod elf;
#[path = "../../../../tests/symbolize/go_program.rs"]
mod go_program;
#[path = "../../../../tests/symbolize/go_table.rs"]
mod go_table;

use proptest::prelude::*;

use super::*;
use go_program::{CODE, MAGICS, TABLE, program};
use go_table::{Function as Made, table};

/// `outer` with two levels of inlined calls, then a function without lines.
fn functions() -> Vec<Made> {
    vec![
        Made {
            name: "main.outer",
            code_bytes: 40,
            lines: vec![(10, 8), (31, 8), (20, 4), (300_000, 20)],
            belongs: vec![(-1, 8), (1, 8), (0, 4), (-1, 20)],
            calls: vec![("main.middle", 4), ("main.(*T).inner", 17)],
        },
        Made {
            name: "main.bare[...]",
            code_bytes: 24,
            ..Made::default()
        },
    ]
}

fn made(magic: u32) -> (Vec<u8>, Vec<u8>) {
    table(magic, &functions())
}

type Read = (String, String, u32);

fn frames(file: &[u8], address: u64) -> Vec<Read> {
    let frames = frames_at(file, &[address]).unwrap_or_default();
    let frames = frames.into_iter().flatten();
    let read = |frame: FrameName| {
        assert_eq!(frame.name, frame.system_name);
        (frame.name, frame.source_file, frame.line)
    };
    frames.map(read).collect()
}

fn read(name: &str, line: u32) -> Read {
    let file = if line == 0 { "" } else { "main.go" };
    (name.into(), file.into(), line)
}

#[test]
fn every_version_is_read() {
    for magic in MAGICS {
        let (table, data) = made(magic);
        for with_sections in [true, false] {
            let file = program(&table, &data, with_sections);
            let outer = |line| read("main.outer", line);
            assert_eq!(frames(&file, CODE), [outer(10)], "{magic:x}");
            let (inner, middle) = if magic == MAGICS[0] {
                // Inlined calls are read from Go 1.18 on.
                (vec![outer(31)], vec![outer(20)])
            } else {
                let middle = |line| read("main.middle", line);
                (
                    vec![read("main.(*T).inner", 31), middle(20), outer(10)],
                    vec![middle(20), outer(10)],
                )
            };
            assert_eq!(frames(&file, CODE + 15), inner, "{magic:x}");
            assert_eq!(frames(&file, CODE + 16), middle, "{magic:x}");
            assert_eq!(frames(&file, CODE + 39), [outer(300_000)], "{magic:x}");
            let bare = [read("main.bare[...]", 0)];
            assert_eq!(frames(&file, CODE + 40), bare, "{magic:x}");
            assert_eq!(frames(&file, CODE + 63), bare, "{magic:x}");
            for address in [0, CODE - 1, CODE + 64, TABLE, u64::MAX] {
                assert_eq!(frames(&file, address), [], "{magic:x}: {address:x}");
            }
        }
    }
}

#[test]
fn what_is_no_header_is_not_taken_for_one() {
    let (table, data) = made(MAGICS[1]);
    assert!(frames_at(&program(&table, &data, true), &[]).is_some());
    // Magic number, padding, quantum, bytes of a pointer; then functions and
    // the offset of their list: none, too many, and outside of the table.
    for (at, byte) in [
        (0, 0xf2),
        (4, 1),
        (5, 1),
        (6, 3),
        (7, 16),
        (8, 0),
        (9, 1),
        (15, 1),
        (66, 1),
        (71, 0x80),
    ] {
        let mut broken = table.clone();
        broken[at] = byte;
        for with_sections in [true, false] {
            let file = program(&broken, &data, with_sections);
            assert!(frames_at(&file, &[CODE]).is_none(), "{byte} at {at}");
        }
    }
}

#[test]
fn a_table_without_its_module_is_not_used() {
    let (table, data) = made(MAGICS[2]);
    let mut file = program(&table, &data, true);
    let module = file
        .windows(8)
        .position(|bytes| bytes == TABLE.to_le_bytes())
        .unwrap();
    // The start of the code: wrong names would be the result.
    file[module + 22 * 8] ^= 0x10;
    assert!(frames_at(&file, &[CODE]).is_none());
}

#[test]
fn another_programs_tables_are_no_go() {
    assert!(frames_at(b"#!/bin/sh\n", &[0]).is_none());
    let own = std::fs::read("/proc/self/exe").unwrap();
    assert!(frames_at(&own, &[0]).is_none());
}

#[test]
fn calls_that_go_in_circles_end() {
    let mut functions = functions();
    // Each call's place belongs to itself.
    functions[0].calls = vec![("main.middle", 17), ("main.(*T).inner", 9)];
    let (table, data) = table(MAGICS[2], &functions);
    let file = program(&table, &data, true);
    let found = frames(&file, CODE + 8);
    assert_eq!(found.len(), MAX_INLINED + 1);
    assert_eq!(found[MAX_INLINED].0, "main.outer");
}

#[test]
fn calls_to_nowhere_cost_themselves_only() {
    for (name, place) in [("main.middle", 40), ("", 4)] {
        let mut functions = functions();
        functions[0].calls[1] = (name, place);
        let (table, data) = table(MAGICS[1], &functions);
        let file = program(&table, &data, true);
        assert_eq!(frames(&file, CODE + 8), [read("main.outer", 31)]);
        let kept = [read("main.middle", 20), read("main.outer", 10)];
        assert_eq!(frames(&file, CODE + 16), kept);
    }
}

#[test]
fn values_without_an_end_run_out_of_bytes() {
    let mut functions = functions();
    // Nothing moves on.
    functions[1].lines = vec![(5, 0), (6, 0), (7, 0)];
    let (mut table, data) = table(MAGICS[2], &functions);
    let file = program(&table, &data, true);
    assert_eq!(frames(&file, CODE + 41), [read("main.bare[...]", 0)]);
    // Numbers that never end.
    let lines = [12, 0, 2, 0, 2, 0, 0];
    let at = table.windows(7).position(|bytes| bytes == lines).unwrap();
    table.splice(at..at + 7, [0xff; 7]);
    let file = program(&table, &data, true);
    assert_eq!(frames(&file, CODE + 41), [read("main.bare[...]", 0)]);
}

#[test]
fn one_file_does_not_cost_without_end() {
    let (table, data) = made(MAGICS[2]);
    let file = program(&table, &data, true);
    let found = GoTable::find(file.as_slice()).unwrap();
    assert_eq!(found.frames(CODE)[0].line, 10);
    found.patience.spend();
    assert_eq!(found.frames(CODE)[0].line, 0);
    assert_eq!(found.frames(CODE)[0].name, "main.outer");
}

#[test]
fn every_truncation_costs_names_only() {
    let (table, data) = made(MAGICS[2]);
    let file = program(&table, &data, false);
    let whole = frames(&file, CODE + 8);
    for length in 0..file.len() {
        let found = frames(&file[..length], CODE + 8);
        assert!(found.is_empty() || found == whole, "{length}");
    }
}

proptest! {
    #[test]
    fn no_noise_makes_it_panic(
        version in 0..3_usize,
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        with_sections in any::<bool>(),
    ) {
        let (mut table, mut data) = made(MAGICS[version]);
        for (at, byte) in noise {
            let at = at.index(table.len() + data.len());
            match table.get_mut(at) {
                Some(place) => *place = byte,
                None => data[at - table.len()] = byte,
            }
        }
        let file = program(&table, &data, with_sections);
        let addresses: Vec<u64> = (CODE..CODE + 64).collect();
        for frames in frames_at(&file, &addresses).unwrap_or_default() {
            prop_assert!(frames.len() <= MAX_INLINED + 1);
        }
    }
}
