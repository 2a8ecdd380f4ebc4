//! The one place that writes files: whole or not at all, never through a link.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The name of the index.
pub const INDEX: &str = "index.json";
/// An index larger than this is not one of ours.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Why the output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// There is something in the way.
    #[error(
        "{} is not empty: name another directory with `-o`, or replace an older recording in it with `--force`",
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// Not a directory, or a symbolic link to one.
    #[error("{} is not a directory (symbolic links are not followed)", .0.display())]
    NotADirectory(PathBuf),
    /// `--force` on a directory that is not a recording.
    #[error(
        "{} holds files but no index.json of a recording, so nothing in it is replaced: name another directory with `-o`",
        .0.display()
    )]
    NotARecording(PathBuf),
    /// The system refused.
    #[error("cannot write to {}: {error}", path.display())]
    Io {
        /// The directory or the file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// A directory that a recording is written to.
#[derive(Debug)]
pub struct OutputDirectory {
    path: PathBuf,
    handle: File,
    created: bool,
    /// Files of an older recording that may be replaced.
    replaceable: HashSet<String>,
    /// Files that this recording has put in place.
    written: Vec<String>,
}

impl OutputDirectory {
    /// Makes the directory, mode 0700, or takes an empty one; with `force`,
    /// one that holds an older recording. Tries that a file can be written.
    pub fn prepare(path: &Path, force: bool) -> Result<Self, OutputError> {
        let io = |error| OutputError::Io {
            path: path.to_owned(),
            error,
        };
        if let Some(parent) = path.parent()
            && !parent.as_os_str().is_empty()
        {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let created = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(io(error)),
        };
        let handle = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENOTDIR) => OutputError::NotADirectory(path.to_owned()),
                _ => io(error),
            })?;
        let mut directory = Self {
            path: path.to_owned(),
            handle,
            created,
            replaceable: HashSet::new(),
            written: Vec::new(),
        };
        if !directory.is_empty().map_err(io)? {
            if !force {
                return Err(OutputError::NotEmpty(path.to_owned()));
            }
            directory.replaceable = directory
                .older_files()
                .ok_or_else(|| OutputError::NotARecording(path.to_owned()))?;
        }
        directory.try_out().map_err(io)?;
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that were put in place so far.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Removes the directory again, if it was made here and is still empty.
    pub fn abandon(self) {
        if self.created {
            // Whoever put something into it keeps it.
            let _not_empty = fs::remove_dir(&self.path);
        }
    }

    /// Whether this name may be used: nothing is there, or something that may
    /// be replaced.
    pub fn is_free(&self, name: &str) -> bool {
        if self.written.iter().any(|written| written == name) {
            return false;
        }
        self.replaceable.contains(name) || !self.exists(name)
    }

    /// Writes a file by way of a temporary one, mode 0600, so that it appears
    /// whole. Whatever goes wrong, the temporary one is removed.
    pub fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let result = self.write_file(name, content);
        match result {
            Ok(()) => {
                self.written.push(name.to_owned());
                Ok(())
            }
            Err(error) => Err(OutputError::Io {
                path: self.path.join(name),
                error,
            }),
        }
    }

    /// Removes what is left of the older recording.
    pub fn remove_older(&mut self) -> Result<(), OutputError> {
        for name in std::mem::take(&mut self.replaceable) {
            if self.written.contains(&name) {
                continue;
            }
            match self.unlink(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OutputError::Io {
                        path: self.path.join(name),
                        error,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write_file(
        &self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = format!(".{name}.{}.tmp", std::process::id());
        let file = self.create(&temporary)?;
        let written = (|| {
            let mut buffer = BufWriter::new(file);
            content(&mut buffer)?;
            buffer.flush()?;
            self.rename(&temporary, name, self.replaceable.contains(name))
        })();
        if written.is_err() {
            let _was_never_there = self.unlink(&temporary);
        }
        written
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let name = CString::new(name)?;
        // SAFETY: the name is terminated; the call returns a new descriptor.
        let fd = unsafe {
            libc::openat(
                self.handle.as_raw_fd(),
                name.as_ptr(),
                libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC,
                0o600,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor and nothing else owns it.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let (from, to) = (CString::new(from)?, CString::new(to)?);
        let directory = self.handle.as_raw_fd();
        let flags = if replace { 0 } else { libc::RENAME_NOREPLACE };
        // SAFETY: both names are terminated.
        let status =
            unsafe { libc::renameat2(directory, from.as_ptr(), directory, to.as_ptr(), flags) };
        check(status)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let name = CString::new(name)?;
        // SAFETY: the name is terminated.
        check(unsafe { libc::unlinkat(self.handle.as_raw_fd(), name.as_ptr(), 0) })
    }

    fn exists(&self, name: &str) -> bool {
        let Ok(name) = CString::new(name) else {
            return false;
        };
        // SAFETY: all zeros is a valid `stat`.
        let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
        // SAFETY: the name is terminated, and the kernel writes one `stat`.
        let status = unsafe {
            libc::fstatat(
                self.handle.as_raw_fd(),
                name.as_ptr(),
                &raw mut stat,
                libc::AT_SYMLINK_NOFOLLOW,
            )
        };
        status == 0
    }

    /// The directory by its descriptor, whatever its name means by now.
    fn by_descriptor(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(self.by_descriptor())?.next().is_none())
    }

    /// The files that the index of an older recording names, with itself.
    fn older_files(&self) -> Option<HashSet<String>> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.by_descriptor().join(INDEX))
            .ok()?;
        let mut text = Vec::new();
        file.take(MAX_INDEX_BYTES).read_to_end(&mut text).ok()?;
        let mut names = named_files(&text)?;
        names.insert(INDEX.to_owned());
        Some(names)
    }

    fn try_out(&self) -> io::Result<()> {
        let name = format!(".sampler.{}.tmp", std::process::id());
        drop(self.create(&name)?);
        self.unlink(&name)
    }
}

/// The files that an index names; `None` if it is not an index. Names that
/// lead out of the directory are not ours.
fn named_files(index: &[u8]) -> Option<HashSet<String>> {
    let index: serde_json::Value = serde_json::from_slice(index).ok()?;
    index.get("sampler")?;
    let names = index
        .get("files")?
        .as_array()?
        .iter()
        .filter_map(|file| file.get("file")?.as_str())
        .filter(|name| Path::new(name).file_name() == Some(OsStr::from_bytes(name.as_bytes())))
        .map(str::to_owned)
        .collect();
    Some(names)
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_directory_and_its_files_are_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let mut directory = OutputDirectory::prepare(&path, false).unwrap();
        directory.write("x", |out| out.write_all(b"1")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("x")), 0o600);
        assert_eq!(names(&path), ["x"]);
    }

    #[test]
    fn what_fails_half_way_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = OutputDirectory::prepare(root.path(), false).unwrap();
        let failed = directory.write("x", |out| {
            out.write_all(&vec![0; 100_000])?;
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        });
        assert!(matches!(failed, Err(OutputError::Io { .. })));
        assert!(names(root.path()).is_empty());
        assert!(directory.written().is_empty());
    }

    #[test]
    fn force_replaces_what_the_old_index_names_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let index = r#"{"sampler": "0", "files": [{"file": "old"}, {"file": "same"},
            {"file": "../outside"}, {"file": "gone"}]}"#;
        for (name, content) in [("old", "1"), ("same", "1"), ("mine", "1"), (INDEX, index)] {
            fs::write(at(name), content).unwrap();
        }
        let refused = OutputDirectory::prepare(root.path(), false);
        assert!(matches!(refused, Err(OutputError::NotEmpty(_))));

        let mut directory = OutputDirectory::prepare(root.path(), true).unwrap();
        assert!(directory.is_free("same") && !directory.is_free("mine"));
        assert!(!directory.replaceable.contains("../outside"));
        directory.write("same", |out| out.write_all(b"2")).unwrap();
        assert!(directory.write("mine", |out| out.write_all(b"2")).is_err());
        directory.remove_older().unwrap();
        assert_eq!(names(root.path()), ["mine", "same"]);
        assert_eq!(fs::read(at("same")).unwrap(), b"2");
        assert_eq!(fs::read(at("mine")).unwrap(), b"1");
    }

    #[test]
    fn force_does_not_touch_a_directory_that_is_no_recording() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "…").unwrap();
        let refused = OutputDirectory::prepare(root.path(), true);
        assert!(matches!(refused, Err(OutputError::NotARecording(_))));
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        let link = root.path().join("link");
        symlink(root.path().join("real"), &link).unwrap();
        let refused = OutputDirectory::prepare(&link, false);
        assert!(matches!(refused, Err(OutputError::NotADirectory(_))));

        let real = root.path().join("real");
        let mut directory = OutputDirectory::prepare(&real, false).unwrap();
        symlink("/dev/null", real.join("x")).unwrap();
        assert!(!directory.is_free("x"));
        assert!(directory.write("x", |out| out.write_all(b"1")).is_err());
        assert_eq!(names(&real), ["x"]);
    }

    #[test]
    fn an_abandoned_directory_goes_only_if_it_was_made_here() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new");
        OutputDirectory::prepare(&path, false).unwrap().abandon();
        assert!(!path.exists());
        OutputDirectory::prepare(root.path(), false)
            .unwrap()
            .abandon();
        assert!(root.path().exists());
    }
}
