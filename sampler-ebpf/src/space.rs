//! What user space has published of address spaces and unwind tables.

use core::ptr::read_volatile;

use sampler_common::unwind::{PackedRule, Row, find_rule};
use sampler_common::{
    CHUNK_WORDS, SPACE_MAPPINGS, SPACE_PROBES, Space, SpaceMapping, TABLES, TablePlace, space_slot,
};

use crate::maps::{CHUNKS, MAPPING_TABLE, PLACE_TABLE, SPACE_TABLE};

/// Steps of a search among the mappings of a process.
const SEARCH_STEPS: u32 = 17;

/// The slot of a process; `None` if it is not known.
#[inline(always)]
pub fn slot(pid: u32) -> Option<*mut Space> {
    let table = SPACE_TABLE.get_ptr_mut(0)?.cast::<Space>();
    let mut probe = 0;
    while probe < SPACE_PROBES {
        // SAFETY: `space_slot` is below the table's length.
        let space = unsafe { table.add(space_slot(pid, probe)) };
        // SAFETY: as above; user space writes it as a whole word.
        if unsafe { read_volatile(&raw const (*space).pid) } == pid {
            return Some(space);
        }
        probe += 1;
    }
    None
}

/// What was published for a process is void from now on.
#[inline(always)]
pub fn void(pid: u32) {
    if let Some(space) = slot(pid) {
        // SAFETY: the slot lies in the table. Only the programs write its
        // epoch, and a process forks into an ID or execs on one CPU at a time.
        unsafe { (*space).epoch = (*space).epoch.wrapping_add(1) };
    }
}

/// The mappings of a process: the first, and how many. `None` unless those of
/// the program that it runs now are known.
#[inline(always)]
pub fn mappings(pid: u32) -> Option<(u32, u32)> {
    let space = slot(pid)?;
    // SAFETY: the slot lies in the table; each field is read once, whole.
    let (published, epoch, mappings) = unsafe {
        (
            read_volatile(&raw const (*space).published),
            read_volatile(&raw const (*space).epoch),
            read_volatile(&raw const (*space).mappings),
        )
    };
    let (first, count) = (mappings as u32, (mappings >> 32) as u32);
    (published == epoch && count != 0).then_some((first, count))
}

/// The position of the mapping at an address, among `count` from `first` on.
#[inline(always)]
pub fn find_mapping(
    table: *const SpaceMapping,
    first: u32,
    count: u32,
    address: u64,
) -> Option<u32> {
    // The answer is the last one that starts at or below the address.
    let mut from = 0_u32;
    let mut left = count;
    let mut steps = 0;
    while left > 1 && steps < SEARCH_STEPS {
        let half = left >> 1;
        let middle = from.wrapping_add(half);
        // SAFETY: masked to the table's length.
        let start = unsafe { (*table.add(masked(first.wrapping_add(middle)))).start };
        if start <= address {
            from = middle;
            left -= half;
        } else {
            left = half;
        }
        steps += 1;
    }
    let position = first.wrapping_add(from);
    holds(table, position, address).then_some(position)
}

/// Whether an address lies in the mapping at this position.
#[inline(always)]
pub fn holds(table: *const SpaceMapping, position: u32, address: u64) -> bool {
    // SAFETY: masked to the table's length.
    let mapping = unsafe { &*table.add(masked(position)) };
    address >= mapping.start && address < mapping.end
}

/// A position in the table of mappings.
#[inline(always)]
pub fn masked(position: u32) -> usize {
    (position & (SPACE_MAPPINGS as u32 - 1)) as usize
}

/// The table of mappings.
#[inline(always)]
pub fn mapping_table() -> Option<*const SpaceMapping> {
    Some(MAPPING_TABLE.get_ptr(0)?.cast())
}

/// A word of the tables.
#[inline(always)]
fn word(at: u32) -> Option<u32> {
    let chunk = CHUNKS.get_ptr(at / CHUNK_WORDS as u32)?.cast::<u32>();
    // SAFETY: masked to the chunk's length.
    Some(unsafe { *chunk.add((at & (CHUNK_WORDS as u32 - 1)) as usize) })
}

/// Whether the table with this number is loaded.
#[inline(always)]
pub fn is_loaded(table: u32) -> bool {
    PLACE_TABLE.get_ptr(0).is_some_and(|places| {
        let places = places.cast::<TablePlace>();
        // SAFETY: masked to the table's length; a whole word.
        unsafe { read_volatile(&raw const (*places.add(place_of(table))).buckets) != 0 }
    })
}

/// The position of a table's place.
#[inline(always)]
fn place_of(table: u32) -> usize {
    (table & (TABLES as u32 - 1)) as usize
}

/// The rule for an address in a mapping that has a table; `None` if it is not
/// loaded.
#[inline(always)]
pub fn rule(table: u32, bias: u64, address: u64) -> Option<PackedRule> {
    let places = PLACE_TABLE.get_ptr(0)?.cast::<TablePlace>();
    // SAFETY: masked to the table's length.
    let place = unsafe { &*places.add(place_of(table)) };
    // SAFETY: a whole word, which user space writes last.
    let buckets = unsafe { read_volatile(&raw const place.buckets) };
    if buckets == 0 {
        return None;
    }
    let offset = address.wrapping_sub(bias);
    let bucket = offset.wrapping_sub(place.first_offset) >> 8;
    if bucket >= u64::from(buckets) {
        return Some(sampler_common::unwind::x86_64::Rule::GAP_FRAME_POINTER);
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
