//! A frame while its function runs, and what each instruction does to it.

use iced_x86::{
    Code, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind,
    Register,
};
use sampler_common::unwind::PackedRule;
use sampler_common::unwind::x86_64::{Base, Rule, Saved};

/// Bytes of a word of the stack.
const WORD: u32 = 8;
/// `rbp` is this far below the CFA when it is a frame pointer.
const FRAME_POINTER: u32 = 16;

/// What `rbp` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rbp {
    /// What the caller had in it.
    Callers,
    /// An address so many bytes below the CFA.
    BelowCfa(u32),
    /// Anything.
    Other,
}

/// Where the stack pointer and the caller's `rbp` are, in bytes below the CFA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// CFA - rsp, if that is known.
    depth: Option<u32>,
    rbp: Rbp,
    /// CFA - the slot that holds the caller's `rbp`, if there is one.
    saved: Option<u32>,
}

impl Frame {
    /// At a function's first instruction: the return address is on top.
    pub const AT_ENTRY: Self = Self {
        depth: Some(WORD),
        rbp: Rbp::Callers,
        saved: None,
    };

    /// Whether another function can run in its place, or its caller go on.
    pub fn is_left(self) -> bool {
        self.depth == Some(WORD) && self.rbp == Rbp::Callers
    }

    /// Whether the stack is aligned as the ABI asks at a call, if that is known.
    pub fn is_aligned(self) -> Option<bool> {
        self.depth.map(|depth| depth.is_multiple_of(2 * WORD))
    }

    /// What holds whichever of two ways led here.
    pub fn meet(self, other: Self) -> Self {
        Self {
            depth: self.depth.filter(|_| self.depth == other.depth),
            rbp: if self.rbp == other.rbp {
                self.rbp
            } else {
                Rbp::Other
            },
            saved: self.saved.filter(|_| self.saved == other.saved),
        }
    }

    /// The rule to its caller, if one says it.
    pub fn rule(self) -> Option<PackedRule> {
        let words = |bytes: u32| bytes.is_multiple_of(WORD).then_some(bytes / WORD);
        let saved = match (self.saved, self.rbp) {
            (Some(slot), _) => Saved::BelowCfa(u8::try_from(words(slot)?).ok()?),
            (None, Rbp::Callers) => Saved::Unchanged,
            (None, _) => return None,
        };
        // As compilers do: by the frame pointer where there is one.
        let (base, below) = match (self.depth, self.rbp) {
            (_, Rbp::BelowCfa(FRAME_POINTER)) => (Base::FramePointer, FRAME_POINTER),
            (Some(depth), _) => (Base::StackPointer, depth),
            (None, Rbp::BelowCfa(below)) => (Base::FramePointer, below),
            (None, _) => return None,
        };
        Rule::Offset {
            base,
            cfa_words: words(below)?,
            saved,
        }
        .pack()
    }

    /// The frame after an instruction that does not branch, or that calls;
    /// nothing if what it does cannot be told.
    pub fn after(
        mut self,
        instruction: &Instruction,
        infos: &mut InstructionInfoFactory,
    ) -> Option<Self> {
        match instruction.mnemonic() {
            Mnemonic::Call | Mnemonic::Syscall => self.call(),
            Mnemonic::Push | Mnemonic::Pushfq => self.push(instruction)?,
            Mnemonic::Pop | Mnemonic::Popfq => self.pop(instruction)?,
            Mnemonic::Leave => self.leave(instruction)?,
            _ if instruction.is_stack_instruction() => return None,
            _ => self.other(instruction, infos)?,
        }
        Some(self)
    }

    /// What lies below the stack pointer is the callee's.
    fn call(&mut self) {
        if let (Some(saved), Some(depth)) = (self.saved, self.depth)
            && saved > depth
        {
            self.saved = None;
        }
    }

    fn push(&mut self, instruction: &Instruction) -> Option<()> {
        if instruction.stack_pointer_increment() != -(WORD as i32) {
            return None;
        }
        let Some(depth) = self.depth else {
            return Some(());
        };
        let slot = depth.checked_add(WORD)?;
        self.depth = Some(slot);
        let callers = instruction.op0_register() == Register::RBP && self.rbp == Rbp::Callers;
        self.store(slot, WORD, callers)
    }

    fn pop(&mut self, instruction: &Instruction) -> Option<()> {
        if instruction.stack_pointer_increment() != WORD as i32 {
            return None;
        }
        let into = (instruction.op_count() > 0).then(|| instruction.op0_kind());
        if into == Some(OpKind::Memory) || instruction.op0_register() == Register::RSP {
            return None;
        }
        if instruction.op0_register() == Register::RBP {
            self.load(self.depth);
        }
        match self.depth {
            Some(depth) => self.rise(depth.checked_sub(WORD)?),
            None => Some(()),
        }
    }

    /// mov rsp, rbp; pop rbp
    fn leave(&mut self, instruction: &Instruction) -> Option<()> {
        let Rbp::BelowCfa(below) = self.rbp else {
            return None;
        };
        if instruction.code() != Code::Leaveq {
            return None;
        }
        self.load(Some(below));
        self.rise(below.checked_sub(WORD)?)
    }

    fn other(
        &mut self,
        instruction: &Instruction,
        infos: &mut InstructionInfoFactory,
    ) -> Option<()> {
        if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory {
            self.written(instruction)?;
        }
        let to_stack_pointer = writes(instruction, Register::RSP, infos);
        let to_frame_pointer = writes(instruction, Register::RBP, infos);
        if !to_stack_pointer && !to_frame_pointer {
            return Some(());
        }
        let target = instruction.op0_register();
        let value = self.value(instruction);
        if to_frame_pointer {
            let reads = instruction.code() == Code::Mov_r64_rm64
                && instruction.op1_kind() == OpKind::Memory;
            if reads && target == Register::RBP {
                self.load(self.place(instruction));
            } else {
                let value = value.filter(|_| target == Register::RBP);
                self.rbp = value.map_or(Rbp::Other, Rbp::BelowCfa);
            }
        }
        if to_stack_pointer {
            match value.filter(|_| target == Register::RSP) {
                Some(depth) => self.rise(depth)?,
                None => self.depth = None,
            }
        }
        Some(())
    }

    /// What an instruction computes, if that is an address in the frame: how
    /// far below the CFA it is.
    fn value(&self, instruction: &Instruction) -> Option<u32> {
        match instruction.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64
                if instruction.op0_kind() == OpKind::Register
                    && instruction.op1_kind() == OpKind::Register =>
            {
                self.register(instruction.op1_register())
            }
            Code::Lea_r64_m => self.place(instruction),
            Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 => {
                let below = self.register(instruction.op0_register())?;
                moved(below, instruction.immediate(1) as i64)
            }
            Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 => {
                let below = self.register(instruction.op0_register())?;
                moved(below, (instruction.immediate(1) as i64).checked_neg()?)
            }
            _ => None,
        }
    }

    fn register(&self, register: Register) -> Option<u32> {
        match (register, self.rbp) {
            (Register::RSP, _) => self.depth,
            (Register::RBP, Rbp::BelowCfa(below)) => Some(below),
            _ => None,
        }
    }

    /// Where the memory operand is, counted from the CFA downwards.
    fn place(&self, instruction: &Instruction) -> Option<u32> {
        if instruction.memory_index() != Register::None
            || instruction.segment_prefix() != Register::None
        {
            return None;
        }
        let below = self.register(instruction.memory_base())?;
        moved(below, instruction.memory_displacement64() as i64)
    }

    /// The memory operand may be written to.
    fn written(&mut self, instruction: &Instruction) -> Option<()> {
        let Some(place) = self.place(instruction) else {
            return Some(());
        };
        let callers = instruction.code() == Code::Mov_rm64_r64
            && instruction.op1_register() == Register::RBP
            && self.rbp == Rbp::Callers;
        let bytes = instruction.memory_size().size() as u32;
        self.store(place, bytes.max(1), callers)
    }

    /// Bytes from a place upwards are written, perhaps with the caller's `rbp`.
    /// The return address is not for functions to change.
    fn store(&mut self, place: u32, bytes: u32, callers_rbp: bool) -> Option<()> {
        let end = i64::from(place) - i64::from(bytes);
        let overlaps = |slot: u32| end < i64::from(slot) && place > slot - WORD;
        if overlaps(WORD) {
            return None;
        }
        if self.saved.is_some_and(overlaps) && !callers_rbp {
            self.saved = None;
        }
        if callers_rbp && self.saved.is_none() {
            self.saved = Some(place);
        }
        Some(())
    }

    /// `rbp` is loaded from a place.
    fn load(&mut self, place: Option<u32>) {
        self.rbp = if place.is_some() && place == self.saved {
            Rbp::Callers
        } else {
            Rbp::Other
        };
    }

    /// The stack pointer is put somewhere known, and what is below it forgotten.
    fn rise(&mut self, depth: u32) -> Option<()> {
        if depth < WORD {
            return None;
        }
        if self.depth.is_none_or(|before| depth < before)
            && self.saved.is_some_and(|saved| saved > depth)
        {
            self.saved = None;
        }
        self.depth = Some(depth);
        Some(())
    }
}

/// Whether an instruction that is none of the stack's writes to a register, or
/// to a part of it.
fn writes(
    instruction: &Instruction,
    register: Register,
    infos: &mut InstructionInfoFactory,
) -> bool {
    // Quickly: to write to one of these two, an instruction has to name it.
    let named = (0..instruction.op_count())
        .any(|operand| instruction.op_register(operand).full_register() == register);
    named
        && infos
            .info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE)
            .used_registers()
            .iter()
            .any(|used| {
                used.register().full_register() == register
                    && matches!(
                        used.access(),
                        OpAccess::Write
                            | OpAccess::CondWrite
                            | OpAccess::ReadWrite
                            | OpAccess::ReadCondWrite
                    )
            })
}

/// A place so many bytes further up.
fn moved(below: u32, upwards: i64) -> Option<u32> {
    u32::try_from(i64::from(below).checked_sub(upwards)?).ok()
}
