//! The bytes of a file, mapped: nothing of it is copied.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::{self, NonNull};
use std::slice;

use super::Contents;

/// A file in memory, as long as it was when it was mapped. If it is truncated
/// meanwhile, whoever reads it ends with `SIGBUS`: this is for processes whose end
/// costs one file its names, and for no other.
#[derive(Debug)]
pub struct MappedContents {
    start: NonNull<u8>,
    bytes: usize,
}

impl MappedContents {
    /// Maps a file.
    pub fn new(file: &File) -> io::Result<Self> {
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if bytes == 0 {
            return Ok(Self {
                start: NonNull::dangling(),
                bytes,
            });
        }
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, bytes })
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: that much is mapped until `self` is dropped. Who writes to the
        // file meanwhile changes bytes that nobody relies on to stay the same:
        // they are hostile, and each is checked when it is used.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for MappedContents {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: mapped by `new`, and nobody has a reference into it.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}

impl Contents for MappedContents {
    fn size_bytes(&self) -> u64 {
        self.bytes as u64
    }

    fn read(&self, offset: u64, bytes: usize) -> Option<Cow<'_, [u8]>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(bytes)?;
        self.as_slice().get(start..end).map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_mapped_file_gives_the_pieces_that_are_in_it() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(MappedContents::new(&file).unwrap().read(0, 1), None);
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        file.write_all(&bytes).unwrap();
        let mapped = MappedContents::new(&file).unwrap();
        let memory = bytes.as_slice();
        assert_eq!(mapped.size_bytes(), 10_000);
        for (offset, length) in [
            (0, 0),
            (0, 10_000),
            (3, 5),
            (9_999, 1),
            (9_999, 2),
            (u64::MAX, 1),
        ] {
            assert_eq!(mapped.read(offset, length), memory.read(offset, length));
        }
    }
}
