//! What one CPU writes beside its tables: its sequence number and its ledger.

use crate::{MAX_KERNEL_FRAMES, Outcome};

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
    /// Where the kernel stack of an idle CPU is looked at.
    pub scratch: [u64; MAX_KERNEL_FRAMES as usize + 1],
}
