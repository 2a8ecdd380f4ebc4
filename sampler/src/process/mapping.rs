//! One executable range of a process's address space.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use crate::object::{BuildId, FileId, FileOffset, PinnedFile};

/// An executable range and what lies behind it.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// Where in the file (or the image of the vDSO) `start` lies. Of no
    /// meaning for anonymous memory.
    pub file_offset: u64,
    /// What lies behind it.
    pub backing: Backing,
}

/// What the bytes of a mapping come from.
#[derive(Debug, Clone)]
pub enum Backing {
    /// A file that is held open.
    File(Arc<PinnedFile>),
    /// A file that could not be opened: gone with its process, or there are
    /// too many.
    Unpinned {
        /// The path as the process saw it; empty when it is not kept.
        path: Arc<Path>,
        /// What the kernel calls the file, where it said so.
        id: Option<FileId>,
        /// Its build ID, where the kernel said so.
        build_id: Option<BuildId>,
    },
    /// The code that the kernel puts into every process.
    Vdso,
    /// Its predecessor at a fixed address.
    Vsyscall,
    /// No file: compiled at run time, a heap, shared memory.
    Anonymous {
        /// `[heap]`, `[anon:NAME]` and the like; empty for none.
        name: Box<str>,
    },
}

impl Mapping {
    /// Whether the address lies in it.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Whether a 64-bit process has it: a 32-bit one, whose vDSO is another, has
    /// nothing so high up.
    pub fn is_wide(&self) -> bool {
        self.start >> 32 != 0
    }

    /// Where in the file an address of this mapping lies.
    pub fn file_offset_of(&self, address: u64) -> FileOffset {
        FileOffset(
            address
                .wrapping_sub(self.start)
                .wrapping_add(self.file_offset),
        )
    }

    /// What people call it: the path of a file, or the kernel's word for the
    /// rest. Not made safe for a terminal.
    pub fn name(&self) -> Cow<'_, str> {
        match &self.backing {
            Backing::File(file) => file.path.to_string_lossy(),
            Backing::Unpinned { path, .. } if path.as_os_str().is_empty() => "[unknown]".into(),
            Backing::Unpinned { path, .. } => path.to_string_lossy(),
            Backing::Vdso => "[vdso]".into(),
            Backing::Vsyscall => "[vsyscall]".into(),
            Backing::Anonymous { name } if name.is_empty() => "//anon".into(),
            Backing::Anonymous { name } => Cow::Borrowed(name),
        }
    }

    /// Whether what lies in it may have been made at run time: it is memory of
    /// the process's own, and no other process has the same.
    pub fn may_be_made(&self) -> bool {
        match &self.backing {
            Backing::Anonymous { .. } => true,
            Backing::File(file) => file
                .path
                .as_os_str()
                .as_encoded_bytes()
                .starts_with(b"/memfd:"),
            _ => false,
        }
    }

    /// The part of this mapping between two addresses inside it.
    pub(super) fn part(&self, start: u64, end: u64) -> Self {
        Self {
            start,
            end,
            file_offset: self.file_offset_of(start).0,
            backing: self.backing.clone(),
        }
    }

    /// Whether both map the same bytes to the same place.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same_backing = match (&self.backing, &other.backing) {
            (Backing::File(a), Backing::File(b)) => Arc::ptr_eq(a, b),
            (Backing::Unpinned { path, id, .. }, Backing::Unpinned { path: p, id: i, .. }) => {
                path == p && id == i
            }
            (Backing::Anonymous { name }, Backing::Anonymous { name: n }) => name == n,
            (Backing::Vdso, Backing::Vdso) | (Backing::Vsyscall, Backing::Vsyscall) => true,
            _ => false,
        };
        same_backing
            && (self.start, self.end, self.file_offset)
                == (other.start, other.end, other.file_offset)
    }
}

/// What a mapping's name says about what lies behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// A file of the kernel's own that never had a path: worth holding open,
    /// and anonymous memory otherwise.
    Nameless,
    Vdso,
    Vsyscall,
    Anonymous,
}

impl Kind {
    /// Judged as `/proc/PID/maps` and `PERF_RECORD_MMAP2` name mappings.
    ///
    /// A path of a file system begins with one slash; names without a file
    /// never do. `//toolong` and `//enomem` are files whose path the kernel
    /// could not spell out, so only their inode tells them from `//anon`.
    pub(super) fn of(name: &[u8], inode: u64) -> Self {
        match name {
            b"[vdso]" => Self::Vdso,
            b"[vsyscall]" => Self::Vsyscall,
            _ if name.starts_with(b"/memfd:") => Self::Nameless,
            // Shared anonymous memory: a file only to the kernel.
            b"/dev/zero (deleted)"
            | b"/dev/zero"
            | b"/anon_hugepage (deleted)"
            | b"/anon_hugepage" => Self::Anonymous,
            _ if name.starts_with(b"/SYSV") && name.ends_with(b" (deleted)") => Self::Anonymous,
            [b'/', b'/', ..] if inode == 0 => Self::Anonymous,
            [b'/', ..] => Self::File,
            _ => Self::Anonymous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_files_from_memory() {
        assert_eq!(Kind::of(b"/usr/bin/cat", 7), Kind::File);
        assert_eq!(Kind::of(b"/tmp/a b (deleted)", 7), Kind::File);
        assert_eq!(Kind::of(b"//toolong", 7), Kind::File);
        assert_eq!(Kind::of(b"//anon", 0), Kind::Anonymous);
        assert_eq!(Kind::of(b"", 0), Kind::Anonymous);
        assert_eq!(Kind::of(b"[heap]", 0), Kind::Anonymous);
        assert_eq!(Kind::of(b"/memfd:jit (deleted)", 9), Kind::Nameless);
        assert_eq!(Kind::of(b"/SYSV0000002a (deleted)", 9), Kind::Anonymous);
        assert_eq!(Kind::of(b"anon_inode:[perf_event]", 9), Kind::Anonymous);
        assert_eq!(Kind::of(b"[vdso]", 0), Kind::Vdso);
    }

    #[test]
    fn an_address_becomes_an_offset_into_the_file() {
        let mapping = Mapping {
            start: 0x7000,
            end: 0x9000,
            file_offset: 0x2000,
            backing: Backing::Vdso,
        };
        assert_eq!(mapping.file_offset_of(0x7123), FileOffset(0x2123));
        let part = mapping.part(0x8000, 0x9000);
        assert_eq!(part.file_offset_of(0x8001), FileOffset(0x3001));
    }
}
