//! Unwind tables, as user space loads them for the walk in the kernel.
//!
//! Everything here lies in arrays that both sides map: user space writes, the
//! programs read, and no system call is made for it, since a CPU that is inside
//! one on a map gets no ticks.
//!
//! A file is known by the address of its inode in the kernel. User space learns
//! it from the first stack copy that reaches the file, and holds the file open
//! for as long as the place names it, so that the address means no other.

/// Files that there is room for: a power of two.
pub const PLACES: usize = 8 * 1024;
/// Slots that a file's place may be in, from its own onwards.
pub const PLACE_PROBES: u32 = 8;
/// Words of a chunk of tables: a power of two.
pub const CHUNK_WORDS: usize = 64 * 1024;

/// Executable segments of a file that a table may cover.
///
/// Each has a place of its own, since each may be shifted differently between
/// file and memory; that of number N is known by the file's address plus N.
pub const PLACE_SEGMENTS: u64 = 4;

/// Where the table of a file's segment lies among the chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TablePlace {
    /// Address of the inode, or [`TablePlace::VDSO`]; 0 for an unused slot.
    pub file: u64,
    /// The lowest file offset that it covers, a multiple of 256.
    pub first_offset: u64,
    /// Buckets of 256 bytes, or one of the numbers below. Written last.
    pub buckets: u32,
    /// The word of its bucket index.
    pub index_word: u32,
    /// The word of its first row.
    pub rows_word: u32,
    /// How many segments the file has, in the place of the first.
    pub segments: u32,
}

impl TablePlace {
    /// The code that the kernel puts into every process: no inode has this
    /// address.
    pub const VDSO: u64 = 1;
    /// `buckets` of a table that is not loaded.
    pub const NOT_LOADED: u32 = 0;
    /// `buckets` of a file that has no table: its code is walked by frame
    /// pointers.
    pub const FRAME_POINTER: u32 = u32::MAX;
}

/// The slot that a file's place may be in, by probe.
#[inline(always)]
pub const fn place_slot(file: u64, probe: u32) -> usize {
    let mixed = (file >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (mixed as u32).wrapping_add(probe) as usize & (PLACES - 1)
}
