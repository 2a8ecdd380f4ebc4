#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
use super::*;
use std::time::Instant;

#[test]
#[ignore = "prints figures"]
fn figures() {
    for path in std::env::var("FILES").unwrap().split_whitespace() {
        let bytes = std::fs::read(path).unwrap();
        let start = Instant::now();
        let table = build(&bytes);
        let took = start.elapsed();
        match table {
            Ok(table) => println!(
                "{path}: {} rows, {} buckets, {} bytes ({:.2}/row), {took:?} {:?}",
                table.rows.len(),
                table.buckets(),
                table.bytes(),
                table.bytes() as f64 / table.rows.len() as f64,
                table.tally
            ),
            Err(error) => println!("{path}: {error}"),
        }
    }
}
