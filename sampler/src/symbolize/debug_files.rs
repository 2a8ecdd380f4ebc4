//! Where the separate file with a program's debug information may be.
//!
//! All that opens files for the sake of names is here, and nothing here parses
//! them, but for their build IDs. The parser could follow `.gnu_debuglink`
//! itself, but then a target decides which file we open, and a checksum mismatch
//! costs all its names.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::object::{BuildId, FileId, PinnedFile, find_build_id};

/// Shorter build IDs are not unique enough to search by.
const MIN_BUILD_ID_BYTES: usize = 8;

/// Finds and opens separate debug files.
#[derive(Debug)]
pub(super) struct DebugFiles {
    /// The system's directories of debug files, in order of preference.
    dirs: Vec<PathBuf>,
}

/// A regular file that may be the debug file asked for. No other build ID than
/// the one asked for is in its program headers; the rest has to be looked at.
#[derive(Debug)]
pub(super) struct DebugFile {
    /// The file, held open.
    pub file: Arc<PinnedFile>,
    /// It is the system's, and what it links to may be followed.
    pub is_systems: bool,
}

/// A place where the debug file could be.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    path: PathBuf,
    /// In a directory of the system's: its links may be followed.
    is_systems: bool,
}

impl DebugFiles {
    /// Looks in these directories of the system's.
    pub(super) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The debug files that there may be of a file with this build ID and, from
    /// its `.gnu_debuglink`, the name of its debug file; best first. Each is
    /// looked for when it is asked for.
    pub(super) fn find<'a>(
        &'a mut self,
        file: &'a PinnedFile,
        build_id: &'a BuildId,
        link: Option<&[u8]>,
    ) -> impl Iterator<Item = DebugFile> + use<'a> {
        let is_unique = build_id.0.len() >= MIN_BUILD_ID_BYTES;
        let candidates = is_unique
            .then(|| candidates(build_id, link.and_then(file_name), &file.path, &self.dirs));
        candidates
            .into_iter()
            .flatten()
            .filter_map(|candidate| open(candidate, build_id, file.id))
    }
}

/// Where to look, as gdb does ("Debugging Information in Separate Files").
fn candidates(
    build_id: &BuildId,
    link: Option<&OsStr>,
    target: &Path,
    debug_dirs: &[PathBuf],
) -> Vec<Candidate> {
    let hex = build_id.to_string();
    let (head, tail) = hex.split_at(2);
    let by_id = debug_dirs.iter().map(|dir| Candidate {
        path: dir.join(format!(".build-id/{head}/{tail}.debug")),
        is_systems: true,
    });
    let by_link = link
        .zip(target.parent().filter(|parent| parent.is_absolute()))
        .into_iter()
        .flat_map(|(link, parent)| {
            let beside = [parent.join(link), parent.join(".debug").join(link)];
            let relative = parent.strip_prefix("/").unwrap_or(parent);
            let is_plain = relative
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            let mirrored = debug_dirs
                .iter()
                .filter(move |_| is_plain)
                .map(move |dir| Candidate {
                    path: dir.join(relative).join(link),
                    is_systems: true,
                });
            let beside = beside.map(|path| Candidate {
                path,
                is_systems: false,
            });
            mirrored.chain(beside).collect::<Vec<_>>()
        });
    by_id.chain(by_link).collect()
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
fn open(candidate: Candidate, build_id: &BuildId, target: FileId) -> Option<DebugFile> {
    let no_follow = if candidate.is_systems {
        0
    } else {
        libc::O_NOFOLLOW
    };
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | no_follow)
        .open(&candidate.path)
        .ok()?;
    let (file, id) = readable(&handle).ok()?;
    let found = find_build_id(|offset, buffer| file.read_at(buffer, offset));
    let is_other = found.as_ref().is_some_and(|found| found != build_id);
    (id != target && !is_other).then(|| DebugFile {
        file: Arc::new(PinnedFile::new(id, candidate.path, found, file)),
        is_systems: candidate.is_systems,
    })
}

/// Opens for reading what was opened without access (`O_PATH`), if it is a
/// regular file: the mere opening of a device can have effects, and that of a
/// FIFO waits.
fn readable(handle: &File) -> io::Result<(File, FileId)> {
    let metadata = handle.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))?;
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    Ok((file, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(link: Option<&str>, target: &str) -> Vec<(String, bool)> {
        let build_id = BuildId(Box::from([0xab, 0xcd, 0xef, 1, 2, 3, 4, 5]));
        let dirs = [PathBuf::from("/usr/lib/debug")];
        let link = link.and_then(|link| file_name(link.as_bytes()));
        candidates(&build_id, link, Path::new(target), &dirs)
            .into_iter()
            .map(|candidate| (candidate.path.display().to_string(), candidate.is_systems))
            .collect()
    }

    #[test]
    fn the_build_id_comes_first_then_the_link() {
        assert_eq!(
            paths(Some("tool.debug"), "/opt/bin/tool"),
            [
                (
                    "/usr/lib/debug/.build-id/ab/cdef0102030405.debug".into(),
                    true
                ),
                ("/usr/lib/debug/opt/bin/tool.debug".into(), true),
                ("/opt/bin/tool.debug".into(), false),
                ("/opt/bin/.debug/tool.debug".into(), false),
            ]
        );
    }

    #[test]
    fn a_link_that_is_no_bare_name_is_not_followed() {
        for link in ["/etc/shadow", "../x", "a/b", "..", ".", "", "a/"] {
            assert_eq!(paths(Some(link), "/opt/bin/tool").len(), 1, "{link}");
        }
    }

    #[test]
    fn nothing_is_looked_for_beside_what_has_no_path() {
        assert_eq!(paths(Some("x.debug"), "[vdso]").len(), 1);
        assert_eq!(paths(Some("x.debug"), "bin/tool").len(), 1);
    }

    #[test]
    fn a_target_path_cannot_climb_out_of_the_debug_directory() {
        let found = paths(Some("x.debug"), "/../../etc/tool");
        assert!(
            found
                .iter()
                .all(|(path, systems)| !systems || !path.contains(".."))
        );
    }
}
