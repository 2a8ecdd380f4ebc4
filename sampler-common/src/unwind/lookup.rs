//! From an address to the rule that covers it.
//!
//! A file's table is two arrays of `u32`. The index has one word for each 256
//! bytes of code from the table's lowest address on, the number of the
//! bucket's first row, and one word more, the number of rows in all. Every
//! bucket starts with a row at offset 0, so a look-up never leaves its bucket:
//!
//! ```text
//! bucket = (address - lowest) / 256
//! rows   = index[bucket] .. index[bucket + 1]
//! rule   = of the last row whose offset <= address mod 256
//! ```
//!
//! `lowest` is a multiple of 256.

use super::{BUCKET_SHIFT, MAX_BUCKET_ROWS, PackedRule, Row};

/// log2 of [`MAX_BUCKET_ROWS`], and one to stop.
const STEPS: u32 = BUCKET_SHIFT + 1;

/// The rule for the address whose low 8 bits are `low`, among the `count` rows
/// of its bucket from number `first` on.
///
/// `None` if `row` gives none for a number asked for, or if the bucket is
/// empty, overfull or does not start at offset 0: no table that was built is.
/// `row` is asked at most ten times.
#[inline(always)]
pub fn find_rule(
    row: impl Fn(u32) -> Option<Row>,
    first: u32,
    count: u32,
    low: u8,
) -> Option<PackedRule> {
    if count == 0 || count > MAX_BUCKET_ROWS {
        return None;
    }
    // Invariant: the answer is `below` or one of the `left` rows after it.
    let mut below = row(first)?;
    let mut from = first;
    let mut left = count - 1;
    if below.offset() != 0 {
        return None;
    }
    let mut steps = 0;
    while left > 0 && steps < STEPS {
        let half = left.div_ceil(2);
        let middle = row(from.wrapping_add(half))?;
        if middle.offset() <= u32::from(low) {
            below = middle;
            from = from.wrapping_add(half);
            left -= half;
        } else {
            left = half - 1;
        }
        steps += 1;
    }
    Some(below.rule())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::find_rule;
    use crate::unwind::{PackedRule, Row};
    use std::vec::Vec;

    fn rows(offsets: &[u8]) -> Vec<Row> {
        offsets
            .iter()
            .map(|&offset| Row::new(offset, PackedRule::from_bits(1000 + u32::from(offset))))
            .collect()
    }

    fn find(rows: &[Row], first: u32, low: u8) -> Option<u32> {
        let count = rows.len() as u32 - first;
        find_rule(
            |number| rows.get(number as usize).copied(),
            first,
            count,
            low,
        )
        .map(PackedRule::bits)
    }

    #[test]
    fn the_last_row_at_or_below_the_address_is_its_row() {
        let every_third: Vec<u8> = (0..=255).step_by(3).collect();
        let every: Vec<u8> = (0..=255).collect();
        for offsets in [
            &[0][..],
            &[0, 1],
            &[0, 255],
            &[0, 7, 9, 200],
            &every_third,
            &every,
        ] {
            let rows = rows(offsets);
            for low in 0..=255 {
                let expected = offsets.iter().rfind(|offset| **offset <= low);
                assert_eq!(
                    find(&rows, 0, low),
                    expected.map(|offset| 1000 + u32::from(*offset)),
                    "{low} in {offsets:?}"
                );
            }
        }
    }

    #[test]
    fn a_look_up_stays_in_its_bucket() {
        let mut rows = rows(&[0, 4, 8]);
        rows.extend(self::rows(&[0, 100]));
        assert_eq!(find(&rows, 3, 99), Some(1000));
        assert_eq!(find(&rows, 3, 100), Some(1100));
    }

    #[test]
    fn a_bucket_that_no_builder_makes_has_no_rule() {
        assert_eq!(find(&rows(&[]), 0, 5), None);
        assert_eq!(find(&rows(&[1, 2]), 0, 5), None);
        let one = rows(&[0]);
        let short = |number| one.get(number as usize).copied();
        assert_eq!(find_rule(short, 0, 2, 5), None);
        assert_eq!(find_rule(short, 0, 257, 5), None);
        assert_eq!(find_rule(short, u32::MAX, 3, 5), None);
    }
}
