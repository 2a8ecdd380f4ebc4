//! The roots through which other mount namespaces are seen.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::object::{FileId, ForeignRoot};

/// Roots held open at a time. Each costs a descriptor; a host has one for each
/// container, and for each service that systemd gives a view of its own.
const MAX_ROOTS: usize = 64;

/// What tells the root of a process from another: its mount namespace and its
/// root directory there.
type RootId = (FileId, FileId);

/// The roots held open, each once, for as long as somebody uses it.
#[derive(Debug, Default)]
pub(super) struct ForeignRoots {
    held: HashMap<RootId, Weak<ForeignRoot>>,
}

impl ForeignRoots {
    /// The root of a process, by its directory in proc; `None` if it is ours,
    /// or cannot be held.
    pub(super) fn of(&mut self, own: &Path, process: &Path) -> Option<Arc<ForeignRoot>> {
        let (id, directory) = open(process).ok()?;
        if open(own).is_ok_and(|(own, _)| own == id) {
            return None;
        }
        if let Some(held) = self.held.get(&id).and_then(Weak::upgrade) {
            return Some(held);
        }
        self.held.retain(|_, root| root.strong_count() > 0);
        if self.held.len() >= MAX_ROOTS {
            return None;
        }
        let root = Arc::new(ForeignRoot::new(directory));
        self.held.insert(id, Arc::downgrade(&root));
        Some(root)
    }
}

fn open(process: &Path) -> io::Result<(RootId, File)> {
    let id = |metadata: &fs::Metadata| FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    let namespace = fs::metadata(process.join("ns/mnt"))?;
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(process.join("root"))?;
    let root = directory.metadata()?;
    Ok(((id(&namespace), id(&root)), directory))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_root_like_ours_is_not_held() {
        let mut roots = ForeignRoots::default();
        let own = Path::new("/proc/self");
        assert!(roots.of(own, own).is_none());
        assert!(roots.of(own, Path::new("/proc/4000001")).is_none());
        assert!(roots.held.is_empty());
    }
}
