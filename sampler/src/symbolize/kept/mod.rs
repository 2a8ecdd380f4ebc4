//! Names that earlier recordings found, and those of this one for the next.
//!
//! One entry in the [cache](crate::cache) for each file: the addresses that were
//! named, and those that have no name, in [ranges](Spans) as far as the answers
//! hold. It is taken as long as the same debug files are there: one that was
//! installed since may say more.

mod spans;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Key, Kind};
use crate::object::{BuildId, FileId, PinnedFile};

use super::debug_files::DebugFiles;
use super::names::Named;

use spans::Spans;

/// Files of which entries are held.
const MAX_FILES: usize = 4096;

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
    spans: Spans,
}

/// The names of one file.
#[derive(Debug)]
pub(super) struct File {
    pin: Arc<PinnedFile>,
    key: Key,
    /// Those of earlier recordings.
    known: Spans,
    /// Those of them that were asked for, by their number.
    taken: HashMap<usize, Named>,
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
            let at = file.known.find(*address)?;
            let taken = file.taken.entry(at);
            let named = taken.or_insert_with(|| file.known.named(at));
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
            let (known, sought) =
                entry.map_or_else(Default::default, |entry| (entry.spans, entry.around.sought));
            let file = File {
                pin: Arc::clone(pin),
                key,
                known,
                taken: HashMap::new(),
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
            let room = file.known.room().saturating_sub(file.new.len());
            file.new.extend(named.take(room));
        }
    }

    /// The files with something new to keep, and where.
    pub(super) fn changed(self) -> impl Iterator<Item = (Arc<Cache>, File)> {
        let files = self.files.into_values();
        let changed = files.filter(|file| !file.new.is_empty() && !file.is_doubtful);
        let cache = self.cache;
        changed.filter_map(move |file| Some((cache.clone()?, file)))
    }
}

impl File {
    /// Which it is.
    pub(super) fn id(&self) -> FileId {
        self.pin.id
    }

    /// Where something new was found, ascending.
    pub(super) fn new_addresses(&self) -> Vec<u64> {
        let mut addresses: Vec<u64> = self.new.keys().copied().collect();
        addresses.sort_unstable();
        addresses
    }

    /// Keeps what is new with what was known. What is in none of the ranges, in
    /// which answers hold, holds where it was found.
    pub(super) fn keep(
        mut self,
        cache: &Cache,
        debug_files: &DebugFiles,
        ranges: &[(u64, Range<u64>)],
    ) {
        let mut new = Vec::with_capacity(self.new.len());
        for (address, range) in ranges {
            new.extend(self.new.remove(address).map(|named| (range.clone(), named)));
        }
        let rest = self.new.into_iter();
        new.extend(rest.map(|(address, named)| (address..address.saturating_add(1), named)));
        let entry = Entry {
            around: around(&self.pin, self.sought, debug_files),
            spans: self.known.with(&new),
        };
        match postcard::to_stdvec(&entry) {
            Ok(bytes) => cache.put(&self.key, &bytes),
            Err(error) => tracing::debug!(%error, "names could not be kept"),
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
    entry.spans.is_sound().then_some(entry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::fs;
    use std::path::{Path, PathBuf};

    use super::super::names::FrameName;
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

    /// Ends a recording: what it found holds in these ranges.
    fn keep(names: KeptNames, debug_files: &DebugFiles, ranges: &[(u64, Range<u64>)]) {
        for (cache, file) in names.changed() {
            file.keep(&cache, debug_files, ranges);
        }
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
        keep(first, &debug_files, &[]);
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
        keep(second, &debug_files, &[]);
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
        keep(first, &debug_files, &[]);
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
        keep(first, &debug_files, &[]);
        assert!(kept(&cache).take(&pin, &[1], &debug_files).is_empty());
    }

    #[test]
    fn what_holds_in_a_range_is_known_in_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let (pin, cache) = (pin(), folder.path().join("cache"));
        let mut first = kept(&cache);
        first.take(&pin, &[], &debug_files);
        let found = [(15, frames("f")), (17, frames("f")), (30, frames("g"))];
        first.add(pin.id, found.into_iter(), Some(sought()), false);
        assert!(first.files[&pin.id].new_addresses().is_sorted());
        keep(first, &debug_files, &[(15, 10..20), (17, 10..20)]);
        let mut second = kept(&cache);
        let taken = second.take(&pin, &[9, 10, 19, 20, 30, 31], &debug_files);
        let mut addresses: Vec<u64> = taken.keys().copied().collect();
        addresses.sort_unstable();
        assert_eq!(addresses, [10, 19, 30]);
        assert_eq!(taken[&10], frames("f"));
        assert!(Arc::ptr_eq(&taken[&10], &taken[&19]));
    }

    #[test]
    fn an_entry_that_holds_something_else_is_none() {
        assert!(read(b"").is_none());
        assert!(read(&[0xff; 100]).is_none());
        let entry = Entry {
            around: Around {
                sought: None,
                found: Vec::new(),
                servers: false,
            },
            spans: Spans::default().with(&[(1..2, frames(&"x".repeat(1 << 20)))]),
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
