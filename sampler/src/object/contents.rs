//! The bytes of a file, piece by piece: whoever reads decides what is held.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Pieces up to this size are cut out of one that was read ahead, in bytes.
const SMALL_BYTES: usize = 4 << 10;
/// What is read ahead, in bytes.
const AHEAD_BYTES: usize = 64 << 10;

/// A file, or what is in one.
pub trait Contents {
    /// All of it.
    fn size_bytes(&self) -> u64;

    /// A piece; `None` if it is not wholly there, or cannot be read.
    fn read(&self, offset: u64, bytes: usize) -> Option<Cow<'_, [u8]>>;
}

/// What lies in memory already.
impl Contents for &[u8] {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, bytes: usize) -> Option<Cow<'_, [u8]>> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(bytes)?)
            .map(Cow::Borrowed)
    }
}

/// An open file. It is read and never mapped: one that is truncated meanwhile
/// costs its reader a piece and not its life.
#[derive(Debug)]
pub struct FileContents {
    file: File,
    size_bytes: u64,
    ahead: RefCell<Ahead>,
    failed: Cell<bool>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Ahead {
    offset: u64,
    bytes: Vec<u8>,
}

impl FileContents {
    /// Of a file as long as it is now.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            size_bytes: file.metadata()?.len(),
            file,
            ahead: RefCell::default(),
            failed: Cell::new(false),
        })
    }

    /// Whether a piece of the file could not be read.
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    fn fill(&self, bytes: &mut [u8], offset: u64) -> Option<()> {
        let read = self.file.read_exact_at(bytes, offset);
        self.failed.set(self.failed.get() || read.is_err());
        read.ok()
    }

    fn read_small(&self, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        let mut ahead = self.ahead.borrow_mut();
        let cut = |ahead: &Ahead| {
            let from = usize::try_from(offset.checked_sub(ahead.offset)?).ok()?;
            ahead
                .bytes
                .get(from..from.checked_add(bytes)?)
                .map(<[u8]>::to_vec)
        };
        if let Some(piece) = cut(&ahead) {
            return Some(piece);
        }
        let left = (self.size_bytes - offset).min(AHEAD_BYTES as u64);
        // Nothing of it counts until all of it is there.
        let mut buffer = std::mem::take(&mut ahead.bytes);
        buffer.resize(left as usize, 0);
        self.fill(&mut buffer, offset)?;
        *ahead = Ahead {
            offset,
            bytes: buffer,
        };
        cut(&ahead)
    }
}

impl Contents for FileContents {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&self, offset: u64, bytes: usize) -> Option<Cow<'_, [u8]>> {
        // Before anything is allocated.
        offset
            .checked_add(bytes as u64)
            .filter(|end| *end <= self.size_bytes)?;
        if bytes <= SMALL_BYTES {
            return self.read_small(offset, bytes).map(Cow::Owned);
        }
        let mut piece = vec![0; bytes];
        self.fill(&mut piece, offset)?;
        Some(Cow::Owned(piece))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is the failure report

    use std::io::Write as _;

    use super::*;

    fn numbered(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at % 251) as u8).collect()
    }

    fn written(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_file_and_its_bytes_give_the_same_pieces() {
        let bytes = numbered(3 * AHEAD_BYTES + 17);
        let file = FileContents::new(written(&bytes)).unwrap();
        let memory = bytes.as_slice();
        let end = bytes.len() as u64;
        for (offset, length) in [
            (0, 0),
            (0, 64),
            (60, 8),
            (AHEAD_BYTES as u64 - 3, 6),
            (AHEAD_BYTES as u64 - 4, SMALL_BYTES),
            (5, SMALL_BYTES + 1),
            (0, bytes.len()),
            (0, bytes.len() + 1),
            (end, 0),
            (end, 1),
            (end - 1, 1),
            (end - 1, 2),
            (end + 1, 0),
            (u64::MAX, 1),
            (3, 5),
        ] {
            assert_eq!(
                file.read(offset, length),
                memory.read(offset, length),
                "{length} from {offset}"
            );
        }
        assert!(!file.has_failed());
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_lacks_a_piece_and_says_so() {
        let bytes = numbered(4 * AHEAD_BYTES);
        let file = written(&bytes);
        let contents = FileContents::new(file.try_clone().unwrap()).unwrap();
        file.set_len(100).unwrap();
        assert_eq!(contents.read(0, 2 * AHEAD_BYTES), None);
        assert_eq!(contents.read(AHEAD_BYTES as u64, 8), None);
        assert!(contents.has_failed());
    }
}
