//! Address spaces and unwind tables, as user space publishes them to the walk.
//!
//! Everything here lies in arrays that both sides map: user space writes, the
//! programs read, and no system call is made for it, since a CPU that is inside
//! one on a map gets no ticks.
//!
//! A process has a [`Space`], found by its ID. User space says in it which
//! mappings the process has; the programs count forks and execs in `epoch`.
//! What was published for an older epoch is void, so a sample is never walked
//! with the mappings of the program that ran before.

/// Slots for address spaces: a power of two.
pub const SPACES: usize = 32 * 1024;
/// Slots that a process may be in, from its own onwards.
pub const SPACE_PROBES: u32 = 8;
/// Mappings that there is room for, of all processes together: a power of two.
pub const SPACE_MAPPINGS: usize = 128 * 1024;
/// Files that there is room for: a power of two.
pub const TABLES: usize = 8 * 1024;
/// Words of a chunk of tables.
pub const CHUNK_WORDS: usize = 64 * 1024;

/// The address space of a process.
#[repr(C)]
pub struct Space {
    /// Process ID as the caller's pid namespace has it; 0 for an unused slot.
    pub pid: u32,
    /// The epoch that this was published for.
    pub published: u32,
    /// Its mappings, sorted by address: where the first of them is in the array
    /// of mappings, and in the upper half how many they are. One word, so that
    /// both are always seen together.
    pub mappings: u64,
    /// Forks into and execs of this ID. Written by the programs alone.
    pub epoch: u32,
    /// Zero.
    pub reserved: u32,
}

/// An executable range of an address space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SpaceMapping {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// What to subtract from an address to get the file offset that the table
    /// goes by.
    pub bias: u64,
    /// The number of the table, or [`SpaceMapping::FRAME_POINTER`].
    pub table: u32,
    /// Zero.
    pub reserved: u32,
}

impl SpaceMapping {
    /// There is no file: code made at run time, walked by frame pointer.
    pub const FRAME_POINTER: u32 = u32::MAX;
}

/// Where one file's table lies among the chunks. All zero until it is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TablePlace {
    /// The lowest file offset that it covers, a multiple of 256.
    pub first_offset: u64,
    /// Buckets of 256 bytes. Written last.
    pub buckets: u32,
    /// The word of its bucket index.
    pub index_word: u32,
    /// The word of its first row.
    pub rows_word: u32,
    /// Zero.
    pub reserved: u32,
}

/// The slot that a process may be in, by probe.
#[inline(always)]
pub const fn space_slot(pid: u32, probe: u32) -> usize {
    (pid.wrapping_add(probe.wrapping_mul(0x4e37)) & (SPACES as u32 - 1)) as usize
}
