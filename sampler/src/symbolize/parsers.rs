//! Which files' parsers stay open.

use std::collections::VecDeque;

use crate::object::FileId;

/// Files whose parsed tables are kept in memory; others are parsed again when
/// new addresses in them turn up.
const MAX_OPEN: usize = 128;

/// The open parsers, the least recently used first, and the most memory that
/// each may take.
#[derive(Debug)]
pub(super) struct OpenParsers {
    open: VecDeque<(FileId, u64)>,
    /// What they may hold together, inflated sections above all. One file alone
    /// may need more.
    max_bytes: u64,
}

impl OpenParsers {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            open: VecDeque::new(),
            max_bytes,
        }
    }

    /// Those that are open, which all are to be closed.
    pub(super) fn close_all(&mut self) -> Vec<FileId> {
        self.open.drain(..).map(|(file, _)| file).collect()
    }

    /// Whether a file's parser is open; if so, it is now the one used last.
    pub(super) fn touch(&mut self, file: FileId) -> bool {
        let at = self.open.iter().position(|(open, _)| *open == file);
        let found = at.and_then(|at| self.open.remove(at));
        self.open.extend(found);
        found.is_some()
    }

    /// Enters a file whose parser is about to be opened, and returns those to
    /// be closed before.
    pub(super) fn admit(&mut self, file: FileId, size_bytes: u64) -> Vec<FileId> {
        let held_bytes = |open: &VecDeque<(FileId, u64)>| {
            open.iter()
                .fold(size_bytes, |sum, (_, bytes)| sum.saturating_add(*bytes))
        };
        let mut closed = Vec::new();
        while (self.open.len() >= MAX_OPEN || held_bytes(&self.open) > self.max_bytes)
            && let Some((oldest, _)) = self.open.pop_front()
        {
            closed.push(oldest);
        }
        self.open.push_back((file, size_bytes));
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_OPEN_BYTES: u64 = 1000;

    fn file(inode: u64) -> FileId {
        FileId { device: 1, inode }
    }

    #[test]
    fn parsers_that_hold_much_are_closed_before_another_opens() {
        let mut parsers = OpenParsers::new(MAX_OPEN_BYTES);
        assert_eq!(parsers.admit(file(1), MAX_OPEN_BYTES / 2), []);
        assert_eq!(parsers.admit(file(2), MAX_OPEN_BYTES / 2), []);
        assert!(parsers.touch(file(1)));
        assert_eq!(parsers.admit(file(3), 1), [file(2)]);
        assert!(!parsers.touch(file(2)));
        assert_eq!(parsers.admit(file(4), u64::MAX), [file(1), file(3)]);
        assert!(parsers.touch(file(4)));
        assert_eq!(parsers.close_all(), [file(4)]);
        assert!(!parsers.touch(file(4)));
    }

    #[test]
    fn no_more_than_so_many_are_open_however_small() {
        let mut parsers = OpenParsers::new(MAX_OPEN_BYTES);
        for inode in 0..MAX_OPEN as u64 {
            assert_eq!(parsers.admit(file(inode), 0), []);
        }
        assert_eq!(parsers.admit(file(1000), 0), [file(0)]);
    }
}
