//! What an entry is about.

use std::ffi::{CStr, CString};
use std::os::unix::fs::MetadataExt as _;

use crate::object::{BuildId, PinnedFile};

/// Longer build IDs than this are no hash, and would be long file names.
const MAX_BUILD_ID_BYTES: usize = 32;
/// Shorter ones are not unique enough.
const MIN_BUILD_ID_BYTES: usize = 8;

/// A UUID has 36.
const MAX_BOOT_ID_BYTES: usize = 64;

/// What was worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The unwind table of a file.
    Table,
    /// The names of addresses in a file.
    Names,
    /// What the symbol tables of a file say of all of its code.
    Symbols,
    /// The frames of some of these symbols.
    Frames,
    /// A file that holds debug information, without compression.
    Decompressed,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Names => "names",
            Self::Symbols => "symbols",
            Self::Frames => "frames",
            Self::Decompressed => "decompressed",
        }
    }
}

/// The name of an entry: what was worked out, and from which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Of a file. It goes by its build ID, or by its place if it has none that
    /// tells it from others; `None` if it has no place either any more.
    pub fn of(kind: Kind, file: &PinnedFile) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let build_id = file.build_id.as_ref();
        let identity = match build_id.filter(|id| tells_apart(id)) {
            Some(build_id) => build_id.to_string(),
            // Whatever is written to it changes the time of its inode, which
            // nobody can set.
            None if metadata.nlink() == 0 => return None,
            None => format!(
                "at-{:x}-{:x}-{:x}.{:x}",
                metadata.dev(),
                metadata.ino(),
                metadata.ctime(),
                metadata.ctime_nsec(),
            ),
        };
        Some(Self(format!(
            "{}-{identity}-{:x}-{:x}.{:x}-{}",
            kind.name(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.uid(),
        )))
    }

    /// Of the kernel's own symbols as they are for one boot, which goes by its
    /// random ID; `None` if that is none.
    pub fn of_boot(boot_id: &str) -> Option<Self> {
        let is_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        let is_right = (1..=MAX_BOOT_ID_BYTES).contains(&boot_id.len());
        (is_right && boot_id.bytes().all(is_id)).then(|| Self(format!("kernel-{boot_id}")))
    }

    pub(super) fn file_name(&self) -> Option<CString> {
        CString::new(self.0.as_str()).ok()
    }
}

/// Whether an entry of this name is about that.
pub(super) fn is_of(name: &CStr, kind: Kind) -> bool {
    let rest = name.to_bytes().strip_prefix(kind.name().as_bytes());
    rest.is_some_and(|rest| rest.starts_with(b"-"))
}

fn tells_apart(build_id: &BuildId) -> bool {
    (MIN_BUILD_ID_BYTES..=MAX_BUILD_ID_BYTES).contains(&build_id.0.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::fs::File;

    use super::*;
    use crate::object::FileId;

    fn pin(build_id: Option<&[u8]>) -> PinnedFile {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let build_id = build_id.map(|bytes| BuildId(bytes.into()));
        PinnedFile::new(FileId::default(), "/program".into(), build_id, file)
    }

    #[test]
    fn a_file_goes_by_its_build_id_its_owner_its_size_and_its_time() {
        let key = Key::of(Kind::Table, &pin(Some(&[0xab; 20]))).unwrap();
        let metadata = pin(None).metadata().unwrap();
        assert!(key.0.starts_with(&format!("table-{}-", "ab".repeat(20))));
        assert!(key.0.contains(&format!("-{:x}-", metadata.len())));
        assert!(key.0.ends_with(&format!("-{}", metadata.uid())));
        assert!(!key.0.contains('/') && key.0.len() < 200, "{}", key.0);
    }

    #[test]
    fn what_no_build_id_tells_apart_goes_by_its_place() {
        for build_id in [None, Some(&[1; 7][..]), Some(&[1; 33]), Some(&[])] {
            let pin = pin(build_id);
            let key = Key::of(Kind::Table, &pin).unwrap();
            let metadata = pin.metadata().unwrap();
            let place = format!("table-at-{:x}-{:x}-", metadata.dev(), metadata.ino());
            assert!(key.0.starts_with(&place), "{}", key.0);
            assert!(!key.0.contains('/') && key.0.len() < 200, "{}", key.0);
        }
    }

    #[test]
    fn a_boot_goes_by_its_id() {
        let key = Key::of_boot("1b4e28ba-2fa1").unwrap();
        assert_eq!(key.0, "kernel-1b4e28ba-2fa1");
        for other in ["", "../passwd", "a/b", &"a".repeat(65)] {
            assert_eq!(Key::of_boot(other), None);
        }
    }

    #[test]
    fn a_file_that_is_gone_has_no_place() {
        let file = tempfile::tempfile().unwrap();
        let pin = PinnedFile::new(FileId::default(), "/program".into(), None, file);
        assert_eq!(Key::of(Kind::Names, &pin), None);
    }

    #[test]
    fn another_content_is_another_key_whatever_its_owner_says_of_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let key = || {
            let file = File::open(&path).unwrap();
            let pin = PinnedFile::new(FileId::default(), "/program".into(), None, file);
            (Key::of(Kind::Table, &pin).unwrap(), pin.metadata().unwrap())
        };
        let (before, metadata) = key();
        // The kernel's clock for files goes by ticks.
        let mut after = (before.clone(), metadata.clone());
        while after.1.ctime_nsec() == metadata.ctime_nsec() {
            std::fs::write(&path, "two").unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(metadata.modified().unwrap()).unwrap();
            after = key();
        }
        assert_eq!(after.1.mtime_nsec(), metadata.mtime_nsec());
        assert_ne!(after.0, before);
    }
}
