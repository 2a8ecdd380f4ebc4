//! A file read in pages, of which a bounded number stays in memory.

use std::cell::RefCell;
use std::fmt;

use super::super::headers::ReadAt;

/// Read at once, in bytes.
const PAGE_BYTES: u64 = 16 << 10;
/// Pages that stay: a large program's names and lines in use.
const MAX_PAGES: usize = 256;
/// The most memory that pages take.
pub(super) const MAX_HELD_BYTES: u64 = PAGE_BYTES * MAX_PAGES as u64;

/// A file and its last pages.
pub(super) struct Pages<F> {
    pub file: F,
    /// Each page has one place, by its number.
    held: RefCell<Vec<Option<Page>>>,
}

struct Page {
    number: u64,
    bytes: Box<[u8]>,
}

impl<F: ReadAt> Pages<F> {
    pub(super) fn new(file: F) -> Self {
        Self {
            file,
            held: RefCell::default(),
        }
    }

    /// Frees what is held.
    pub(super) fn close(&self) {
        self.held.take();
    }

    /// Fills the buffer from `offset` on; false if the file does not hold it.
    pub(super) fn fill(&self, buffer: &mut [u8], offset: u64) -> bool {
        let (mut rest, mut offset) = (buffer, offset);
        while !rest.is_empty() {
            let within = (offset % PAGE_BYTES) as usize;
            let step = rest.len().min(PAGE_BYTES as usize - within);
            let (now, later) = rest.split_at_mut(step);
            if !self.fill_from_page(now, offset / PAGE_BYTES, within)
                // The file ends within the page.
                && self.file.fill(now, offset).is_err()
            {
                return false;
            }
            let Some(next) = offset.checked_add(step as u64) else {
                return later.is_empty();
            };
            (rest, offset) = (later, next);
        }
        true
    }

    fn fill_from_page(&self, buffer: &mut [u8], number: u64, within: usize) -> bool {
        let mut held = self.held.borrow_mut();
        if held.is_empty() {
            held.resize_with(MAX_PAGES, || None);
        }
        let Some(place) = held.get_mut((number % MAX_PAGES as u64) as usize) else {
            return false;
        };
        if place.as_ref().is_none_or(|page| page.number != number) {
            let mut bytes = place.take().map_or_else(
                || vec![0; PAGE_BYTES as usize].into_boxed_slice(),
                |page| page.bytes,
            );
            if self.file.fill(&mut bytes, number * PAGE_BYTES).is_err() {
                return false;
            }
            *place = Some(Page { number, bytes });
        }
        let found = place
            .as_ref()
            .and_then(|page| page.bytes.get(within..within + buffer.len()));
        found.is_some_and(|found| {
            buffer.copy_from_slice(found);
            true
        })
    }
}

impl<F> fmt::Debug for Pages<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn any_piece_is_what_the_file_holds() {
        let bytes = numbered((MAX_PAGES + 2) * PAGE_BYTES as usize + 100);
        let pages = Pages::new(bytes.as_slice());
        let page = PAGE_BYTES as usize;
        // Two of them share a place.
        for start in [0, 5, page - 3, MAX_PAGES * page - 1, 1, bytes.len() - 120] {
            let mut piece = [0; 120];
            assert!(pages.fill(&mut piece, start as u64), "{start}");
            assert_eq!(piece, bytes[start..start + 120], "{start}");
        }
        let held = pages.held.borrow().iter().flatten().count();
        assert!((2..=MAX_PAGES).contains(&held), "{held} pages");
        pages.close();
        assert!(pages.held.borrow().is_empty());
    }

    #[test]
    fn what_is_not_there_is_not_filled() {
        let bytes = numbered(1000);
        let pages = Pages::new(bytes.as_slice());
        for (start, length) in [(1000, 1), (999, 2), (0, 1001), (u64::MAX, 1), (u64::MAX, 2)] {
            assert!(!pages.fill(&mut vec![0; length], start), "{start}");
        }
        assert!(pages.fill(&mut [0; 1000], 0));
        assert!(pages.fill(&mut [], 5000));
    }
}
