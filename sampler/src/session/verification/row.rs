//! What a file's call frame information says of one address, and whether
//! framehop can do it.
//!
//! framehop falls back to frame pointers where it cannot, and does not tell. So
//! its answer counts only where a look at the same row says that it can: what
//! it knows of a frame is `rip`, `rsp` and `rbp`, and its expressions read no
//! memory.

use gimli::{
    BaseAddresses, CfaRule, EndianSlice, FrameDescriptionEntry, LittleEndian, Operation,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow, X86_64,
};

pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Why framehop cannot walk a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incapable {
    /// The program is a 32-bit one.
    Narrow,
    /// The code belongs to no file that is held.
    NoFile,
    /// The file does not describe the code.
    Undescribed,
    /// The code is a signal's trampoline.
    Signal,
    /// The row counts from a register that framehop does not follow.
    Register,
    /// The row reads memory to find the frame.
    Memory,
    /// The row does not say that the return address lies below the frame.
    ReturnAddress,
    /// The row says that the caller's stack pointer is elsewhere.
    StackPointer,
    /// The row cannot be read.
    Malformed,
    /// framehop finds the frame impossible, where the kernel's side found the
    /// end of the stack.
    Refused,
}

impl Incapable {
    /// The name under which reports show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Narrow => "32-bit program",
            Self::NoFile => "code of no file",
            Self::Undescribed => "no call frame information",
            Self::Signal => "signal frame",
            Self::Register => "another register",
            Self::Memory => "frame found in memory",
            Self::ReturnAddress => "return address elsewhere",
            Self::StackPointer => "stack pointer elsewhere",
            Self::Malformed => "malformed row",
            Self::Refused => "refused",
        }
    }
}

/// Takes the row for an address from the entry at an offset.
pub(super) fn look<'a, S: UnwindSection<Slice<'a>>, V: Visitor>(
    section: &S,
    bases: &BaseAddresses,
    at: S::Offset,
    address: u64,
    visitor: &mut V,
) -> Result<V::Output, Incapable> {
    let entry = section
        .fde_from_offset(bases, at, S::cie_from_offset)
        .map_err(|_| Incapable::Malformed)?;
    if !entry.contains(address) {
        return Err(Incapable::Undescribed);
    }
    let mut context = UnwindContext::new();
    let row = entry
        .unwind_info_for_address(section, bases, &mut context, address)
        .map_err(|_| Incapable::Malformed)?;
    visitor.visit(section, &entry, row)
}

/// What is done with a row.
pub(super) trait Visitor {
    type Output;

    fn visit<'a, S: UnwindSection<Slice<'a>>>(
        &mut self,
        section: &S,
        entry: &FrameDescriptionEntry<Slice<'a>>,
        row: &UnwindTableRow<usize>,
    ) -> Result<Self::Output, Incapable>;
}

/// Says whether framehop can do what a row says.
pub(super) struct Judge;

/// Says what a row says.
pub(super) struct Describe;

/// Whether framehop follows a register.
fn is_followed(register: gimli::Register) -> bool {
    matches!(register, X86_64::RA | X86_64::RSP | X86_64::RBP)
}

/// Whether framehop can compute an expression.
fn computes<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
    encoding: gimli::Encoding,
) -> Result<(), Incapable> {
    let expression = expression.get(section).map_err(|_| Incapable::Malformed)?;
    let mut operations = expression.operations(encoding);
    loop {
        match operations.next() {
            Ok(None) => return Ok(()),
            Ok(Some(Operation::Deref { .. })) => return Err(Incapable::Memory),
            Ok(Some(Operation::RegisterOffset { register, .. })) if !is_followed(register) => {
                return Err(Incapable::Register);
            }
            Ok(Some(_)) => {}
            Err(_) => return Err(Incapable::Malformed),
        }
    }
}

impl Visitor for Judge {
    type Output = ();

    fn visit<'a, S: UnwindSection<Slice<'a>>>(
        &mut self,
        section: &S,
        entry: &FrameDescriptionEntry<Slice<'a>>,
        row: &UnwindTableRow<usize>,
    ) -> Result<(), Incapable> {
        if entry.is_signal_trampoline() {
            return Err(Incapable::Signal);
        }
        let encoding = entry.cie().encoding();
        match row.register(X86_64::RA) {
            Some(RegisterRule::Undefined) => return Ok(()),
            Some(RegisterRule::Offset(_)) => {}
            Some(RegisterRule::Register(register)) if is_followed(register) => {}
            _ => return Err(Incapable::ReturnAddress),
        }
        if !matches!(
            row.register(X86_64::RSP),
            None | Some(RegisterRule::ValOffset(0))
        ) {
            return Err(Incapable::StackPointer);
        }
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, .. } if is_followed(*register) => {}
            CfaRule::RegisterAndOffset { .. } => return Err(Incapable::Register),
            CfaRule::Expression(expression) => computes(section, expression, encoding)?,
        }
        match row.register(X86_64::RBP) {
            Some(RegisterRule::Register(register)) if !is_followed(register) => {
                Err(Incapable::Register)
            }
            Some(
                RegisterRule::Expression(expression) | RegisterRule::ValExpression(expression),
            ) => computes(section, &expression, encoding),
            _ => Ok(()),
        }
    }
}

impl Visitor for Describe {
    type Output = String;

    fn visit<'a, S: UnwindSection<Slice<'a>>>(
        &mut self,
        _: &S,
        entry: &FrameDescriptionEntry<Slice<'a>>,
        row: &UnwindTableRow<usize>,
    ) -> Result<String, Incapable> {
        Ok(format!(
            "{:#x}..{:#x} of {:#x}..{:#x}: CFA {:?}, rbp {:?}, return address {:?}",
            row.start_address(),
            row.end_address(),
            entry.initial_address(),
            entry.end_address(),
            row.cfa(),
            row.register(X86_64::RBP),
            row.register(X86_64::RA),
        ))
    }
}
