//! The unwind tables that user space has loaded.

use core::ptr::read_volatile;

use sampler_common::unwind::x86_64::Rule;
use sampler_common::unwind::{PackedRule, Row, find_rule};
use sampler_common::{
    CHUNK_WORDS, PLACE_PROBES, PLACE_SEGMENTS, PLACES, TablePlace, WalkMapping, place_slot,
};

use crate::maps::{CHUNKS, PLACE_TABLE};

/// The position of the place that covers an offset of a file; `None` if the
/// file's table is not loaded.
#[inline(always)]
pub fn place_of(file: u64, offset: u64) -> Option<u32> {
    let table = PLACE_TABLE.get_ptr(0)?.cast::<TablePlace>();
    let first = position(table, file)?;
    let mut found = first;
    let mut segment = 1;
    while segment < PLACE_SEGMENTS {
        // SAFETY: masked to the table's length.
        unsafe {
            let place = &*table.add(found as usize & (PLACES - 1));
            let bucket = offset.wrapping_sub(place.first_offset) >> 8;
            let segments = (*table.add(first as usize & (PLACES - 1))).segments;
            if bucket < u64::from(place.buckets) || segment >= u64::from(segments) {
                break;
            }
        }
        found = position(table, file + segment)?;
        segment += 1;
    }
    Some(found)
}

/// The position of the place with this name; `None` if there is none, or if it
/// is not valid.
#[inline(always)]
fn position(table: *const TablePlace, name: u64) -> Option<u32> {
    let mut probe = 0;
    while probe < PLACE_PROBES {
        let slot = place_slot(name, probe);
        // SAFETY: `place_slot` is below the table's length; user space writes
        // both as whole words, `buckets` last.
        let (found, buckets) = unsafe {
            let place = table.add(slot);
            (
                read_volatile(&raw const (*place).file),
                read_volatile(&raw const (*place).buckets),
            )
        };
        if found == name {
            return (buckets != TablePlace::NOT_LOADED).then_some(slot as u32);
        }
        probe += 1;
    }
    None
}

/// The rule for an address of a mapping; `None` if its table was taken away
/// meanwhile.
#[inline(always)]
pub fn rule(mapping: &WalkMapping, address: u64) -> Option<PackedRule> {
    if mapping.place == WalkMapping::FRAME_POINTER {
        return Some(Rule::GAP_FRAME_POINTER);
    }
    let table = PLACE_TABLE.get_ptr(0)?.cast::<TablePlace>();
    // SAFETY: masked to the table's length.
    let place = unsafe { &*table.add(mapping.place as usize & (PLACES - 1)) };
    // SAFETY: a whole word, which user space writes last.
    let buckets = unsafe { read_volatile(&raw const place.buckets) };
    match buckets {
        TablePlace::NOT_LOADED => return None,
        TablePlace::FRAME_POINTER => return Some(Rule::GAP_FRAME_POINTER),
        _ => {}
    }
    let offset = address.wrapping_sub(mapping.bias);
    let bucket = offset.wrapping_sub(place.first_offset) >> 8;
    if bucket >= u64::from(buckets) {
        return Some(Rule::GAP_FRAME_POINTER);
    }
    let at = place.index_word.wrapping_add(bucket as u32);
    let first = word(at)?;
    let next = word(at.wrapping_add(1))?;
    let rows = place.rows_word;
    find_rule(
        |number| word(rows.wrapping_add(number)).map(Row),
        first,
        next.wrapping_sub(first),
        offset as u8,
    )
}

/// A word of the tables.
#[inline(always)]
fn word(at: u32) -> Option<u32> {
    let chunk = CHUNKS.get_ptr(at / CHUNK_WORDS as u32)?.cast::<u32>();
    // SAFETY: masked to the chunk's length.
    Some(unsafe { *chunk.add((at & (CHUNK_WORDS as u32 - 1)) as usize) })
}
