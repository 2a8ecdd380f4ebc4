//! Walking a user stack by its chain of frame pointers.
//!
//! Both supported architectures keep the same pair at the frame pointer:
//!
//! ```text
//! [fp]     = the caller's fp
//! [fp + 8] = return address into the caller
//! ```

use crate::Ending;

/// A frame pointer that no frame has: odd.
const NOWHERE: u64 = 1;

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
        if self.frame_pointer & 3 != 0 {
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
        // Stacks grow down: a caller's frame lies above. Where it does not,
        // the pair is still a frame's, saved by code that keeps no chain: its
        // return address holds, and the next step ends the walk.
        self.frame_pointer = if caller != 0 && caller <= self.frame_pointer {
            NOWHERE
        } else {
            caller
        };
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
