//! The one place that reads `/proc`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clock::monotonic_ns;
use super::comm::Comm;
use super::jit_folder::JitFolder;
use super::proc_text::{Stat, parse_cgroup2, parse_maps, parse_stat, parse_status};
use super::record::MapRecord;

/// The most that is read of `maps`.
const MAX_MAPS_BYTES: u64 = 64 << 20;
/// The most that is read of every other file.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// A mounted proc file system.
#[derive(Debug, Clone)]
pub struct Procfs {
    root: PathBuf,
}

/// One process as `/proc` showed it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// `CLOCK_MONOTONIC` just before the first byte was read: what happened
    /// later may or may not be in here.
    pub taken_ns: u64,
    /// Numbers of the thread-group leader.
    pub stat: Stat,
    /// The leader's name.
    pub comm: Comm,
    /// The program, as the process sees its path.
    pub exe: Option<Arc<Path>>,
    /// Its threads.
    pub threads: BTreeSet<u32>,
    /// Its executable mappings.
    pub maps: Vec<MapRecord>,
    /// The thread through which its memory can be seen: the leader, unless
    /// that one has ended before the others.
    pub memory_tid: u32,
}

impl Procfs {
    /// The file system mounted at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pids of all processes that it shows.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        numbers_in(&self.root)
    }

    /// Reads one process; an error if there is none.
    ///
    /// All is read through one open directory, which the kernel binds to the
    /// process and not to its number: parts of two processes are never mixed.
    pub fn snapshot(&self, pid: u32) -> io::Result<Snapshot> {
        let taken_ns = monotonic_ns();
        let (_open, base) = self.open_process(pid)?;
        let stat = parse_stat(&read_text(&base.join("stat"))?)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let comm = read_text(&base.join("comm"))?;
        let comm = Comm::new(comm.strip_suffix(b"\n").unwrap_or(&comm));
        let mut threads = BTreeSet::from([pid]);
        if stat.threads > 1 {
            threads.extend(numbers_in(&base.join("task")).unwrap_or_default());
        }
        // A leader that has ended shows no memory; its siblings share it.
        let memory_tid = match stat.state {
            b'Z' => threads.iter().copied().find(|&tid| tid != pid),
            _ => None,
        }
        .unwrap_or(pid);
        let memory = if memory_tid == pid {
            base
        } else {
            base.join(format!("task/{memory_tid}"))
        };
        // Kernel threads and processes of others have no link to read.
        let exe = fs::read_link(memory.join("exe"))
            .ok()
            .map(|exe| without_deleted(exe.into_os_string().into_vec()));
        let maps = File::open(memory.join("maps"))
            .map(|maps| parse_maps(BufReader::new(maps.take(MAX_MAPS_BYTES))))?;
        Ok(Snapshot {
            taken_ns,
            stat,
            comm,
            exe,
            threads,
            maps,
            memory_tid,
        })
    }

    /// The cgroup2 path of the process with this number and start time.
    pub fn cgroup2(&self, pid: u32, is_it: impl Fn(&Stat) -> bool) -> Option<Box<[u8]>> {
        let (_open, base) = self.open_process(pid).ok()?;
        let stat = parse_stat(&read_text(&base.join("stat")).ok()?)?;
        if !is_it(&stat) {
            return None;
        }
        parse_cgroup2(&read_text(&base.join("cgroup")).ok()?).map(Into::into)
    }

    /// Where the process with this number and start time leaves perf maps.
    /// `started_ns` is when its program was started, in nanoseconds since 1970.
    pub fn jit_folder(
        &self,
        pid: u32,
        is_it: impl Fn(&Stat) -> bool,
        started_ns: i64,
    ) -> Option<JitFolder> {
        let (_open, base) = self.open_process(pid).ok()?;
        let stat = parse_stat(&read_text(&base.join("stat")).ok()?)?;
        if !is_it(&stat) {
            return None;
        }
        let status = parse_status(&read_text(&base.join("status")).ok()?)?;
        JitFolder::open(&base, status, started_ns).ok()
    }

    /// Opens the directory of a process; the path is good as long as it is
    /// open.
    fn open_process(&self, pid: u32) -> io::Result<(File, PathBuf)> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(self.root.join(pid.to_string()))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        Ok((directory, path))
    }
}

/// A path without the mark that the kernel puts behind one that is gone.
pub(super) fn without_deleted(mut path: Vec<u8>) -> Arc<Path> {
    if path.ends_with(b" (deleted)") {
        path.truncate(path.len() - b" (deleted)".len());
    }
    Path::new(OsStr::from_bytes(&path)).into()
}

/// The names in a directory that are numbers.
fn numbers_in(directory: &Path) -> io::Result<Vec<u32>> {
    Ok(fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(MAX_TEXT_BYTES)
        .read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn this_process_finds_itself() {
        let procfs = Procfs::new("/proc");
        let own = std::process::id();
        assert!(procfs.pids().unwrap().contains(&own));
        let snapshot = procfs.snapshot(own).unwrap();
        assert_eq!(
            snapshot.exe.as_deref(),
            std::env::current_exe().ok().as_deref()
        );
        assert!(snapshot.threads.contains(&own));
        assert!(snapshot.taken_ns <= monotonic_ns());
        assert!(!snapshot.stat.kernel_thread);
        let here = numbers_in as *const () as u64;
        assert!(
            snapshot
                .maps
                .iter()
                .any(|map| (map.start..map.end).contains(&here))
        );
    }

    #[test]
    fn a_child_knows_its_parent_and_a_reaped_one_is_gone() {
        let procfs = Procfs::new("/proc");
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let snapshot = procfs.snapshot(child.id()).unwrap();
        assert_eq!(snapshot.stat.parent_pid, std::process::id());
        assert_eq!(snapshot.memory_tid, child.id());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(procfs.snapshot(child.id()).is_err());
    }

    #[test]
    fn the_cgroup_is_that_of_the_process_meant() {
        let procfs = Procfs::new("/proc");
        let own = std::process::id();
        let text = fs::read("/proc/self/cgroup").unwrap();
        let expected = parse_cgroup2(&text).map(Box::from);
        assert_eq!(procfs.cgroup2(own, |_| true), expected);
        assert_eq!(procfs.cgroup2(own, |_| false), None);
    }
}
