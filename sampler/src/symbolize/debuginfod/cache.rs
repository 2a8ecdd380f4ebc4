//! The directory where debuginfod's clients keep what they were given.
//!
//! Layout: debuginfod-find(1), "CACHE": `DIR/BUILDID/debuginfo`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::object::{BuildId, find_build_id};

/// The directory, held open: whoever renames it does not lead us elsewhere.
#[derive(Debug)]
pub(super) struct Cache {
    directory: File,
}

impl Cache {
    /// Makes the directory if need be. It is used only if nobody else can write
    /// to it: root's files are not to be led elsewhere by a link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        make_private(path)?;
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)?;
        let metadata = directory.metadata()?;
        // SAFETY: no arguments, no memory.
        let own_user = unsafe { libc::geteuid() };
        if metadata.uid() != own_user || metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other("others can write to it"));
        }
        Ok(Self { directory })
    }

    /// The file with a build ID, if it is here.
    pub(super) fn get(&self, build_id: &BuildId) -> Option<File> {
        open(&self.entry(build_id).join("debuginfo"), build_id).ok()
    }

    /// Keeps what `write` writes, wholly or not at all, if it has the build ID.
    pub(super) fn keep(
        &self,
        build_id: &BuildId,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<File> {
        let entry = self.entry(build_id);
        make_private(&entry)?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = since_epoch.unwrap_or_default().as_nanos();
        let unfinished = entry.join(format!("debuginfo.{}.{now_ns}", process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        let kept = write(&mut file)
            .and_then(|()| open(&unfinished, build_id))
            .and_then(|kept| {
                fs::rename(&unfinished, entry.join("debuginfo"))?;
                Ok(kept)
            });
        if kept.is_err() {
            fs::remove_file(&unfinished)?;
        }
        kept
    }

    fn entry(&self, build_id: &BuildId) -> PathBuf {
        PathBuf::from(format!(
            "/proc/self/fd/{}/{build_id}",
            self.directory.as_raw_fd()
        ))
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens a file of the cache. Clients leave an empty file for what no server
/// has; it has no build ID.
fn open(path: &Path, build_id: &BuildId) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let found = find_build_id(|offset, buffer| file.read_at(buffer, offset));
    if found.as_ref() == Some(build_id) {
        Ok(file)
    } else {
        Err(io::Error::other("not a file with this build ID"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The least that has a build ID: an ELF header and one segment of notes.
    pub fn debug_file(build_id: [u8; 8]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        file.resize(120, 0);
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&4_u32.to_le_bytes());
        file[72..80].copy_from_slice(&120_u64.to_le_bytes());
        file[96..104].copy_from_slice(&24_u64.to_le_bytes());
        for number in [4_u32, 8, 3] {
            file.extend(number.to_le_bytes());
        }
        file.extend(b"GNU\0");
        file.extend(build_id);
        file
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/cache");
        Cache::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(Cache::open(&path).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("a"), &link).unwrap();
        assert!(Cache::open(&link).is_err());
    }

    #[test]
    fn nothing_is_left_of_what_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let build_id = BuildId(Box::new([0xab; 8]));
        let wrong = debug_file([1; 8]);
        assert!(
            cache
                .keep(&build_id, |file| file.write_all(&wrong))
                .is_err()
        );
        let broken = |_: &mut File| Err(io::ErrorKind::UnexpectedEof.into());
        assert!(cache.keep(&build_id, broken).is_err());
        let entry = dir.path().join("abababababababab");
        assert_eq!(fs::read_dir(&entry).unwrap().count(), 0);

        let right = debug_file([0xab; 8]);
        cache
            .keep(&build_id, |file| file.write_all(&right))
            .unwrap();
        assert_eq!(fs::read(entry.join("debuginfo")).unwrap(), right);
        assert!(cache.get(&build_id).is_some());
    }

    #[test]
    fn an_empty_file_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("abababababababab")).unwrap();
        fs::write(dir.path().join("abababababababab/debuginfo"), "").unwrap();
        assert!(cache.get(&BuildId(Box::new([0xab; 8]))).is_none());
    }
}
