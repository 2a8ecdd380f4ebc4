//! How one half of a stack trace, user or kernel, came to its end.

/// Why a walk stopped where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ending {
    /// The outermost frame was reached: a row that says so, a zero frame
    /// pointer, which the ABI prescribes there, or the end of the kernel's
    /// stack.
    Complete = 0,
    /// User stack: as many frames as allowed were taken, and more were there.
    DepthLimit = 1,
    /// User stack: the memory that should hold the next frame cannot be read.
    UnreadableStack = 2,
    /// User stack: the chain of frame pointers does not lead outwards, or a
    /// return address is zero.
    BrokenChain = 3,
    /// Kernel stack: as many frames as allowed were taken, and more were there.
    KernelDepthLimit = 4,
    /// Kernel stack: the kernel would not give it.
    KernelStackUnavailable = 5,
    /// User stack: a return address lies in no executable mapping, so it is
    /// none. Only user space can tell.
    UnmappedAddress = 6,
    /// User stack: a frame lies in a file whose unwind table is not there. Only
    /// user space can tell.
    TableMissing = 7,
    /// User stack: the file's own unwind information for a frame cannot be
    /// expressed, or needs a register that is lost by then.
    UnsupportedRule = 8,
    /// User stack: by the rule for a frame its caller would not lie outside it.
    NotOutwards = 9,
    /// User stack: its copy ends before the stack does.
    CopyTooShort = 10,
    /// User stack: it had to be copied, and the CPU had no room for copies.
    CopiesFull = 11,
}

impl Ending {
    /// Every way for a stack to be incomplete, in order.
    pub const TRUNCATED: [Self; 11] = [
        Self::DepthLimit,
        Self::UnreadableStack,
        Self::BrokenChain,
        Self::KernelDepthLimit,
        Self::KernelStackUnavailable,
        Self::UnmappedAddress,
        Self::TableMissing,
        Self::UnsupportedRule,
        Self::NotOutwards,
        Self::CopyTooShort,
        Self::CopiesFull,
    ];

    /// The name under which reports show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::DepthLimit => "depth_limit",
            Self::UnreadableStack => "unreadable_stack",
            Self::BrokenChain => "broken_chain",
            Self::KernelDepthLimit => "kernel_depth_limit",
            Self::KernelStackUnavailable => "kernel_stack_unavailable",
            Self::UnmappedAddress => "unmapped_address",
            Self::TableMissing => "table_missing",
            Self::UnsupportedRule => "unsupported_rule",
            Self::NotOutwards => "not_outwards",
            Self::CopyTooShort => "copy_too_short",
            Self::CopiesFull => "copies_full",
        }
    }

    /// The ending with this number; `None` for a number that is none.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Complete,
            1 => Self::DepthLimit,
            2 => Self::UnreadableStack,
            3 => Self::BrokenChain,
            4 => Self::KernelDepthLimit,
            5 => Self::KernelStackUnavailable,
            6 => Self::UnmappedAddress,
            7 => Self::TableMissing,
            8 => Self::UnsupportedRule,
            9 => Self::NotOutwards,
            10 => Self::CopyTooShort,
            11 => Self::CopiesFull,
            _ => return None,
        })
    }
}
