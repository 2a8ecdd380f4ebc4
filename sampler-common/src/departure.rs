//! Where a task was in user code when it gave up its memory.
//!
//! An exit and an exec throw the old memory away, which takes a while, and the
//! ticks of that while find no stack to walk. So the stack that led there is
//! walked just before, and kept for them.

use crate::{MAX_USER_FRAMES, StackHash};

/// Slots that are there at least. A power of two.
const MIN_SLOTS: u32 = 64;
/// Slots for each CPU: as many tasks may sleep in their exit as run in it.
const SLOTS_PER_CPU: u32 = 4;

/// What a task was when it gave up its memory.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Departed {
    /// `CLOCK_MONOTONIC` of the walk.
    pub time_ns: u64,
    /// Which of its programs it ran.
    pub exec_id: u64,
    /// The thread's name.
    pub comm: [u64; 2],
    /// Its leader's name.
    pub process_comm: [u64; 2],
}

/// The last user half of a task. Tasks share slots: the last one has it.
#[repr(C)]
pub struct Departure {
    /// Address of the `task_struct`; 0 for none, 1 while the rest is being written.
    pub task: u64,
    /// When the thread started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_boottime_ns: u64,
    /// Address of the `mm_struct` that it leaves.
    pub memory: u64,
    /// What it was.
    pub departed: Departed,
    /// Of the frames.
    pub hash: StackHash,
    /// How many they are.
    pub length: u32,
    /// An [`Ending`](crate::Ending).
    pub ending: u32,
    /// Innermost first.
    pub frames: [u64; MAX_USER_FRAMES as usize],
}

/// How many slots a host with this many CPUs gets: a power of two.
pub const fn departure_slots(cpus: u32) -> u32 {
    let wanted = cpus.saturating_mul(SLOTS_PER_CPU);
    if wanted <= MIN_SLOTS {
        MIN_SLOTS
    } else if wanted >= 1 << 16 {
        1 << 16
    } else {
        wanted.next_power_of_two()
    }
}

/// The slot of the task at this address.
#[inline(always)]
pub const fn departure_slot(task: u64, slots: u32) -> u32 {
    (task.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 & slots.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_a_power_of_two() {
        for (cpus, slots) in [
            (1, 64),
            (16, 64),
            (17, 128),
            (128, 512),
            (u32::MAX, 1 << 16),
        ] {
            assert_eq!(departure_slots(cpus), slots, "{cpus}");
        }
    }

    #[test]
    fn tasks_spread_over_the_slots() {
        // Structures of the same cache lie at equal distances.
        let tasks = (0..64).map(|index| 0xffff_8880_0123_0000 + index * 0x2a40);
        let mut used = [false; 64];
        for task in tasks {
            used[departure_slot(task, 64) as usize] = true;
        }
        assert!(used.iter().filter(|used| **used).count() > 32);
    }

    #[test]
    fn the_layout_is_pinned() {
        assert_eq!(core::mem::offset_of!(Departure, frames), 96);
        assert_eq!(size_of::<Departure>(), 96 + 8 * MAX_USER_FRAMES as usize);
    }
}
