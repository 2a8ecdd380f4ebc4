//! One function, followed from its first instruction along its branches.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
};

use super::certain::{FarTargets, Order, certain};
use super::frame::Frame;
use super::functions::Known;
use crate::object::unwind::Machine;
use crate::object::unwind::landmark::{Landmark, landmark};
use crate::object::unwind::padding::padding_bytes;

/// Instructions of one function that are looked at, those that are looked at
/// again included.
const MAX_LOOKS: usize = 1 << 16;
/// Compilers align functions to multiples of this, in bytes.
pub(super) const ALIGNMENT: u64 = 16;
/// Padding behind a call is looked through that far, in bytes.
const MAX_PADDING_BYTES: usize = 64;

/// An instruction that was reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub frame: Frame,
    pub bytes: u32,
    /// What runs after it for sure, if anything can: the instruction behind it,
    /// and the target of a branch.
    pub next: [Option<u32>; 2],
    /// What runs after it if the call that it is returns.
    pub returned_to: Option<u32>,
    /// It leaves the function in good order.
    pub leaves: bool,
    /// It calls a function, which finds the stack aligned.
    pub calls_aligned: bool,
}

/// What was reached, by where it is in the gap.
pub(super) type Instructions = BTreeMap<u32, Reached>;

/// A function that was followed to all its ends.
#[derive(Debug, Default)]
pub(super) struct Function {
    pub reached: Instructions,
    /// It returns, or ends in a function that is known to start there, and its
    /// calls find the stack aligned: so where it was taken to start, the stack
    /// is as a caller leaves it.
    pub proved: bool,
}

/// Instructions of one gap.
pub(super) struct Reader<'a> {
    pub code: &'a [u8],
    pub address: u64,
    decoder: Decoder<'a>,
    infos: InstructionInfoFactory,
    /// Looked for when a function first asks.
    far_targets: OnceCell<FarTargets>,
    /// Instructions that may still be looked at in the whole gap.
    looks: usize,
}

impl<'a> Reader<'a> {
    pub fn new(code: &'a [u8], address: u64, looks: usize) -> Self {
        Self {
            code,
            address,
            decoder: Decoder::with_ip(64, code, address, DecoderOptions::NONE),
            infos: InstructionInfoFactory::new(),
            far_targets: OnceCell::new(),
            looks,
        }
    }

    /// Where the gap's calls and long jumps lead.
    pub fn far_targets(&self) -> &FarTargets {
        self.far_targets.get_or_init(|| FarTargets::of(self.code))
    }

    /// The instruction at a place in the gap; none when there were too many.
    pub fn read(&mut self, at: u32) -> Option<Instruction> {
        self.looks = self.looks.checked_sub(1)?;
        self.decoder.set_position(at as usize).ok()?;
        self.decoder
            .set_ip(self.address.wrapping_add(u64::from(at)));
        let instruction = self.decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// The place in the gap of an address.
    pub fn place(&self, address: u64) -> Option<u32> {
        let at = address.checked_sub(self.address)?;
        (at < self.code.len() as u64).then_some(at as u32)
    }

    /// The function that starts at a place, if all of it agrees; and in any
    /// case functions in the gap that it calls.
    pub fn function(&mut self, start: u32, known: &Known) -> (Option<Function>, Vec<u32>) {
        let whole = Instructions::new();
        let mut attempt = Attempt::new(start, known, &whole, MAX_LOOKS);
        let followed = attempt.follow(self, start, Frame::AT_ENTRY);
        let mut calls = attempt.calls;
        if followed.is_none() {
            return (None, calls);
        }
        let mut doubtful = attempt.doubtful;
        let mut looks = attempt.looks;
        let mut function = attempt.function;
        let mut order = attempt.order;
        function.proved &= order.aligned;
        while let Some((at, frame)) = doubtful.pop() {
            let mut more = Attempt::new(start, known, &function.reached, looks);
            let followed = more.follow(self, at, frame);
            looks = more.looks;
            if followed.is_some() && (more.led_back || more.function.proved) {
                calls.append(&mut more.calls);
                doubtful.append(&mut more.doubtful);
                order.aligned &= more.order.aligned;
                order.jumps_blindly |= more.order.jumps_blindly;
                let mut reached = more.function.reached;
                function.reached.append(&mut reached);
            }
        }
        function.reached = certain(self, start, &function.reached, order);
        let mut end = 0;
        let in_order = function.reached.iter().all(|(at, reached)| {
            let in_order = *at >= end;
            end = at + reached.bytes;
            in_order
        });
        (in_order.then_some(function), calls)
    }
}

/// One way through a function, from one place to all ends.
struct Attempt<'f> {
    start: u32,
    known: &'f Known,
    /// What is the function's already.
    before: &'f Instructions,
    function: Function,
    /// Functions in the gap that it calls, or passes on for others to.
    calls: Vec<u32>,
    /// It came to what is the function's already, with a frame that agrees.
    led_back: bool,
    /// Behind calls that may not return: it may be another function's code.
    doubtful: Vec<(u32, Frame)>,
    ahead: Vec<(u32, Frame)>,
    order: Order,
    /// The instruction that is looked at.
    at: u32,
    looks: usize,
}

impl<'f> Attempt<'f> {
    fn new(start: u32, known: &'f Known, before: &'f Instructions, looks: usize) -> Self {
        Self {
            start,
            known,
            before,
            function: Function::default(),
            calls: Vec::new(),
            led_back: false,
            doubtful: Vec::new(),
            ahead: Vec::new(),
            order: Order {
                aligned: true,
                jumps_blindly: false,
            },
            at: start,
            looks,
        }
    }

    fn follow(&mut self, reader: &mut Reader<'_>, at: u32, frame: Frame) -> Option<()> {
        self.ahead.push((at, frame));
        while let Some((at, frame)) = self.ahead.pop() {
            if let Some(there) = self.before.get(&at) {
                // Nothing that was believed before is taken back.
                if there.frame.meet(frame) != there.frame {
                    return None;
                }
                self.led_back = true;
                continue;
            }
            let frame = match self.function.reached.get(&at) {
                None => frame,
                Some(there) if there.frame.meet(frame) == there.frame => continue,
                Some(there) => there.frame.meet(frame),
            };
            self.looks = self.looks.checked_sub(1)?;
            self.look(reader, at, frame)?;
        }
        Some(())
    }

    /// One instruction, and where it leads.
    fn look(&mut self, reader: &mut Reader<'_>, at: u32, frame: Frame) -> Option<()> {
        frame.rule()?;
        let rest = reader.code.get(at as usize..)?;
        if let (Some(Landmark::Trampoline), _) = landmark(Machine::X86_64, rest) {
            return None;
        }
        let instruction = reader.read(at)?;
        let bytes = instruction.len() as u32;
        let next = at + bytes;
        let reached = Reached {
            frame,
            bytes,
            next: [None; 2],
            returned_to: None,
            leaves: false,
            calls_aligned: false,
        };
        let first = self.function.reached.insert(at, reached).is_none();
        self.at = at;
        match instruction.flow_control() {
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Hlt => Some(()),
            FlowControl::Next => {
                if first && instruction.mnemonic() == Mnemonic::Lea {
                    self.calls.extend(address_taken(reader, &instruction));
                }
                let after = frame.after(&instruction, &mut reader.infos)?;
                self.fall(reader, next, after)
            }
            FlowControl::ConditionalBranch => {
                self.jump(reader, &instruction, frame)?;
                self.fall(reader, next, frame)
            }
            FlowControl::UnconditionalBranch => self.jump(reader, &instruction, frame),
            FlowControl::IndirectBranch => {
                self.order.jumps_blindly = true;
                frame.is_left().then_some(())
            }
            FlowControl::Return => {
                let returns = instruction.code() == Code::Retnq && frame.is_left();
                if returns {
                    self.leaves();
                }
                returns.then_some(())
            }
            FlowControl::Call | FlowControl::IndirectCall => {
                match instruction.code() {
                    Code::Call_rel32_64 => {
                        let target = instruction.near_branch_target();
                        // Code that asks where it is leaves a word on the stack.
                        if target == instruction.next_ip() {
                            return None;
                        }
                        if first {
                            self.calls.extend(reader.place(target));
                        }
                    }
                    Code::Call_rm64 | Code::Syscall => {}
                    _ => return None,
                }
                if instruction.code() != Code::Syscall {
                    self.calls(frame.is_aligned());
                }
                let after = frame.after(&instruction, &mut reader.infos)?;
                self.fall_behind_call(reader, next, after);
                Some(())
            }
            FlowControl::Interrupt if instruction.mnemonic() == Mnemonic::Int3 => Some(()),
            FlowControl::Exception => Some(()),
            FlowControl::Interrupt | FlowControl::XbeginXabortXend => None,
        }
    }

    /// Another function, with the stack aligned if that is known.
    fn calls(&mut self, aligned: Option<bool>) {
        self.order.aligned &= aligned != Some(false);
        if let Some(there) = self.function.reached.get_mut(&self.at) {
            there.calls_aligned = aligned == Some(true);
        }
    }

    fn leaves(&mut self) {
        self.function.proved = true;
        if let Some(there) = self.function.reached.get_mut(&self.at) {
            there.leaves = true;
        }
    }

    /// Goes on there, whatever happens.
    fn go_on(&mut self, way: usize, at: u32, frame: Frame) {
        self.ahead.push((at, frame));
        if let Some(there) = self.function.reached.get_mut(&self.at) {
            there.next[way] = Some(at);
        }
    }

    /// Goes on behind a call.
    fn may_go_on(&mut self, at: u32) {
        if let Some(there) = self.function.reached.get_mut(&self.at) {
            there.returned_to = Some(at);
        }
    }

    fn is_elsewhere(&self, at: u32) -> bool {
        at != self.start && (self.known.starts.contains(&at) || self.known.is_claimed(at))
    }

    fn jump(&mut self, reader: &Reader<'_>, instruction: &Instruction, frame: Frame) -> Option<()> {
        match reader.place(instruction.near_branch_target()) {
            Some(at) if !self.is_elsewhere(at) => self.go_on(1, at, frame),
            place => {
                if !frame.is_left() {
                    return None;
                }
                if place.is_some_and(|at| self.known.starts.contains(&at)) {
                    self.leaves();
                }
            }
        }
        Some(())
    }

    fn fall(&mut self, reader: &Reader<'_>, next: u32, frame: Frame) -> Option<()> {
        if next as usize >= reader.code.len() {
            return None;
        }
        if self.is_elsewhere(next) {
            return frame.is_left().then_some(());
        }
        self.go_on(0, next, frame);
        Some(())
    }

    /// Calls may be the last thing that a function does.
    fn fall_behind_call(&mut self, reader: &Reader<'_>, next: u32, frame: Frame) {
        let rest = reader.code.get(next as usize..).unwrap_or_default();
        let window = &rest[..rest.len().min(MAX_PADDING_BYTES)];
        let padding = padding_bytes(Machine::X86_64, window);
        let there = next + padding as u32;
        if there as usize >= reader.code.len() || self.is_elsewhere(there) {
            return;
        }
        let aligned = (reader.address + u64::from(there)).is_multiple_of(ALIGNMENT);
        if padding > 0 && aligned {
            self.doubtful.push((next, frame));
            self.may_go_on(next);
        } else if !self.is_elsewhere(next) {
            self.ahead.push((next, frame));
            self.may_go_on(next);
        }
    }
}

/// A function in the gap whose address an instruction takes: code that it names
/// and that is aligned as functions are.
fn address_taken(reader: &Reader<'_>, instruction: &Instruction) -> Option<u32> {
    let address = instruction
        .is_ip_rel_memory_operand()
        .then(|| instruction.ip_rel_memory_address())
        .filter(|address| address.is_multiple_of(ALIGNMENT))?;
    reader.place(address)
}
