//! The files that a build ID stands for, or a path.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::object::{BuildId, CodeLayout, FileId, PinnedFile, find_build_id};
use crate::symbolize::{DebugServers, Debuginfod};

/// Shorter build IDs are not unique enough to search by.
const MIN_BUILD_ID_BYTES: usize = 8;
/// Longer than any build ID.
const MAX_BUILD_ID_BYTES: usize = 64;
/// Entries looked at in one directory tree, and how deep.
const MAX_ENTRIES: usize = 100_000;
const MAX_DEPTH: usize = 12;

/// Where files are looked for, in this order.
#[derive(Debug, Default, Clone)]
pub struct FilePlaces {
    /// Directories of the caller's: searched by build ID, wherever in them.
    pub searched: Vec<PathBuf>,
    /// The system's directories of debug files, which have `.build-id`.
    pub system: Vec<PathBuf>,
    /// Servers that are asked for debug files that are in none of them, nor at a
    /// mapping's path.
    pub servers: Option<DebugServers>,
    /// Take the file at a mapping's path if nothing says which file it was.
    pub trust_paths: bool,
}

/// A file, held open, with where its code lies.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    pub pin: Arc<PinnedFile>,
    pub layout: CodeLayout,
}

/// What was found of one program or library.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundFiles {
    /// The file itself, stripped or not.
    pub whole: Option<FoundFile>,
    /// Its debug file, where the symbolizer would not find it by itself.
    pub debug: Option<FoundFile>,
    /// A file at the path of the mapping has another build ID.
    pub is_other_at_path: bool,
}

/// Finds files, each once.
#[derive(Debug, Default)]
pub(super) struct Files {
    places: FilePlaces,
    /// A client of the servers.
    servers: Option<Debuginfod>,
    /// The files in `places.searched`, by build ID; filled at the first question.
    searched: Option<HashMap<BuildId, Vec<PathBuf>>>,
    by_build_id: HashMap<(BuildId, PathBuf), FoundFiles>,
    by_path: HashMap<PathBuf, FoundFiles>,
}

impl Files {
    pub fn new(places: FilePlaces) -> Self {
        let servers = places.servers.clone().and_then(Debuginfod::open);
        Self {
            places,
            servers,
            ..Self::default()
        }
    }

    /// Whether files without build ID are taken by their path.
    pub fn trusts_paths(&self) -> bool {
        self.places.trust_paths
    }

    /// Whether others than this machine are asked.
    pub fn asks_servers(&self) -> bool {
        self.servers.is_some()
    }

    /// The file of a mapping that nothing is known of but its path.
    pub fn at_path(&mut self, path: &Path) -> FoundFiles {
        if let Some(known) = self.by_path.get(path) {
            return known.clone();
        }
        let mut found = FoundFiles::default();
        if let Some((file, build_id)) = open(path) {
            found.whole = hold(file, path, build_id).filter(|file| file.layout.holds_code);
        }
        self.by_path.insert(path.to_owned(), found.clone());
        found
    }

    /// The file with this build ID that was mapped from `path`.
    pub fn with_build_id(&mut self, build_id: &BuildId, path: &Path) -> FoundFiles {
        let key = (build_id.clone(), path.to_owned());
        if let Some(known) = self.by_build_id.get(&key) {
            return known.clone();
        }
        let found = self.find(build_id, path);
        self.by_build_id.insert(key, found.clone());
        found
    }

    fn find(&mut self, build_id: &BuildId, path: &Path) -> FoundFiles {
        let mut found = FoundFiles::default();
        let known_places = |dir: &PathBuf| by_build_id(dir, build_id);
        let named: Vec<PathBuf> = self.places.searched.iter().flat_map(known_places).collect();
        let system: Vec<PathBuf> = self.places.system.iter().flat_map(known_places).collect();
        let searched = self.searched().get(build_id).cloned().unwrap_or_default();
        let candidates = named.iter().chain(&searched).chain(&system);
        let mut is_known_place = false;
        let is_known = |path: &Path| {
            path.extension() == Some(OsStr::new("debug"))
                && named.iter().chain(&system).any(|known| known == path)
        };
        for candidate in candidates.map(PathBuf::as_path).chain([path]) {
            if candidate.is_relative() && candidate == path {
                continue;
            }
            let Some((file, its_build_id)) = open(candidate) else {
                continue;
            };
            if its_build_id.as_ref() != Some(build_id) {
                found.is_other_at_path |= candidate == path;
                continue;
            }
            let Some(file) = hold(file, candidate, its_build_id) else {
                continue;
            };
            if file.layout.holds_code {
                found.whole.get_or_insert(file);
            } else if found.debug.is_none() {
                is_known_place = is_known(candidate);
                found.debug = Some(file);
            }
            if found.whole.is_some() && found.debug.is_some() {
                break;
            }
        }
        // With the file itself, the symbolizer looks there, and asks the servers.
        if found.whole.is_some() && is_known_place {
            found.debug = None;
        }
        if found.whole.is_none() && found.debug.is_none() {
            found.debug = self.ask_servers(build_id, path);
        }
        found
    }

    fn ask_servers(&mut self, build_id: &BuildId, path: &Path) -> Option<FoundFile> {
        let file = self.servers.as_mut()?.find(build_id)?;
        let its_build_id = find_build_id(|offset, buffer| file.read_at(buffer, offset));
        if its_build_id.as_ref() != Some(build_id) {
            return None;
        }
        hold(file, path, its_build_id)
    }

    fn searched(&mut self) -> &HashMap<BuildId, Vec<PathBuf>> {
        let places = &self.places;
        self.searched.get_or_insert_with(|| {
            let mut index = HashMap::new();
            for dir in &places.searched {
                let mut left = MAX_ENTRIES;
                if scan(dir, MAX_DEPTH, &mut left, &mut index).is_err() {
                    tracing::warn!(dir = ?dir, "the directory cannot be read");
                }
                if left == 0 {
                    tracing::warn!(
                        dir = ?dir,
                        "the directory holds more than {MAX_ENTRIES} entries; not all of it is searched"
                    );
                }
            }
            index
        })
    }
}

/// A build ID as profiles write it.
pub(super) fn parse_build_id(text: &[u8]) -> Option<BuildId> {
    let is_long_enough = (2 * MIN_BUILD_ID_BYTES..=2 * MAX_BUILD_ID_BYTES).contains(&text.len());
    if !is_long_enough || !text.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| {
        let digits = str::from_utf8(pair).ok()?;
        let is_hex = pair.iter().all(u8::is_ascii_hexdigit);
        u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)
    };
    let bytes: Option<Vec<u8>> = text.chunks(2).map(byte).collect();
    bytes.map(|bytes| BuildId(bytes.into()))
}

/// Where a directory of debug files keeps those of a build ID.
fn by_build_id(dir: &Path, build_id: &BuildId) -> [PathBuf; 2] {
    let hex = build_id.to_string();
    let (head, tail) = hex.split_at(2);
    ["", ".debug"].map(|ending| dir.join(format!(".build-id/{head}/{tail}{ending}")))
}

/// Notes the ELF files below a directory by build ID. Links to directories are
/// not followed.
fn scan(
    dir: &Path,
    depth: usize,
    left: &mut usize,
    index: &mut HashMap<BuildId, Vec<PathBuf>>,
) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?
        .map_while(Result::ok)
        .take(*left)
        .collect();
    *left -= entries.len();
    // The same answer whatever the order on disk.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => {
                // One that cannot be read costs what is in it.
                let _unreadable = scan(&path, depth - 1, left, index);
            }
            Ok(kind) if kind.is_file() || kind.is_symlink() => {
                if let Some((_, Some(build_id))) = open(&path)
                    && build_id.0.len() >= MIN_BUILD_ID_BYTES
                {
                    index.entry(build_id).or_default().push(path);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens a regular file, and nothing that acts when it is opened; with its build
/// ID, if it is an ELF file that has one.
fn open(path: &Path) -> Option<(File, Option<BuildId>)> {
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
    if !handle.metadata().ok()?.is_file() {
        return None;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
        .ok()?;
    let build_id = find_build_id(|offset, buffer| file.read_at(buffer, offset));
    Some((file, build_id))
}

fn hold(file: File, path: &Path, build_id: Option<BuildId>) -> Option<FoundFile> {
    let metadata = file.metadata().ok()?;
    let layout = CodeLayout::read(|offset, buffer| file.read_at(buffer, offset))?;
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    let pin = PinnedFile::new(id, path.to_owned(), build_id, file);
    Some(FoundFile {
        pin: Arc::new(pin),
        layout,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::*;

    #[test]
    fn a_build_id_is_hexadecimal_and_long_enough() {
        let read = |text: &str| parse_build_id(text.as_bytes()).map(|id| id.to_string());
        let long = "00112233445566778899AABBccddeeff00112233";
        assert_eq!(read(long), Some(long.to_lowercase()));
        for other in [
            "",
            "0011",
            "001122334455667",
            "00112233445566zz",
            "+011223344556677",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(parse_build_id(&[b'0'; 2 * MAX_BUILD_ID_BYTES + 2]), None);
    }

    #[test]
    fn a_tree_is_searched_as_far_as_its_bound() {
        let root = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink(&program, deep.join("program")).unwrap();
        std::os::unix::fs::symlink(root.path(), deep.join("round")).unwrap();
        fs::write(root.path().join("text"), "no program").unwrap();
        let (_, build_id) = open(&program).unwrap();
        let build_id = build_id.unwrap();

        let mut index = HashMap::new();
        let mut left = MAX_ENTRIES;
        scan(root.path(), MAX_DEPTH, &mut left, &mut index).unwrap();
        assert_eq!(index[&build_id], [deep.join("program")]);
        assert_eq!(MAX_ENTRIES - left, 5);

        for (depth, mut left) in [(1, MAX_ENTRIES), (MAX_DEPTH, 2)] {
            let mut index = HashMap::new();
            scan(root.path(), depth, &mut left, &mut index).unwrap();
            assert!(index.is_empty());
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        assert!(open(Path::new("/dev/null")).is_none());
        assert!(open(Path::new("/")).is_none());
        assert!(open(Path::new("/nonexistent")).is_none());
    }
}
