//! A BPF array as memory of this process.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;

/// All entries of a `BPF_F_MMAPABLE` array map, mapped shared.
pub struct MappedArray<T> {
    base: NonNull<T>,
    entries: usize,
}

impl<T> fmt::Debug for MappedArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedArray")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

// SAFETY: it owns its mapping, which is not tied to a thread.
unsafe impl<T: Send> Send for MappedArray<T> {}

impl<T> MappedArray<T> {
    /// Maps the array.
    ///
    /// # Safety
    /// The map is a mappable array of at least `entries` values of type `T`,
    /// for which every bit pattern is valid, and whose size is a multiple of 8.
    pub unsafe fn new(map: BorrowedFd<'_>, entries: usize) -> io::Result<Self> {
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                entries * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(base.cast::<T>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { base, entries }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Where an entry is.
    ///
    /// # Panics
    /// When there is no such entry.
    pub fn entry(&self, index: usize) -> *mut T {
        assert!(index < self.entries, "entry {index} of {}", self.entries);
        // SAFETY: below the number of entries that were mapped.
        unsafe { self.base.as_ptr().add(index) }
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing borrows it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.entries * size_of::<T>()) };
    }
}
