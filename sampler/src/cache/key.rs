//! What an entry is about.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;

use crate::object::PinnedFile;

/// Longer build IDs than this are no hash, and would be long file names.
const MAX_BUILD_ID_BYTES: usize = 32;
/// Shorter ones are not unique enough.
const MIN_BUILD_ID_BYTES: usize = 8;

/// What was worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The unwind table of a file.
    Table,
    /// The names of addresses in a file.
    Names,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Names => "names",
        }
    }
}

/// The name of an entry: what was worked out, and from which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Of a file; `None` if it has no build ID, or none that tells it from
    /// others.
    pub fn of(kind: Kind, file: &PinnedFile) -> Option<Self> {
        let build_id = file.build_id.as_ref()?;
        if !(MIN_BUILD_ID_BYTES..=MAX_BUILD_ID_BYTES).contains(&build_id.0.len()) {
            return None;
        }
        let metadata = file.metadata().ok()?;
        Some(Self(format!(
            "{}-{build_id}-{:x}-{:x}.{:x}-{}",
            kind.name(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.uid(),
        )))
    }

    pub(super) fn file_name(&self) -> Option<CString> {
        CString::new(self.0.as_str()).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::fs::File;

    use super::*;
    use crate::object::{BuildId, FileId};

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
    fn what_no_build_id_tells_apart_has_no_key() {
        for build_id in [None, Some(&[1; 7][..]), Some(&[1; 33]), Some(&[])] {
            assert_eq!(Key::of(Kind::Table, &pin(build_id)), None);
        }
    }
}
