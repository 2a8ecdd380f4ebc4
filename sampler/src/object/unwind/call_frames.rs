//! The sections that a table is made of, for another walk to read them itself.

use super::image::Image;
use super::room::Room;
use super::{BuildError, Machine, Segment};
use crate::object::Contents;

/// A section and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its virtual address.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a file says about its call frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFrames {
    /// Whose instructions it describes.
    pub machine: Machine,
    /// The executable segments, ordered.
    pub segments: Vec<Segment>,
    /// `.eh_frame`.
    pub eh_frame: Option<Placed>,
    /// `.eh_frame_hdr`.
    pub eh_frame_hdr: Option<Placed>,
    /// `.debug_frame`, unpacked.
    pub debug_frame: Option<Vec<u8>>,
    /// The address of `.text`.
    pub text: Option<u64>,
    /// The address of `.got`.
    pub got: Option<u64>,
}

impl CallFrames {
    /// Takes them out of an ELF file, if they are no more than so many bytes.
    pub fn read(file: &dyn Contents, max_bytes: u64) -> Result<Self, BuildError> {
        let room = Room::of(max_bytes);
        let image = Image::parse(file, &room)?;
        let placed = |section: super::image::Section<'_>| Placed {
            address: section.address,
            bytes: section.bytes.into_owned(),
        };
        let frames = Self {
            machine: image.machine,
            eh_frame: image.eh_frame().map(placed),
            eh_frame_hdr: image.eh_frame_hdr().map(placed),
            debug_frame: image
                .debug_frame()
                .map(|section| section.bytes.into_owned()),
            text: image.section_address(b".text"),
            got: image.section_address(b".got"),
            segments: image.executable,
        };
        if room.is_exceeded() {
            return Err(BuildError::NoRoom(max_bytes));
        }
        Ok(frames)
    }
}
