//! Holding on to the files that processes run.
//!
//! A name, a process and a mount namespace may be gone a moment later; an open
//! descriptor stays good. So a file is opened as soon as it is heard of.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::foreign_root::ForeignRoots;
use super::mapping::{Backing, Kind, Mapping};
use super::open_regular::{Found, Identity, open_regular};
use super::procfs::without_deleted;
use super::record::MapRecord;
use crate::object::{FileId, ForeignRoot, PinnedFile, find_build_id};

/// Paths kept of files that could not be opened.
const MAX_UNPINNED: usize = 8_192;

/// The files held open, each once, however many processes map it.
///
/// A file that is held keeps its inode number, so (device, inode) means one
/// file as long as it is in here. Whoever remembers the number for longer has
/// to hold the `Arc`, which also keeps the file in here.
#[derive(Debug)]
pub struct FileStore {
    proc_root: PathBuf,
    max_files: usize,
    pinned: HashMap<FileId, Pinned>,
    /// Where a mapping's device and inode are not those of `stat`. btrfs gives
    /// the same pair to files of several subvolumes, so the path belongs to it.
    aliases: HashMap<(FileId, Box<[u8]>), FileId>,
    unpinned: HashMap<(FileId, Box<[u8]>), Arc<Path>>,
    roots: ForeignRoots,
    /// Pinned since they were last asked for. To be told of is no use of a file.
    new: Vec<Weak<PinnedFile>>,
}

#[derive(Debug)]
struct Pinned {
    generation: Option<u32>,
    file: Arc<PinnedFile>,
}

/// A mapping, and the processes through which its file may be reached.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// What the kernel says about the mapping.
    pub map: &'a MapRecord,
    /// The process that has the mapping.
    pub pid: u32,
    /// One that most likely shares its mount namespace, in case the first is
    /// gone; 0 for none.
    pub parent_pid: u32,
}

impl FileStore {
    /// Holds at most `max_files` open. `proc_root` is where proc is mounted.
    pub fn new(proc_root: impl Into<PathBuf>, max_files: usize) -> Self {
        Self {
            proc_root: proc_root.into(),
            max_files,
            pinned: HashMap::new(),
            aliases: HashMap::new(),
            unpinned: HashMap::new(),
            roots: ForeignRoots::default(),
            new: Vec::new(),
        }
    }

    /// The files that were opened since the last call, and are held still.
    pub fn take_new(&mut self) -> Vec<Arc<PinnedFile>> {
        let new = std::mem::take(&mut self.new);
        new.iter().filter_map(Weak::upgrade).collect()
    }

    /// How many files are held open.
    pub fn pinned_files(&self) -> usize {
        self.pinned.len()
    }

    /// How many files could not be opened, each counted once, up to 8,192.
    pub fn unpinned_files(&self) -> usize {
        self.unpinned.len()
    }

    /// Finds out what lies behind a mapping and opens it if it is a file.
    pub fn resolve(&mut self, sought: Sought<'_>) -> Mapping {
        let map = sought.map;
        let anonymous = || Backing::Anonymous {
            name: String::from_utf8_lossy(&map.name).into(),
        };
        let kind = Kind::of(&map.name, map.id.inode);
        let backing = match kind {
            Kind::Vdso => Backing::Vdso,
            Kind::Vsyscall => Backing::Vsyscall,
            Kind::Anonymous => anonymous(),
            Kind::Nameless => self.pin(sought).map_or_else(anonymous, Backing::File),
            Kind::File => self
                .pin(sought)
                .map_or_else(|| self.unpinned(map), Backing::File),
        };
        // The image of the vDSO begins where its mapping does.
        let file_offset = match kind {
            Kind::Vdso | Kind::Vsyscall => 0,
            _ => map.file_offset,
        };
        Mapping {
            start: map.start,
            end: map.end,
            file_offset,
            backing,
        }
    }

    /// Closes files that nobody uses: one that is held keeps its file system
    /// from being unmounted and its blocks from being freed.
    pub fn release_unused(&mut self) {
        self.pinned
            .retain(|_, pinned| Arc::strong_count(&pinned.file) > 1);
        let pinned = &self.pinned;
        self.aliases.retain(|_, id| pinned.contains_key(id));
        self.new.retain(|file| file.strong_count() > 0);
    }

    fn pin(&mut self, sought: Sought<'_>) -> Option<Arc<PinnedFile>> {
        let map = sought.map;
        let meant = (map.id.inode != 0).then_some(Identity {
            id: map.id,
            generation: map.generation,
        });
        if let Some(meant) = meant
            && let Some(known) = self.known(meant, &map.name)
        {
            return known;
        }
        if self.pinned.len() >= self.max_files {
            return None;
        }
        let found = self.open(sought, meant)?;
        let id = found.id;
        if map.id.inode != 0 && map.id != id {
            self.aliases.insert((map.id, map.name.clone()), id);
        }
        // The same file by another of its names.
        if let Some(pinned) = self.pinned.get(&id) {
            return Some(Arc::clone(&pinned.file));
        }
        let path = if found.deleted {
            without_deleted(map.name.to_vec()).to_path_buf()
        } else {
            PathBuf::from(OsStr::from_bytes(&map.name))
        };
        let build_id = find_build_id(|offset, buffer| found.file.read_at(buffer, offset));
        // Whoever goes by the root looks for files with the same build ID.
        let root = build_id.is_some().then(|| self.root(sought)).flatten();
        let file = PinnedFile::new(id, path, build_id, found.file).seen_from(root);
        let file = Arc::new(file);
        self.new.push(Arc::downgrade(&file));
        let generation = found.generation;
        self.pinned.insert(
            id,
            Pinned {
                generation,
                file: Arc::clone(&file),
            },
        );
        Some(file)
    }

    /// The file meant, if it is held; `Some(None)` if the inode is held as
    /// another file, so that the one meant cannot exist any more.
    #[expect(clippy::option_option, reason = "held, held by another, not held")]
    fn known(&self, meant: Identity, name: &[u8]) -> Option<Option<Arc<PinnedFile>>> {
        let alias = || self.aliases.get(&(meant.id, Box::from(name)));
        let pinned = self
            .pinned
            .get(&meant.id)
            .or_else(|| self.pinned.get(alias()?))?;
        let is_other = matches!(
            (meant.generation, pinned.generation),
            (Some(meant), Some(held)) if meant != held
        );
        Some((!is_other).then(|| Arc::clone(&pinned.file)))
    }

    /// Tries the ways to the file, from the surest on.
    fn open(&self, sought: Sought<'_>, meant: Option<Identity>) -> Option<Found> {
        let map = sought.map;
        let process = |pid: u32| self.proc_root.join(pid.to_string());
        let entry = format!("map_files/{:x}-{:x}", map.start, map.end);
        let by_mapping = open_regular(&process(sought.pid).join(entry), true, meant);
        // A path is believed only if it leads to the inode meant.
        if by_mapping.is_some() || meant.is_none() {
            return by_mapping;
        }
        let relative = map.name.strip_prefix(b"/")?;
        let relative = Path::new(OsStr::from_bytes(relative));
        if relative.is_absolute() {
            return None; // `//toolong`: the kernel had no path to tell.
        }
        [sought.pid, sought.parent_pid]
            .into_iter()
            .filter(|&pid| pid != 0 && pid != u32::MAX)
            .map(|pid| process(pid).join("root"))
            .chain([PathBuf::from("/")])
            .find_map(|root| open_regular(&root.join(relative), false, meant))
    }

    /// The root from which a mapping's path leads to its file, if not ours.
    fn root(&mut self, sought: Sought<'_>) -> Option<Arc<ForeignRoot>> {
        let process = |pid: u32| self.proc_root.join(pid.to_string());
        let own = self.proc_root.join("self");
        let seer = [sought.pid, sought.parent_pid]
            .into_iter()
            .filter(|&pid| pid != 0 && pid != u32::MAX)
            .map(process)
            .find(|process| process.join("root").exists())?;
        self.roots.of(&own, &seer)
    }

    fn unpinned(&mut self, map: &MapRecord) -> Backing {
        let key = (map.id, map.name.clone());
        let path = if self.unpinned.len() < MAX_UNPINNED {
            let path = || Path::new(OsStr::from_bytes(&map.name)).into();
            Arc::clone(self.unpinned.entry(key).or_insert_with(path))
        } else {
            self.unpinned
                .get(&key)
                .map_or_else(|| Path::new("").into(), Arc::clone)
        };
        Backing::Unpinned {
            path,
            id: (map.id.inode != 0).then_some(map.id),
            build_id: map.build_id.clone(),
        }
    }
}
