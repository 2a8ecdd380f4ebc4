//! What a recording leaves on disk: a directory of profiles and its index.

mod directory;
mod files;
mod index;
mod naming;
mod place;
mod rewritten;
mod summary_file;

pub use directory::{OutputDirectory, OutputError};
pub use files::{FileFormat, UnknownFormat, Written, write};
pub use index::{
    CostIndex, CpuIndex, FileIndex, FrameIndex, HostIndex, Index, JitIndex, LedgerIndex,
    LifecycleIndex, ParsersIndex, StackIndex, UnfinishedIndex, from_unix_ns, rfc3339,
};
pub use rewritten::{Model, Rewritten};
pub use summary_file::SummaryFile;
