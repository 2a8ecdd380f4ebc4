//! The kinds of address that must not be mixed up.

/// A byte offset into a file, as `mmap` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileOffset(pub u64);
