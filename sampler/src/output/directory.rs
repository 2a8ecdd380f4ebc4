//! The directory of a recording: who may use it, and which files in it are ours.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::place::Place;

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
    /// Another instance writes to it.
    #[error("{} is in use by another recording: name another directory with `-o`", .0.display())]
    Busy(PathBuf),
    /// A summary that would be written through a link, or over what is no file.
    #[error(
        "{} is neither a file nor a pipe or device to write to (symbolic links to files are not followed)",
        .0.display()
    )]
    NotAFile(PathBuf),
    /// A file that is not to be replaced.
    #[error("{} exists: name another file with `-o`, or replace it with `--force`", .0.display())]
    Exists(PathBuf),
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
    place: Place,
    created: bool,
    /// Files of an older recording that may be replaced.
    replaceable: HashSet<String>,
    /// Files that this recording has put in place, in that order.
    written: Vec<String>,
    /// The same, to look up.
    taken: HashSet<String>,
}

impl OutputDirectory {
    /// Makes the directory, mode 0700, or takes an empty one; with `force`,
    /// one that holds an older recording. Tries that a file can be written.
    ///
    /// No other instance gets the same directory until this one is dropped.
    pub fn prepare(path: &Path, force: bool) -> Result<Self, OutputError> {
        if let Some(parent) = path.parent()
            && !parent.as_os_str().is_empty()
        {
            fs::create_dir_all(parent).map_err(refused(path))?;
        }
        let created = make(path).map_err(refused(path))?;
        Self::open(path, created, force)
    }

    /// Makes a directory that was not there: `path`, else `path-2`, `path-3`, …
    pub fn prepare_new(path: &Path) -> Result<Self, OutputError> {
        let mut candidate = path.to_owned();
        let mut number = 2_u64;
        while !make(&candidate).map_err(refused(&candidate))? {
            let mut name = OsString::from(path);
            name.push(format!("-{number}"));
            candidate = name.into();
            number += 1;
        }
        Self::open(&candidate, true, false)
    }

    fn open(path: &Path, created: bool, force: bool) -> Result<Self, OutputError> {
        let handle = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENOTDIR) => OutputError::NotADirectory(path.to_owned()),
                _ => refused(path)(error),
            })?;
        let mut directory = Self {
            path: path.to_owned(),
            place: Place::new(handle),
            created,
            replaceable: HashSet::new(),
            written: Vec::new(),
            taken: HashSet::new(),
        };
        // Before a look at what is in it: it stays what it is from here on.
        if !directory.place.lock() {
            return Err(OutputError::Busy(path.to_owned()));
        }
        if !directory.place.is_empty().map_err(refused(path))? {
            if !force {
                return Err(OutputError::NotEmpty(path.to_owned()));
            }
            directory.replaceable = directory
                .older_files()
                .ok_or_else(|| OutputError::NotARecording(path.to_owned()))?;
        }
        directory.place.try_out().map_err(refused(path))?;
        Ok(directory)
    }

    /// Whether its permissions let this user write there.
    pub fn is_ours(&self) -> bool {
        self.place.is_ours()
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
        !self.taken.contains(name)
            && (self.replaceable.contains(name) || !self.place.exists(OsStr::new(name)))
    }

    /// Writes a file by way of a temporary one, mode 0600, so that it appears
    /// whole. Whatever goes wrong, the temporary one is removed.
    pub fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let replace = self.replaceable.contains(name);
        self.place
            .write(OsStr::new(name), replace, content)
            .map_err(refused(&self.path.join(name)))?;
        self.written.push(name.to_owned());
        self.taken.insert(name.to_owned());
        Ok(())
    }

    /// Files of the older recording that are still there and still its own,
    /// without its index.
    pub fn older(&self) -> Vec<String> {
        let mut older: Vec<_> = self
            .replaceable
            .iter()
            .filter(|name| *name != INDEX && !self.taken.contains(*name))
            .cloned()
            .collect();
        older.sort_unstable();
        older
    }

    /// Removes what is left of the older recording, but for its index, which
    /// the new one replaces.
    pub fn remove_older(&mut self) -> Result<(), OutputError> {
        for name in self.older() {
            match self.place.unlink(OsStr::new(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(refused(&self.path.join(name))(error));
                }
                _ => self.replaceable.remove(&name),
            };
        }
        Ok(())
    }

    /// The files that the index of an older recording names, with itself.
    fn older_files(&self) -> Option<HashSet<String>> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.place.path().join(INDEX))
            .ok()?;
        let mut text = Vec::new();
        file.take(MAX_INDEX_BYTES).read_to_end(&mut text).ok()?;
        let mut names = named_files(&text)?;
        names.insert(INDEX.to_owned());
        Some(names)
    }
}

/// The system's refusal, about this path.
pub(super) fn refused(path: &Path) -> impl Fn(io::Error) -> OutputError {
    move |error| OutputError::Io {
        path: path.to_owned(),
        error,
    }
}

/// Makes a directory that only its owner may use; `false` if there is
/// something of that name.
fn make(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// The files that an index names; `None` if it is not an index. Names that
/// lead out of the directory are not ours.
fn named_files(index: &[u8]) -> Option<HashSet<String>> {
    let index: serde_json::Value = serde_json::from_slice(index).ok()?;
    index.get("sampler")?;
    let files = index.get("files")?.as_array()?.iter();
    let older = index
        .pointer("/unfinished/older_files")
        .and_then(serde_json::Value::as_array);
    let names = files
        .filter_map(|file| file.get("file"))
        .chain(older.into_iter().flatten())
        .filter_map(serde_json::Value::as_str)
        .filter(|name| Path::new(name).file_name() == Some(OsStr::from_bytes(name.as_bytes())))
        .map(str::to_owned)
        .collect();
    Some(names)
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
        // The old index stays until the new one takes its place.
        assert_eq!(names(root.path()), [INDEX, "mine", "same"]);
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
    fn a_directory_is_one_instance_s_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = OutputDirectory::prepare(root.path(), false).unwrap();
        for force in [false, true] {
            let refused = OutputDirectory::prepare(root.path(), force);
            assert!(matches!(refused, Err(OutputError::Busy(_))));
        }
        drop(first);
        assert!(OutputDirectory::prepare(root.path(), false).is_ok());
    }

    #[test]
    fn a_directory_that_is_to_be_new_shares_no_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sampler-1");
        // An empty one is somebody's, who is about to write to it.
        fs::create_dir(&path).unwrap();
        let second = OutputDirectory::prepare_new(&path).unwrap();
        let third = OutputDirectory::prepare_new(&path).unwrap();
        assert_eq!(second.path(), root.path().join("sampler-1-2"));
        assert_eq!(third.path(), root.path().join("sampler-1-3"));
        second.abandon();
        assert_eq!(names(root.path()), ["sampler-1", "sampler-1-3"]);
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
