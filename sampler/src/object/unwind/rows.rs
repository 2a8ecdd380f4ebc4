//! Rows in the making: in order, neighbours that agree joined.

use sampler_common::unwind::PackedRule;

use super::MAX_ROWS;

/// A rule, and the address from which on it holds, counted from the table's
/// lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RuleFrom {
    pub at: u32,
    pub rule: PackedRule,
}

/// Rows in order of address; the first starts at 0.
#[expect(clippy::struct_field_names, reason = "rows are what it holds")]
pub(super) struct Rows {
    rows: Vec<RuleFrom>,
    room: usize,
    /// Rows that found no room.
    pub overflowed: bool,
}

impl Rows {
    /// With one row, which holds until the next.
    pub fn starting_with(rule: PackedRule) -> Self {
        Self::at_most(MAX_ROWS, rule)
    }

    /// The same, with room for so many.
    pub fn at_most(max_rows: usize, rule: PackedRule) -> Self {
        Self {
            rows: vec![RuleFrom { at: 0, rule }],
            room: max_rows,
            overflowed: false,
        }
    }

    /// Where the last row starts.
    pub fn last_at(&self) -> u32 {
        self.rows.last().map_or(0, |row| row.at)
    }

    /// Says what holds from an address on. A later word on the same address
    /// replaces the earlier; an address before the last row's is taken as that
    /// row's.
    pub fn push(&mut self, at: u32, rule: PackedRule) {
        let at = at.max(self.last_at());
        if self.rows.last().is_some_and(|last| last.at == at) {
            self.rows.pop();
        }
        if self.rows.last().is_some_and(|last| last.rule == rule) {
            return;
        }
        if self.rows.len() >= self.room {
            self.overflowed = true;
            return;
        }
        self.rows.push(RuleFrom { at, rule });
    }

    /// How many there may be.
    pub fn room(&self) -> usize {
        self.room
    }

    /// All of them, in order.
    pub fn as_slice(&self) -> &[RuleFrom] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::{Rows, RuleFrom};
    use sampler_common::unwind::PackedRule;

    fn rule(bits: u32) -> PackedRule {
        PackedRule::from_bits(bits)
    }

    fn joined(pushes: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut rows = Rows::starting_with(rule(0));
        for (at, bits) in pushes {
            rows.push(*at, rule(*bits));
        }
        rows.as_slice()
            .iter()
            .map(|RuleFrom { at, rule }| (*at, rule.bits()))
            .collect()
    }

    #[test]
    fn neighbours_that_agree_are_one_row() {
        assert_eq!(
            joined(&[(0, 1), (4, 1), (8, 2), (9, 2), (12, 1)]),
            [(0, 1), (8, 2), (12, 1)]
        );
    }

    #[test]
    fn the_last_word_on_an_address_holds() {
        assert_eq!(joined(&[(4, 1), (4, 2)]), [(0, 0), (4, 2)]);
        // And may agree with the row before.
        assert_eq!(joined(&[(4, 1), (8, 2), (8, 1)]), [(0, 0), (4, 1)]);
    }

    #[test]
    fn what_finds_no_room_is_not_lost_without_a_word() {
        let mut rows = Rows::at_most(2, rule(0));
        rows.push(4, rule(1));
        assert!(!rows.overflowed);
        rows.push(8, rule(2));
        assert!(rows.overflowed);
        assert_eq!(rows.as_slice().len(), 2);
    }

    #[test]
    fn rows_never_go_backwards() {
        assert_eq!(joined(&[(8, 1), (4, 2)]), [(0, 0), (8, 2)]);
    }
}
