//! From what a person calls a cgroup to the cgroup itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::small_file;

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// `CGROUP_SUPER_MAGIC`.
const CGROUP1_MAGIC: i64 = 0x0027_e0eb;

/// A cgroup2 directory, held open.
#[derive(Debug)]
pub struct Cgroup {
    /// What `bpf_get_current_cgroup_id` returns inside it.
    pub id: u64,
    /// As in `/proc/PID/cgroup`: from the root of the hierarchy, with a
    /// leading slash.
    pub path: PathBuf,
    fd: OwnedFd,
}

impl AsFd for Cgroup {
    /// For a map of cgroups.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why a path is not a cgroup that can be profiled.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Neither a file of that name nor a cgroup below a mount point.
    #[error("there is no cgroup {}", .0.display())]
    NotFound(PathBuf),
    /// It belongs to the old kind of hierarchy.
    #[error(
        "{} is a cgroup of version 1, which cannot be profiled by: name a cgroup2 path",
        .0.display()
    )]
    Version1(PathBuf),
    /// It exists and is something else.
    #[error("{} is not a cgroup", .0.display())]
    NotACgroup(PathBuf),
    /// The kernel refused to say.
    #[error("cannot open the cgroup {}: {source}", path.display())]
    Unreadable {
        /// What was asked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The mounted cgroup hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupMounts {
    /// Mounts of the one cgroup2 hierarchy.
    pub version2: Vec<CgroupMount>,
    /// Mount points of version 1 hierarchies.
    pub version1: Vec<PathBuf>,
}

/// One mount of the cgroup2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMount {
    /// Which cgroup the mount shows at its top.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
}

impl CgroupMounts {
    /// Reads `/proc/self/mountinfo`.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&small_file::read_bytes(
            "/proc/self/mountinfo",
            16 << 20,
        )?))
    }

    /// Lines of `ID PARENT DEV ROOT POINT OPTIONS… - TYPE …`: see proc(5).
    fn parse(mountinfo: &[u8]) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.split(|&byte| byte == b'\n') {
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            let kind = fields.iter().position(|&field| field == b"-");
            let kind = kind.and_then(|dash| fields.get(dash + 1)).copied();
            let (Some(root), Some(point)) = (fields.get(3), fields.get(4)) else {
                continue;
            };
            match kind {
                Some(b"cgroup2") => mounts.version2.push(CgroupMount {
                    root: unescape(root),
                    point: unescape(point),
                }),
                Some(b"cgroup") => mounts.version1.push(unescape(point)),
                _ => {}
            }
        }
        mounts
    }

    /// Finds the cgroup that `path` means: a directory of the file system or,
    /// failing that, a path below the top of the cgroup2 hierarchy.
    pub fn find(&self, path: &Path) -> Result<Cgroup, CgroupError> {
        let below = below_top(path);
        let as_given = classify(path);
        if let Class::Version2(file) = as_given {
            return self.describe(path, file);
        }
        // `.` is not the top of the hierarchy, `/` is.
        let named = path.is_absolute() || below != Path::new("");
        for mount in self.version2.iter().filter(|_| named) {
            if let Class::Version2(file) = classify(&mount.point.join(&below)) {
                return self.describe(path, file);
            }
        }
        let path = path.to_owned();
        let exists_in_version1 = || {
            let found = |mount: &PathBuf| matches!(classify(&mount.join(&below)), Class::Version1);
            below != Path::new("") && self.version1.iter().any(found)
        };
        match as_given {
            Class::Version1 => Err(CgroupError::Version1(path)),
            // The usual `/sys/fs/cgroup` of a host that has both kinds.
            Class::Other if self.holds_version1(&path) => Err(CgroupError::Version1(path)),
            Class::Other => Err(CgroupError::NotACgroup(path)),
            Class::Missing if exists_in_version1() => Err(CgroupError::Version1(path)),
            Class::Unreadable(source) => Err(CgroupError::Unreadable { path, source }),
            Class::Missing | Class::Version2(_) => Err(CgroupError::NotFound(path)),
        }
    }

    fn holds_version1(&self, directory: &Path) -> bool {
        let Ok(directory) = directory.canonicalize() else {
            return false;
        };
        let inside = |point: &PathBuf| point.parent() == Some(directory.as_path());
        self.version1.iter().any(inside)
    }

    fn describe(&self, asked: &Path, file: File) -> Result<Cgroup, CgroupError> {
        let facts = || {
            let id = file.metadata()?.ino();
            let at = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            Ok((id, at))
        };
        let (id, at) = facts().map_err(|source| CgroupError::Unreadable {
            path: asked.to_owned(),
            source,
        })?;
        Ok(Cgroup {
            id,
            path: self.hierarchy_path(&at),
            fd: file.into(),
        })
    }

    /// A path of the file system as a path of the hierarchy.
    fn hierarchy_path(&self, at: &Path) -> PathBuf {
        let inside = |mount: &&CgroupMount| at.starts_with(&mount.point);
        let innermost = self
            .version2
            .iter()
            .filter(inside)
            .max_by_key(|mount| mount.point.as_os_str().len());
        let relative = innermost.map(|mount| {
            let rest = at.strip_prefix(&mount.point).unwrap_or(Path::new(""));
            mount.root.components().chain(rest.components()).collect()
        });
        relative.unwrap_or_else(|| at.to_owned())
    }
}

/// What lies at a path.
enum Class {
    Version2(File),
    Version1,
    Other,
    Missing,
    Unreadable(io::Error),
}

fn classify(path: &Path) -> Class {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Class::Missing,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Class::Other,
        Err(error) => return Class::Unreadable(error),
    };
    match file_system_magic(file.as_fd()) {
        Ok(CGROUP2_MAGIC) => Class::Version2(file),
        Ok(CGROUP1_MAGIC) => Class::Version1,
        Ok(_) => Class::Other,
        Err(error) => Class::Unreadable(error),
    }
}

fn file_system_magic(fd: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: all zeroes is a valid statfs; fstatfs fills it from an open
    // descriptor and does nothing else.
    let (result, facts) = unsafe {
        let mut facts: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(fd.as_raw_fd(), &raw mut facts), facts)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::unnecessary_cast)] // the field's type differs by architecture
    Ok(facts.f_type as i64)
}

/// The path without its leading slash, and without leaving the hierarchy.
fn below_top(path: &Path) -> PathBuf {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => {
                below.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    below
}

/// Undoes the kernel's octal escapes (`\040` is a space).
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let escaped = (field[at] == b'\\').then(|| field.get(at + 1..at + 4));
        let value = escaped
            .flatten()
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(value.unwrap_or(field[at]));
        at += if value.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests;
