//! The one place that writes files: whole or not at all, never through a link.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A directory by its descriptor: the same one whatever its path means by now.
#[derive(Debug)]
pub struct Place {
    handle: File,
}

impl Place {
    /// Of an open directory.
    pub fn new(handle: File) -> Self {
        Self { handle }
    }

    /// Of the directory that a file is to appear in. It has been tried that files
    /// can be made there.
    pub fn of_parent(path: &Path) -> io::Result<Self> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let handle = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(parent)?;
        let place = Self::new(handle);
        place.try_out()?;
        Ok(place)
    }

    /// Takes it for this instance, until it is dropped; `false` if another one
    /// has it. A file system that knows no locks refuses nobody.
    pub fn lock(&self) -> bool {
        // SAFETY: the descriptor is open for as long as `self` lives.
        let status = unsafe { libc::flock(self.handle.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        status == 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
    }

    /// Whether its permissions let this user write there.
    pub fn is_ours(&self) -> bool {
        // SAFETY: has no preconditions.
        let own_user = unsafe { libc::geteuid() };
        let to_write = 0o300;
        self.handle.metadata().is_ok_and(|metadata| {
            metadata.uid() == own_user && metadata.mode() & to_write == to_write
        })
    }

    /// A path that leads to it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(self.path())?.next().is_none())
    }

    /// Whether there is anything of this name, a dangling link included.
    pub fn exists(&self, name: &OsStr) -> bool {
        let Ok(name) = CString::new(name.as_bytes()) else {
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

    /// Writes a file by way of a temporary one, mode 0600, so that it appears
    /// whole. Whatever goes wrong, the temporary one is removed. What has the
    /// name is replaced if `replace` says so, and never written through.
    pub fn write(
        &self,
        name: &OsStr,
        replace: bool,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.write_as(name, replace, &|_| Ok(()), content)
    }

    /// The same; `adorn` is handed the temporary file before it has content, to
    /// set its mode and its owner.
    pub fn write_as(
        &self,
        name: &OsStr,
        replace: bool,
        adorn: &dyn Fn(&File) -> io::Result<()>,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = temporary(name);
        let file = self.create(&temporary)?;
        let written = (|| {
            adorn(&file)?;
            let mut buffer = BufWriter::new(file);
            content(&mut buffer)?;
            buffer.flush()?;
            self.rename(&temporary, name, replace)
        })();
        if written.is_err() {
            let _was_never_there = self.unlink(&temporary);
        }
        written
    }

    /// Tries that a file can be made here.
    pub fn try_out(&self) -> io::Result<()> {
        let name = temporary("sampler".as_ref());
        drop(self.create(&name)?);
        self.unlink(&name)
    }

    /// Removes a file.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        let name = CString::new(name.as_bytes())?;
        // SAFETY: the name is terminated.
        check(unsafe { libc::unlinkat(self.handle.as_raw_fd(), name.as_ptr(), 0) })
    }

    fn create(&self, name: &OsStr) -> io::Result<File> {
        let name = CString::new(name.as_bytes())?;
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

    fn rename(&self, from: &OsStr, to: &OsStr, replace: bool) -> io::Result<()> {
        let (from, to) = (CString::new(from.as_bytes())?, CString::new(to.as_bytes())?);
        let directory = self.handle.as_raw_fd();
        let flags = if replace { 0 } else { libc::RENAME_NOREPLACE };
        // SAFETY: both names are terminated.
        let status =
            unsafe { libc::renameat2(directory, from.as_ptr(), directory, to.as_ptr(), flags) };
        check(status)
    }
}

/// What a file is called until it is whole: hidden, and by no other process.
fn temporary(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    temporary
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
