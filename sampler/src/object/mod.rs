//! One ELF file: its identity, its open descriptor, its build ID.

mod address;
mod pinned;

pub use address::FileOffset;
pub use pinned::{BuildId, FileId, PinnedFile};
