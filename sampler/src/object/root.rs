//! The root directory of processes that see other files than we do.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A root directory that is not ours, held open: that of another mount
/// namespace or of a changed root. It outlives the processes that had it.
#[derive(Debug)]
pub struct ForeignRoot {
    directory: OwnedFd,
}

impl ForeignRoot {
    /// Takes over a directory that was opened, without access (`O_PATH`) or
    /// with it.
    pub fn new(directory: File) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Opens, without access (`O_PATH`), what a path leads to for a process
    /// with this root. Links are followed, absolute ones too, but nothing leads
    /// out of the root: neither `..` nor the links of `/proc`. Fails where the
    /// kernel cannot promise that (before Linux 5.6).
    pub fn locate(&self, path: &Path) -> io::Result<File> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a plain structure of numbers, for which zeros are valid.
        let mut how: libc::open_how = unsafe { mem::zeroed() };
        how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
        how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
        // SAFETY: the path ends with a NUL, and the size is that of `how`; both
        // live for the call.
        let opened = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                self.directory.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of_val(&how),
            )
        };
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the call above has opened, owned by nobody
        // else. Descriptors fit into an int.
        Ok(unsafe { File::from_raw_fd(opened as i32) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    #[test]
    fn nothing_leads_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("root");
        fs::create_dir_all(inside.join("usr/lib")).unwrap();
        fs::write(outside.path().join("file"), "the host's").unwrap();
        fs::write(inside.join("file"), "its own").unwrap();
        symlink("/file", inside.join("usr/absolute")).unwrap();
        symlink("../../../../file", inside.join("usr/climbing")).unwrap();
        symlink("/proc/self/root/etc", inside.join("usr/magic")).unwrap();
        let root = ForeignRoot::new(File::open(&inside).unwrap());
        let own = fs::metadata(inside.join("file")).unwrap().ino();
        for path in [
            "/file",
            "file",
            "/../file",
            "/usr/absolute",
            "/usr/climbing",
            "usr/lib/../../../../file",
        ] {
            let found = root.locate(Path::new(path)).unwrap();
            assert_eq!(found.metadata().unwrap().ino(), own, "{path}");
        }
        assert!(root.locate(Path::new("/usr/magic/passwd")).is_err());
        assert!(root.locate(Path::new("/etc/passwd")).is_err());
    }

    #[test]
    fn a_link_of_proc_is_no_way_out() {
        let root = ForeignRoot::new(File::open("/").unwrap());
        assert!(root.locate(Path::new("/proc/self/status")).is_ok());
        for path in ["/proc/self/root/etc/passwd", "/proc/self/exe"] {
            assert!(root.locate(Path::new(path)).is_err(), "{path}");
        }
    }
}
