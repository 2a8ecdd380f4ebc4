//! In which order the arms of a round come.

/// Arms of a round.
pub const ARMS: usize = 4;

/// The first row of Williams' square of four; the others count on from it.
/// Each number stands once at each place, and once behind each other number.
const FIRST_ROW: [usize; ARMS] = [0, 1, 3, 2];

/// Orders for one round after the other: in four of them each arm comes once at
/// each place and once behind each other one. Which arm is which number in the
/// square is drawn anew for each four, the same at every run.
pub struct Orders {
    labels: [usize; ARMS],
    row: usize,
    random: u64,
}

impl Orders {
    /// From the beginning.
    pub fn new() -> Self {
        let mut orders = Self {
            labels: [0, 1, 2, 3],
            row: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        orders.shuffle();
        orders
    }

    /// Of the next round.
    pub fn next(&mut self) -> [usize; ARMS] {
        if self.row == ARMS {
            self.row = 0;
            self.shuffle();
        }
        let order = FIRST_ROW.map(|number| self.labels[(number + self.row) % ARMS]);
        self.row += 1;
        order
    }

    fn shuffle(&mut self) {
        for end in (1..ARMS).rev() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.labels
                .swap(end, (self.random % (end as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn in_four_rounds_each_arm_is_everywhere_and_behind_each_other_one() {
        let mut orders = Orders::new();
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let four: Vec<_> = (0..ARMS).map(|_| orders.next()).collect();
            for place in 0..ARMS {
                let there: BTreeSet<_> = four.iter().map(|order| order[place]).collect();
                assert_eq!(there.len(), ARMS);
            }
            let neighbours: BTreeSet<_> = four
                .iter()
                .flat_map(|order| order.windows(2).map(<[usize]>::to_vec))
                .collect();
            assert_eq!(neighbours.len(), ARMS * (ARMS - 1));
            seen.extend(four);
        }
        assert_eq!(seen.len(), 24, "every order comes");
    }
}
