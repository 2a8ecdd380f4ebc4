//! What one CPU writes beside its tables: its sequence number and its ledger.

use crate::unwind::x86_64::Registers;
use crate::{FrameWalk, MAX_KERNEL_FRAMES, Outcome, StackHash};

/// One CPU's state. Only that CPU writes it; user space reads it through a
/// memory map.
#[repr(C, align(64))]
pub struct CpuState {
    /// Odd while a tick writes to a region, even otherwise.
    pub sequence: u64,
    /// Ticks seen, counted before anything else is done.
    pub ticks: u64,
    /// Ticks by [`Outcome`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Ticks whose own running time was measured.
    pub clocked_ticks: u64,
    /// The running time of those ticks, in nanoseconds.
    pub clocked_ns: u64,
    /// Children that should have come into scope but found its map full.
    pub scope_overflows: u64,
    /// The walk of the current tick. It lies here and not on the program's
    /// stack, so that the verifier does not count the frames with it.
    pub walk: WalkState,
    /// The kernel stack of an idle CPU, then the registers of a user half.
    pub scratch: [u64; MAX_KERNEL_FRAMES as usize + 1],
}

/// What the steps of a walk share.
#[repr(C)]
pub struct WalkState {
    /// Where a walk by frame pointers is.
    pub walk: FrameWalk,
    /// Where a walk by tables is.
    pub registers: Registers,
    /// The mappings of the address space: the first, and how many.
    pub first_mapping: u32,
    /// How many.
    pub mappings: u32,
    /// The mapping that the last frame lay in.
    pub last_mapping: u32,
    /// Zero.
    pub reserved: u32,
    /// The frames so far.
    pub hash: StackHash,
    /// How many they are.
    pub length: u32,
    /// An [`Ending`](crate::Ending), or [`WALKING`].
    pub ending: u32,
}

/// An ending that no walk has: it goes on.
pub const WALKING: u32 = u32::MAX;
