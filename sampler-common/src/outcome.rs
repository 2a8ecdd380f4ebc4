//! What became of one tick.

/// Every tick of the sampling timer ends in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Its stack trace was counted.
    Counted = 0,
    /// The CPU was in the idle loop and nowhere else.
    Idle = 1,
    /// What ran there is not what the recording asked for.
    OutOfScope = 2,
    /// Lost: the CPU's table of threads was full.
    ThreadsFull = 3,
    /// Lost: the CPU's table of stack traces was full.
    StacksFull = 4,
    /// Lost: the CPU's table of counts was full.
    CountsFull = 5,
    /// Lost: the CPU has no tables at all.
    NoRegion = 6,
}

impl Outcome {
    /// How many outcomes there are.
    pub const COUNT: usize = 7;

    /// The outcomes that are losses, in order.
    pub const LOST: [Self; 4] = [
        Self::ThreadsFull,
        Self::StacksFull,
        Self::CountsFull,
        Self::NoRegion,
    ];

    /// The name under which the ledger shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Idle => "idle",
            Self::OutOfScope => "out_of_scope",
            Self::ThreadsFull => "threads_full",
            Self::StacksFull => "stacks_full",
            Self::CountsFull => "counts_full",
            Self::NoRegion => "no_region",
        }
    }
}
