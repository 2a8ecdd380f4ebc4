//! The head of an entry: which build of the profiler wrote it, how long it is,
//! and a checksum.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use flate2::Crc;

const MAGIC: [u8; 8] = *b"smplcach";
/// Magic, the two words of the build, the length, the checksum.
pub(super) const HEADER_BYTES: usize = 8 + 16 + 8 + 8;

/// The head of an entry that holds this.
pub(super) fn of(content: &[u8]) -> [u8; HEADER_BYTES] {
    let [size, time] = build();
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    let words = [size, time, content.len() as u64, checksum(content)];
    for (at, word) in words.into_iter().enumerate() {
        header[8 + 8 * at..16 + 8 * at].copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// Takes the header off an entry; nothing is left of one that is damaged, or that
/// another build wrote.
pub(super) fn strip(mut entry: Vec<u8>) -> Option<Vec<u8>> {
    let content = entry.get(HEADER_BYTES..)?;
    if entry[..HEADER_BYTES] != of(content) {
        return None;
    }
    entry.drain(..HEADER_BYTES);
    Some(entry)
}

fn checksum(content: &[u8]) -> u64 {
    let mut checksum = Crc::new();
    checksum.update(content);
    u64::from(checksum.sum())
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

    use super::*;

    fn entry(content: &[u8]) -> Vec<u8> {
        [&of(content), content].concat()
    }

    #[test]
    fn what_was_put_in_comes_out() {
        for content in [&b""[..], b"x", &[7; 10_000]] {
            assert_eq!(strip(entry(content)).unwrap(), content);
        }
    }

    #[test]
    fn a_damaged_entry_is_none() {
        let whole = entry(b"some content");
        for length in 0..whole.len() {
            assert_eq!(strip(whole[..length].to_vec()), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert_eq!(strip(damaged), None, "{at}");
        }
        let mut longer = whole;
        longer.push(0);
        assert_eq!(strip(longer), None);
    }
}
