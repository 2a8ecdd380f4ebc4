//! The files that framehop has walked, as many as fit.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::WalkedFile;
use crate::object::{FileId, PinnedFile};
use crate::symbolize;

/// Files that are kept, those included that cannot be walked.
const MAX_KEPT_FILES: usize = 1_024;

struct Kept {
    /// Held open, so that its number remains its own.
    _file: Arc<PinnedFile>,
    walked: Option<WalkedFile>,
    used: u64,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.walked.as_ref().map_or(0, |walked| walked.bytes)
    }
}

/// Files by number.
pub(super) struct Files {
    vdso: Option<Arc<PinnedFile>>,
    kept: HashMap<FileId, Kept>,
    kept_bytes: usize,
    max_kept_bytes: usize,
    /// Counts up with each use.
    now: u64,
}

impl Files {
    /// None yet; later so many bytes of call frame information.
    pub fn new(max_kept_bytes: usize) -> Self {
        Self {
            vdso: symbolize::pin_vdso().ok(),
            kept: HashMap::new(),
            kept_bytes: 0,
            max_kept_bytes,
            now: 0,
        }
    }

    /// Bytes that may be held of one file.
    pub fn max_bytes(&self) -> u64 {
        self.max_kept_bytes as u64
    }

    /// The code that the kernel puts into every process.
    pub fn vdso(&self) -> Option<Arc<PinnedFile>> {
        self.vdso.clone()
    }

    /// A file, read if it is new; none if it is no program.
    pub fn get(&mut self, file: &Arc<PinnedFile>) -> Option<&mut WalkedFile> {
        self.now += 1;
        if !self.kept.contains_key(&file.id) {
            self.read(file);
        }
        let kept = self.kept.get_mut(&file.id)?;
        kept.used = self.now;
        kept.walked.as_mut()
    }

    fn read(&mut self, file: &Arc<PinnedFile>) {
        let walked = file
            .contents()
            .inspect_err(|error| {
                tracing::debug!(path = %file.path.display(), %error, "cannot be read for a check");
            })
            .ok()
            .and_then(|contents| WalkedFile::new(&contents, self.max_kept_bytes as u64));
        let kept = Kept {
            _file: Arc::clone(file),
            walked,
            used: self.now,
        };
        self.make_room(kept.bytes());
        self.kept_bytes += kept.bytes();
        self.kept.insert(file.id, kept);
    }

    fn make_room(&mut self, bytes: usize) {
        while self.kept.len() >= MAX_KEPT_FILES || self.kept_bytes + bytes > self.max_kept_bytes {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used);
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return;
            };
            if let Some(kept) = self.kept.remove(&id) {
                self.kept_bytes -= kept.bytes();
            }
        }
    }
}
