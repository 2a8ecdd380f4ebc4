//! What one CPU writes beside its tables: its sequence number and its ledger.

use crate::unwind::x86_64::Registers;
use crate::{
    COPY_PIECE_BYTES, Departed, FrameWalk, MAX_KERNEL_FRAMES, NODE_WORDS, Outcome, RuleCache,
    StackHash,
};

/// Words of the piece of a stack that a walk has at hand.
pub const WINDOW_WORDS: usize = COPY_PIECE_BYTES / 8;
/// Mappings that a walk remembers: a power of two.
pub const WALK_MAPPINGS: usize = 8;

/// One CPU's state: there is one for its ticks, and one for the
/// [departures](crate::Departure) on it, which ticks may interrupt. Only that CPU
/// writes it; user space reads it through a memory map.
#[repr(C, align(64))]
pub struct CpuState {
    /// Odd while a tick writes to a region, or while a departure is walked; even
    /// otherwise.
    pub sequence: u64,
    /// Ticks seen, counted before anything else is done.
    pub ticks: u64,
    /// Ticks by [`Outcome`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Ticks whose own running time was measured.
    pub clocked_ticks: u64,
    /// The running time of those ticks, in nanoseconds.
    pub clocked_ns: u64,
    /// When the current tick began, if its time is measured; 0 otherwise.
    pub clock_start_ns: u64,
    /// Children that should have come into scope but found its map full.
    pub scope_overflows: u64,
    /// Of the task that a tick met, if its memory is gone.
    pub departed: Departed,
    /// The walk of the current tick. It lies here and not on the program's
    /// stack, so that the verifier does not count the frames with it.
    pub walk: WalkState,
    /// The kernel stack of an idle CPU, then the registers of a user half.
    pub scratch: [u64; MAX_KERNEL_FRAMES as usize + 1],
    /// A node of a tree of mappings, then a mapping.
    pub node: [u64; NODE_WORDS],
    /// A piece of the stack that is walked.
    pub window: [u64; WINDOW_WORDS],
    /// The rules of the last walks.
    pub rules: RuleCache,
}

/// What the steps of a walk share.
#[repr(C)]
pub struct WalkState {
    /// Where a walk by frame pointers is.
    pub walk: FrameWalk,
    /// Where a walk by tables is.
    pub registers: Registers,
    /// The frames so far.
    pub hash: StackHash,
    /// How many they are.
    pub length: u32,
    /// An [`Ending`](crate::Ending), or [`WALKING`].
    pub ending: u32,
    /// The number of the address space; 0 if its rules cannot be cached.
    pub space: u64,
    /// Where the next frame's rule is expected in the cache.
    pub expected_rule: u32,
    /// 1 in the state of a CPU's departures, 0 in that of its ticks.
    pub departing: u32,
    /// The address of the window's first word.
    pub window_address: u64,
    /// Bytes that it holds.
    pub window_bytes: u64,
    /// Address of the kernel's `mm_struct`.
    pub memory: u64,
    /// How many mappings were found in this walk.
    pub mappings_found: u32,
    /// Zero.
    pub reserved_too: u32,
    /// Those found last.
    pub mappings: [WalkMapping; WALK_MAPPINGS],
    /// The mapping that cannot be walked here.
    pub unknown: WalkMapping,
}

/// An executable mapping, as the kernel has it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct WalkMapping {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// What to subtract from an address to get the file offset.
    pub bias: u64,
    /// The file, as a [`TablePlace`](crate::TablePlace) names it; 0 for none.
    pub file: u64,
    /// Position of its place; [`WalkMapping::FRAME_POINTER`] for code that is
    /// walked by frame pointers.
    pub place: u32,
    /// Zero.
    pub reserved: u32,
}

impl WalkMapping {
    /// There is no file: code made at run time.
    pub const FRAME_POINTER: u32 = u32::MAX;
}

/// An ending that no walk has: it goes on.
pub const WALKING: u32 = u32::MAX;
