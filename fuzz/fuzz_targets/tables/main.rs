//! Tables from hostile files, and walks by them.
//!
//! An input is a file as it is, behind one byte, or what the sections of a
//! [`Skeleton`] hold. Whatever it is, building ends soon, in little memory, in
//! an error or in a table that keeps its promises; and a walk by that table
//! over any stack ends without a panic.
#![no_main]

mod cost;
mod elf;
mod promises;
mod skeleton;
mod walk;

use libfuzzer_sys::fuzz_target;
use sampler::object::unwind;
use skeleton::Skeleton;

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
    cost.is_bounded_by(file.len());
    if let Ok(table) = built {
        promises::check(&table);
        walk::check(&table, stack);
    }
}
