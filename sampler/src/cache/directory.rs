//! The directory with the entries.

use std::ffi::{CStr, CString, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::key::{self, Key, Kind};
use super::trailer::{self, Sum, TRAILER_BYTES};

/// What all entries may take together, in bytes.
const MAX_BYTES: u64 = 256 << 20;
/// What one may take, in bytes.
const MAX_ENTRY_BYTES: u64 = 64 << 20;
/// What one may hold, in bytes.
pub const MAX_CONTENT_BYTES: u64 = MAX_ENTRY_BYTES - TRAILER_BYTES as u64;
/// Entries looked at when some have to go.
const MAX_ENTRIES: usize = 100_000;

/// A directory of this user's that holds entries.
#[derive(Debug)]
pub struct Cache {
    directory: File,
    max_bytes: u64,
    /// Tells the temporary names of this process apart.
    next: AtomicU64,
}

/// Where entries are kept if nothing else is said; `None` where this user has no
/// place for them.
pub fn default_directory() -> Option<PathBuf> {
    // SAFETY: has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        return Some(PathBuf::from("/var/cache/sampler"));
    }
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from)?;
        path.is_absolute().then_some(path)
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .map(|path| path.join("sampler"))
}

impl Cache {
    /// Opens the directory, which is made if it is not there. It has to belong to
    /// this user, and nobody else may write to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_room(path, MAX_BYTES)
    }

    fn with_room(path: &Path, max_bytes: u64) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)?;
        let metadata = directory.metadata()?;
        // SAFETY: has no preconditions.
        let is_ours = metadata.uid() == unsafe { libc::geteuid() };
        if !is_ours || metadata.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it belongs to another user, or others may write to it",
            ));
        }
        Ok(Self {
            directory,
            max_bytes,
            next: AtomicU64::new(0),
        })
    }

    /// What was put there under this key; `None` if it is not there, or damaged.
    pub fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let (file, bytes) = self.entry(key)?;
        let mut entry = Vec::with_capacity(bytes as usize);
        let limit = MAX_ENTRY_BYTES + 1;
        file.take(limit).read_to_end(&mut entry).ok()?;
        trailer::strip(entry)
    }

    /// The file that holds what was put there under this key, and a trailer after it;
    /// `None` if it is not there, or damaged.
    pub fn file(&self, key: &Key) -> Option<File> {
        let (file, bytes) = self.entry(key)?;
        trailer::is_whole(&file, bytes).ok()?.then_some(file)
    }

    /// An entry and its size, whatever is in it.
    fn entry(&self, key: &Key) -> Option<(File, u64)> {
        let file = self.open_at(&key.file_name()?, libc::O_RDONLY).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > MAX_ENTRY_BYTES {
            return None;
        }
        // Those that were used last stay longest. Without the right to say so,
        // it counts as used when it was written.
        let _unmarked = file.set_modified(SystemTime::now());
        Some((file, metadata.len()))
    }

    /// Puts something there, for which others may have to go. A full disk, say,
    /// is no reason to fail.
    pub fn put(&self, key: &Key, content: &[u8]) {
        if content.len() as u64 > MAX_CONTENT_BYTES {
            return;
        }
        let put = self.begin(key).and_then(|mut entry| {
            entry.add(content)?;
            entry.finish()
        });
        if let Err(error) = put {
            tracing::debug!(%error, "what was worked out from a file could not be kept");
        }
    }

    /// Begins an entry that comes in parts. It is there when it is finished.
    pub fn begin(&self, key: &Key) -> io::Result<NewEntry<'_>> {
        let name = key.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = CString::new(format!(".{}-{number}", std::process::id()))?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let file = self.open_at(&temporary, flags)?;
        Ok(NewEntry {
            cache: self,
            name,
            temporary: Some(temporary),
            file,
            sum: Sum::default(),
            room_bytes: MAX_CONTENT_BYTES,
        })
    }

    /// Removes those that were not used for the longest time, until the rest has
    /// room. Files without compression are large, and made again in no time: they have
    /// half of the room at most.
    pub fn trim(&self) {
        let Ok(mut entries) = self.entries() else {
            return;
        };
        entries.sort_by_key(|entry| entry.used);
        let is_large = |entry: &Entry| key::is_of(&entry.name, Kind::Decompressed);
        self.trim_some(&mut entries, is_large, self.max_bytes / 2);
        self.trim_some(&mut entries, |_| true, self.max_bytes);
    }

    /// Of entries of some kind, removes the first ones until the others have room.
    fn trim_some(
        &self,
        entries: &mut Vec<Entry>,
        is_meant: impl Fn(&Entry) -> bool,
        max_bytes: u64,
    ) {
        let meant = entries.iter().filter(|entry| is_meant(entry));
        let mut bytes: u64 = meant.map(|entry| entry.bytes).sum();
        entries.retain(|entry| {
            let stays = bytes <= max_bytes || !is_meant(entry);
            if !stays {
                self.remove(&entry.name);
                bytes = bytes.saturating_sub(entry.bytes);
            }
            stays
        });
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        // The descriptor's own path: whatever the directory is called by now.
        let path = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)?.take(MAX_ENTRIES) {
            let entry = entry?;
            // Gone already, if another recording removed it.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file()
                && let Ok(name) = CString::new(OsString::into_vec(entry.file_name()))
            {
                entries.push(Entry {
                    name,
                    bytes: metadata.len(),
                    used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        }
        Ok(entries)
    }

    fn open_at(&self, name: &CStr, flags: libc::c_int) -> io::Result<File> {
        let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        // SAFETY: the name is NUL-terminated and lives for the call.
        let fd = unsafe {
            libc::openat(
                self.directory.as_raw_fd(),
                name.as_ptr(),
                flags,
                0o600 as libc::c_uint,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and is nobody else's.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    fn remove(&self, name: &CStr) {
        // SAFETY: as in `open_at`.
        let failed = unsafe { libc::unlinkat(self.directory.as_raw_fd(), name.as_ptr(), 0) };
        if failed != 0 {
            let error = io::Error::last_os_error();
            let name = std::ffi::OsStr::from_bytes(name.to_bytes());
            tracing::debug!(?name, %error, "a kept entry could not be removed");
        }
    }
}

/// An entry that is being written, under another name. If it is dropped before it is
/// finished, nothing of it stays.
#[derive(Debug)]
pub struct NewEntry<'a> {
    cache: &'a Cache,
    name: CString,
    /// `None` once it is finished.
    temporary: Option<CString>,
    file: File,
    sum: Sum,
    room_bytes: u64,
}

impl NewEntry<'_> {
    /// Adds what comes next.
    pub fn add(&mut self, part: &[u8]) -> io::Result<()> {
        let room_bytes = self.room_bytes.checked_sub(part.len() as u64);
        self.room_bytes = room_bytes.ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.write_all(part)?;
        self.sum.add(part);
        Ok(())
    }

    /// Gives it its name. Returns the file, for reading.
    pub fn finish(mut self) -> io::Result<File> {
        let Some(temporary) = &self.temporary else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.file.write_all(&self.sum.trailer())?;
        let readable = self.cache.open_at(temporary, libc::O_RDONLY)?;
        let directory = self.cache.directory.as_raw_fd();
        // SAFETY: the names are NUL-terminated and live for the call.
        let renamed =
            unsafe { libc::renameat(directory, temporary.as_ptr(), directory, self.name.as_ptr()) };
        if renamed != 0 {
            return Err(io::Error::last_os_error());
        }
        self.temporary = None;
        Ok(readable)
    }
}

impl Drop for NewEntry<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            self.cache.remove(temporary);
        }
    }
}

/// An entry, for those who choose what has to go.
struct Entry {
    name: CString,
    bytes: u64,
    used: SystemTime,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;
    use crate::object::{BuildId, FileId, PinnedFile};

    fn key(number: u8) -> Key {
        key_of(Kind::Table, number)
    }

    fn key_of(kind: Kind, number: u8) -> Key {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let build_id = Some(BuildId([number; 20].into()));
        let pin = PinnedFile::new(FileId::default(), "/program".into(), build_id, file);
        Key::of(kind, &pin).unwrap()
    }

    /// Where the entry of `key(1)` is.
    fn entry_path(directory: &Path) -> PathBuf {
        let name = key(1).file_name().unwrap();
        directory.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn what_is_kept_is_there_for_the_next_recording() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/cache");
        let cache = Cache::open(&path).unwrap();
        assert_eq!(cache.get(&key(1)), None);
        cache.put(&key(1), b"one");
        cache.put(&key(1), b"one again");
        drop(cache);
        let cache = Cache::open(&path).unwrap();
        assert_eq!(cache.get(&key(1)).unwrap(), b"one again");
        assert_eq!(cache.get(&key(2)), None);
        assert_eq!(names(&path).len(), 1);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Cache::open(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert!(Cache::open(&link).is_err());
    }

    #[test]
    fn nothing_but_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let path = entry_path(folder.path());
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(cache.get(&key(1)), None);
        fs::remove_file(&path).unwrap();
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated and lives for the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        assert_eq!(cache.get(&key(1)), None);
    }

    #[test]
    fn those_used_longest_ago_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::with_room(folder.path(), 3000).unwrap();
        for number in 0..4 {
            cache.put(&key(number), &[number; 1000 - TRAILER_BYTES]);
            let name = key(number).file_name().unwrap();
            let file = cache.open_at(&name, libc::O_RDONLY).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number.into());
            file.set_modified(time).unwrap();
        }
        assert!(cache.get(&key(0)).is_some());
        cache.trim();
        let held = (0..4).map(|number| cache.get(&key(number)).is_some());
        assert_eq!(held.collect::<Vec<_>>(), [true, false, true, true]);
    }

    #[test]
    fn what_is_large_and_soon_made_again_takes_half_of_the_room_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::with_room(folder.path(), 3000).unwrap();
        let large = |number| key_of(Kind::Decompressed, number);
        for (age_s, key) in [key(0), large(1), large(2)].iter().enumerate() {
            cache.put(key, &[0; 1000 - TRAILER_BYTES]);
            let name = key.file_name().unwrap();
            let file = cache.open_at(&name, libc::O_RDONLY).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(age_s as u64);
            file.set_modified(time).unwrap();
        }
        cache.trim();
        let held = [key(0), large(1), large(2)].map(|key| cache.get(&key).is_some());
        assert_eq!(held, [true, false, true]);
    }

    #[test]
    fn nothing_half_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let path = entry_path(folder.path());
        // A directory cannot be replaced by a file.
        fs::create_dir(&path).unwrap();
        cache.put(&key(1), b"one");
        assert_eq!(names(folder.path()).len(), 1);
        cache.put(&key(2), &vec![0; MAX_ENTRY_BYTES as usize]);
        assert_eq!(names(folder.path()).len(), 1);
        let mut begun = cache.begin(&key(2)).unwrap();
        begun.add(b"part").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        begun.add(&vec![0; MAX_ENTRY_BYTES as usize]).unwrap_err();
        drop(begun);
        assert_eq!(names(folder.path()).len(), 1);
    }

    #[test]
    fn an_entry_that_comes_in_parts_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let mut entry = cache.begin(&key(1)).unwrap();
        entry.add(b"one, ").unwrap();
        entry.add(b"two").unwrap();
        assert_eq!(cache.get(&key(1)), None);
        let finished = entry.finish().unwrap();
        assert_eq!(cache.get(&key(1)).unwrap(), b"one, two");
        for mut file in [finished, cache.file(&key(1)).unwrap()] {
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(read.starts_with(b"one, two"));
            assert_eq!(read.len(), b"one, two".len() + TRAILER_BYTES);
            assert!(file.write_all(b"x").is_err());
        }
        assert_eq!(names(folder.path()).len(), 1);
        fs::write(entry_path(folder.path()), "damaged").unwrap();
        assert!(cache.file(&key(1)).is_none());
    }
}
