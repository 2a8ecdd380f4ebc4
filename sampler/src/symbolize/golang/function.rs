//! One function of a table: `functab` and `_func` of Go's runtime.

use super::super::headers::{ReadAt, word};
use super::layout::{Layout, Version};
use super::memory::Memory;

/// The longest fixed part of a record.
const MAX_RECORD_BYTES: usize = 48;

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Function {
    /// Where its code starts, and where the next function's does, as the table
    /// counts: see [`Version`].
    pub start: u64,
    pub end: u64,
    /// Where its name is, from [`Layout::names`] on.
    pub name: u32,
    /// Its tables of files and of lines, from [`Layout::values`] on.
    pub files: u32,
    pub lines: u32,
    /// Its compilation unit: an index into [`Layout::units`].
    pub unit: u32,
    /// Further tables, and further data, behind the record.
    table_count: u32,
    data_count: u8,
    /// Where those are.
    extra: u64,
}

/// Where the function with this index starts. The one behind the last one is
/// the end of the code.
pub(super) fn start<F: ReadAt>(memory: &Memory<F>, layout: &Layout, index: u64) -> Option<u64> {
    let entry = layout.functions + index * layout.entry_bytes();
    memory.word(entry, layout.offset_bytes())
}

impl Function {
    /// The function whose code is at a place, as the table counts.
    pub(super) fn find<F: ReadAt>(memory: &Memory<F>, layout: &Layout, place: u64) -> Option<Self> {
        if place < start(memory, layout, 0)?
            || place >= start(memory, layout, layout.function_count)?
        {
            return None;
        }
        // The last function that does not start behind the place.
        let (mut low, mut high) = (0, layout.function_count);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if start(memory, layout, middle)? <= place {
                low = middle;
            } else {
                high = middle;
            }
        }
        Self::read(memory, layout, low)
            .filter(|function| (function.start..function.end).contains(&place))
    }

    /// The function with this index.
    pub(super) fn read<F: ReadAt>(memory: &Memory<F>, layout: &Layout, index: u64) -> Option<Self> {
        let start_bytes = layout.offset_bytes();
        let entry = layout.functions + index * layout.entry_bytes();
        let listed_start = memory.word(entry, start_bytes)?;
        let offset = memory.word(entry + start_bytes as u64, start_bytes)?;
        let record_at = layout.functions.checked_add(offset)?;
        let record_bytes = match layout.version {
            Version::Go116 | Version::Go118 => start_bytes + 36,
            Version::Go120 => start_bytes + 40,
        };
        let extra = record_at.checked_add(record_bytes as u64)?;
        let mut record = [0; MAX_RECORD_BYTES];
        let record = record.get_mut(..record_bytes)?;
        if extra > layout.end || memory.read(record_at, record) < record_bytes {
            return None;
        }
        let field = |index: usize| word(record, start_bytes + 4 * index, 4) as u32;
        let end = start(memory, layout, index + 1)?;
        let is_sound = word(record, 0, start_bytes) == listed_start && listed_start < end;
        is_sound.then_some(Self {
            start: listed_start,
            end,
            name: field(0),
            files: field(4),
            lines: field(5),
            table_count: field(6),
            unit: field(7),
            data_count: record[record_bytes - 1],
            extra,
        })
    }

    /// The place of a further table, from [`Layout::values`] on; 0 if there is
    /// none.
    pub(super) fn table<F: ReadAt>(&self, memory: &Memory<F>, index: u32) -> u32 {
        let field = || {
            (index < self.table_count).then_some(())?;
            memory.word(self.extra.checked_add(4 * u64::from(index))?, 4)
        };
        field().map_or(0, |place| place as u32)
    }

    /// The place of further data, from the module's data on.
    pub(super) fn data<F: ReadAt>(&self, memory: &Memory<F>, index: u8) -> Option<u32> {
        (index < self.data_count).then_some(())?;
        let before = u64::from(self.table_count) + u64::from(index);
        let place = memory.word(self.extra.checked_add(4 * before)?, 4)? as u32;
        (place != u32::MAX).then_some(place)
    }
}
