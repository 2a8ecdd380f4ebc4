//! What a table does not say itself: where the code starts, and where the data
//! of its functions do.
//!
//! Both are in `moduledata` of Go's runtime, a variable that starts with a
//! pointer to the table's header and then repeats much of it, so that no other
//! bytes can be taken for it. It starts alike in all versions up to the start
//! of the code; the place of the data, further on, is found by trying.

use std::ops::RangeInclusive;

use super::super::headers::{ReadAt, word};
use super::function::{Function, start};
use super::inlined::Call;
use super::layout::{Layout, Version};
use super::memory::{Memory, Search};

/// Words up to the start of the code.
const LEAST_WORDS: usize = 23;
/// Words that can be the place of the data, from Go 1.18 to 1.27.
const WORDS_OF_DATA: RangeInclusive<usize> = 38..=44;
/// Functions that are looked through for some with inlined calls.
const TRIED_FUNCTIONS: u64 = 4096;
/// As many of those must have sound calls.
const TRIED_CALLS: usize = 32;

/// What is known of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Module {
    /// What the places of functions are counted from.
    pub code: u64,
    /// What the places of their data are counted from, if it was found.
    pub data: Option<u64>,
}

impl Module {
    /// Looks for the one that belongs to a table.
    pub(super) fn find<F: ReadAt>(
        memory: &Memory<F>,
        layout: &Layout,
        search: &mut Search,
    ) -> Option<Self> {
        let is_pointer = |word| word == layout.start;
        memory.search(search, true, layout.pointer_bytes, is_pointer, |address| {
            Self::at(memory, layout, address)
        })
    }

    /// The one at an address; `None` if it is none.
    fn at<F: ReadAt>(memory: &Memory<F>, layout: &Layout, address: u64) -> Option<Self> {
        let mut bytes = [0; 8 * (*WORDS_OF_DATA.end() + 1)];
        let bytes_wanted = bytes.len() / 8 * layout.pointer_bytes;
        let read = memory.read(address, bytes.get_mut(..bytes_wanted)?);
        let words: Vec<u64> = bytes[..read]
            .chunks_exact(layout.pointer_bytes)
            .map(|bytes| word(bytes, 0, layout.pointer_bytes))
            .collect();
        if words.len() < LEAST_WORDS {
            return None;
        }
        // Slices: where they are, how many elements there are, and might be.
        let parts = [
            layout.names,
            layout.units,
            layout.files,
            layout.values,
            layout.functions,
            layout.functions,
        ];
        let slices = words[1..19].chunks_exact(3);
        let are_parts = slices
            .zip(parts)
            .all(|(slice, part)| slice[0] == part && slice[1] == slice[2]);
        let code = match layout.version {
            Version::Go116 => 0,
            Version::Go118 | Version::Go120 => words[22],
        };
        let limit = |index| code.checked_add(start(memory, layout, index)?);
        let is_module = are_parts
            && words[17] == layout.function_count + 1
            && words[20] == limit(0)?
            && words[21] == limit(layout.function_count)?;
        is_module.then(|| Self {
            code,
            data: data(memory, layout, &words),
        })
    }
}

/// The word that makes sense of the functions' inlined calls.
fn data<F: ReadAt>(memory: &Memory<F>, layout: &Layout, words: &[u64]) -> Option<u64> {
    let functions: Vec<Function> = (0..layout.function_count.min(TRIED_FUNCTIONS))
        .filter_map(|index| Function::read(memory, layout, index))
        .filter(|function| Call::are_in(memory, function))
        .take(TRIED_CALLS)
        .collect();
    let candidates = words.get(WORDS_OF_DATA).unwrap_or_default();
    let mut sound = candidates.iter().copied().filter(|&data| {
        let is_sound =
            |function: &Function| Call::read(memory, layout, data, function, 0).is_some();
        !functions.is_empty() && functions.iter().all(is_sound)
    });
    sound.next()
}
