//! Which of the files that may be it holds a program's debug information.
//!
//! Only a file with the same build ID is taken, so a stale one is never used.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::object::{BuildId, PinnedFile};

use super::inflation::Allowance;
use super::inspect::{Image, inspect};

/// Files that may be the debug file of a program, one after the other.
///
/// The parent opens them, and its child, which asks for them, looks into them.
pub(super) trait Candidates {
    /// Starts anew, for the file with this build ID and this debug link.
    fn seek(&mut self, build_id: &BuildId, link: Option<&[u8]>);

    /// The next one.
    fn next(&mut self) -> Option<File>;
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
    while let Some(candidate) = candidates.next() {
        let Ok(found) = inspect(&candidate, allowance) else {
            continue;
        };
        if found.build_id.as_ref() == Some(build_id) && found.has_usable_debug_info() {
            let build_id = found.build_id.clone();
            let pin = PinnedFile::new(file.id, PathBuf::new(), build_id, candidate);
            return Some((Arc::new(pin), found));
        }
    }
    None
}
