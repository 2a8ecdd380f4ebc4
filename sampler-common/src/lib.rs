//! The words that the eBPF programs and user space share.
//!
//! Everything here is plain data with a fixed layout, or a pure function over
//! it, so that the same source runs inside the kernel and in a test. Sizes are
//! pinned by tests: both sides map the same memory.
#![no_std]
#![allow(
    clippy::inline_always,
    reason = "in the kernel a call costs registers that the verifier tracks"
)]

mod copy;
mod cpu;
mod departure;
mod ending;
mod hash;
mod maple;
mod outcome;
mod place;
mod region;
mod rule_cache;
mod settings;
pub mod unwind;
mod walk;

pub use copy::{
    COPY_CHUNK_WORDS, COPY_HEADER_WORDS, COPY_PIECE_BYTES, CopyChunk, MAX_COPY_BYTES, StackCopy,
};
pub use cpu::{CpuState, WALK_MAPPINGS, WALKING, WINDOW_WORDS, WalkMapping, WalkState};
pub use departure::{Departed, Departure, departure_slot, departure_slots};
pub use ending::Ending;
pub use hash::StackHash;
pub use maple::{
    ALLOCATION_END_AT, ALLOCATION_SLOTS_AT, LEVELS, NODE_WORDS, NodeReference, RANGE_SLOTS_AT,
};
pub use outcome::Outcome;
pub use place::{CHUNK_WORDS, PLACE_PROBES, PLACE_SEGMENTS, PLACES, TablePlace, place_slot};
pub use region::{
    ARENA_SLACK_WORDS, ARENA_WORDS, COUNTS, Count, Full, NO_STACK, Region, RegionWriter,
    STACK_HEADER_WORDS, STACK_INDEX, THREADS, Thread, ThreadKey, stack_header, stack_header_parts,
};
pub use rule_cache::{RULE_INDEX, RULE_RING, RuleCache, RuleKey, space_number};
pub use settings::{Limits, MemoryLayout, RegisterLayout, ScopeKind, Settings, TaskLayout};
pub use walk::{FrameWalk, Memory, Step};

/// The most user frames that a stack trace may hold.
pub const MAX_USER_FRAMES: u32 = 1024;

/// The most kernel frames that a stack trace may hold: one less than the
/// kernel's own default for `kernel.perf_event_max_stack`, since one more is
/// asked for to tell a deep stack from one that just fits.
pub const MAX_KERNEL_FRAMES: u32 = 126;

/// Length of a task's `comm`, its terminating zero included (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;
