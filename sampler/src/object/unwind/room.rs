//! What building one table may hold in memory.

use std::cell::Cell;

/// Bytes that may still be taken.
#[derive(Debug)]
pub(super) struct Room {
    left_bytes: Cell<u64>,
    exceeded: Cell<bool>,
}

impl Room {
    pub fn of(bytes: u64) -> Self {
        Self {
            left_bytes: Cell::new(bytes),
            exceeded: Cell::new(false),
        }
    }

    /// Takes so many bytes, if they are left.
    pub fn take(&self, bytes: u64) -> bool {
        match self.left_bytes.get().checked_sub(bytes) {
            Some(left) => self.left_bytes.set(left),
            None => self.exceeded.set(true),
        }
        !self.exceeded.get()
    }

    /// Gives bytes back that were taken.
    pub fn give_back(&self, bytes: u64) {
        self.left_bytes.set(self.left_bytes.get() + bytes);
    }

    pub fn left_bytes(&self) -> u64 {
        self.left_bytes.get()
    }

    /// How many items of a size there is room for, but no more than `max`.
    pub fn items(&self, item_bytes: usize, max: usize) -> usize {
        let fitting = self.left_bytes.get() / item_bytes as u64;
        usize::try_from(fitting).map_or(max, |fitting| fitting.min(max))
    }

    /// Whether more was asked for than there was.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded.get()
    }

    /// Says so.
    pub fn exceed(&self) {
        self.exceeded.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn what_is_not_left_is_not_taken_and_nothing_is_after_that() {
        let room = Room::of(100);
        assert!(room.take(60));
        assert_eq!(room.items(8, 1000), 5);
        assert_eq!(room.items(8, 3), 3);
        room.give_back(10);
        assert!(room.take(50));
        assert!(!room.is_exceeded());
        assert!(!room.take(1));
        assert!(room.is_exceeded() && !room.take(0));
    }
}
