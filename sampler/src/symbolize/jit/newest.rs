//! Which of many ranges is the newest one over each of some addresses.

use std::ops::Range;

/// For each of a fixed set of addresses, the last range that was laid over it.
///
/// Ranges come oldest first and may overlap in any way: a compiler uses its
/// memory again. One costs the logarithm of the number of addresses, however
/// many of them it covers, and none is kept: memory is 16 bytes an address.
#[derive(Debug)]
pub(super) struct Newest<'a> {
    addresses: &'a [u64],
    /// A segment tree: each node has the last mark laid over all of its leaves
    /// at once. Marks only grow, so a leaf's newest is the greatest on its way
    /// to the root.
    marks: Vec<u64>,
}

impl<'a> Newest<'a> {
    /// Over addresses in ascending order.
    pub fn over(addresses: &'a [u64]) -> Self {
        Self {
            addresses,
            marks: vec![0; 2 * addresses.len()],
        }
    }

    /// Lays a range over what was there. `mark` is not 0, and greater than
    /// those before.
    pub fn lay(&mut self, range: Range<u64>, mark: u64) {
        let leaves = self.addresses.len();
        let index_of = |bound| self.addresses.partition_point(|address| *address < bound);
        let mut from = index_of(range.start) + leaves;
        let mut to = index_of(range.end) + leaves;
        while from < to {
            if from % 2 == 1 {
                self.marks[from] = mark;
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                self.marks[to] = mark;
            }
            from /= 2;
            to /= 2;
        }
    }

    /// The mark over each address, in their order; `None` where no range lies.
    pub fn marks(&self) -> impl Iterator<Item = Option<u64>> {
        let leaves = self.addresses.len();
        (leaves..2 * leaves).map(|leaf| {
            let way = std::iter::successors(Some(leaf), |node| Some(node / 2));
            let newest = way
                .take_while(|node| *node > 0)
                .map(|node| self.marks[node]);
            newest.max().filter(|mark| *mark != 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_addresses_there_is_nothing_to_mark() {
        let mut newest = Newest::over(&[]);
        newest.lay(0..u64::MAX, 1);
        assert_eq!(newest.marks().count(), 0);
    }

    proptest! {
        #[test]
        fn the_last_range_over_an_address_counts(
            addresses in proptest::collection::btree_set(0_u64..64, 0..20),
            ranges in proptest::collection::vec((0_u64..64, 0_u64..32), 0..24),
        ) {
            let addresses: Vec<u64> = addresses.into_iter().collect();
            let mut newest = Newest::over(&addresses);
            for (mark, (start, length)) in (1..).zip(&ranges) {
                newest.lay(*start..start + length, mark);
            }
            let expected: Vec<_> = addresses
                .iter()
                .map(|address| {
                    let over = ranges
                        .iter()
                        .rposition(|(start, length)| (*start..start + length).contains(address));
                    over.map(|index| index as u64 + 1)
                })
                .collect();
            prop_assert_eq!(newest.marks().collect::<Vec<_>>(), expected);
        }
    }
}
