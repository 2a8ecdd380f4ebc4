//! The separate file with a program's debug information.
//!
//! Only a file with the same build ID is taken, so a stale one is never used.
//! The parser could follow `.gnu_debuglink` itself, but then a target decides
//! which file we open, and a checksum mismatch costs all its names.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::object::{BuildId, FileId, PinnedFile};

use super::inflation::Allowance;
use super::inspect::{Image, inspect};

/// Shorter build IDs are not unique enough to search by.
const MIN_BUILD_ID_BYTES: usize = 8;
/// What each ELF file begins with.
const ELF_MAGIC: &[u8; 4] = b"\x7fELF";

/// A place where the debug file could be.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    path: PathBuf,
    /// In a directory of the system's: its links may be followed.
    is_systems: bool,
}

/// Files that may be the debug file of a program, one after the other.
///
/// The parent opens them, and its child, which asks for them, looks into them.
pub(super) trait Candidates {
    /// Starts anew, for the file with this build ID and this debug link.
    fn seek(&mut self, build_id: &BuildId, link: Option<&[u8]>);

    /// The next one, and whether it lies in a directory of the system's.
    fn next(&mut self) -> Option<(File, bool)>;
}

/// The debug file of an ELF file among the candidates, and what is in it.
pub(super) fn choose(
    file: &PinnedFile,
    image: &Image,
    candidates: &mut dyn Candidates,
    allowance: &mut Allowance,
) -> Option<(Arc<PinnedFile>, Image)> {
    let build_id = image.build_id.as_ref().or(file.build_id.as_ref())?;
    candidates.seek(build_id, image.debug_link.as_deref());
    while let Some((candidate, is_systems)) = candidates.next() {
        let Ok(found) = inspect(&candidate, allowance) else {
            continue;
        };
        if found.build_id.as_ref() == Some(build_id)
            && found.has_usable_debug_info()
            && (is_systems || !found.links_to_files)
        {
            let build_id = found.build_id.clone();
            let pin = PinnedFile::new(file.id, PathBuf::new(), build_id, candidate);
            return Some((Arc::new(pin), found));
        }
    }
    None
}

/// Where debug files are looked for.
#[derive(Debug)]
pub(super) struct DebugFiles {
    /// Directories of the system's, in order of preference.
    dirs: Vec<PathBuf>,
}

impl DebugFiles {
    pub(super) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// Opens what may be the debug file of a file, which has this build ID and
    /// this debug link, one candidate after the other, with whether it lies in a
    /// directory of the system's. Build ID and link are as hostile as the file.
    pub(super) fn of(
        &self,
        target: &PinnedFile,
        build_id: &BuildId,
        link: Option<&[u8]>,
    ) -> impl Iterator<Item = (File, bool)> + use<> {
        let link = link.and_then(file_name);
        let found = if build_id.0.len() < MIN_BUILD_ID_BYTES {
            Vec::new()
        } else {
            candidates(build_id, link, &target.path, &self.dirs)
        };
        let target = target.id;
        found
            .into_iter()
            .filter_map(move |candidate| Some((open(&candidate, target)?, candidate.is_systems)))
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
        .zip(target.parent())
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

/// Opens a candidate. Neither a FIFO nor a device can hold us up: nothing but a
/// regular file is read, and only an ELF file goes to those who look into it.
fn open(candidate: &Candidate, target: FileId) -> Option<File> {
    let no_follow = if candidate.is_systems {
        0
    } else {
        libc::O_NOFOLLOW
    };
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | no_follow)
        .open(&candidate.path)
        .ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    let mut magic = [0; ELF_MAGIC.len()];
    file.read_exact_at(&mut magic, 0).ok()?;
    (id != target && magic == *ELF_MAGIC).then_some(file)
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
    fn a_target_path_cannot_climb_out_of_the_debug_directory() {
        let found = paths(Some("x.debug"), "/../../etc/tool");
        assert!(
            found
                .iter()
                .all(|(path, systems)| !systems || !path.contains(".."))
        );
    }
}
