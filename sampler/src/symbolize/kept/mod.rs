//! Names that earlier recordings found, and those of this one for the next.
//!
//! One entry in the [cache](crate::cache) for each file. Of one whose own symbol
//! tables are all that is asked, what they say of all of its code, as
//! [rows](SymbolRows): the next recording has names for functions that no earlier
//! one met. Beside it, the frames of the [symbols](Symbols) that were met. Of others,
//! the [addresses](Addresses) that were named, and those that have no name. It is
//! taken as long as the same debug files are there: one that was installed since may
//! say more.

mod addresses;
mod symbols;

use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Key, Kind};
use crate::object::{BuildId, FileId, PinnedFile};

use super::debug_files::DebugFiles;
use super::names::Named;
use super::symbol_rows::SymbolRows;

use addresses::Addresses;
pub(super) use symbols::Symbol;
use symbols::Symbols;

/// Files of which entries are held.
const MAX_FILES: usize = 4096;
/// Rows of all files that are held, in bytes.
const MAX_ROWS_BYTES: usize = 32 << 20;

/// The share of what is kept that has to be new before it is written again, as a
/// divisor: to ask again for a few names costs less than to write all of them.
const WORTH_KEEPING: usize = 16;
/// Names in a file that took so long are kept however few are new.
const LONG: Duration = Duration::from_millis(50);

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

/// What is known of a file.
#[derive(Debug)]
enum Known {
    /// These addresses.
    Addresses(Addresses),
    /// All of its code.
    Symbols(Symbols),
}

/// The names of one file.
#[derive(Debug)]
pub(super) struct File {
    pin: Arc<PinnedFile>,
    /// That of an earlier recording.
    known: Known,
    /// What this recording found.
    new: HashMap<u64, Named>,
    /// It is not to be kept: the file could not be read as it should.
    is_doubtful: bool,
    sought: Option<Sought>,
}

/// The names of all files.
#[derive(Debug, Default)]
pub(super) struct KeptNames {
    cache: Option<Arc<Cache>>,
    files: HashMap<FileId, File>,
    rows_bytes: usize,
}

impl KeptNames {
    pub(super) fn new(cache: Option<Arc<Cache>>) -> Self {
        Self {
            cache,
            ..Self::default()
        }
    }

    /// Takes the frames of symbols that were asked for.
    pub(super) fn have(&mut self, file: FileId, symbols: &[Symbol], named: Vec<Named>) {
        let file = self.files.get_mut(&file);
        if let Some(Known::Symbols(known)) = file.map(|file| &mut file.known) {
            known.have(symbols, named);
        }
    }

    /// What is kept of a file is of no use.
    pub(super) fn forget(&mut self, file: FileId) {
        if let Some(file) = self.files.get_mut(&file) {
            file.known = Known::Addresses(Addresses::default());
        }
    }

    /// What is known of each of these addresses. Of those that are not known, some may
    /// be when the symbols that are returned with them have [got their
    /// frames](Self::have).
    pub(super) fn take(
        &mut self,
        pin: &Arc<PinnedFile>,
        addresses: &[u64],
        debug_files: &DebugFiles,
    ) -> (Vec<Option<Named>>, Vec<Symbol>) {
        let (known, missing) = match self.file(pin, debug_files).map(|file| &mut file.known) {
            None => (vec![None; addresses.len()], Vec::new()),
            Some(Known::Symbols(known)) => {
                let (known, missing) = known.named(addresses);
                (known, symbols::symbols(pin, missing))
            }
            Some(Known::Addresses(known)) => {
                let addresses = addresses.iter();
                let known = addresses.map(|address| known.named(*address));
                (known.collect(), Vec::new())
            }
        };
        (known, missing)
    }

    fn file(&mut self, pin: &Arc<PinnedFile>, debug_files: &DebugFiles) -> Option<&mut File> {
        let cache = self.cache.as_ref()?;
        if !self.files.contains_key(&pin.id) {
            if self.files.len() >= MAX_FILES {
                return None;
            }
            let room_bytes = MAX_ROWS_BYTES - self.rows_bytes;
            let (known, sought) = look(cache, pin, debug_files, room_bytes)
                .unwrap_or((Known::Addresses(Addresses::default()), None));
            if let Known::Symbols(symbols) = &known {
                self.rows_bytes += symbols.rows_bytes();
            }
            let file = File {
                pin: Arc::clone(pin),
                known,
                new: HashMap::default(),
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
        if let Some(file) = self.files.get_mut(&file)
            && let Known::Addresses(addresses) = &file.known
        {
            file.is_doubtful |= is_doubtful;
            file.sought = sought;
            let room = addresses.room().saturating_sub(file.new.len());
            file.new.extend(named.take(room));
        }
    }

    /// The files with something new that is worth to be kept, and where. Each has
    /// `spent` some time.
    pub(super) fn changed(
        self,
        spent: impl Fn(FileId) -> Duration,
    ) -> impl Iterator<Item = (Arc<Cache>, File)> {
        let files = self.files.into_values();
        let changed =
            files.filter(move |file| !file.is_doubtful && file.is_changed(spent(file.id())));
        let cache = self.cache;
        changed.filter_map(move |file| Some((cache.clone()?, file)))
    }
}

impl File {
    /// Which it is.
    pub(super) fn id(&self) -> FileId {
        self.pin.id
    }

    fn is_changed(&self, spent: Duration) -> bool {
        match &self.known {
            Known::Addresses(_) if self.new.is_empty() => false,
            Known::Addresses(known) => {
                spent >= LONG || self.new.len() > known.count() / WORTH_KEEPING
            }
            Known::Symbols(symbols) => symbols.is_changed(),
        }
    }

    /// Whether what its symbol tables say of all of it would be worth to know.
    pub(super) fn lacks_rows(&self) -> bool {
        matches!(self.known, Known::Addresses(_))
    }

    /// Keeps what is known of it now: all that its symbol tables say, if they are
    /// all that is asked, or what was found.
    pub(super) fn keep(self, cache: &Cache, debug_files: &DebugFiles, rows: Option<SymbolRows>) {
        let put =
            |kind, content: postcard::Result<Vec<u8>>| match (Key::of(kind, &self.pin), content) {
                (Some(key), Ok(content)) => cache.put(&key, &content),
                (None, _) => {}
                (_, Err(error)) => tracing::debug!(%error, "names could not be kept"),
            };
        let around = around(&self.pin, self.sought, debug_files);
        let after_around = |content: &[u8]| {
            let mut bytes = postcard::to_stdvec(&around)?;
            bytes.extend(content);
            Ok(bytes)
        };
        let put_frames =
            |symbols: &Symbols| put(Kind::Frames, postcard::to_stdvec(&symbols.frames()));
        match (self.known, rows) {
            (Known::Symbols(symbols), _) => put_frames(&symbols),
            (Known::Addresses(_), Some(rows)) => {
                put(Kind::Symbols, after_around(rows.as_bytes()));
                put_frames(&Symbols::found(rows, &self.new));
            }
            (Known::Addresses(known), None) => {
                let content = postcard::to_stdvec(&known.with(&self.new));
                put(
                    Kind::Names,
                    content.and_then(|content| after_around(&content)),
                );
            }
        }
    }
}

/// What an earlier recording kept of a file, with at most so many bytes of rows, and
/// what its debug file was looked for by.
fn look(
    cache: &Cache,
    pin: &PinnedFile,
    debug_files: &DebugFiles,
    room_bytes: usize,
) -> Option<(Known, Option<Sought>)> {
    for kind in [Kind::Symbols, Kind::Names] {
        let Some(mut entry) = cache.get(&Key::of(kind, pin)?) else {
            continue;
        };
        let (was, content) = postcard::take_from_bytes::<Around>(&entry).ok()?;
        if was != around(pin, was.sought.clone(), debug_files) {
            continue;
        }
        let known = match kind {
            Kind::Symbols if content.len() <= room_bytes => {
                // No second copy of what may be large.
                entry.drain(..entry.len() - content.len());
                let rows = SymbolRows::from_bytes(entry);
                let frames = Key::of(Kind::Frames, pin).and_then(|key| cache.get(&key));
                let frames = frames.and_then(|frames| addresses(&frames));
                Known::Symbols(Symbols::new(rows, frames.unwrap_or_default()))
            }
            Kind::Names => Known::Addresses(addresses(content)?),
            Kind::Symbols | Kind::Frames | Kind::Table | Kind::Decompressed => continue,
        };
        return Some((known, was.sought));
    }
    None
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

/// The addresses of an entry, if it holds what entries hold.
fn addresses(bytes: &[u8]) -> Option<Addresses> {
    let addresses: Addresses = postcard::from_bytes(bytes).ok()?;
    addresses.is_sound().then_some(addresses)
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

    /// Ends a recording, of files of which no more is known than what it found.
    fn keep(names: KeptNames, debug_files: &DebugFiles) {
        for (cache, file) in names.changed(|_| Duration::ZERO) {
            file.keep(&cache, debug_files, None);
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
        assert_eq!(first.take(&pin, &[1, 2], &debug_files).0, [None, None]);
        let found = [(1, frames("f")), (2, Named::from([]))];
        first.add(pin.id, found.into_iter(), Some(sought()), false);
        keep(first, &debug_files);
        let mut second = kept(&cache);
        let (taken, _) = second.take(&pin, &[1, 2, 3], &debug_files);
        assert_eq!(taken, [Some(frames("f")), Some(Named::from([])), None]);
        second.add(
            pin.id,
            [(3, frames("g"))].into_iter(),
            Some(sought()),
            false,
        );
        keep(second, &debug_files);
        let (taken, _) = kept(&cache).take(&pin, &[1, 2, 3], &debug_files);
        assert!(taken.iter().all(Option::is_some), "{taken:?}");
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
        keep(first, &debug_files);
        let directory: PathBuf = folder.path().join(".build-id/07");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{}.debug", "07".repeat(19))), "new").unwrap();
        assert_eq!(kept(&cache).take(&pin, &[1], &debug_files).0, [None]);
    }

    #[test]
    fn what_is_doubtful_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let (pin, cache) = (pin(), folder.path().join("cache"));
        let mut first = kept(&cache);
        first.take(&pin, &[1], &debug_files);
        first.add(pin.id, [(1, frames("f"))].into_iter(), Some(sought()), true);
        keep(first, &debug_files);
        assert_eq!(kept(&cache).take(&pin, &[1], &debug_files).0, [None]);
    }

    #[test]
    fn what_symbol_tables_say_is_known_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let (pin, cache) = (pin(), folder.path().join("cache"));
        let mut first = kept(&cache);
        first.take(&pin, &[0x30], &debug_files);
        first.add(pin.id, [(0x60, frames("f"))].into_iter(), None, false);
        // From 0x20 on what is called by the text at 1, in an ELF file "ELF" and
        // three numbers; from 0x40 on nothing; from 0x50 on it is not known.
        let rows = [[0x20, 1], [0x40, 0], [0x50, u32::MAX]];
        let rows = rows
            .iter()
            .flatten()
            .flat_map(|word: &u32| word.to_le_bytes());
        let rows = SymbolRows::from_bytes(rows.collect());
        for (cache, file) in first.changed(|_| Duration::ZERO) {
            assert!(file.lacks_rows());
            file.keep(&cache, &debug_files, Some(rows.clone()));
        }
        let mut second = kept(&cache);
        let addresses = [0x1f, 0x20, 0x3f, 0x40, 0x50];
        let nothing = Some(Named::from([]));
        let (taken, symbols) = second.take(&pin, &addresses, &debug_files);
        assert_eq!(taken, [None, None, None, nothing.clone(), None]);
        assert_eq!(symbols.len(), 1);
        assert!(symbols[0].name.starts_with(b"ELF"), "{symbols:?}");
        second.have(pin.id, &symbols, vec![frames("elf")]);
        let elf = Some(frames("elf"));
        let all = vec![None, elf.clone(), elf, nothing, None];
        let taken = second.take(&pin, &addresses, &debug_files);
        assert_eq!(taken, (all.clone(), Vec::new()));
        keep(second, &debug_files);
        let mut third = kept(&cache);
        let taken = third.take(&pin, &addresses, &debug_files);
        assert_eq!(taken, (all, Vec::new()));
        assert_eq!(third.changed(|_| LONG).count(), 0);
    }

    #[test]
    fn an_entry_that_holds_something_else_is_none() {
        assert!(addresses(b"").is_none());
        assert!(addresses(&[0xff; 100]).is_none());
        let long = HashMap::from_iter([(1, frames(&"x".repeat(1 << 20)))]);
        let long = Addresses::default().with(&long);
        assert!(addresses(&postcard::to_stdvec(&long).unwrap()).is_none());
    }

    #[test]
    fn without_a_cache_nothing_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let debug_files = debug_files(folder.path());
        let mut none = KeptNames::new(None);
        let pin = pin();
        assert_eq!(none.take(&pin, &[1], &debug_files).0, [None]);
        none.add(pin.id, [(1, frames("f"))].into_iter(), None, false);
        assert!(none.files.is_empty());
    }
}
