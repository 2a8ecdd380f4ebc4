//! Recursion, sorting and formatting, for the CPU seconds that are given.
use std::collections::BTreeMap;
use std::hint::black_box;

unsafe extern "C" {
    /// The CPU time of this process, in microseconds on Linux.
    safe fn clock() -> i64;
}

#[inline(never)]
fn tree(depth: u32, seed: u64) -> u64 {
    if depth == 0 {
        return seed.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17);
    }
    let left = tree(depth - 1, seed ^ u64::from(depth));
    let right = tree(depth - 1, seed.wrapping_add(left));
    black_box(left ^ right.rotate_left(3))
}

#[inline(never)]
fn words(seed: u64) -> usize {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut numbers: Vec<u64> = (0..200).map(|i| seed.wrapping_mul(2 * i + 1) % 1_000).collect();
    numbers.sort_by_key(|number| number.reverse_bits());
    for number in numbers {
        *counts.entry(format!("word {number:04}")).or_default() += number;
    }
    counts.values().filter(|count| **count % 2 == 0).count()
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(1.0, |word| word.parse().unwrap());
    let mut state = 1;
    while (clock() as f64) < seconds * 1e6 {
        state = tree(10, state).wrapping_add(words(state) as u64) | 1;
    }
    black_box(state);
}
