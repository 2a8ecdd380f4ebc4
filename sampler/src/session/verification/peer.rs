//! framehop on the copy of a stack.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use framehop::FrameAddress;
use framehop::x86_64::UnwindRegsX86_64;
use sampler_common::unwind::x86_64::Rule;
use sampler_common::{Memory as _, RegisterLayout, StackCopy};

use super::super::unwinding::Copied;
use super::compare::PeerStep;
use super::files::Files;
use super::report::VisitedFrame;
use super::row::Incapable;
use crate::object::unwind::{self, Table};
use crate::object::{FileId, PinnedFile};
use crate::process::{AddressSpace, Backing};

/// Frames that are shown of a walk, the outermost ones.
const MAX_FRAMES_SHOWN: usize = 8;

/// A walk under way.
pub(super) struct PeerWalk<'a> {
    stack: Copied<'a>,
    space: &'a AddressSpace,
    registers: UnwindRegsX86_64,
    /// Of the frame that was reached.
    address: FrameAddress,
    /// The addresses to look up of the frames that it was asked to leave.
    visited: Vec<u64>,
}

impl<'a> PeerWalk<'a> {
    /// Starts at the interrupted instruction.
    pub fn new(copy: &'a StackCopy, words: &'a [u64], space: &'a AddressSpace) -> Self {
        let layout = RegisterLayout::X86_64;
        let saved = |word: u32| copy.registers[word as usize];
        let ip = saved(layout.program_counter);
        Self {
            stack: Copied::new(copy, words),
            space,
            registers: UnwindRegsX86_64::new(
                ip,
                saved(layout.stack_pointer),
                saved(layout.frame_pointer),
            ),
            address: FrameAddress::from_instruction_pointer(ip),
            visited: Vec::new(),
        }
    }

    /// One frame outwards.
    pub fn step(&mut self, files: &mut Files) -> PeerStep {
        let lookup = self.address.address_for_lookup();
        self.visited.push(lookup);
        let Some((file, offset)) = code_at(self.space, files, lookup) else {
            return PeerStep::Incapable(Incapable::NoFile);
        };
        let Some(walked) = files.get(&file) else {
            return PeerStep::Incapable(Incapable::Undescribed);
        };
        let Some(linked) = walked.address_of(offset) else {
            return PeerStep::Incapable(Incapable::Undescribed);
        };
        if let Some(why) = walked.incapable(linked) {
            return PeerStep::Incapable(why);
        }
        let address = match self.address {
            FrameAddress::InstructionPointer(_) => FrameAddress::InstructionPointer(linked),
            FrameAddress::ReturnAddress(_) => match NonZeroU64::new(linked.wrapping_add(1)) {
                Some(linked) => FrameAddress::ReturnAddress(linked),
                None => return PeerStep::Refused,
            },
        };
        let mut copy_ends = false;
        let stack = &mut self.stack;
        let caller = walked.step(address, &mut self.registers, |address| {
            stack.read_word(address).ok_or_else(|| copy_ends = true)
        });
        if copy_ends {
            return PeerStep::CopyEnds;
        }
        match caller {
            Ok(Some(caller)) => match FrameAddress::from_return_address(caller) {
                Some(address) => {
                    self.address = address;
                    PeerStep::Caller(caller)
                }
                None => PeerStep::End,
            },
            Ok(None) => PeerStep::End,
            Err(_) => PeerStep::Refused,
        }
    }

    /// The last frames that were to be left, with what either side knows of them.
    pub fn visited(&self, files: &mut Files) -> Vec<VisitedFrame> {
        let mut tables = HashMap::new();
        let first = self.visited.len().saturating_sub(MAX_FRAMES_SHOWN);
        self.visited
            .iter()
            .enumerate()
            .skip(first)
            .map(|(number, address)| visited(number, *address, self.space, files, &mut tables))
            .collect()
    }
}

/// The file that holds the code at an address, and where.
fn code_at(space: &AddressSpace, files: &Files, address: u64) -> Option<(Arc<PinnedFile>, u64)> {
    let mapping = space.at(address)?;
    let file = match &mapping.backing {
        Backing::File(file) => Arc::clone(file),
        Backing::Vdso => files.vdso()?,
        Backing::Unpinned { .. } | Backing::Vsyscall | Backing::Anonymous { .. } => return None,
    };
    Some((file, mapping.file_offset_of(address).0))
}

fn visited(
    number: usize,
    address: u64,
    space: &AddressSpace,
    files: &mut Files,
    tables: &mut HashMap<FileId, Option<Table>>,
) -> VisitedFrame {
    let mut frame = VisitedFrame {
        number,
        address,
        place: "of no file".to_owned(),
        rule: "none".to_owned(),
        row: "none".to_owned(),
    };
    let Some((file, offset)) = code_at(space, files, address) else {
        return frame;
    };
    let path = file.path.display();
    frame.place = format!("{path}, file offset {offset:#x}");
    let Some(walked) = files.get(&file) else {
        return frame;
    };
    let Some(linked) = walked.address_of(offset) else {
        return frame;
    };
    frame.place = format!("{path} {linked:#x}");
    frame.row = walked.row(linked);
    let table = tables.entry(file.id).or_insert_with(|| {
        let contents = file.contents().ok()?;
        unwind::build_within(&contents, files.max_bytes()).ok()
    });
    if let Some(rule) = table.as_ref().and_then(|table| table.rule_at(linked)) {
        frame.rule = format!("{:?}", Rule::unpack(rule));
    }
    frame
}
