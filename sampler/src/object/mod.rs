//! One ELF file: its identity, its open descriptor, its build ID.

mod address;
mod build_id;
mod contents;
mod pinned;
mod root;
pub mod unwind;

pub use address::FileOffset;
pub use build_id::find_build_id;
pub use contents::{Contents, FileContents};
pub use pinned::{BuildId, FileId, PinnedFile};
pub use root::ForeignRoot;
