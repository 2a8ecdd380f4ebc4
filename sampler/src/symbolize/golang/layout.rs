//! The header of a table: `pcHeader` of Go's runtime.
//!
//! Go 1.16, 1.18 and 1.20 each changed it; the magic number tells which it is.

use super::super::headers::ReadAt;
use super::memory::Memory;

/// No program has more functions, which its offsets of 32 bits could not tell
/// apart.
const MAX_FUNCTIONS: u64 = 1 << 28;

/// What the fields of a table look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Go 1.16 and 1.17: functions by address.
    Go116,
    /// Go 1.18 and 1.19: functions by distance from the start of the code.
    Go118,
    /// From Go 1.20 on: functions know their first line.
    Go120,
}

/// Where the parts of a table are, by virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub version: Version,
    /// Bytes of a pointer: 4 or 8.
    pub pointer_bytes: usize,
    /// Addresses of instructions are multiples of it.
    pub quantum: u64,
    /// Functions in [`Self::functions`].
    pub function_count: u64,
    /// The header itself.
    pub start: u64,
    /// Names of functions, each with a NUL behind it.
    pub names: u64,
    /// For each compilation unit the places of its files' names.
    pub units: u64,
    /// Names of files.
    pub files: u64,
    /// Values by address: files, lines, inlined calls.
    pub values: u64,
    /// Start and record of each function, the end of the last one, then the
    /// records.
    pub functions: u64,
    /// Behind the last byte.
    pub end: u64,
}

/// Whether these eight bytes can be the start of a header.
pub(super) fn is_start(word: u64) -> bool {
    start_of(word).is_some()
}

/// Version, quantum and bytes of a pointer: magic number, two zeros, and the
/// two.
fn start_of(word: u64) -> Option<(Version, u64, usize)> {
    let [
        m0,
        m1,
        m2,
        m3,
        0,
        0,
        quantum @ (1 | 2 | 4),
        pointer_bytes @ (4 | 8),
    ] = word.to_le_bytes()
    else {
        return None;
    };
    let version = match u32::from_le_bytes([m0, m1, m2, m3]) {
        0xffff_fffa => Version::Go116,
        0xffff_fff0 => Version::Go118,
        0xffff_fff1 => Version::Go120,
        _ => return None,
    };
    Some((version, quantum.into(), pointer_bytes.into()))
}

impl Layout {
    /// Reads the header at an address; `None` if it is none. The table ends at
    /// `end` at the latest.
    pub(super) fn read<F: ReadAt>(memory: &Memory<F>, start: u64, end: u64) -> Option<Self> {
        let (version, quantum, pointer_bytes) = start_of(memory.word(start, 8)?)?;
        let end = end.min(memory.end_of(start)?);
        let field = |index: u64| {
            let at = start.checked_add(8 + index * pointer_bytes as u64)?;
            memory.word(at, pointer_bytes)
        };
        // Functions, files and, from Go 1.18 on, the start of the code, which
        // newer versions leave empty: the offsets follow.
        let first_offset: u64 = if version == Version::Go116 { 2 } else { 3 };
        let part = |index: u64| {
            let address = start.checked_add(field(first_offset + index)?)?;
            (address > start && address < end).then_some(address)
        };
        let layout = Self {
            version,
            pointer_bytes,
            quantum,
            function_count: field(0)?,
            start,
            names: part(0)?,
            units: part(1)?,
            files: part(2)?,
            values: part(3)?,
            functions: part(4)?,
            end,
        };
        layout.is_sound().then_some(layout)
    }

    /// The parts are in their order, and the list of functions fits.
    fn is_sound(&self) -> bool {
        let parts = [
            self.names,
            self.units,
            self.files,
            self.values,
            self.functions,
        ];
        let listed_bytes = self.function_count.saturating_mul(self.entry_bytes());
        (1..=MAX_FUNCTIONS).contains(&self.function_count)
            && parts.is_sorted()
            && listed_bytes < self.end - self.functions
    }

    /// Bytes of a number in the list of functions.
    pub(super) fn offset_bytes(&self) -> usize {
        match self.version {
            Version::Go116 => self.pointer_bytes,
            Version::Go118 | Version::Go120 => 4,
        }
    }

    /// Bytes of an entry in the list of functions.
    pub(super) fn entry_bytes(&self) -> u64 {
        2 * self.offset_bytes() as u64
    }
}
