//! Which of the instructions that were reached are the function's without doubt.
//!
//! A call may never return. Then what lies behind it is another function, or a part
//! of this one or of another where the stack is another. So it is taken only
//!
//! - if it leads to where the function is left in good order, which another stack
//!   would not; or
//! - if the function was aligned, and it follows without a break on its first
//!   instruction; nothing else leads there, in this function or by a jump from
//!   afar; and it leads to a call that finds the stack aligned. So it lies not where
//!   compilers put parts of functions close together, with ways in that tables for
//!   exceptions know alone; it is not a part that runs with another stack, since
//!   such a part has a way in; and it is no function of its own, since that
//!   function's calls would find the stack eight bytes off. Functions that end in a
//!   call of `exit`, and never return, are walked by this.

use ahash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use super::function::{ALIGNMENT, Instructions, Reader};
use crate::object::unwind::Machine;
use crate::object::unwind::padding::{has_long_nop, is_padding};

/// What is asked of a function for the second of the two ways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// All its calls find the stack aligned.
    pub aligned: bool,
    /// A jump in it leads nobody knows where, so that any part of it may have a way
    /// in that is not seen.
    pub jumps_blindly: bool,
}

/// The instructions of the function at `start` that are its own.
pub(super) fn certain(
    reader: &Reader<'_>,
    start: u32,
    reached: &Instructions,
    order: Order,
) -> Instructions {
    let before = ways_in(reached);
    let leaving = reached.iter().filter(|(_, there)| there.leaves);
    let leads_out = leading_to(leaving.map(|(at, _)| *at), &before);
    let calling = reached.iter().filter(|(_, there)| there.calls_aligned);
    let leads_to_call = if order.aligned && !order.jumps_blindly && was_aligned(reader, start) {
        leading_to(calling.map(|(at, _)| *at), &before)
    } else {
        HashSet::new()
    };
    let unbroken = unbroken_from(start, reached);
    let returns = |call: u32, to: u32| {
        leads_out.contains(&to)
            || (start..unbroken).contains(&to)
                && leads_to_call.contains(&to)
                && before.get(&to).is_some_and(|before| before[..] == [call])
                && !reader.far_targets().contains(to)
    };
    let mut certain = Instructions::new();
    let mut ahead = vec![start];
    while let Some(at) = ahead.pop() {
        let Some(there) = reached.get(&at) else {
            continue;
        };
        if certain.insert(at, *there).is_none() {
            ahead.extend(there.next.into_iter().flatten());
            ahead.extend(there.returned_to.filter(|to| returns(at, *to)));
        }
    }
    certain
}

/// Whether a function was put where it is with padding in front of it.
fn was_aligned(reader: &Reader<'_>, start: u32) -> bool {
    let before = &reader.code[..start as usize];
    let is_filled = |bytes: usize| {
        before.len().checked_sub(bytes).is_some_and(|from| {
            let padding = &before[from..];
            // Zeros end many an instruction.
            is_padding(Machine::X86_64, padding) && (has_long_nop(padding) || !padding.contains(&0))
        })
    };
    (reader.address + u64::from(start)).is_multiple_of(ALIGNMENT)
        && (start == 0 || (1..ALIGNMENT as usize).any(is_filled))
}

/// Where the bytes end that are reached one behind the other from `start` on.
fn unbroken_from(start: u32, reached: &Instructions) -> u32 {
    reached.range(start..).fold(
        start,
        |end, (at, there)| {
            if *at == end { at + there.bytes } else { end }
        },
    )
}

/// From where each place is reached.
fn ways_in(reached: &Instructions) -> HashMap<u32, Vec<u32>> {
    let mut before: HashMap<u32, Vec<u32>> = HashMap::new();
    for (at, there) in reached {
        for next in there.next.into_iter().chain([there.returned_to]).flatten() {
            before.entry(next).or_default().push(*at);
        }
    }
    before
}

/// All places from which one of `ends` can be reached.
fn leading_to(ends: impl Iterator<Item = u32>, before: &HashMap<u32, Vec<u32>>) -> HashSet<u32> {
    let mut ahead: Vec<u32> = ends.collect();
    let mut leading = HashSet::new();
    while let Some(at) = ahead.pop() {
        if leading.insert(at) {
            ahead.extend(before.get(&at).into_iter().flatten());
        }
    }
    leading
}

/// Where calls and jumps with a displacement of four bytes lead, by their bytes
/// alone: how compilers reach a part of a function that they put elsewhere. What
/// only looks like one makes a place doubtful that need not be.
#[derive(Debug)]
pub(super) struct FarTargets(Vec<u64>);

impl FarTargets {
    /// Those of a gap.
    pub fn of(code: &[u8]) -> Self {
        let mut targets = vec![0_u64; code.len().div_ceil(64)];
        for (at, bytes) in code.windows(5).enumerate() {
            let [opcode, displacement @ ..] = bytes else {
                continue;
            };
            let is_branch = match opcode {
                // call, jmp
                0xe8 | 0xe9 => true,
                // jcc
                0x80..=0x8f => at > 0 && code[at - 1] == 0x0f,
                _ => false,
            };
            let Some(displacement) = displacement.first_chunk().filter(|_| is_branch) else {
                continue;
            };
            let target = at as i64 + 5 + i64::from(i32::from_le_bytes(*displacement));
            if let Some(target) = usize::try_from(target).ok()
                && let Some(word) = targets.get_mut(target / 64)
            {
                *word |= 1 << (target % 64);
            }
        }
        Self(targets)
    }

    /// Whether something may lead to a place in the gap.
    pub fn contains(&self, at: u32) -> bool {
        self.0
            .get(at as usize / 64)
            .is_some_and(|word| word >> (at % 64) & 1 != 0)
    }
}
