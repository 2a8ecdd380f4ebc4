//! Finding what a process wrote about the code that it made, and nothing else.
//!
//! Everybody may put things into `/tmp` and call them what a profiler looks for,
//! and a process may arrange its mount namespace as it likes. So no link is
//! followed and no mount crossed on the last step; what is found must be a
//! regular file of the process's user or of root, with one name, that was
//! written to since the process started. Opening never waits.

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::open_regular::open_regular;
use super::proc_text::Status;
use crate::object::PinnedFile;

/// How much earlier than its process started a file may have been written to,
/// by clocks that are read one after the other and move in ticks.
const CLOCK_SLACK_NS: i64 = 1_000_000_000;

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refusal {
    /// It is a link, or something is mounted over it.
    #[error("it is a link, or is mounted there")]
    Redirected,
    /// It is a FIFO, a directory, a device.
    #[error("it is no regular file")]
    NotRegular,
    /// It belongs to somebody else.
    #[error("it belongs neither to the process's user nor to root")]
    ForeignOwner,
    /// It has other names too.
    #[error("it has several names")]
    SeveralNames,
    /// It was last written to before the process started.
    #[error("it is older than the process")]
    Stale,
    /// It may not be opened.
    #[error("it cannot be opened")]
    Unreadable,
}

/// Where a process leaves perf maps: `/tmp` as it has it. Held open, so that
/// what it writes last of all is found when it is gone.
#[derive(Debug)]
pub struct JitFolder {
    tmp: File,
    namespace_pid: u32,
    user: u32,
    /// Nanoseconds since 1970.
    started_ns: i64,
}

impl JitFolder {
    /// That of the process whose directory in `/proc` this is. `started_ns` is
    /// when its program was started, in nanoseconds since 1970.
    pub(super) fn open(process: &Path, status: Status, started_ns: i64) -> io::Result<Self> {
        let directory = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(directory)
            .open(process.join("root"))?;
        let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
        Ok(Self {
            tmp: open_below(&root, c"tmp", directory, resolve)?,
            namespace_pid: status.namespace_pid,
            user: status.user,
            started_ns,
        })
    }

    /// The number by which the process knows itself.
    pub fn namespace_pid(&self) -> u32 {
        self.namespace_pid
    }

    /// Opens the perf map; `None` if there is none yet.
    pub fn perf_map(&self) -> Result<Option<Arc<PinnedFile>>, Refusal> {
        let name = format!("perf-{}.map", self.namespace_pid);
        let Ok(c_name) = CString::new(name.as_str()) else {
            return Ok(None);
        };
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let resolve = libc::RESOLVE_BENEATH
            | libc::RESOLVE_NO_SYMLINKS
            | libc::RESOLVE_NO_MAGICLINKS
            | libc::RESOLVE_NO_XDEV;
        let handle = match open_below(&self.tmp, &c_name, flags, resolve) {
            Ok(handle) => handle,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENOENT) => Ok(None),
                    Some(libc::ELOOP | libc::EXDEV) => Err(Refusal::Redirected),
                    _ => Err(Refusal::Unreadable),
                };
            }
        };
        // Before it is opened, which for some kinds of files has effects.
        let metadata = handle.metadata().map_err(|_| Refusal::Unreadable)?;
        self.check(&metadata, 1)?;
        let by_handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let found = open_regular(Path::new(&by_handle), true, None).ok_or(Refusal::Unreadable)?;
        let path = PathBuf::from("/tmp").join(name);
        Ok(Some(Arc::new(PinnedFile::new(
            found.id, path, None, found.file,
        ))))
    }

    /// Whether a jitdump that the process has mapped can be its own. It may have
    /// lost its name.
    pub fn check_dump(&self, dump: &PinnedFile) -> Result<(), Refusal> {
        let metadata = dump.metadata().map_err(|_| Refusal::Unreadable)?;
        self.check(&metadata, metadata.nlink().min(1))
    }

    fn check(&self, metadata: &Metadata, names: u64) -> Result<(), Refusal> {
        if metadata.is_symlink() {
            return Err(Refusal::Redirected);
        }
        if !metadata.is_file() {
            return Err(Refusal::NotRegular);
        }
        if metadata.uid() != self.user && metadata.uid() != 0 {
            return Err(Refusal::ForeignOwner);
        }
        if metadata.nlink() != names {
            return Err(Refusal::SeveralNames);
        }
        let written_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        if written_ns < self.started_ns - CLOCK_SLACK_NS {
            return Err(Refusal::Stale);
        }
        Ok(())
    }
}

/// Opens what `name` is below a directory, as `openat2` resolves it.
fn open_below(directory: &File, name: &CStr, flags: i32, resolve: u64) -> io::Result<File> {
    // SAFETY: all of it may be zero.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = flags as u64;
    how.resolve = resolve;
    // SAFETY: the name is NUL-terminated, and the kernel reads as many bytes of
    // `how` as it is told.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    match fd {
        // SAFETY: the kernel has just given us this descriptor, and nobody else
        // knows it.
        Some(fd) => Ok(unsafe { File::from_raw_fd(fd) }),
        None => Err(io::Error::last_os_error()),
    }
}
