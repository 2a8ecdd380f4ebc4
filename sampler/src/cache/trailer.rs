//! The end of an entry: which build of the profiler wrote it, how long it is, and a
//! checksum. What comes before is as it was put there, so that an entry that is an
//! ELF file can be read as one.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use flate2::Crc;

const MAGIC: [u8; 8] = *b"smplcach";
/// Magic, the two words of the build, the length, the checksum.
pub(super) const TRAILER_BYTES: usize = 8 + 16 + 8 + 8;
/// What is read at once where an entry is not to be held in memory.
const STEP_BYTES: usize = 128 << 10;

/// What is known of a content so far.
#[derive(Debug, Default)]
pub(super) struct Sum {
    checksum: Crc,
    bytes: u64,
}

impl Sum {
    /// Adds what comes next.
    pub(super) fn add(&mut self, part: &[u8]) {
        self.checksum.update(part);
        self.bytes += part.len() as u64;
    }

    /// The trailer of an entry that holds what was added.
    pub(super) fn trailer(&self) -> [u8; TRAILER_BYTES] {
        let [size, time] = build();
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&MAGIC);
        let words = [size, time, self.bytes, u64::from(self.checksum.sum())];
        for (at, word) in words.into_iter().enumerate() {
            trailer[8 + 8 * at..16 + 8 * at].copy_from_slice(&word.to_le_bytes());
        }
        trailer
    }
}

/// Takes the trailer off an entry; nothing is left of one that is damaged, or that
/// another build wrote.
pub(super) fn strip(mut entry: Vec<u8>) -> Option<Vec<u8>> {
    let length = entry.len().checked_sub(TRAILER_BYTES)?;
    let mut sum = Sum::default();
    sum.add(&entry[..length]);
    if entry[length..] != sum.trailer() {
        return None;
    }
    entry.truncate(length);
    Some(entry)
}

/// Whether a file of so many bytes is an entry that is not damaged, and written by
/// this build. It is left at its start.
pub(super) fn is_whole(mut entry: &File, bytes: u64) -> io::Result<bool> {
    let Some(mut left_bytes) = bytes.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(false);
    };
    let mut sum = Sum::default();
    let mut step = vec![0; STEP_BYTES];
    while left_bytes > 0 {
        let part = &mut step[..left_bytes.min(STEP_BYTES as u64) as usize];
        entry.read_exact(part)?;
        sum.add(part);
        left_bytes -= part.len() as u64;
    }
    let mut trailer = [0; TRAILER_BYTES];
    entry.read_exact(&mut trailer)?;
    entry.rewind()?;
    Ok(trailer == sum.trailer())
}

/// What tells this build of the profiler from others: size and time of the
/// program that runs.
fn build() -> [u64; 2] {
    static BUILD: OnceLock<[u64; 2]> = OnceLock::new();
    *BUILD.get_or_init(|| {
        fs::metadata("/proc/self/exe").map_or([0; 2], |program| {
            let nanoseconds = program.mtime() * 1_000_000_000 + program.mtime_nsec();
            [program.len(), nanoseconds.cast_unsigned()]
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::io::Write as _;

    use super::*;

    fn entry(content: &[u8]) -> Vec<u8> {
        let mut sum = Sum::default();
        content.chunks(7).for_each(|part| sum.add(part));
        [content, &sum.trailer()].concat()
    }

    /// By both ways to read an entry.
    fn content_of(entry: &[u8]) -> Option<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(entry).unwrap();
        file.rewind().unwrap();
        let is_whole = is_whole(&file, entry.len() as u64).unwrap();
        let content = strip(entry.to_vec());
        assert_eq!(is_whole, content.is_some());
        content
    }

    #[test]
    fn what_was_put_in_comes_out() {
        for length in [0, 1, 10_000, STEP_BYTES, 3 * STEP_BYTES + 1] {
            let content = vec![7; length];
            assert_eq!(content_of(&entry(&content)).unwrap(), content);
        }
    }

    #[test]
    fn a_damaged_entry_is_none() {
        let whole = entry(b"some content");
        for length in 0..whole.len() {
            assert_eq!(content_of(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert_eq!(content_of(&damaged), None, "{at}");
        }
        let mut longer = whole;
        longer.push(0);
        assert_eq!(content_of(&longer), None);
    }
}
