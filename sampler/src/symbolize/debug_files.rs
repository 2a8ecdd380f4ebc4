//! Where the separate file with a program's debug information may be.
//!
//! All that opens files for the sake of names is here, and nothing here parses
//! them, but for their build IDs. The parser would follow `.gnu_debuglink` itself,
//! but then a target decides which file we open, and a checksum mismatch costs
//! all its names. In a child, it finds nothing there.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::object::{BuildId, FileId, PinnedFile, find_build_id};

use super::debuginfod::{DebugServers, Debuginfod};

/// Shorter build IDs are not unique enough to search by.
const MIN_BUILD_ID_BYTES: usize = 8;

/// Finds and opens separate debug files.
#[derive(Debug)]
pub(super) struct DebugFiles {
    /// The system's directories of debug files, in order of preference.
    dirs: Vec<PathBuf>,
    servers: Option<Debuginfod>,
}

/// A place where the debug file could be.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    path: PathBuf,
    owner: Owner,
}

/// Whose a place is, which says how far it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// A directory of the system's: symbolic links in it are followed.
    System,
    /// A directory of the target's in our own mount namespace.
    Target,
    /// Somewhere below the target's own root, which nothing leads out of.
    Root,
}

impl DebugFiles {
    /// Looks in these directories of the system's, and asks these servers.
    pub(super) fn new(dirs: Vec<PathBuf>, servers: Option<DebugServers>) -> Self {
        Self {
            dirs,
            servers: servers.and_then(Debuginfod::open),
        }
    }

    /// Whether others than this machine are asked.
    pub(super) fn asks_servers(&self) -> bool {
        self.servers.is_some()
    }

    /// What tells the debug files that are found on this machine from others:
    /// device, inode, size, and the time of change in nanoseconds.
    pub(super) fn marks(
        &self,
        file: &PinnedFile,
        build_id: &BuildId,
        link: Option<&[u8]>,
    ) -> Vec<[u64; 4]> {
        let found = self.on_this_machine(file, build_id, link);
        let marks = found.filter_map(|found| {
            let metadata = found.metadata().ok()?;
            let changed_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
            Some([
                metadata.dev(),
                metadata.ino(),
                metadata.len(),
                changed_ns.cast_unsigned(),
            ])
        });
        marks.collect()
    }

    fn on_this_machine<'a>(
        &self,
        file: &'a PinnedFile,
        build_id: &'a BuildId,
        link: Option<&[u8]>,
    ) -> impl Iterator<Item = Arc<PinnedFile>> + use<'a> {
        let is_unique = build_id.0.len() >= MIN_BUILD_ID_BYTES;
        let candidates =
            is_unique.then(|| candidates(build_id, link.and_then(file_name), file, &self.dirs));
        candidates
            .into_iter()
            .flatten()
            .filter_map(|candidate| open(candidate, build_id, file))
    }

    /// The debug files that there may be of a file with this build ID and, from
    /// its `.gnu_debuglink`, the name of its debug file; best first. Each is
    /// looked for when it is asked for, and is a regular file with no other build
    /// ID in its program headers; the rest has to be looked at.
    pub(super) fn find<'a>(
        &'a mut self,
        file: &'a PinnedFile,
        build_id: &'a BuildId,
        link: Option<&[u8]>,
    ) -> impl Iterator<Item = Arc<PinnedFile>> + use<'a> {
        let is_unique = build_id.0.len() >= MIN_BUILD_ID_BYTES;
        let on_this_machine = self.on_this_machine(file, build_id, link);
        let servers = self.servers.as_mut().filter(|_| is_unique);
        let from_servers = servers.into_iter().filter_map(|servers| {
            let fetched = servers.find(build_id)?;
            debug_file(fetched, PathBuf::from("debuginfod"), build_id, file)
        });
        on_this_machine.chain(from_servers)
    }
}

/// Where to look, as gdb does ("Debugging Information in Separate Files"): by
/// build ID and by link in the system's directories, then in those of the same
/// name that a target with a root of its own sees, at last beside the target.
fn candidates(
    build_id: &BuildId,
    link: Option<&OsStr>,
    target: &PinnedFile,
    debug_dirs: &[PathBuf],
) -> Vec<Candidate> {
    let hex = build_id.to_string();
    let (head, tail) = hex.split_at(2);
    let by_id = PathBuf::from(format!(".build-id/{head}/{tail}.debug"));
    let place = link.zip(target.path.parent().filter(|parent| parent.is_absolute()));
    let mirrored = place.and_then(|(link, parent)| {
        let relative = parent.strip_prefix("/").ok()?;
        let is_plain = |part| matches!(part, Component::Normal(_));
        relative
            .components()
            .all(is_plain)
            .then(|| relative.join(link))
    });
    let in_dirs: Vec<PathBuf> = [by_id]
        .into_iter()
        .chain(mirrored)
        .flat_map(|tail| debug_dirs.iter().map(move |dir| dir.join(&tail)))
        .collect();
    let beside = place.map_or_else(Vec::new, |(link, parent)| {
        vec![parent.join(link), parent.join(".debug").join(link)]
    });
    let owned_by = |owner| move |path| Candidate { path, owner };
    let systems = in_dirs.clone().into_iter().map(owned_by(Owner::System));
    if target.root.is_some() {
        let own = in_dirs.into_iter().chain(beside);
        systems.chain(own.map(owned_by(Owner::Root))).collect()
    } else {
        let beside = beside.into_iter().map(owned_by(Owner::Target));
        systems.chain(beside).collect()
    }
}

/// The name in a debug link, if it is a bare file name.
fn file_name(link: &[u8]) -> Option<&OsStr> {
    let link = OsStr::from_bytes(link);
    let mut parts = Path::new(link).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) if name == link => Some(name),
        _ => None,
    }
}

/// Opens a candidate if it can be what we look for.
fn open(candidate: Candidate, build_id: &BuildId, target: &PinnedFile) -> Option<Arc<PinnedFile>> {
    let Candidate { path, owner } = candidate;
    let without_access = |flags| {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | flags)
            .open(&path)
    };
    let handle = match owner {
        Owner::System => without_access(0).ok(),
        Owner::Target => without_access(libc::O_NOFOLLOW).ok(),
        Owner::Root => target.root.as_ref()?.locate(&path).ok(),
    };
    let file = readable(&handle?).ok()?;
    debug_file(file, path, build_id, target)
}

/// An open file as a debug file, if its build ID is not another.
fn debug_file(
    file: File,
    path: PathBuf,
    build_id: &BuildId,
    target: &PinnedFile,
) -> Option<Arc<PinnedFile>> {
    let metadata = file.metadata().ok()?;
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    let found = find_build_id(|offset, buffer| file.read_at(buffer, offset));
    let is_other = found.as_ref().is_some_and(|found| found != build_id);
    (id != target.id && !is_other).then(|| Arc::new(PinnedFile::new(id, path, found, file)))
}

/// Opens for reading what was opened without access (`O_PATH`), if it is a
/// regular file: the mere opening of a device can have effects, and that of a
/// FIFO waits.
fn readable(handle: &File) -> io::Result<File> {
    if !handle.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use crate::object::ForeignRoot;

    use super::*;

    fn target(path: &str) -> PinnedFile {
        let file = File::open("/dev/null").unwrap();
        PinnedFile::new(FileId::default(), PathBuf::from(path), None, file)
    }

    fn found(link: Option<&str>, target: &PinnedFile) -> Vec<(String, Owner)> {
        let build_id = BuildId(Box::from([0xab, 0xcd, 0xef, 1, 2, 3, 4, 5]));
        let dirs = [PathBuf::from("/usr/lib/debug")];
        let link = link.and_then(|link| file_name(link.as_bytes()));
        candidates(&build_id, link, target, &dirs)
            .into_iter()
            .map(|candidate| (candidate.path.display().to_string(), candidate.owner))
            .collect()
    }

    fn places(link: Option<&str>, path: &str) -> Vec<(String, Owner)> {
        found(link, &target(path))
    }

    const BY_ID: &str = "/usr/lib/debug/.build-id/ab/cdef0102030405.debug";

    #[test]
    fn the_build_id_comes_first_then_the_link() {
        assert_eq!(
            places(Some("tool.debug"), "/opt/bin/tool"),
            [
                (BY_ID.into(), Owner::System),
                ("/usr/lib/debug/opt/bin/tool.debug".into(), Owner::System),
                ("/opt/bin/tool.debug".into(), Owner::Target),
                ("/opt/bin/.debug/tool.debug".into(), Owner::Target),
            ]
        );
    }

    #[test]
    fn nothing_but_the_systems_is_taken_from_our_root_for_a_target_with_another() {
        let root = ForeignRoot::new(File::open("/").unwrap());
        let target = target("/bin/tool").seen_from(Some(Arc::new(root)));
        assert_eq!(
            found(Some("x.debug"), &target),
            [
                (BY_ID.into(), Owner::System),
                ("/usr/lib/debug/bin/x.debug".into(), Owner::System),
                (BY_ID.into(), Owner::Root),
                ("/usr/lib/debug/bin/x.debug".into(), Owner::Root),
                ("/bin/x.debug".into(), Owner::Root),
                ("/bin/.debug/x.debug".into(), Owner::Root),
            ]
        );
    }

    #[test]
    fn a_link_that_is_no_bare_name_is_not_followed() {
        for link in ["/etc/shadow", "../x", "a/b", "..", ".", "", "a/"] {
            assert_eq!(places(Some(link), "/opt/bin/tool").len(), 1, "{link}");
        }
    }

    #[test]
    fn nothing_is_looked_for_beside_what_has_no_path() {
        assert_eq!(places(Some("x.debug"), "[vdso]").len(), 1);
        assert_eq!(places(Some("x.debug"), "bin/tool").len(), 1);
    }

    #[test]
    fn a_target_path_cannot_climb_out_of_the_debug_directory() {
        let found = places(Some("x.debug"), "/../../etc/tool");
        assert!(
            found
                .iter()
                .all(|(path, owner)| *owner != Owner::System || !path.contains(".."))
        );
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let handle = |path| {
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open(path)
                .unwrap()
        };
        assert!(readable(&handle("/dev/null")).is_err());
        assert!(readable(&handle("/")).is_err());
        assert!(readable(&handle("/proc/self/maps")).is_ok());
    }
}
