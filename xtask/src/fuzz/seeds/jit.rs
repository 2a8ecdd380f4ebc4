//! The first inputs of `jit`: a perf map and two jitdumps, one as V8 writes them.

use super::Seed;

/// The addresses that are asked for.
const ADDRESSES: [u64; 4] = [0x1004, 0x1084, 0x2004, 0x7fc4_a8ec_7640];
/// What V8 has in a header where others have nothing.
const V8_PADDING: u32 = 0xdead_beef;

const LOAD: u32 = 0;
const MOVE: u32 = 1;
const DEBUG_INFO: u32 = 2;
const CLOSE: u32 = 3;
const UNWINDING_INFO: u32 = 4;

/// All of them.
pub fn seeds() -> Vec<Seed> {
    let map = b"1000 100 old\n1080 10 JS:*new a.js:1:2\nnonsense\n\
        0x00007fc4a8ec7640 0x0000000000000130 int Fib.fib(int)\n";
    vec![
        seed("map", 0, map.to_vec()),
        seed("dump", 1, dump(0, 0)),
        seed("dump-of-v8", 1, dump(V8_PADDING, 0x40)),
    ]
}

/// An input of this kind.
fn seed(name: &str, kind: u8, file: Vec<u8>) -> Seed {
    let mut bytes = vec![(ADDRESSES.len() as u8) << 1 | kind];
    bytes.extend(file);
    bytes.extend(ADDRESSES.iter().flat_map(|address| address.to_le_bytes()));
    Seed {
        name: name.to_owned(),
        bytes,
    }
}

/// A function with lines that was moved, and one over its old place.
fn dump(padding: u32, line_bias: u64) -> Vec<u8> {
    let mut dump = Vec::new();
    for field in [0x4a69_5444, 1, 40, 62, padding, 7] {
        dump.extend(u32::to_le_bytes(field));
    }
    dump.extend(words(&[0, 0]));
    let mut record = |id: u32, parts: &[&[u8]]| {
        let body = parts.concat();
        dump.extend(id.to_le_bytes());
        dump.extend((16 + body.len() as u32).to_le_bytes());
        dump.extend(words(&[0]));
        dump.extend(body);
    };
    let at = 0x1000;
    let line = |offset| words(&[at + line_bias + offset, 3]);
    record(
        DEBUG_INFO,
        &[&words(&[at, 2]), &line(0), b"a.js\0", &line(4), b"\xff\0"],
    );
    record(UNWINDING_INFO, &[&[0; 24]]);
    record(LOAD, &[&words(&[7, at, at, 16, 1]), b"f\0", &[0xcc; 16]]);
    record(MOVE, &[&words(&[7, 0x2000, at, 0x2000, 16, 1])]);
    record(LOAD, &[&words(&[7, at, at, 256, 2]), b"g\0", &[0xcc; 256]]);
    record(CLOSE, &[]);
    dump
}

fn words(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
