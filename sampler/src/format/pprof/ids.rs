//! Entries of a table by their IDs.

use std::collections::HashMap;

use super::error::ReadError;

/// Which entry of a table has an ID.
pub(super) struct Ids {
    of: &'static str,
    len: u64,
    /// Empty when each ID is the position, counted from 1.
    positions: HashMap<u64, u32>,
}

impl Ids {
    pub fn new(
        of: &'static str,
        ids: impl ExactSizeIterator<Item = u64> + Clone,
    ) -> Result<Self, ReadError> {
        let len = ids.len() as u64;
        let mut positions = HashMap::new();
        if !ids.clone().zip(1..).all(|(id, dense)| id == dense) {
            for (position, id) in ids.enumerate() {
                if id == 0 || positions.insert(id, position as u32).is_some() {
                    return Err(ReadError::BadId {
                        what: of,
                        position,
                        id,
                    });
                }
            }
        }
        Ok(Self { of, len, positions })
    }

    pub fn position(&self, id: u64, what: &'static str, position: usize) -> Result<u32, ReadError> {
        let found = if self.positions.is_empty() {
            (1..=self.len).contains(&id).then(|| (id - 1) as u32)
        } else {
            self.positions.get(&id).copied()
        };
        found.ok_or(ReadError::UnknownId {
            what,
            position,
            of: self.of,
            id,
        })
    }
}
