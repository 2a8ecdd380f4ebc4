//! One ELF file: its identity, its open descriptor, its build ID.

mod address;
mod build_id;
mod code_layout;
mod contents;
mod mapped_contents;
mod pinned;
mod root;
pub mod unwind;

pub use address::FileOffset;
pub use build_id::{build_id_in_notes, build_id_of_notes, find_build_id};
pub use code_layout::{CodeLayout, CodeSegment, MappedRange};
pub use contents::{Contents, FileContents};
pub use mapped_contents::MappedContents;
pub use pinned::{BuildId, FileId, PinnedFile};
pub use root::ForeignRoot;
