//! What a trial sets up and must not leave behind.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::fixture::{fixture, scratch};
use super::verdict::{Stop, Verdict, ensure};

/// A program in the background, with its whole process group ended at the end.
pub struct Background {
    child: Child,
}

impl Background {
    /// Starts the fixture in a process group of its own.
    pub fn fixture(name: &'static str, arguments: &[&str]) -> Verdict<Self> {
        Self::start(fixture(name)?, arguments)
    }

    pub fn start(program: impl AsRef<OsStr>, arguments: &[&str]) -> Verdict<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// One burner on every online CPU, for longer than any trial lasts.
    pub fn load_every_cpu() -> Verdict<Vec<Self>> {
        super::need::online_cpus()?
            .into_iter()
            .map(Self::burn_on)
            .collect()
    }

    pub fn burn_on(cpu: usize) -> Verdict<Self> {
        Self::fixture("burn", &["600000", &cpu.to_string()])
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and hands over what it printed.
    pub fn finish(mut self, limit: Duration) -> Verdict<String> {
        let end = Instant::now() + limit;
        while self.child.try_wait()?.is_none() {
            ensure!(
                Instant::now() < end,
                "a fixture ran for more than {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut said = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut said)?;
        }
        Ok(said)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: kill only takes numbers; the child has not been waited for,
            // so its process group is still the one that this test made.
            unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        }
        let _ = self.child.wait();
    }
}

/// A small file system of its own, unmounted at the end.
pub struct Tmpfs {
    place: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tmpfs {
    /// `options` as mount(8) takes them: `size=16k`, `nr_inodes=8`.
    pub fn mount(options: &str) -> Verdict<Self> {
        let folder = scratch()?;
        let place = folder.path().to_path_buf();
        let target = CString::new(place.as_os_str().as_bytes())?;
        let data = CString::new(options)?;
        // SAFETY: every pointer is to a NUL-terminated string that outlives the call.
        let mounted = unsafe {
            libc::mount(
                c"sampler-test".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                data.as_ptr().cast(),
            )
        };
        if mounted != 0 {
            let error = std::io::Error::last_os_error();
            return Err(Stop::Skipped(format!("cannot mount a tmpfs: {error}")));
        }
        Ok(Self {
            place,
            _folder: folder,
        })
    }

    /// Makes it read-only, so that not even root can write.
    pub fn seal(&self) -> Verdict {
        let target = CString::new(self.place.as_os_str().as_bytes())?;
        // SAFETY: both strings are NUL-terminated and outlive the call.
        let sealed = unsafe {
            libc::mount(
                std::ptr::null(),
                target.as_ptr(),
                std::ptr::null(),
                libc::MS_REMOUNT | libc::MS_RDONLY,
                std::ptr::null(),
            )
        };
        ensure!(sealed == 0, "{}", std::io::Error::last_os_error());
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.place
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(self.place.as_os_str().as_bytes()) {
            // SAFETY: the string is NUL-terminated and outlives the call.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// A control group of our own, removed at the end.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new group below `parent`, or the reason why this host lets us make none.
    pub fn create(parent: &Path, name: &str) -> Verdict<Self> {
        let path = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path)
            .map_err(|error| Stop::Skipped(format!("cannot create {}: {error}", path.display())))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn adopt(&self, pid: u32) -> Verdict {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())?;
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes were killed just before; the kernel empties it soon after.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
