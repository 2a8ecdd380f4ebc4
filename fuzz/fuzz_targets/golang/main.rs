//! Names out of hostile Go programs.
//!
//! An input is a file as it is, behind one byte, or a table and its functions'
//! data, around which a program is made that has everything else. Whatever it
//! is, looking for the table and looking addresses up ends soon, in little
//! memory, and in frames that keep within their bounds.
#![no_main]

#[path = "../../../tests/unwind/cost.rs"]
mod cost;
#[path = "../../../tests/unwind/elf.rs"]
mod elf;
#[path = "../../../tests/symbolize/go_program.rs"]
mod go_program;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sampler::symbolize::golang;

/// Bits of an input's first byte: a table, not a file, with section headers.
const TABLE: u8 = 1;
const SECTIONS: u8 = 2;
/// Bytes behind the first one: how many of the rest are the functions' data.
const HEADER_BYTES: usize = 2;

/// Pages of the file that stay, what one search takes, and section headers.
const MAX_HELD_BYTES: u64 = (4 << 20) + (1 << 20) + (16 << 20);
/// Processor time for all addresses of the longest input.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Addresses that are looked up.
const ADDRESSES: usize = 32;
/// Of any text, and of any chain of calls.
const MAX_TEXT_BYTES: usize = 4096;
const MAX_FRAMES: usize = 129;

#[global_allocator]
static ALLOCATOR: cost::Counting = cost::Counting;

fuzz_target!(|input: &[u8]| {
    let Some((shape, rest)) = input.split_first() else {
        return;
    };
    let addresses = addresses(rest);
    if shape & TABLE == 0 {
        check(rest, &addresses);
    } else if let Some((header, rest)) = rest.split_at_checked(HEADER_BYTES) {
        let data_bytes = usize::from(u16::from_le_bytes([header[0], header[1]]));
        let (data, table) = rest.split_at(data_bytes.min(rest.len()));
        let file = go_program::program(table, data, shape & SECTIONS != 0);
        check(&file, &addresses);
    }
});

/// The start of the code, those that the end of an input says, and some more.
fn addresses(input: &[u8]) -> Vec<u64> {
    let told = input.rchunks_exact(2).take(ADDRESSES);
    let told =
        told.map(|pair| go_program::CODE + u64::from(u16::from_le_bytes([pair[0], pair[1]])));
    let near = (0..ADDRESSES as u64).map(|step| go_program::CODE + step * step);
    told.chain(near).chain([0, u64::MAX]).collect()
}

fn check(file: &[u8], addresses: &[u64]) {
    let (found, cost) = cost::of(|| golang::frames_at(file, addresses));
    let answers: usize = found.iter().flatten().flatten().map(held_bytes).sum();
    let most = MAX_HELD_BYTES + 2 * answers as u64;
    assert!(cost.held_bytes <= most && cost.time <= MAX_TIME, "{cost:?}");
    let Some(found) = found else { return };
    assert_eq!(found.len(), addresses.len());
    for frames in found {
        assert!(frames.len() <= MAX_FRAMES, "{} frames", frames.len());
        for frame in frames {
            for text in [&frame.name, &frame.system_name, &frame.source_file] {
                assert!(text.len() <= MAX_TEXT_BYTES && !text.contains('\0'));
            }
            assert!(!frame.name.is_empty() && frame.column == 0);
        }
    }
}

fn held_bytes(frame: &sampler::symbolize::FrameName) -> usize {
    let texts = [&frame.name, &frame.system_name, &frame.source_file];
    let texts: usize = texts.iter().map(|text| text.capacity()).sum();
    texts + size_of_val(frame)
}
