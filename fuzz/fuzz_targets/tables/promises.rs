//! What every table promises to those who look rows up.

use sampler::object::unwind::{MAX_ROWS, MAX_SPAN_BYTES, Table};
use sampler_common::unwind::{BUCKET_BYTES, MAX_BUCKET_ROWS, Row};

/// Bytes in a word of the index, and in a row.
const WORD_BYTES: u64 = 4;

/// Panics on a promise that is not kept.
pub fn check(table: &Table) {
    assert!(table.lowest.is_multiple_of(BUCKET_BYTES));
    let index = &table.index;
    assert_eq!(index.last().copied(), Some(table.rows.len() as u32));
    for (bucket, pair) in index.windows(2).enumerate() {
        assert!(pair[0] < pair[1], "bucket {bucket}: rows {pair:?}");
        assert!(pair[1] - pair[0] <= MAX_BUCKET_ROWS, "bucket {bucket}");
        let rows = &table.rows[pair[0] as usize..pair[1] as usize];
        assert_eq!(Row(rows[0]).offset(), 0, "bucket {bucket} starts late");
        for pair in rows.windows(2) {
            assert!(
                Row(pair[0]).offset() < Row(pair[1]).offset(),
                "bucket {bucket} out of order"
            );
        }
        let start = table.lowest + bucket as u64 * BUCKET_BYTES;
        assert_eq!(table.rule_at(start), Some(Row(rows[0]).rule()));
        let last = rows[rows.len() - 1];
        assert_eq!(table.rule_at(start | 0xff), Some(Row(last).rule()));
    }
    assert_eq!(table.rule_at(table.lowest.wrapping_sub(1)), None);
    segments(table);
    size(table);
}

/// The segments are in order, without overlaps, and every one has its rules.
fn segments(table: &Table) {
    let mut end = table.lowest;
    for segment in &table.segments {
        assert!(segment.address >= end && segment.size > 0);
        end = segment.address + segment.size;
        assert!(table.rule_at(segment.address).is_some());
        assert!(table.rule_at(end - 1).is_some());
    }
    assert_eq!(
        table.buckets() as u64,
        (end - table.lowest).div_ceil(BUCKET_BYTES)
    );
}

/// The table's size by its code: a word of the index and one row that starts
/// each bucket, and no more rows than bytes of code, one before each segment,
/// and those in all that a table may have.
///
/// ```text
/// bytes <= 4 (2 buckets + 1 + min(code + segments + 1, MAX_ROWS))
/// ```
fn size(table: &Table) {
    let buckets = table.buckets() as u64;
    assert!(buckets * BUCKET_BYTES < MAX_SPAN_BYTES + BUCKET_BYTES);
    let code: u64 = table.segments.iter().map(|segment| segment.size).sum();
    let rows = (code + table.segments.len() as u64 + 1).min(MAX_ROWS as u64);
    let most = WORD_BYTES * (2 * buckets + 1 + rows);
    assert!(table.bytes() <= most, "{} bytes, not {most}", table.bytes());
}
