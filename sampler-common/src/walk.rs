//! Walking a user stack by its chain of frame pointers.
//!
//! Both supported architectures keep the same pair at the frame pointer:
//!
//! ```text
//! [fp]     = the caller's fp
//! [fp + 8] = return address into the caller
//! ```

use crate::Ending;

/// A frame larger than this is none: the usual size of a whole stack.
const MAX_FRAME_BYTES: u64 = 8 << 20;

/// How the walk reads the memory of the program it walks.
pub trait Memory {
    /// One word, or `None` when it cannot be read.
    fn read_word(&mut self, address: u64) -> Option<u64>;

    /// Two words, or `None` when they cannot be read.
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]>;
}

/// What one step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A caller; its return address.
    Caller(u64),
    /// The walk is over.
    End(Ending),
}

/// A walk under way.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FrameWalk {
    /// The frame pointer of the frame that was reached.
    pub frame_pointer: u64,
    /// What it has to lie above: the stack pointer, then the frame before.
    pub above: u64,
    /// 1 if the program is a 32-bit one, whose pairs are half as wide.
    pub narrow: u64,
}

impl FrameWalk {
    /// One frame outwards.
    #[inline(always)]
    pub fn step(&mut self, memory: &mut impl Memory) -> Step {
        if self.frame_pointer == 0 {
            return Step::End(Ending::Complete);
        }
        // Stacks grow down, so a caller's frame lies above, and not far. What
        // does not is no frame pointer, but whatever else code without frame
        // pointers keeps in that register.
        let frame_bytes = self.frame_pointer.wrapping_sub(self.above);
        if self.frame_pointer & 3 != 0 || frame_bytes >= MAX_FRAME_BYTES {
            return Step::End(Ending::BrokenChain);
        }
        let Some([mut caller, mut return_address]) = memory.read_pair(self.frame_pointer) else {
            return Step::End(Ending::UnreadableStack);
        };
        if self.narrow != 0 {
            return_address = caller >> 32;
            caller &= 0xffff_ffff;
        }
        if return_address == 0 {
            return Step::End(Ending::BrokenChain);
        }
        // One word up, or a frame that is its own caller would never end.
        self.above = self.frame_pointer + 4;
        self.frame_pointer = caller;
        Step::Caller(return_address)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{FrameWalk, Memory, Step};
    use crate::Ending;
    use std::{collections::BTreeMap, vec, vec::Vec};

    struct Words(BTreeMap<u64, u64>);

    impl Memory for Words {
        fn read_word(&mut self, address: u64) -> Option<u64> {
            self.0.get(&address).copied()
        }

        fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
            Some([*self.0.get(&address)?, *self.0.get(&(address + 8))?])
        }
    }

    fn walk(pairs: &[(u64, u64, u64)], start: u64, narrow: bool) -> (Vec<u64>, Ending) {
        let mut memory = Words(
            pairs
                .iter()
                .flat_map(|(at, fp, ra)| [(*at, *fp), (*at + 8, *ra)])
                .collect(),
        );
        let mut walk = FrameWalk {
            frame_pointer: start,
            above: 0x80,
            narrow: u64::from(narrow),
        };
        let mut frames = vec![];
        loop {
            match walk.step(&mut memory) {
                Step::Caller(address) => frames.push(address),
                Step::End(ending) => return (frames, ending),
            }
        }
    }

    #[test]
    fn a_chain_that_ends_in_zero_is_complete() {
        let stack = [(0x100, 0x140, 0xa1), (0x140, 0, 0xb1)];
        assert_eq!(
            walk(&stack, 0x100, false),
            (vec![0xa1, 0xb1], Ending::Complete)
        );
    }

    #[test]
    fn a_chain_that_turns_back_is_broken_and_does_not_loop() {
        let stack = [(0x100, 0x140, 0xa1), (0x140, 0x100, 0xb1)];
        assert_eq!(
            walk(&stack, 0x100, false),
            (vec![0xa1, 0xb1], Ending::BrokenChain)
        );
        let to_itself = [(0x100, 0x100, 0xa1)];
        assert_eq!(
            walk(&to_itself, 0x100, false),
            (vec![0xa1], Ending::BrokenChain)
        );
    }

    #[test]
    fn what_lies_below_the_stack_pointer_or_far_above_is_no_frame() {
        let below = [(0x40, 0x140, 0xa1)];
        assert_eq!(walk(&below, 0x40, false), (vec![], Ending::BrokenChain));
        let heap = [(0x5000_0000, 0, 0xa1)];
        assert_eq!(
            walk(&heap, 0x5000_0000, false),
            (vec![], Ending::BrokenChain)
        );
    }

    #[test]
    fn zero_return_address_and_odd_frame_pointer_are_broken() {
        assert_eq!(
            walk(&[(0x100, 0x140, 0)], 0x100, false).1,
            Ending::BrokenChain
        );
        assert_eq!(walk(&[], 0x101, false).1, Ending::BrokenChain);
    }

    #[test]
    fn memory_that_is_not_there_is_unreadable() {
        let stack = [(0x100, 0x140, 0xa1)];
        assert_eq!(
            walk(&stack, 0x100, false),
            (vec![0xa1], Ending::UnreadableStack)
        );
    }

    #[test]
    fn pairs_of_a_32_bit_program_are_half_as_wide() {
        let stack = [(0x100, (0xa1 << 32) | 0x120, 7), (0x120, 0xb1 << 32, 7)];
        assert_eq!(
            walk(&stack, 0x100, true),
            (vec![0xa1, 0xb1], Ending::Complete)
        );
    }
}
