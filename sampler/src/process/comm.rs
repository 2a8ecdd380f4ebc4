//! The short name that the kernel keeps for each thread.

use std::borrow::Cow;
use std::fmt;

/// The most bytes that a name holds (`TASK_COMM_LEN` less its terminator).
const MAX_BYTES: usize = 15;

/// A thread's name: up to 15 bytes of anything but NUL.
///
/// Its owner chooses it, so it may hold newlines, escape sequences or invalid
/// UTF-8; whoever prints it has to make it safe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Comm {
    bytes: [u8; MAX_BYTES],
    length: u8,
}

impl Comm {
    /// The name in `bytes`, which ends at the first NUL, or at 15 bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let end = bytes
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(bytes.len())
            .min(MAX_BYTES);
        let mut comm = Self {
            length: end as u8,
            ..Self::default()
        };
        comm.bytes[..end].copy_from_slice(&bytes[..end]);
        comm
    }

    /// The name that two words of kernel memory hold, zero-padded.
    pub fn from_words(words: [u64; 2]) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
        Self::new(&bytes)
    }

    /// The name as the kernel holds it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The name as text; what is not UTF-8 is replaced.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }

    /// Whether there is no name: nothing was seen yet, or it is really empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Comm(\"{}\")", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_terminator_or_at_fifteen_bytes() {
        assert_eq!(Comm::new(b"cat\0garbage").as_bytes(), b"cat");
        assert_eq!(
            Comm::new(b"kworker/1:2H-kblockd").as_bytes(),
            b"kworker/1:2H-kb"
        );
        assert!(Comm::new(b"\0").is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let comm = Comm::new(b"\x1b[2J\xff\n");
        assert_eq!(comm.as_bytes(), b"\x1b[2J\xff\n");
        assert_eq!(comm.to_string_lossy(), "\x1b[2J\u{fffd}\n");
    }
}
