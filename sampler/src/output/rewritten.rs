//! A file made from another one, beside it or in its place.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::directory::{OutputError, refused};
use super::place::Place;

/// What the new file has from the one that it is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    mode: u32,
    owner: u32,
    group: u32,
}

impl Model {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            mode: metadata.mode() & 0o777,
            owner: metadata.uid(),
            group: metadata.gid(),
        })
    }

    /// Gives a new file, which is its maker's alone so far, owner and mode. Who
    /// may not give files away keeps them, and then the old group gets no access.
    fn apply(self, file: &File) -> io::Result<()> {
        // SAFETY: takes numbers; the descriptor is open for as long as `file` lives.
        let given = unsafe { libc::fchown(file.as_raw_fd(), self.owner, self.group) } == 0;
        let mode = if given { self.mode } else { self.mode & 0o700 };
        file.set_permissions(Permissions::from_mode(mode))
    }
}

/// Where the new file goes.
#[derive(Debug)]
pub struct Rewritten {
    path: PathBuf,
    place: Place,
    name: OsString,
    replace: bool,
}

impl Rewritten {
    /// Refuses what is no place for a file, and one that is there unless it may
    /// be replaced. Of links none is written through.
    pub fn prepare(path: &Path, replace: bool) -> Result<Self, OutputError> {
        let not_a_file = || OutputError::NotAFile(path.to_owned());
        let name = path.file_name().ok_or_else(not_a_file)?;
        match fs::symlink_metadata(path) {
            Ok(there) if !there.is_file() => return Err(not_a_file()),
            Ok(_) if !replace => return Err(OutputError::Exists(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(path)(error)),
        }
        Ok(Self {
            path: path.to_owned(),
            place: Place::of_parent(path).map_err(refused(path))?,
            name: name.to_owned(),
            replace,
        })
    }

    /// Where it goes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it: it appears whole.
    pub fn write(
        &self,
        model: Model,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let adorn = |file: &File| model.apply(file);
        let written = self
            .place
            .write_as(&self.name, self.replace, &adorn, content);
        written.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OutputError::Exists(self.path.clone()),
            _ => refused(&self.path)(error),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, replace: bool, model: Model) -> Result<(), OutputError> {
        Rewritten::prepare(path, replace)?.write(model, |out| out.write_all(b"new"))
    }

    fn old(path: &Path, mode: u32) -> Model {
        fs::write(path, "old").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        Model::of(&File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn a_file_is_replaced_only_when_asked_for_and_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("profile");
        let model = old(&path, 0o640);
        assert!(matches!(
            write(&path, false, model),
            Err(OutputError::Exists(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write(&path, true, model).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_neither_followed_nor_replaced() {
        let root = tempfile::tempdir().unwrap();
        let (path, link) = (root.path().join("profile"), root.path().join("link"));
        let model = old(&path, 0o600);
        symlink(&path, &link).unwrap();
        for replace in [false, true] {
            let refused = write(&link, replace, model);
            assert!(matches!(refused, Err(OutputError::NotAFile(_))));
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn what_appears_meanwhile_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let model = old(&root.path().join("model"), 0o600);
        let path = root.path().join("new");
        let prepared = Rewritten::prepare(&path, false).unwrap();
        fs::write(&path, "theirs").unwrap();
        let refused = prepared.write(model, |out| out.write_all(b"new"));
        assert!(matches!(refused, Err(OutputError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
    }

    #[test]
    fn another_s_file_stays_another_s() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("profile");
        let model = Model {
            owner: 65534,
            group: 65534,
            ..old(&path, 0o644)
        };
        write(&path, true, model).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        // Only root may give files away.
        let expected = if metadata.uid() == 65534 {
            0o644
        } else {
            0o600
        };
        assert_eq!(metadata.mode() & 0o777, expected);
    }
}
