//! Build IDs among hostile notes.
//!
//! An input is a file as it is, the notes of one segment as they are, or a list
//! of sound notes, of which it is known where the build ID is.
#![no_main]

#[path = "../../../tests/unwind/cost.rs"]
mod cost;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sampler::object::{BuildId, build_id_in_notes, find_build_id};

/// A table of headers, some segments of notes of 64 KiB, one at a time, each
/// read into a buffer that grew.
const MAX_HELD_BYTES: u64 = 1 << 20;
/// Processor time for the longest input.
const MAX_TIME: Duration = Duration::from_secs(1);
/// The longest build ID.
const MAX_ID_BYTES: usize = 64;
/// Its type, and whose type that is.
const BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";

#[global_allocator]
static ALLOCATOR: cost::Counting = cost::Counting;

fuzz_target!(|input: &[u8]| {
    let Some((shape, rest)) = input.split_first() else {
        return;
    };
    let align = if shape & 4 == 0 { 4 } else { 8 };
    match shape & 3 {
        0 => {
            let found =
                within_bounds(|| find_build_id(|offset, buffer| read(rest, offset, buffer)));
            is_of(found.as_ref(), rest);
        }
        1 => {
            let found = within_bounds(|| build_id_in_notes(rest, align));
            is_of(found.as_ref(), rest);
        }
        _ => {
            let (notes, known) = sound(rest, align);
            let found = within_bounds(|| build_id_in_notes(&notes, align));
            assert_eq!(found, known);
        }
    }
});

fn within_bounds<T>(work: impl FnOnce() -> T) -> T {
    let (done, cost) = cost::of(work);
    let is_cheap = cost.held_bytes <= MAX_HELD_BYTES && cost.time <= MAX_TIME;
    assert!(is_cheap, "{cost:?}");
    done
}

/// A build ID is a piece of the input, and of a bounded length.
fn is_of(found: Option<&BuildId>, input: &[u8]) {
    let Some(BuildId(id)) = found else { return };
    assert!((1..=MAX_ID_BYTES).contains(&id.len()));
    assert!(input.windows(id.len()).any(|piece| piece == &**id));
}

/// As `pread` does, and as short as it may.
#[expect(
    clippy::unnecessary_wraps,
    reason = "who reads a file expects failures"
)]
fn read(file: &[u8], offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|at| file.get(at..))
        .unwrap_or_default();
    let bytes = rest.len().min(buffer.len()).min(1 << 12);
    buffer[..bytes].copy_from_slice(&rest[..bytes]);
    Ok(bytes)
}

/// Notes made of an input, four bytes and a descriptor each, and the build ID
/// among them: the first one, if it is not too long.
fn sound(mut input: &[u8], align: usize) -> (Vec<u8>, Option<BuildId>) {
    let mut notes = Vec::new();
    let mut known = None;
    while let Some(([kind, name, bytes, high], rest)) = input.split_first_chunk() {
        let kind = u32::from(kind % 8);
        let name: &[u8] = [GNU, b"Go\0\0", b"FreeBSD\0", b""][usize::from(name % 4)];
        let bytes = usize::from(*bytes) | usize::from(high % 2) << 8;
        let (content, rest) = rest.split_at(bytes.min(rest.len()));
        input = rest;
        if known.is_none() && kind == BUILD_ID && name == GNU {
            let is_id = (1..=MAX_ID_BYTES).contains(&content.len());
            known = Some(is_id.then(|| BuildId(content.into())));
        }
        for number in [name.len() as u32, content.len() as u32, kind] {
            notes.extend(number.to_le_bytes());
        }
        for part in [name, content] {
            notes.extend(part);
            notes.resize(notes.len().next_multiple_of(align), 0);
        }
    }
    (notes, known.flatten())
}
