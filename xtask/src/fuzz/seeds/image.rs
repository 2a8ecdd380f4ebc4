//! The first inputs of `image`: what sections hold, and files made of that.

use super::{Seed, elf};

#[path = "../../../../tests/symbolize/elf_sections.rs"]
mod elf_sections;

use elf_sections::{COMPRESSED, FILE, ZSTD};

/// 1000 times the letter `a`, by zlib and by zstd.
const ZLIB_STREAM: &[u8] = b"\x78\x9c\x4b\x4c\x1c\x05\xa3\x60\x14\x0c\x77\0\0\xf9\xd8\x7a\xf8";
const ZSTD_STREAM: &[u8] =
    b"\x28\xb5\x2f\xfd\x04\x58\x4d\0\0\x10aa\x01\0\xe3\x2b\x80\x05\x23\x42\xda\x2e";
const PROMISED: u16 = 1000;

/// The seeds.
pub fn seeds() -> Vec<Seed> {
    let plain = b"what is not compressed".as_slice();
    let shapes = [
        ("plain", 4, plain.to_vec()),
        (
            "zlib",
            COMPRESSED,
            [&PROMISED.to_le_bytes(), ZLIB_STREAM].concat(),
        ),
        (
            "zstd",
            COMPRESSED | ZSTD,
            [&PROMISED.to_le_bytes(), ZSTD_STREAM].concat(),
        ),
    ];
    let seeds = shapes.into_iter().flat_map(|(name, shape, debug_info)| {
        let content = content(&debug_info);
        let file = elf_sections::file(shape, &content);
        [
            Seed {
                name: name.to_owned(),
                bytes: [&[shape], &content[..]].concat(),
            },
            Seed {
                name: format!("{name}-file"),
                bytes: [&[FILE], &file[..]].concat(),
            },
        ]
    });
    seeds.collect()
}

/// Symbols, their names and this debug information.
fn content(debug_info: &[u8]) -> Vec<u8> {
    let functions = [
        (1, 0x1000, 0x20),
        (3, 0x1010, 8),
        (5, 0x1040, 0),
        (1, 0x1080, 0x10),
    ];
    let names = b"\0f\0g\0h\0";
    let mut content = vec![functions.len() as u8];
    for (name, start, bytes) in functions {
        content.extend(u32::to_le_bytes(name));
        // A global function, in the first section.
        content.extend([0x12, 0, 1, 0]);
        content.extend(u64::to_le_bytes(start));
        content.extend(u64::to_le_bytes(bytes));
    }
    content.push(names.len() as u8);
    content.extend(names);
    content.extend(debug_info);
    content
}
