//! Stack traces of the whole recording, each frame and each stack once.
//!
//! A frame is told by a mapping and how far into it, not by its address, which
//! differs from process to process. So what is kept grows with the code that
//! was seen to run, and not with the processes that ran it. Only code that a
//! process made for itself is of that process, and of its present program.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use ahash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use sampler_common::Ending;

use crate::process::{Backing, Mapping};
use crate::symbolize::{Place, PlaceKey, Query};

/// What an address of a stack trace lies in.
#[derive(Debug, Clone)]
pub enum FramePlace {
    /// The kernel.
    Kernel,
    /// An executable mapping, as the first process had it that was seen there.
    Mapped {
        /// The mapping.
        mapping: Arc<Mapping>,
        /// Whose it is, if its code may have been made at run time.
        program: Option<Program>,
    },
    /// None that is known.
    Unmapped,
    /// Nothing: the frame says why there is none.
    Marker(Marker),
}

/// One program that one process ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Program {
    /// Position in the list of processes.
    pub process: usize,
    /// When it was started: [`crate::process::AddressSpace::since_ns`].
    pub since_ns: u64,
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

/// A frame: a place and where in it. That of callers points at the call, not
/// behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Position in [`Traces::place`].
    pub place: u32,
    /// From the start of the mapping; elsewhere the address itself.
    pub offset: u64,
}

/// What tells one mapping from another, whichever process has it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MappingKey {
    /// Where it starts, if that matters.
    start: Option<u64>,
    /// Whose it is, if no other process can have the same.
    program: Option<Program>,
    bytes: u64,
    file_offset: u64,
    identity: (u64, u64),
    name: String,
}

impl MappingKey {
    fn new(mapping: &Mapping, start: Option<u64>, program: Option<Program>) -> Self {
        let identity = match &mapping.backing {
            Backing::File(file) => (file.id.device, file.id.inode),
            Backing::Unpinned { id: Some(id), .. } => (id.device, id.inode),
            _ => (0, 0),
        };
        Self {
            start,
            program,
            bytes: mapping.end - mapping.start,
            file_offset: mapping.file_offset,
            identity,
            name: mapping.name().into_owned(),
        }
    }
}

/// The mappings of one process that its frames lie in.
#[derive(Debug)]
pub struct Located {
    process: usize,
    by_pointer: HashMap<*const Mapping, u32>,
    by_place: HashMap<u32, Arc<Mapping>>,
}

// SAFETY: the raw pointers are keys that are never followed; each belongs to
// an `Arc` that `by_place` holds.
unsafe impl Send for Located {}

impl Located {
    /// None yet, of the process at this position in the list of processes.
    pub fn of(process: usize) -> Self {
        Self {
            process,
            by_pointer: HashMap::new(),
            by_place: HashMap::new(),
        }
    }

    /// The mapping that a place is in this process.
    pub fn mapping(&self, place: u32) -> Option<&Arc<Mapping>> {
        self.by_place.get(&place)
    }
}

/// The interned stack traces of a recording.
#[derive(Debug)]
pub struct Traces {
    places: Vec<FramePlace>,
    by_content: HashMap<MappingKey, u32>,
    by_marker: HashMap<Marker, u32>,
    frames: Vec<Frame>,
    frame_ids: HashMap<Frame, u32>,
    stacks: Vec<Arc<[u32]>>,
    stack_ids: HashMap<Arc<[u32]>, u32>,
    unasked: Vec<Query>,
    /// Programs that have frames in code made at run time.
    makers: HashSet<Program>,
    new_makers: Vec<Program>,
    /// What names such code, once it is known.
    sources: HashMap<Program, PlaceKey>,
}

const KERNEL: u32 = 0;
const UNMAPPED: u32 = 1;

impl Default for Traces {
    fn default() -> Self {
        Self {
            places: vec![FramePlace::Kernel, FramePlace::Unmapped],
            by_content: HashMap::new(),
            by_marker: HashMap::new(),
            frames: Vec::new(),
            frame_ids: HashMap::new(),
            stacks: Vec::new(),
            stack_ids: HashMap::new(),
            unasked: Vec::new(),
            makers: HashSet::new(),
            new_makers: Vec::new(),
            sources: HashMap::new(),
        }
    }
}

impl Traces {
    /// A frame of the kernel.
    pub fn kernel_frame(&mut self, address: u64) -> u32 {
        self.frame(Frame {
            place: KERNEL,
            offset: address,
        })
    }

    /// A user frame that lies in no known mapping.
    pub fn unmapped_frame(&mut self, address: u64) -> u32 {
        self.frame(Frame {
            place: UNMAPPED,
            offset: address,
        })
    }

    /// A frame that stands for missing ones.
    pub fn marker_frame(&mut self, marker: Marker) -> u32 {
        let next = self.places.len() as u32;
        let place = *self.by_marker.entry(marker).or_insert(next);
        if place == next {
            self.places.push(FramePlace::Marker(marker));
        }
        self.frame(Frame { place, offset: 0 })
    }

    /// A user frame of a process, whose program was started at `since_ns`.
    pub fn mapped_frame(
        &mut self,
        process: &mut Located,
        since_ns: u64,
        mapping: &Arc<Mapping>,
        address: u64,
    ) -> u32 {
        let place = match process.by_pointer.get(&Arc::as_ptr(mapping)) {
            Some(place) => *place,
            None => self.mapping_place(process, since_ns, mapping),
        };
        self.frame(Frame {
            place,
            offset: address - mapping.start,
        })
    }

    fn mapping_place(
        &mut self,
        process: &mut Located,
        since_ns: u64,
        mapping: &Arc<Mapping>,
    ) -> u32 {
        // Such memory holds other code at each address and in each process.
        let program = mapping.may_be_made().then_some(Program {
            process: process.process,
            since_ns,
        });
        if let Some(program) = program
            && self.makers.insert(program)
        {
            self.new_makers.push(program);
        }
        let start = program.map(|_| mapping.start);
        let mut place = self.place_by_key(mapping, start, program);
        let is_elsewhere = |place| {
            let known: Option<&Arc<Mapping>> = process.by_place.get(&place);
            known.is_some_and(|known| known.start != mapping.start)
        };
        // One process may have a file at several addresses, by and by.
        if is_elsewhere(place) {
            place = self.place_by_key(mapping, Some(mapping.start), program);
        }
        let held = process.by_place.entry(place);
        // Only of a mapping that is held can the pointer not come again.
        if let Entry::Vacant(vacant) = held {
            vacant.insert(Arc::clone(mapping));
            process.by_pointer.insert(Arc::as_ptr(mapping), place);
        }
        place
    }

    fn place_by_key(
        &mut self,
        mapping: &Arc<Mapping>,
        start: Option<u64>,
        program: Option<Program>,
    ) -> u32 {
        let key = MappingKey::new(mapping, start, program);
        let next = self.places.len() as u32;
        let place = *self.by_content.entry(key).or_insert(next);
        if place == next {
            let mapping = Arc::clone(mapping);
            self.places.push(FramePlace::Mapped { mapping, program });
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
    /// is nothing to look up, or not yet.
    fn query(&self, frame: Frame) -> Option<Query> {
        let (place, address) = match self.place(frame.place) {
            FramePlace::Kernel => (Place::Kernel, frame.offset),
            FramePlace::Mapped { mapping, .. } => {
                let offset = mapping.file_offset_of(mapping.start + frame.offset).0;
                match &mapping.backing {
                    Backing::File(file) => (Place::File(Arc::clone(file)), offset),
                    Backing::Vdso if mapping.is_wide() => (Place::Vdso, offset),
                    _ => return None,
                }
            }
            FramePlace::Unmapped | FramePlace::Marker(_) => return None,
        };
        Some(Query { place, address })
    }

    /// The program that made a frame's code at run time, if one may have, and
    /// the address.
    pub fn maker(&self, frame: Frame) -> Option<(Program, u64)> {
        match self.place(frame.place) {
            FramePlace::Mapped {
                mapping,
                program: Some(program),
            } => Some((*program, mapping.start + frame.offset)),
            _ => None,
        }
    }

    /// By what a frame's names are found, the best first.
    pub fn keys(&self, frame: Frame) -> impl Iterator<Item = (PlaceKey, u64)> {
        let native = self.query(frame);
        let native = native.map(|query| (query.place.key(), query.address));
        let made = self.maker(frame).and_then(|(program, address)| {
            let source = self.sources.get(&program)?;
            Some((*source, address))
        });
        native.into_iter().chain(made)
    }

    /// The programs of which there are frames in code made at run time since the
    /// last call, and were none before.
    pub fn take_new_makers(&mut self) -> Vec<Program> {
        std::mem::take(&mut self.new_makers)
    }

    /// The addresses of all frames in code that programs made at run time.
    pub fn made(&self) -> impl Iterator<Item = (Program, u64)> {
        self.frames.iter().filter_map(|frame| self.maker(*frame))
    }

    /// Whether it is known by what such code of a program is named.
    pub fn has_source(&self, program: Program) -> bool {
        self.sources.contains_key(&program)
    }

    /// Says by what such code of a program is named.
    pub fn set_source(&mut self, program: Program, source: PlaceKey) {
        self.sources.insert(program, source);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::path::Path;

    use super::*;
    use crate::object::FileId;

    fn mapping(start: u64, backing: Backing) -> Arc<Mapping> {
        Arc::new(Mapping {
            start,
            end: start + 0x1000,
            file_offset: 0x2000,
            backing,
        })
    }

    fn library(start: u64) -> Arc<Mapping> {
        let id = Some(FileId {
            device: 1,
            inode: 2,
        });
        let path = Path::new("/lib/library.so").into();
        let build_id = None;
        mapping(start, Backing::Unpinned { path, id, build_id })
    }

    fn anonymous(start: u64) -> Arc<Mapping> {
        mapping(start, Backing::Anonymous { name: "".into() })
    }

    #[test]
    fn processes_share_the_frames_of_a_file() {
        let mut traces = Traces::default();
        let (mut one, mut other) = (Located::of(0), Located::of(1));
        let first = traces.mapped_frame(&mut one, 0, &library(0x5000), 0x5123);
        let second = traces.mapped_frame(&mut other, 0, &library(0x9000), 0x9123);
        assert_eq!(first, second);
        let place = traces.frame_by_id(first).place;
        let start = |located: &Located| located.mapping(place).map(|mapping| mapping.start);
        assert_eq!(start(&one), Some(0x5000));
        assert_eq!(start(&other), Some(0x9000));
    }

    #[test]
    fn a_file_that_moved_within_a_process_is_at_two_places() {
        let mut traces = Traces::default();
        let mut process = Located::of(0);
        let starts = [0x5000, 0x9000, 0x5000, 0x9000];
        let frames =
            starts.map(|start| traces.mapped_frame(&mut process, 0, &library(start), start + 0x10));
        assert_ne!(frames[0], frames[1]);
        assert_eq!(frames[..2], frames[2..]);
        for (start, frame) in starts.into_iter().zip(frames) {
            let frame = traces.frame_by_id(frame);
            let mapping = process.mapping(frame.place);
            assert_eq!(mapping.map(|mapping| mapping.start), Some(start));
            assert_eq!(frame.offset, 0x10);
        }
    }

    #[test]
    fn code_that_is_no_file_is_of_its_address() {
        let mut traces = Traces::default();
        let (mut one, mut other) = (Located::of(0), Located::of(1));
        let first = traces.mapped_frame(&mut one, 0, &anonymous(0x5000), 0x5123);
        let second = traces.mapped_frame(&mut other, 0, &anonymous(0x9000), 0x9123);
        assert_ne!(first, second);
    }

    #[test]
    fn code_at_one_address_is_other_code_in_each_process_and_program() {
        let mut traces = Traces::default();
        let (mut one, mut other) = (Located::of(0), Located::of(1));
        let frames = [
            traces.mapped_frame(&mut one, 0, &anonymous(0x5000), 0x5123),
            traces.mapped_frame(&mut other, 0, &anonymous(0x5000), 0x5123),
            traces.mapped_frame(&mut one, 9, &anonymous(0x5000), 0x5123),
        ];
        let again = traces.mapped_frame(&mut one, 0, &anonymous(0x5000), 0x5123);
        assert_eq!(again, frames[0]);
        let program = |process, since_ns| Program { process, since_ns };
        let makers = [program(0, 0), program(1, 0), program(0, 9)];
        assert_eq!(
            frames.map(|frame| traces.maker(traces.frame_by_id(frame)).unwrap()),
            makers.map(|program| (program, 0x5123))
        );
        assert_eq!(traces.take_new_makers(), makers);
        assert_eq!(traces.take_new_makers(), []);
        traces.set_source(makers[1], PlaceKey::Jit(7));
        assert_eq!(
            frames.map(|frame| traces.keys(traces.frame_by_id(frame)).next()),
            [None, Some((PlaceKey::Jit(7), 0x5123)), None]
        );
    }
}
