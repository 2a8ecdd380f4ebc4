//! Which of the files that may be it holds a program's debug information.
//!
//! Only a file with the same build ID is taken, so a stale one is never used. Where
//! the debug information is compressed, what somebody keeps of it without compression
//! is taken instead.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use crate::object::{BuildId, PinnedFile};

use super::decompressed::Decompressed;
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

    /// What the last file that was looked into would be without compression, from who
    /// keeps such; `None` if nobody does, or it is broken.
    fn decompressed(
        &mut self,
        file: &File,
        plan: &Decompressed,
        allowance: &mut Allowance,
    ) -> Option<File>;
}

/// What is to be read instead of a file with compressed debug information, such as the
/// parser may be shown it.
pub(super) fn decompressed(
    file: &File,
    image: &Image,
    candidates: &mut dyn Candidates,
    allowance: &mut Allowance,
) -> Option<(File, Image)> {
    let plan = Decompressed::of(file).ok()??;
    let found = candidates.decompressed(file, &plan, allowance)?;
    let found_image = inspect(&found, allowance).ok()?;
    let is_right = found_image.has_usable_debug_info() && !found_image.is_compressed();
    (is_right && found_image.build_id == image.build_id).then_some((found, found_image))
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
        if found.build_id.as_ref() != Some(build_id) || !found.has_usable_debug_info() {
            continue;
        }
        if let Some(usable) = usable(candidate, found, candidates, allowance) {
            return Some(pinned(file, usable));
        }
    }
    None
}

/// A file such as the parser may be shown it: itself, or what it is without
/// compression.
fn usable(
    file: File,
    mut image: Image,
    candidates: &mut dyn Candidates,
    allowance: &mut Allowance,
) -> Option<(File, Image)> {
    if image.is_compressed() {
        if let Some(plain) = decompressed(&file, &image, candidates, allowance) {
            return Some(plain);
        }
        image.inflate(&file, allowance).ok()?;
    }
    image.has_usable_debug_info().then_some((file, image))
}

/// What is read for the sake of a file, held open.
pub(super) fn pinned(of: &PinnedFile, found: (File, Image)) -> (Arc<PinnedFile>, Image) {
    let (file, image) = found;
    let pin = PinnedFile::new(of.id, PathBuf::new(), image.build_id.clone(), file);
    (Arc::new(pin), image)
}
