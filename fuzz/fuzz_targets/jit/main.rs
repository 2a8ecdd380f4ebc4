//! Names from hostile perf maps and jitdumps.
//!
//! An input is a file behind a byte that says which kind it is and how many
//! addresses are asked for, which are cut from its end. Whatever it holds,
//! reading ends soon, in little memory, with one answer for each address; and
//! what a perf map answers is what the last line says that covers the address.
#![no_main]

#[path = "../../../tests/unwind/cost.rs"]
mod cost;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sampler::symbolize::jit::{look_up_in_jitdump, look_up_in_perf_map};

/// What reading any file may hold: pieces of it, and the entries of one function.
const MAX_HELD_BYTES: u64 = 16 << 20;
/// Processor time for the longest input.
const MAX_TIME: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: cost::Counting = cost::Counting;

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let wanted = usize::from(kind >> 1).min(rest.len() / 8);
    let (file, tail) = rest.split_at(rest.len() - 8 * wanted);
    let mut addresses: Vec<u64> = tail
        .chunks_exact(8)
        .filter_map(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let is_dump = kind & 1 == 1;
    let (found, cost) = cost::of(|| {
        if is_dump {
            look_up_in_jitdump(&file, &addresses)
        } else {
            look_up_in_perf_map(&file, &addresses)
        }
    });
    assert_eq!(found.symbols.len(), addresses.len());
    assert!(cost.held_bytes <= MAX_HELD_BYTES, "{cost:?}");
    assert!(cost.time <= MAX_TIME, "{cost:?}");
    for symbol in found.symbols.iter().flatten() {
        assert!(!symbol.name.is_empty() && !symbol.name.contains('\0'));
        assert!(symbol.name.len() <= 4096 && symbol.source_file.len() <= 4096);
    }
    if !is_dump {
        for (address, symbol) in addresses.iter().zip(&found.symbols) {
            let expected = name_by_hand(file, *address).unwrap_or_default();
            // Longer ones are cut, before what is no text is taken out.
            if expected.len() < 2048 {
                let expected = expected.replace('\0', "");
                let name = symbol.as_ref().map_or("", |symbol| &symbol.name);
                assert_eq!(name, expected, "{address:#x}");
            }
        }
    }
});

/// The name of the last whole line over an address that has one.
fn name_by_hand(map: &[u8], address: u64) -> Option<String> {
    let whole = map.iter().rposition(|byte| *byte == b'\n')?;
    let mut lines = map[..whole].rsplit(|byte| *byte == b'\n');
    lines.find_map(|whole| {
        let is_blank = |byte: &u8| byte.is_ascii_whitespace();
        let line = whole.trim_ascii_start();
        let (start, rest) = line.split_at(line.iter().position(is_blank)?);
        let rest = rest.trim_ascii_start();
        let (size, rest) = rest.split_at(rest.iter().position(is_blank)?);
        let name = rest.trim_ascii_start();
        let (start, size) = (number(start)?, number(size)?);
        let is_good = whole.len() <= 64 << 10
            && whole.len() - name.len() <= 64
            && !name.is_empty()
            && (start..start.checked_add(size)?).contains(&address);
        is_good.then(|| String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    let text = text
        .strip_prefix("0x")
        .or(text.strip_prefix("0X"))
        .unwrap_or(text);
    if text.starts_with('+') {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}
