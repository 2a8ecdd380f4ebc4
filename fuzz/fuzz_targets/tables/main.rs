//! Tables from hostile files, and walks by them.
//!
//! An input is a file as it is, behind one byte, or what the sections of a
//! [`Skeleton`] hold. Whatever it is, building ends soon, in little memory, in
//! an error or in a table that keeps its promises; and a walk by that table
//! over any stack ends without a panic.
#![no_main]

#[path = "../../../tests/unwind/cost.rs"]
mod cost;
#[path = "../../../tests/unwind/elf.rs"]
mod elf;
mod promises;
mod skeleton;
mod walk;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sampler::object::unwind;
use skeleton::Skeleton;

/// What any file may cost in memory: the largest table and the rows that become
/// it, and the largest section that is unpacked, twice, for a buffer moves when
/// it grows.
const MAX_HELD_BYTES: u64 = (64 << 20) + (64 << 20) + 2 * (64 << 20);
/// Held for each byte of the file on top.
const MAX_HELD_FACTOR: u64 = 16;
/// Processor time for the longest input. The builder's own bounds are a second's work,
/// which instrumented, and beside others on the same core, takes twice as long.
const MAX_TIME: Duration = Duration::from_secs(4);

#[global_allocator]
static ALLOCATOR: cost::Counting = cost::Counting;

fuzz_target!(|input: &[u8]| {
    let Some((shape, rest)) = input.split_first() else {
        return;
    };
    if let Some(skeleton) = Skeleton::of(*shape, rest) {
        check(&skeleton.file(), skeleton.stack);
    } else {
        check(rest, &rest[rest.len().saturating_sub(512)..]);
    }
});

fn check(file: &[u8], stack: &[u8]) {
    let (built, cost) = cost::of(|| unwind::build(file));
    let most = MAX_HELD_BYTES + MAX_HELD_FACTOR * file.len() as u64;
    assert!(cost.held_bytes <= most && cost.time <= MAX_TIME, "{cost:?}");
    if let Ok(table) = built {
        promises::check(&table);
        walk::check(&table, stack);
    }
}
