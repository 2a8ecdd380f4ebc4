//! What was worked out from files, kept on disk for the next recording.
//!
//! A directory of entries, each a file of its own that is written under another
//! name and renamed when whole. What an entry is about stands in its name
//! ([`Key`]); what comes before its trailer is whoever's that put it there.
//!
//! The directory belongs to this user alone, so an entry is what some recording
//! of theirs wrote, or is damaged, which its checksum tells. It was worked out
//! from a file of the same owner, size and time of change: nobody can put names
//! of their choice into another user's programs by copying a build ID. A file
//! without one goes by its device, its inode and the time of its last change in
//! any way.
//!
//! Another build of the profiler may work out something else, so the trailer
//! says which build it was, and what others wrote is not taken.

mod directory;
mod key;
mod trailer;

pub use directory::{Cache, MAX_CONTENT_BYTES, NewEntry, default_directory};
pub use key::{Key, Kind};
