//! The first inputs of `pprof`: profiles with a little of everything, put
//! together here by the format's own rules.

use super::Seed;

/// One of an allocator's with labels, and an empty one.
pub fn seeds() -> Vec<Seed> {
    let seed = |name: &str, bytes| Seed {
        name: name.to_owned(),
        bytes,
    };
    vec![
        seed("dense", profile(&[1, 2, 3])),
        seed("sparse", profile(&[7, 3, 1 << 40])),
        seed("empty", bytes(6, b"")),
    ]
}

/// A profile whose locations have these IDs, the first of them with a line.
fn profile(ids: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let strings: [&[u8]; 9] = [
        b"",
        b"samples",
        b"count",
        b"main",
        b"main.c",
        b"/bin/app",
        b"0011223344556677",
        b"pid",
        b"# remark",
    ];
    for _ in 0..2 {
        out.extend(bytes(1, &[number(1, 1), number(2, 2)].concat()));
    }
    let stack: Vec<u8> = ids.iter().flat_map(|id| varint(*id)).collect();
    let label = bytes(3, &[number(1, 7), number(3, 9), number(4, 7)].concat());
    out.extend(bytes(
        2,
        &[bytes(1, &stack), bytes(2, &[5, 0]), label].concat(),
    ));
    let mapping = [
        (1, 1),
        (2, 0x40_0000),
        (3, 0x50_0000),
        (4, 0x1000),
        (5, 5),
        (6, 6),
        (9, 1),
    ];
    out.extend(bytes(
        3,
        &mapping.map(|(field, value)| number(field, value)).concat(),
    ));
    for (at, id) in (0..).zip(ids) {
        let mut location = [number(1, *id), number(2, 1), number(3, 0x40_0000 + at)].concat();
        if at == 0 {
            location.extend(bytes(
                4,
                &[number(1, 1), number(2, 12), number(3, 4)].concat(),
            ));
            location.extend(number(5, 1));
        }
        out.extend(bytes(4, &location));
    }
    out.extend(bytes(
        5,
        &[number(1, 1), number(2, 3), number(3, 3), number(4, 4)].concat(),
    ));
    for text in strings {
        out.extend(bytes(6, text));
    }
    out.extend([number(9, 1), number(10, 2), number(12, 3), number(14, 1)].concat());
    out.extend(bytes(13, &[8]));
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [
        varint(field << 3 | 2),
        varint(content.len() as u64),
        content.to_vec(),
    ]
    .concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
