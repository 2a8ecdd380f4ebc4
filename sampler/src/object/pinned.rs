//! A file held open from the moment user space hears of it.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::contents::FileContents;
use super::root::ForeignRoot;

/// What the kernel calls the same file: device and inode as `stat` reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

/// The GNU build ID of an ELF file: the bytes of its `NT_GNU_BUILD_ID` note.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BuildId(pub Box<[u8]>);

impl fmt::Display for BuildId {
    /// Lower-case hexadecimal, as every tool of the field prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// A regular file that stays readable whatever happens to its name, its
/// process or its mount namespace.
#[derive(Debug)]
pub struct PinnedFile {
    /// Device and inode.
    pub id: FileId,
    /// The path as the target saw it (for people, never opened again).
    pub path: PathBuf,
    /// Its build ID, if it is an ELF file that has one.
    pub build_id: Option<BuildId>,
    /// Where its path leads to it, if not from our own root.
    pub root: Option<Arc<ForeignRoot>>,
    fd: OwnedFd,
}

impl AsFd for PinnedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PinnedFile {
    /// Takes over an open file.
    pub fn new(id: FileId, path: PathBuf, build_id: Option<BuildId>, file: File) -> Self {
        Self {
            id,
            path,
            build_id,
            root: None,
            fd: file.into(),
        }
    }

    /// What the system says of it.
    pub fn metadata(&self) -> io::Result<Metadata> {
        File::from(self.fd.try_clone()?).metadata()
    }

    /// The same file, whose path is to be seen from this root.
    #[must_use]
    pub fn seen_from(mut self, root: Option<Arc<ForeignRoot>>) -> Self {
        self.root = root;
        self
    }

    /// Its size.
    pub fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    /// What is in it.
    pub fn contents(&self) -> io::Result<FileContents> {
        FileContents::new(File::from(self.fd.try_clone()?))
    }

    /// A path under which this process, and only this process, can open the
    /// same file again.
    pub fn reopen_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}
