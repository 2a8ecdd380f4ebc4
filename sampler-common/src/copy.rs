//! Copies of user stacks, for the walks that the kernel's side cannot do.
//!
//! Each CPU fills a few chunks a generation, as it fills its region, and user
//! space reads and empties both together. A chunk's first word says how many of
//! its words are in use; then copies follow each other:
//!
//! ```text
//! header (StackCopy)   whose it is, its registers, what was unknown
//! bytes                the stack from the stack pointer up
//! ```

use crate::RegisterLayout;

/// Words of a chunk of copies.
pub const COPY_CHUNK_WORDS: usize = 32 * 1024;
/// Room behind a chunk for the piece that a copy's last bytes come in.
pub const COPY_SLACK_WORDS: usize = COPY_PIECE_BYTES / 8;
/// Bytes that are copied at once.
pub const COPY_PIECE_BYTES: usize = 1024;
/// The most bytes of a stack that one copy holds.
pub const MAX_COPY_BYTES: u32 = 128 * 1024;

/// A chunk of copies.
#[repr(C)]
pub struct CopyChunk {
    /// Words in use, this one included; 0 for an empty chunk.
    pub used_words: u64,
    /// The copies.
    pub words: [u64; COPY_CHUNK_WORDS - 1 + COPY_SLACK_WORDS],
}

/// What comes before the bytes of a copy.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct StackCopy {
    /// Position in the region's table of threads.
    pub thread: u32,
    /// Reference to the kernel half.
    pub kernel_stack: u32,
    /// Reference to the user half as the kernel's side walked it, where it did;
    /// the copy is to check it and counts for nothing.
    pub checked_stack: u32,
    /// Bytes that were copied.
    pub bytes: u32,
    /// Bytes that would have been copied, had they all been readable.
    pub wanted_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// The address of the first of them.
    pub address: u64,
    /// `CLOCK_MONOTONIC` of the tick.
    pub time_ns: u64,
    /// The mapping that ended the walk in the kernel, all zero if none did:
    /// the address of its inode,
    pub unknown_file: u64,
    /// the inode's number,
    pub unknown_inode: u64,
    /// the address that was to be looked up,
    pub unknown_address: u64,
    /// and where in the file that is.
    pub unknown_offset: u64,
    /// The registers of the user half, as the kernel's `pt_regs` has them.
    pub registers: [u64; RegisterLayout::MAX_WORDS],
}

/// Words of a header.
pub const COPY_HEADER_WORDS: usize = size_of::<StackCopy>() / 8;

const _: () = assert!(size_of::<StackCopy>().is_multiple_of(8));
const _: () = assert!(
    1 + COPY_HEADER_WORDS + MAX_COPY_BYTES as usize / 8 <= COPY_CHUNK_WORDS,
    "a chunk holds at least one copy"
);

#[cfg(feature = "user")]
impl CopyChunk {
    /// The copies, each with its bytes as words.
    pub fn copies(&self) -> impl Iterator<Item = (&StackCopy, &[u64])> {
        let used = (self.used_words as usize).min(COPY_CHUNK_WORDS);
        let mut left = &self.words[..used.saturating_sub(1)];
        core::iter::from_fn(move || {
            let (header, rest) = left.split_at_checked(COPY_HEADER_WORDS)?;
            // SAFETY: as long as a header, of the same alignment, and every
            // bit pattern of its integers is valid.
            let header = unsafe { &*header.as_ptr().cast::<StackCopy>() };
            let (bytes, rest) = rest.split_at_checked((header.bytes as usize).div_ceil(8))?;
            left = rest;
            Some((header, bytes))
        })
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    extern crate std;
    use super::*;
    use std::alloc::{Layout, alloc_zeroed};
    use std::boxed::Box;
    use std::vec::Vec;

    fn chunk() -> Box<CopyChunk> {
        // SAFETY: all-zero memory is a valid, empty chunk of this layout.
        unsafe { Box::from_raw(alloc_zeroed(Layout::new::<CopyChunk>()).cast()) }
    }

    #[test]
    fn copies_follow_each_other() {
        let mut chunk = chunk();
        assert_eq!(chunk.copies().count(), 0);
        let mut at = 0;
        for (thread, bytes) in [(3, 16_u32), (4, 0), (5, 20)] {
            chunk.words[at] = thread;
            chunk.words[at + 1] = u64::from(bytes) << 32;
            at += COPY_HEADER_WORDS + (bytes as usize).div_ceil(8);
        }
        chunk.used_words = at as u64 + 1;
        let found: Vec<_> = chunk
            .copies()
            .map(|(copy, words)| (copy.thread, copy.bytes, words.len()))
            .collect();
        assert_eq!(found, [(3, 16, 2), (4, 0, 0), (5, 20, 3)]);
    }

    #[test]
    fn a_chunk_that_says_nonsense_ends_early() {
        let mut chunk = chunk();
        chunk.used_words = u64::MAX;
        assert!(chunk.copies().count() < COPY_CHUNK_WORDS);
        chunk.words[1] = u64::from(u32::MAX) << 32;
        assert_eq!(chunk.copies().next().map(|(copy, _)| copy.thread), None);
        chunk.used_words = 5;
        assert_eq!(chunk.copies().count(), 0);
        assert_eq!(size_of::<CopyChunk>() % 1024, 0);
    }
}
