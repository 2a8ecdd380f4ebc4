//! The tables that one CPU fills during one generation.
//!
//! A region has a single writer, the ticks of its CPU, which do not nest; user
//! space reads it only after the generation was flipped and the CPU has left
//! it. So nothing here is atomic. Three tables, each an array filled from the
//! front with an open hash index beside it:
//!
//! ```text
//! threads   who ran                      found by its key
//! arena     stack traces, back to back   found by the hash of their frames
//! counts    (thread, user stack, kernel stack) -> ticks
//! ```
//!
//! An index holds `position + 1`, so that zeroed memory is an empty region.

use crate::{Ending, MAX_USER_FRAMES, StackHash};

/// Threads in a region.
pub const THREADS: usize = 1024;
/// Counts in a region.
pub const COUNTS: usize = 2048;
/// Words of stack traces in a region.
pub const ARENA_WORDS: usize = 32 * 1024;
/// Words before the frames of a stack trace: two of hash, one of header.
pub const STACK_HEADER_WORDS: usize = 3;
/// Room behind the arena in which a stack trace is taken before it is known
/// whether it is new and whether it fits.
pub const ARENA_SLACK_WORDS: usize = MAX_USER_FRAMES as usize + 16;
/// Slots of the hash index of stack traces.
pub const STACK_INDEX: usize = 4096;
/// The reference to a stack trace that is not there.
pub const NO_STACK: u32 = 0;

const THREAD_INDEX: usize = 2 * THREADS;
const COUNT_INDEX: usize = 2 * COUNTS;
/// Slots that are looked at before a table counts as full.
const PROBES: u32 = 32;

/// What tells one thread from another, and one program that it ran from the
/// next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ThreadKey {
    /// Process ID in the upper half, thread ID in the lower, as the initial
    /// pid namespace numbers them.
    pub pid_tgid: u64,
    /// When the thread started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_boottime_ns: u64,
    /// Changes at each exec.
    pub exec_id: u64,
    /// The thread's name, zero-padded.
    pub comm: [u64; 2],
}

/// A thread that was sampled.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Thread {
    /// Who it is.
    pub key: ThreadKey,
    /// `CLOCK_MONOTONIC` of the first tick that met this key here.
    pub first_seen_ns: u64,
    /// When its process started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub process_start_boottime_ns: u64,
    /// The name of its thread-group leader, zero-padded.
    pub process_comm: [u64; 2],
    /// Process ID as the caller's pid namespace numbers it; 0 when the
    /// process cannot be seen from there.
    pub caller_pid: u32,
    /// Thread ID, likewise.
    pub caller_tid: u32,
    /// 1 if it has no user half at all: a kernel thread.
    pub kernel_thread: u32,
    /// Zero.
    pub reserved: u32,
}

/// How often a thread was met with a pair of stacks.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Count {
    /// Position in the table of threads.
    pub thread: u32,
    /// Reference to the user stack, or [`NO_STACK`].
    pub user_stack: u32,
    /// Reference to the kernel stack, or [`NO_STACK`].
    pub kernel_stack: u32,
    /// Zero.
    pub reserved: u32,
    /// Ticks.
    pub ticks: u64,
}

/// One CPU's tables for one generation.
#[repr(C, align(4096))]
pub struct Region {
    /// Threads in use.
    pub threads_used: u32,
    /// Counts in use.
    pub counts_used: u32,
    /// Words of the arena in use.
    pub words_used: u32,
    /// The chunk of copies that is being filled.
    pub copy_chunk: u32,
    thread_index: [u32; THREAD_INDEX],
    count_index: [u32; COUNT_INDEX],
    stack_index: [u32; STACK_INDEX],
    threads: [Thread; THREADS],
    counts: [Count; COUNTS],
    arena: [u64; ARENA_WORDS + ARENA_SLACK_WORDS],
}

/// A table that has no room for another entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The header word of a stack trace: its length and its ending.
#[inline(always)]
pub const fn stack_header(frames: u32, ending: Ending) -> u64 {
    frames as u64 | (ending as u64) << 32
}

/// Takes a header word apart.
pub const fn stack_header_parts(header: u64) -> (u32, Option<Ending>) {
    (header as u32, Ending::from_u8((header >> 32) as u8))
}

/// Writes to a region.
#[derive(Clone, Copy)]
pub struct RegionWriter {
    region: *mut Region,
}

impl RegionWriter {
    /// # Safety
    /// `region` points to a whole region that nobody else reads or writes
    /// while this writer is used.
    #[inline(always)]
    pub const unsafe fn new(region: *mut Region) -> Self {
        Self { region }
    }

    /// The position of the thread with this key. A new one is entered as
    /// `describe` makes it.
    #[inline(always)]
    pub fn thread(
        self,
        limit: u32,
        key: &ThreadKey,
        describe: impl FnOnce(*mut Thread),
    ) -> Result<u32, Full> {
        let region = self.region;
        let mixed = (key.pid_tgid ^ key.exec_id.rotate_left(40) ^ key.comm[0])
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let home = (mixed >> 32) as u32;
        let mut probe = 0;
        while probe < PROBES {
            let slot = (home.wrapping_add(probe) & (THREAD_INDEX as u32 - 1)) as usize;
            // SAFETY: `slot` and `position` are masked to the tables' sizes,
            // and the region is whole and ours (`new`).
            unsafe {
                let entry = (&raw mut (*region).thread_index).cast::<u32>().add(slot);
                let threads = (&raw mut (*region).threads).cast::<Thread>();
                if *entry == 0 {
                    let used = (*region).threads_used;
                    if used >= limit || used >= THREADS as u32 {
                        return Err(Full);
                    }
                    let thread = threads.add(used as usize);
                    (*thread).key.pid_tgid = key.pid_tgid;
                    (*thread).key.start_boottime_ns = key.start_boottime_ns;
                    (*thread).key.exec_id = key.exec_id;
                    (*thread).key.comm = key.comm;
                    describe(thread);
                    *entry = used + 1;
                    (*region).threads_used = used + 1;
                    return Ok(used);
                }
                let position = (*entry - 1) & (THREADS as u32 - 1);
                let known = &(*threads.add(position as usize)).key;
                if known.pid_tgid == key.pid_tgid
                    && known.start_boottime_ns == key.start_boottime_ns
                    && known.exec_id == key.exec_id
                    && known.comm[0] == key.comm[0]
                    && known.comm[1] == key.comm[1]
                {
                    return Ok(position);
                }
            }
            probe += 1;
        }
        Err(Full)
    }

    /// Where the frames of the next stack trace are to be written: room for
    /// [`MAX_USER_FRAMES`] of them.
    #[inline(always)]
    pub fn next_frames(self) -> Result<*mut u64, Full> {
        // SAFETY: the position is checked against the arena's size, behind
        // which the slack holds one stack trace of the greatest length.
        unsafe {
            let at = (*self.region).words_used;
            if at > ARENA_WORDS as u32 {
                return Err(Full);
            }
            let arena = (&raw mut (*self.region).arena).cast::<u64>();
            Ok(arena.add(at as usize + STACK_HEADER_WORDS))
        }
    }

    /// A reference to the stack trace whose frames were just written to
    /// [`Self::next_frames`]; to an equal one if there is one already.
    #[inline(always)]
    pub fn stack(
        self,
        limit: u32,
        hash: StackHash,
        frames: u32,
        ending: Ending,
    ) -> Result<u32, Full> {
        let region = self.region;
        let header = stack_header(frames, ending);
        let home = hash.slot();
        let mut probe = 0;
        while probe < PROBES {
            let slot = (home.wrapping_add(probe) & (STACK_INDEX as u32 - 1)) as usize;
            // SAFETY: `slot` is masked; `at` is checked against, and
            // `position` masked to, the arena, whose slack holds the header.
            unsafe {
                let entry = (&raw mut (*region).stack_index).cast::<u32>().add(slot);
                let arena = (&raw mut (*region).arena).cast::<u64>();
                if *entry == 0 {
                    let at = (*region).words_used;
                    let end = at
                        .wrapping_add(STACK_HEADER_WORDS as u32)
                        .wrapping_add(frames);
                    if at > ARENA_WORDS as u32 || end > limit || end > ARENA_WORDS as u32 {
                        return Err(Full);
                    }
                    let stack = arena.add(at as usize);
                    *stack = hash.low;
                    *stack.add(1) = hash.high;
                    *stack.add(2) = header;
                    *entry = at + 1;
                    (*region).words_used = end;
                    return Ok(at + 1);
                }
                let position = (*entry - 1) & (ARENA_WORDS as u32 - 1);
                let known = arena.add(position as usize);
                if *known == hash.low && *known.add(1) == hash.high && *known.add(2) == header {
                    return Ok(*entry);
                }
            }
            probe += 1;
        }
        Err(Full)
    }

    /// Counts one tick.
    #[inline(always)]
    pub fn count(
        self,
        limit: u32,
        thread: u32,
        user_stack: u32,
        kernel_stack: u32,
    ) -> Result<(), Full> {
        let region = self.region;
        let mixed = ((u64::from(user_stack) << 32 | u64::from(kernel_stack))
            ^ u64::from(thread).wrapping_mul(0x6a09_e667_f3bc_c909))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let home = (mixed >> 32) as u32;
        let mut probe = 0;
        while probe < PROBES {
            let slot = (home.wrapping_add(probe) & (COUNT_INDEX as u32 - 1)) as usize;
            // SAFETY: as in `thread`.
            unsafe {
                let entry = (&raw mut (*region).count_index).cast::<u32>().add(slot);
                let counts = (&raw mut (*region).counts).cast::<Count>();
                if *entry == 0 {
                    let used = (*region).counts_used;
                    if used >= limit || used >= COUNTS as u32 {
                        return Err(Full);
                    }
                    let count = counts.add(used as usize);
                    (*count).thread = thread;
                    (*count).user_stack = user_stack;
                    (*count).kernel_stack = kernel_stack;
                    (*count).ticks = 1;
                    *entry = used + 1;
                    (*region).counts_used = used + 1;
                    return Ok(());
                }
                let position = (*entry - 1) & (COUNTS as u32 - 1);
                let known = counts.add(position as usize);
                if (*known).thread == thread
                    && (*known).user_stack == user_stack
                    && (*known).kernel_stack == kernel_stack
                {
                    (*known).ticks += 1;
                    return Ok(());
                }
            }
            probe += 1;
        }
        Err(Full)
    }
}

#[cfg(feature = "user")]
impl Region {
    /// The threads of this generation.
    pub fn threads(&self) -> &[Thread] {
        &self.threads[..(self.threads_used as usize).min(THREADS)]
    }

    /// The counts of this generation.
    pub fn counts(&self) -> &[Count] {
        &self.counts[..(self.counts_used as usize).min(COUNTS)]
    }

    /// The frames, innermost first, and the ending of a stack trace; `None`
    /// for [`NO_STACK`] and for a reference that leads nowhere.
    pub fn stack(&self, reference: u32) -> Option<(&[u64], Ending)> {
        let at = (reference as usize).checked_sub(1)? + STACK_HEADER_WORDS;
        let (frames, ending) = stack_header_parts(*self.arena.get(at - 1)?);
        Some((self.arena.get(at..at + frames as usize)?, ending?))
    }

    /// Empties the region. The tables themselves need no clearing: nothing
    /// refers to their old contents any more.
    pub fn clear(&mut self) {
        if self.threads_used != 0 {
            self.thread_index.fill(0);
        }
        // A stack may have been entered by a tick that was then lost.
        if self.words_used != 0 {
            self.stack_index.fill(0);
        }
        if self.counts_used != 0 {
            self.count_index.fill(0);
        }
        self.threads_used = 0;
        self.counts_used = 0;
        self.words_used = 0;
        self.copy_chunk = 0;
    }
}

#[cfg(all(test, feature = "user"))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    extern crate std;
    use super::*;
    use std::alloc::{Layout, alloc_zeroed};
    use std::boxed::Box;
    use std::vec::Vec;

    fn region() -> Box<Region> {
        // SAFETY: all-zero memory is a valid, empty region; the layout, and so
        // the alignment, is its own.
        #[expect(clippy::cast_ptr_alignment, reason = "allocated with it")]
        unsafe {
            Box::from_raw(alloc_zeroed(Layout::new::<Region>()).cast::<Region>())
        }
    }

    fn key(thread: u64) -> ThreadKey {
        ThreadKey {
            pid_tgid: 7 << 32 | thread,
            start_boottime_ns: 9,
            exec_id: 1,
            comm: [0x6162, 0],
        }
    }

    fn enter(region: &mut Region, limit: u32, frames: &[u64], ending: Ending) -> Result<u32, Full> {
        // SAFETY: the reference is exclusive.
        let writer = unsafe { RegionWriter::new(region) };
        let tail = writer.next_frames()?;
        let mut hash = StackHash::new([3, 4]);
        for (i, frame) in frames.iter().enumerate() {
            // SAFETY: `next_frames` gives room for the greatest length.
            unsafe { *tail.add(i) = *frame };
            hash.add(*frame);
        }
        writer.stack(limit, hash, frames.len() as u32, ending)
    }

    #[test]
    fn the_layout_that_both_sides_map() {
        assert_eq!(size_of::<ThreadKey>(), 40);
        assert_eq!(size_of::<Thread>(), 88);
        assert_eq!(size_of::<Count>(), 24);
        assert_eq!(size_of::<Region>() % 4096, 0);
        assert!(size_of::<Region>() <= 480 * 1024, "{}", size_of::<Region>());
        assert_eq!(size_of::<crate::CpuState>() % 64, 0);
    }

    #[test]
    fn equal_stacks_are_one_and_different_endings_are_two() {
        let mut region = region();
        let first = enter(&mut region, 1000, &[1, 2, 3], Ending::Complete).unwrap();
        let other = enter(&mut region, 1000, &[1, 2], Ending::Complete).unwrap();
        let cut = enter(&mut region, 1000, &[1, 2, 3], Ending::DepthLimit).unwrap();
        assert_eq!(
            enter(&mut region, 1000, &[1, 2, 3], Ending::Complete),
            Ok(first)
        );
        assert_ne!(first, other);
        assert_ne!(first, cut);
        assert_eq!(
            region.stack(first),
            Some((&[1, 2, 3][..], Ending::Complete))
        );
        assert_eq!(
            region.stack(cut),
            Some((&[1, 2, 3][..], Ending::DepthLimit))
        );
        assert_eq!(region.stack(NO_STACK), None);
    }

    #[test]
    fn an_arena_without_room_says_so_and_still_finds_what_it_holds() {
        let mut region = region();
        let held = enter(&mut region, 8, &[1, 2, 3], Ending::Complete).unwrap();
        assert_eq!(enter(&mut region, 8, &[4], Ending::Complete), Err(Full));
        assert_eq!(
            enter(&mut region, 8, &[1, 2, 3], Ending::Complete),
            Ok(held)
        );
    }

    #[test]
    fn threads_are_told_apart_by_their_whole_key() {
        let mut region = region();
        // SAFETY: the box is exclusive.
        let writer = unsafe { RegionWriter::new(&raw mut *region) };
        let first = writer.thread(2, &key(1), |_| ()).unwrap();
        let mut renamed = key(1);
        renamed.comm[1] = 1;
        assert_ne!(writer.thread(2, &renamed, |_| ()), Ok(first));
        assert_eq!(writer.thread(2, &key(1), |_| ()), Ok(first));
        assert_eq!(writer.thread(2, &key(2), |_| ()), Err(Full));
        assert_eq!(region.threads().len(), 2);
    }

    #[test]
    fn counts_add_up_and_lose_nothing_until_the_table_is_full() {
        let mut region = region();
        // SAFETY: the box is exclusive.
        let writer = unsafe { RegionWriter::new(&raw mut *region) };
        let mut lost = 0;
        for round in 0..3 {
            for i in 0..1500 {
                lost += u64::from(writer.count(1500, i % 7, i + 1, i / 3).is_err());
            }
            assert_eq!(region.counts().len(), 1500, "round {round}");
        }
        assert_eq!(writer.count(1500, 9, 9, 9), Err(Full));
        let total: u64 = region.counts().iter().map(|count| count.ticks).sum();
        assert_eq!(total + lost, 4500);
        assert_eq!(lost, 0);
    }

    #[test]
    fn a_cleared_region_is_empty() {
        let mut region = region();
        let stacks: Vec<_> = (0..100)
            .map(|i| enter(&mut region, ARENA_WORDS as u32, &[i], Ending::Complete).unwrap())
            .collect();
        region.clear();
        assert_eq!((region.threads().len(), region.counts().len()), (0, 0));
        let again = enter(&mut region, ARENA_WORDS as u32, &[99], Ending::Complete).unwrap();
        assert_eq!(again, stacks[0], "the arena is filled from its front again");
    }
}
