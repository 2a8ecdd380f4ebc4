//! Stack traces of the whole recording, each frame and each stack once.

use std::collections::HashMap;
use std::sync::Arc;

use sampler_common::Ending;

use crate::process::{Backing, Mapping};
use crate::symbolize::{Place, Query};

/// What an address of a stack trace lies in.
#[derive(Debug, Clone)]
pub enum FramePlace {
    /// The kernel.
    Kernel,
    /// An executable mapping of the process.
    Mapped(Arc<Mapping>),
    /// None that is known.
    Unmapped,
    /// Nothing: the frame says why there is none.
    Marker(Marker),
}

/// A frame that stands for frames that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// The stack trace was cut here.
    Truncated(Ending),
    /// The tick hit user code, whose frames were not asked for.
    UserFramesDropped,
    /// The tick hit the kernel, whose frames were not asked for.
    KernelFramesDropped,
}

impl Marker {
    /// The text of the frame.
    pub fn text(self) -> String {
        match self {
            Self::Truncated(ending) => format!("[truncated: {}]", ending.name()),
            Self::UserFramesDropped => "[user]".to_owned(),
            Self::KernelFramesDropped => "[kernel]".to_owned(),
        }
    }
}

/// A frame: a place and an address in it. Addresses of callers point at the
/// call, not behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Position in [`Traces::place`].
    pub place: u32,
    /// Absolute address.
    pub address: u64,
}

/// What tells one mapping from another, whichever process has it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MappingKey {
    start: u64,
    end: u64,
    file_offset: u64,
    identity: (u64, u64),
    name: String,
}

impl MappingKey {
    fn new(mapping: &Mapping) -> Self {
        let identity = match &mapping.backing {
            Backing::File(file) => (file.id.device, file.id.inode),
            Backing::Unpinned { id: Some(id), .. } => (id.device, id.inode),
            _ => (0, 0),
        };
        Self {
            start: mapping.start,
            end: mapping.end,
            file_offset: mapping.file_offset,
            identity,
            name: mapping.name().into_owned(),
        }
    }
}

/// The interned stack traces of a recording.
#[derive(Debug)]
pub struct Traces {
    places: Vec<FramePlace>,
    by_pointer: HashMap<*const Mapping, u32>,
    by_content: HashMap<MappingKey, u32>,
    by_marker: HashMap<Marker, u32>,
    frames: Vec<Frame>,
    frame_ids: HashMap<Frame, u32>,
    stacks: Vec<Arc<[u32]>>,
    stack_ids: HashMap<Arc<[u32]>, u32>,
    unasked: Vec<Query>,
}

// SAFETY: the raw pointers are keys that are never followed; each belongs to
// an `Arc` that `places` holds.
unsafe impl Send for Traces {}

const KERNEL: u32 = 0;
const UNMAPPED: u32 = 1;

impl Default for Traces {
    fn default() -> Self {
        Self {
            places: vec![FramePlace::Kernel, FramePlace::Unmapped],
            by_pointer: HashMap::new(),
            by_content: HashMap::new(),
            by_marker: HashMap::new(),
            frames: Vec::new(),
            frame_ids: HashMap::new(),
            stacks: Vec::new(),
            stack_ids: HashMap::new(),
            unasked: Vec::new(),
        }
    }
}

impl Traces {
    /// A frame of the kernel.
    pub fn kernel_frame(&mut self, address: u64) -> u32 {
        self.frame(Frame {
            place: KERNEL,
            address,
        })
    }

    /// A user frame that lies in no known mapping.
    pub fn unmapped_frame(&mut self, address: u64) -> u32 {
        self.frame(Frame {
            place: UNMAPPED,
            address,
        })
    }

    /// A frame that stands for missing ones.
    pub fn marker_frame(&mut self, marker: Marker) -> u32 {
        let next = self.places.len() as u32;
        let place = *self.by_marker.entry(marker).or_insert(next);
        if place == next {
            self.places.push(FramePlace::Marker(marker));
        }
        self.frame(Frame { place, address: 0 })
    }

    /// A user frame.
    pub fn mapped_frame(&mut self, mapping: &Arc<Mapping>, address: u64) -> u32 {
        let pointer = Arc::as_ptr(mapping);
        let place = match self.by_pointer.get(&pointer) {
            Some(place) => *place,
            None => self.mapping_place(mapping, pointer),
        };
        self.frame(Frame { place, address })
    }

    fn mapping_place(&mut self, mapping: &Arc<Mapping>, pointer: *const Mapping) -> u32 {
        let next = self.places.len() as u32;
        let place = *self
            .by_content
            .entry(MappingKey::new(mapping))
            .or_insert(next);
        if place == next {
            self.places.push(FramePlace::Mapped(Arc::clone(mapping)));
            // Only of a mapping that is kept can the pointer not come again.
            self.by_pointer.insert(pointer, place);
        }
        place
    }

    fn frame(&mut self, frame: Frame) -> u32 {
        let next = self.frames.len() as u32;
        let id = *self.frame_ids.entry(frame).or_insert(next);
        if id == next {
            self.frames.push(frame);
            self.unasked.extend(self.query(frame));
        }
        id
    }

    /// A stack trace, innermost frame first.
    pub fn stack(&mut self, frames: &[u32]) -> u32 {
        if let Some(id) = self.stack_ids.get(frames) {
            return *id;
        }
        let stack: Arc<[u32]> = frames.into();
        let id = self.stacks.len() as u32;
        self.stacks.push(Arc::clone(&stack));
        self.stack_ids.insert(stack, id);
        id
    }

    /// The question to the symbolizer that names a frame; `None` where there
    /// is nothing to look up.
    pub fn query(&self, frame: Frame) -> Option<Query> {
        let (place, address) = match self.place(frame.place) {
            FramePlace::Kernel => (Place::Kernel, frame.address),
            FramePlace::Mapped(mapping) => {
                let offset = mapping.file_offset_of(frame.address).0;
                match &mapping.backing {
                    Backing::File(file) => (Place::File(Arc::clone(file)), offset),
                    Backing::Vdso => (Place::Vdso, offset),
                    _ => return None,
                }
            }
            FramePlace::Unmapped | FramePlace::Marker(_) => return None,
        };
        Some(Query { place, address })
    }

    /// The questions for the frames that are new since the last call.
    pub fn take_queries(&mut self) -> Vec<Query> {
        std::mem::take(&mut self.unasked)
    }

    /// A place by its number.
    pub fn place(&self, place: u32) -> &FramePlace {
        &self.places[place as usize]
    }

    /// A frame by its number.
    pub fn frame_by_id(&self, frame: u32) -> Frame {
        self.frames[frame as usize]
    }

    /// The frames of a stack trace by its number, innermost first.
    pub fn stack_by_id(&self, stack: u32) -> &[u32] {
        &self.stacks[stack as usize]
    }
}
