//! What is made of hostile ELF files before any parser sees them.
//!
//! An input is a file as it is, or one byte and what its sections hold, around which a
//! file is made that has everything else.
#![no_main]

#[path = "../../../tests/unwind/cost.rs"]
mod cost;
#[path = "../../../tests/unwind/elf.rs"]
mod elf;
#[path = "../../../tests/symbolize/elf_sections.rs"]
mod elf_sections;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sampler::symbolize::elf_image;

/// The largest file without compression, of an input of 256 KiB at most.
const MAX_BYTES: u64 = 8 << 20;
/// That file, as it grows, and the headers of sections and segments twice; or a symbol
/// table and its rows.
const MAX_HELD_BYTES: u64 = 2 * MAX_BYTES + (32 << 20);
/// Processor time for the longest input.
const MAX_TIME: Duration = Duration::from_secs(5);

#[global_allocator]
static ALLOCATOR: cost::Counting = cost::Counting;

fuzz_target!(|input: &[u8]| {
    let Some((shape, rest)) = input.split_first() else {
        return;
    };
    if *shape == elf_sections::FILE {
        check(rest);
    } else {
        check(&elf_sections::file(*shape, rest));
    }
});

fn check(file: &[u8]) {
    let rows = within_bounds(|| elf_image::symbol_rows(file));
    let (rows, rest) = rows.as_deref().unwrap_or_default().as_chunks::<8>();
    let starts = rows
        .iter()
        .map(|row| u32::from_le_bytes([row[0], row[1], row[2], row[3]]));
    assert!(rest.is_empty() && starts.is_sorted_by(|one, next| one < next));

    let made = within_bounds(|| elf_image::decompressed(file, MAX_BYTES));
    let Some((size_bytes, Some(plain))) = made else {
        return;
    };
    assert_eq!(plain.len() as u64, size_bytes);
    // There is nothing left to do.
    let again = within_bounds(|| elf_image::decompressed(&plain, MAX_BYTES));
    assert_eq!(again.and_then(|(_, again)| again), Some(plain));
}

fn within_bounds<T>(work: impl FnOnce() -> T) -> T {
    let (done, cost) = cost::of(work);
    let is_cheap = cost.held_bytes <= MAX_HELD_BYTES && cost.time <= MAX_TIME;
    assert!(is_cheap, "{cost:?}");
    done
}
