//! Why a walk by tables cannot take another step.

/// What ended a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stop {
    /// The row says that nobody called this code: the outermost frame.
    EndOfStack = 0,
    /// Code without rows was reached with a frame pointer of zero, which the
    /// ABI prescribes in the outermost frame.
    EndOfChain = 1,
    /// The file's own unwind information cannot be put into a row.
    Unsupported = 2,
    /// The rule needs a register that only an interrupted frame has.
    RegisterLost = 3,
    /// The memory that should hold the next frame cannot be read.
    Unreadable = 4,
    /// The caller's frame would not lie outside this one: the row is wrong for
    /// what is on this stack.
    NotOutwards = 5,
    /// A row says where the return address is, and there it is zero: nobody
    /// called this code. The outermost frame, as runtimes that make stacks by
    /// hand mark it.
    ZeroReturnAddress = 6,
    /// What was guessed to be the return address, in code without rows or under
    /// a signal, is zero.
    BrokenChain = 7,
}
