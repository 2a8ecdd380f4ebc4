//! Unwind tables: from the bytes of an ELF file to rows that the kernel's
//! side looks up.
//!
//! A pipeline, each stage a pure function:
//!
//! ```text
//! image     the file's code and the sections that describe it
//! parse     sections -> entries (FDEs), ordered, without overlaps
//! plain     an entry as compilers write them -> its rules
//! convert   a row of any other entry -> one rule
//! rows      entries -> rows, neighbours that agree joined
//! gaps      code without entries -> the rules stored for it
//! flow      its instructions, followed -> rules that are exact
//! pack      rows -> bucket index and four-byte rows
//! ```
//!
//! Files are hostile: what a file costs is bounded by its own size and by the
//! limits in each stage, and whatever is wrong with it, there is a table or a
//! [`BuildError`].

mod call_frames;
mod convert;
mod encoded;
mod expression;
mod flow;
mod gaps;
mod image;
mod landmark;
mod pack;
mod padding;
mod parse;
mod plain;
mod resolver;
mod room;
mod rows;

pub use call_frames::{CallFrames, Placed};
pub use pack::Table;

use gaps::Described;
use image::Image;
use room::Room;
use rows::{Rows, RuleFrom};

use super::Contents;

/// Addresses that one table may span, in bytes: its index holds four bytes for
/// each 256 of them.
pub const MAX_SPAN_BYTES: u64 = 1 << 30;
/// Rows that one table may have.
pub const MAX_ROWS: usize = 8 << 20;

/// Whose instructions a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// `x86_64`
    X86_64,
    /// `aarch64`
    Aarch64,
}

/// An executable segment of a file.
///
/// Tables are by virtual address. For a mapping of the file that starts at
/// `start` with the file's byte `mapped_offset`, in this segment:
///
/// ```text
/// virtual address = process address - start + mapped_offset - file_offset + address
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Its first byte in the file.
    pub file_offset: u64,
    /// Its first virtual address.
    pub address: u64,
    /// Bytes of it that the file holds.
    pub size: u64,
}

impl Segment {
    /// Whether a virtual address lies in it.
    pub const fn holds(&self, address: u64) -> bool {
        address >= self.address && address - self.address < self.size
    }
}

/// Why there is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Not a 64-bit little-endian ELF file.
    #[error("not a 64-bit little-endian ELF file")]
    NotElf,
    /// Code for a machine that is not supported; its ELF number.
    #[error("code for machine {0}, of which no rows are built")]
    OtherMachine(u16),
    /// No executable segment.
    #[error("no executable segment")]
    NoCode,
    /// Its code is spread over more addresses than a table covers.
    #[error("code spread over {0} bytes of addresses, more than {MAX_SPAN_BYTES}")]
    TooLarge(u64),
    /// More rows than a table holds.
    #[error("more than {MAX_ROWS} rows")]
    TooManyRows,
    /// More would have to be held while it is built than there is room for.
    #[error("needs more than the {0} bytes that building a table may hold")]
    NoRoom(u64),
}

/// What was met while building, for those who judge how good a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Entries (FDEs) that became rows.
    pub entries: u64,
    /// Sections that end in something unreadable: 0, 1 or 2.
    pub broken_sections: u64,
    /// Rows, before those that agree are joined, that no rule expresses.
    pub unsupported: Unsupported,
    /// Gaps that are code and not padding.
    pub gaps: u64,
}

/// Rows that no rule expresses, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unsupported {
    /// The CFA is an expression that is not known.
    pub cfa_expression: u64,
    /// The CFA is counted from a register or by an offset that has no place.
    pub cfa_register: u64,
    /// The frame pointer's place cannot be said.
    pub frame_pointer: u64,
    /// The return address' place cannot be said.
    pub return_address: u64,
    /// The entry's instructions cannot be read.
    pub malformed: u64,
}

impl Unsupported {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.cfa_expression
            + self.cfa_register
            + self.frame_pointer
            + self.return_address
            + self.malformed
    }
}

/// Builds the table of an ELF file from its bytes.
pub fn build(file: &[u8]) -> Result<Table, BuildError> {
    build_within(&file, u64::MAX)
}

/// Builds the table of an ELF file and holds no more than so many bytes for it:
/// the sections that describe the code, what is made of them, the table included,
/// and the code that is looked at.
pub fn build_within(file: &dyn Contents, max_bytes: u64) -> Result<Table, BuildError> {
    let room = Room::of(max_bytes);
    let table = build_in(file, &room);
    if room.is_exceeded() {
        return Err(BuildError::NoRoom(max_bytes));
    }
    table
}

fn build_in(file: &dyn Contents, room: &Room) -> Result<Table, BuildError> {
    let image = Image::parse(file, room)?;
    let first = image.executable.first().ok_or(BuildError::NoCode)?;
    let last = image.executable.last().ok_or(BuildError::NoCode)?;
    let lowest = first.address & !(sampler_common::unwind::BUCKET_BYTES - 1);
    let span = last.address + last.size - lowest;
    if span > MAX_SPAN_BYTES {
        return Err(BuildError::TooLarge(span));
    }
    let mut tally = Tally::default();
    let before_bytes = room.left_bytes();
    let sections = parse::Sections::of(&image);
    let entries = sections.entries(&image, room, lowest, &mut tally);
    if room.is_exceeded() {
        return Err(BuildError::NoRoom(before_bytes));
    }
    let max_rows = room.items(size_of::<RuleFrom>(), MAX_ROWS);
    let mut rows = Rows::at_most(max_rows, parse::unsupported(image.machine));
    let described = Described::by(&entries, &tally);
    let gaps = gaps::Gaps::new(&image, room, lowest, described);
    let mut end = 0;
    sections.rows(&entries, &mut rows, &mut tally, |entry, rows, tally| {
        gaps.fill(end, entry.start.into(), true, rows, tally);
        end = entry.end.into();
    });
    gaps.fill(end, span, false, &mut rows, &mut tally);
    resolver::patch(&image, lowest, &sections, &entries, &mut rows);
    if rows.overflowed {
        if max_rows < MAX_ROWS {
            room.exceed();
        }
        return Err(BuildError::TooManyRows);
    }
    // From here on there are the rows alone.
    drop((sections, entries, gaps));
    room.give_back(before_bytes - room.left_bytes());
    let rows_bytes = size_of_val(rows.as_slice()) as u64;
    if !room.take(rows_bytes + pack::max_bytes(rows.as_slice(), span)) {
        return Err(BuildError::NoRoom(before_bytes));
    }
    let (index, rows) = pack::buckets(rows.as_slice(), span);
    Ok(Table {
        machine: image.machine,
        lowest,
        index,
        rows,
        segments: image.executable,
        tally,
    })
}
