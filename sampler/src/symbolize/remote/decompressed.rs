//! Debug information without compression, kept for this recording and for others.
//!
//! The child inflates it, once. What comes is a file in the [cache](crate::cache),
//! which the child gets back and reads like any other: neither its memory nor ours
//! holds it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::{Cache, Key, Kind, MAX_CONTENT_BYTES, NewEntry};
use crate::isolation::{Child, Lost};
use crate::object::PinnedFile;

use super::super::protocol::{MAX_PART_BYTES, MAX_REPLY_BYTES, Reply, Request};

/// What one thread writes in a recording, in bytes: as much as has room in the cache. A file
/// of some KiB may inflate to what one may take.
const MAX_WRITTEN_BYTES: u64 = 128 << 20;

/// Files without compression.
#[derive(Debug)]
pub(super) struct KeptDecompressed {
    cache: Option<Arc<Cache>>,
    /// What may still be written.
    left_bytes: u64,
}

impl KeptDecompressed {
    pub(super) fn new(cache: Option<Arc<Cache>>) -> Self {
        Self {
            cache,
            left_bytes: MAX_WRITTEN_BYTES,
        }
    }

    /// The next answer of a child that was handed this file. If its debug information
    /// is compressed, the child is helped with that before.
    pub(super) fn next_reply(
        &mut self,
        child: &Child,
        file: &PinnedFile,
        deadline: Instant,
    ) -> Result<Reply, Lost> {
        match child.receive(MAX_REPLY_BYTES, deadline)? {
            Reply::Compressed { size_bytes } => {
                match self.find(child, file, size_bytes, deadline)? {
                    Some(plain) => {
                        child.send(&Request::Decompressed, Some(plain.as_fd()), deadline)?;
                    }
                    None => child.send(&Request::LeaveCompressed, None, deadline)?,
                }
                child.receive(MAX_REPLY_BYTES, deadline)
            }
            reply => Ok(reply),
        }
    }

    /// The file without compression: an earlier recording's, or one that the child
    /// makes now.
    fn find(
        &mut self,
        child: &Child,
        file: &PinnedFile,
        size_bytes: u64,
        deadline: Instant,
    ) -> Result<Option<File>, Lost> {
        let cache = self.cache.as_ref();
        let kept = cache.zip(Key::of(Kind::Decompressed, file));
        let Some((cache, key)) = kept.filter(|_| size_bytes <= MAX_CONTENT_BYTES) else {
            return Ok(None);
        };
        if let Some(found) = cache.file(&key) {
            return Ok(Some(found));
        }
        let Some(left_bytes) = self.left_bytes.checked_sub(size_bytes) else {
            return Ok(None);
        };
        let entry = match cache.begin(&key) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::debug!(%error, "debug information cannot be kept");
                return Ok(None);
            }
        };
        self.left_bytes = left_bytes;
        child.send(&Request::Decompress, None, deadline)?;
        let entry = receive(child, entry, size_bytes, deadline)?;
        let finished = entry.and_then(NewEntry::finish);
        if let Err(error) = &finished {
            tracing::debug!(%error, path = ?file.path, "debug information is not kept");
        }
        Ok(finished.ok())
    }
}

/// Puts what comes into an entry: so many bytes, or fewer if the child finds that the
/// file is broken. If they cannot be kept, they come all the same.
fn receive<'a>(
    child: &Child,
    entry: NewEntry<'a>,
    size_bytes: u64,
    deadline: Instant,
) -> Result<io::Result<NewEntry<'a>>, Lost> {
    let mut entry = Ok(entry);
    let mut left_bytes = size_bytes;
    while left_bytes > 0 {
        let part = child.receive_bytes(MAX_PART_BYTES, deadline)?;
        if part.is_empty() {
            return Ok(Err(io::ErrorKind::InvalidData.into()));
        }
        let Some(left) = left_bytes.checked_sub(part.len() as u64) else {
            return Err(Lost::Nonsense);
        };
        left_bytes = left;
        entry = entry.and_then(|mut entry| {
            entry.add(&part)?;
            Ok(entry)
        });
    }
    Ok(entry)
}
