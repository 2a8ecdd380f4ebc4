//! Calls that were inlined: `inlinedCall` of Go's runtime.
//!
//! A table of the function says which call an instruction belongs to, and each
//! call where in the function its caller's place is to be read.

use super::super::headers::{ReadAt, word};
use super::function::Function;
use super::layout::{Layout, Version};
use super::memory::Memory;

/// `PCDATA_InlTreeIndex`.
pub(super) const TABLE_OF_CALLS: u32 = 2;
/// `FUNCDATA_InlTree`.
const DATA_OF_CALLS: u8 = 3;
/// The longer of the two forms of a call.
const MAX_CALL_BYTES: usize = 20;

/// An inlined call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Where the name of the called function is, from [`Layout::names`] on.
    pub name: u32,
    /// The call's own place: as many bytes behind the start of the function.
    pub distance: u64,
}

impl Call {
    /// Reads one of a function's calls. The data of all functions start at
    /// `data`.
    pub(super) fn read<F: ReadAt>(
        memory: &Memory<F>,
        layout: &Layout,
        data: u64,
        function: &Function,
        index: u32,
    ) -> Option<Self> {
        let (call_bytes, name_at, distance_at) = match layout.version {
            // Its data are told by address.
            Version::Go116 => return None,
            Version::Go118 => (20, 12, 16),
            Version::Go120 => (16, 4, 8),
        };
        let calls = data.checked_add(function.data(memory, DATA_OF_CALLS)?.into())?;
        let at = calls.checked_add(u64::from(index) * call_bytes)?;
        let mut call = [0; MAX_CALL_BYTES];
        let call = call.get_mut(..call_bytes as usize)?;
        if memory.read(at, call) < call.len() {
            return None;
        }
        let call = Self {
            name: word(call, name_at, 4) as u32,
            distance: word(call, distance_at, 4),
        };
        (call.distance < function.end - function.start && call.has_name(memory, layout)?)
            .then_some(call)
    }

    /// Whether its name is one of the names, and not the tail of one.
    fn has_name<F: ReadAt>(self, memory: &Memory<F>, layout: &Layout) -> Option<bool> {
        let name = layout.names.checked_add(self.name.into())?;
        let is_first = self.name == 0 || memory.word(name - 1, 1)? == 0;
        Some(is_first && name < layout.units && memory.word(name, 1)? != 0)
    }

    /// Whether a function has inlined calls.
    pub(super) fn are_in<F: ReadAt>(memory: &Memory<F>, function: &Function) -> bool {
        function.table(memory, TABLE_OF_CALLS) != 0
            && function.data(memory, DATA_OF_CALLS).is_some()
    }
}
