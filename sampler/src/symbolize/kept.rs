//! Names that earlier recordings found, and those of this one for the next.
//!
//! One entry in the [cache](crate::cache) for each file: its addresses that were
//! named, and those that have no name. It holds as long as the same debug files
//! are there: one that was installed since may say more.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Key, Kind};
use crate::object::{BuildId, FileId, PinnedFile};

use super::debug_files::DebugFiles;
use super::names::{FrameName, Named};
use super::protocol::is_sound;

/// Files of which entries are held.
const MAX_FILES: usize = 4096;
/// Addresses of a file that are kept.
const MAX_ADDRESSES: usize = 100_000;

/// What a file's debug file was looked for by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sought {
    /// The build ID.
    pub build_id: Box<[u8]>,
    /// The name in its `.gnu_debuglink`.
    pub link: Option<Box<[u8]>>,
}

/// What was there when a file was asked about.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Around {
    /// `None` if no debug file was looked for: the file has what there is.
    sought: Option<Sought>,
    /// Device, inode, size and time of change of those that were found here.
    found: Vec<[u64; 4]>,
    /// Whether servers were asked for others.
    servers: bool,
}

/// An entry, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    around: Around,
    names: Vec<(u64, Vec<FrameName>)>,
}

/// The names of one file.
#[derive(Debug)]
struct File {
    pin: Arc<PinnedFile>,
    key: Key,
    /// Those of earlier recordings.
    known: HashMap<u64, Named>,
    /// Those of this one.
    new: HashMap<u64, Named>,
    /// They are not to be kept: the file could not be read as it should.
    is_doubtful: bool,
    sought: Option<Sought>,
}

/// The names of all files.
#[derive(Debug, Default)]
pub(super) struct KeptNames {
    cache: Option<Arc<Cache>>,
    files: HashMap<FileId, File>,
    /// Addresses that an earlier recording had named, or found to be nameless.
    pub taken: u64,
}

impl KeptNames {
    pub(super) fn new(cache: Option<Arc<Cache>>) -> Self {
        Self {
            cache,
            ..Self::default()
        }
    }

    /// What an earlier recording knows of these addresses; empty if nothing is
    /// kept.
    pub(super) fn take(
        &mut self,
        pin: &Arc<PinnedFile>,
        addresses: &[u64],
        debug_files: &DebugFiles,
    ) -> HashMap<u64, Named> {
        let Some(file) = self.file(pin, debug_files) else {
            return HashMap::new();
        };
        let known = addresses.iter().filter_map(|address| {
            let named = file.known.get(address)?;
            Some((*address, Arc::clone(named)))
        });
        let known: HashMap<u64, Named> = known.collect();
        self.taken += known.len() as u64;
        known
    }

    fn file(&mut self, pin: &Arc<PinnedFile>, debug_files: &DebugFiles) -> Option<&mut File> {
        let cache = self.cache.as_ref()?;
        if !self.files.contains_key(&pin.id) {
            if self.files.len() >= MAX_FILES {
                return None;
            }
            let key = Key::of(Kind::Names, pin)?;
            let entry = cache.get(&key).and_then(|bytes| read(&bytes));
            let entry = entry.filter(|entry| {
                let sought = entry.around.sought.clone();
                entry.around == around(pin, sought, debug_files)
            });
            let (known, sought) = entry.map_or_else(Default::default, |entry| {
                let names = entry.names.into_iter();
                let names = names.map(|(address, frames)| (address, Named::from(frames)));
                (names.collect(), entry.around.sought)
            });
            let file = File {
                pin: Arc::clone(pin),
                key,
                known,
                new: HashMap::new(),
                is_doubtful: false,
                sought,
            };
            self.files.insert(pin.id, file);
        }
        self.files.get_mut(&pin.id)
    }

    /// Adds what was found, for which `sought` was looked for; nothing of a file
    /// that `is_doubtful` is kept.
    pub(super) fn add(
        &mut self,
        file: FileId,
        named: impl Iterator<Item = (u64, Named)>,
        sought: Option<Sought>,
        is_doubtful: bool,
    ) {
        if let Some(file) = self.files.get_mut(&file) {
            file.is_doubtful |= is_doubtful;
            file.sought = sought;
            let room = MAX_ADDRESSES.saturating_sub(file.known.len() + file.new.len());
            file.new.extend(named.take(room));
        }
    }

    /// Keeps what is new.
    pub(super) fn keep(self, debug_files: &DebugFiles) {
        let Some(cache) = &self.cache else {
            return;
        };
        for file in self.files.into_values() {
            if file.new.is_empty() || file.is_doubtful {
                continue;
            }
            let names = file.known.into_iter().chain(file.new);
            let entry = Entry {
                around: around(&file.pin, file.sought, debug_files),
                names: names
                    .map(|(address, named)| (address, named.to_vec()))
                    .collect(),
            };
            match postcard::to_stdvec(&entry) {
                Ok(bytes) => cache.put(&file.key, &bytes),
                Err(error) => tracing::debug!(%error, "names could not be kept"),
            }
        }
    }
}

/// What is there of a file's debug files.
fn around(pin: &PinnedFile, sought: Option<Sought>, debug_files: &DebugFiles) -> Around {
    let found = sought.as_ref().map_or_else(Vec::new, |sought| {
        let build_id = BuildId(sought.build_id.clone());
        debug_files.marks(pin, &build_id, sought.link.as_deref())
    });
    Around {
        servers: sought.is_some() && debug_files.asks_servers(),
        sought,
        found,
    }
}

/// An entry, if it holds what entries hold.
fn read(bytes: &[u8]) -> Option<Entry> {
    let entry: Entry = postcard::from_bytes(bytes).ok()?;
    let mut names = entry.names.iter();
    let is_right = entry.names.len() <= MAX_ADDRESSES && names.all(|(_, frames)| is_sound(frames));
    is_right.then_some(entry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn frames(name: &str) -> Named {
        Named::from([FrameName {
            name: name.to_owned(),
            system_name: name.to_owned(),
            source_file: "file.c".to_owned(),
            line: 7,
            column: 0,
        }])
    }

    fn pin() -> Arc<PinnedFile> {
        let path = std::env::current_exe().unwrap();
        let file = fs::File::open(&path).unwrap();
        let build_id = Some(BuildId([7; 20].into()));
        Arc::new(PinnedFile::new(FileId::default(), path, build_id, file))
    }

    fn debug_files(dir: &Path) -> DebugFiles {
        DebugFiles::new(vec![dir.to_owned()], None)
    }

    fn kept(cache: &Path) -> KeptNames {
        KeptNames::new(Some(Arc::new(Cache::open(cache).unwrap())))
    }

    fn sought() -> Sought {
        Sought {
            build_id: [7; 20].into(),
            link: None,
        }
    }

    #[test]
    fn what_one_recording_named_the_next_need_not() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let (pin, cache) = (pin(), folder.path().join("cache"));
        let mut first = kept(&cache);
        assert!(first.take(&pin, &[1, 2], &debug_files).is_empty());
        let found = [(1, frames("f")), (2, Named::from([]))];
        first.add(pin.id, found.into_iter(), Some(sought()), false);
        first.keep(&debug_files);
        let mut second = kept(&cache);
        let taken = second.take(&pin, &[1, 2, 3], &debug_files);
        assert_eq!(taken[&1], frames("f"));
        assert!(taken[&2].is_empty());
        assert_eq!((taken.len(), second.taken), (2, 2));
        second.add(
            pin.id,
            [(3, frames("g"))].into_iter(),
            Some(sought()),
            false,
        );
        second.keep(&debug_files);
        let taken = kept(&cache).take(&pin, &[1, 2, 3], &debug_files);
        assert_eq!(taken.len(), 3);
    }

    #[test]
    fn a_debug_file_that_came_since_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let (pin, cache) = (pin(), folder.path().join("cache"));
        let mut first = kept(&cache);
        first.take(&pin, &[1], &debug_files);
        first.add(
            pin.id,
            [(1, frames("f"))].into_iter(),
            Some(sought()),
            false,
        );
        first.keep(&debug_files);
        let directory: PathBuf = folder.path().join(".build-id/07");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{}.debug", "07".repeat(19))), "new").unwrap();
        assert!(kept(&cache).take(&pin, &[1], &debug_files).is_empty());
    }

    #[test]
    fn what_is_doubtful_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let (pin, cache) = (pin(), folder.path().join("cache"));
        let mut first = kept(&cache);
        first.take(&pin, &[1], &debug_files);
        first.add(pin.id, [(1, frames("f"))].into_iter(), Some(sought()), true);
        first.keep(&debug_files);
        assert!(kept(&cache).take(&pin, &[1], &debug_files).is_empty());
    }

    #[test]
    fn an_entry_that_holds_something_else_is_none() {
        assert!(read(b"").is_none());
        assert!(read(&[0xff; 100]).is_none());
        let long = vec![(1, vec![frames(&"x".repeat(1 << 20))[0].clone()])];
        let entry = Entry {
            around: Around {
                sought: None,
                found: Vec::new(),
                servers: false,
            },
            names: long,
        };
        assert!(read(&postcard::to_stdvec(&entry).unwrap()).is_none());
    }

    #[test]
    fn without_a_cache_nothing_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let mut none = KeptNames::new(None);
        let pin = pin();
        assert!(none.take(&pin, &[1], &debug_files).is_empty());
        none.add(pin.id, [(1, frames("f"))].into_iter(), None, false);
        assert!(none.files.is_empty());
    }
}
