//! Walking a user stack by tables, without frame pointers.
//!
//! One source for the kernel's side and for user space: the functions here
//! take memory and registers through traits. They never index, never panic
//! and never loop without a constant bound, as the kernel's verifier wants.
//!
//! [`find_rule`] finds the [`PackedRule`] for an address, and the architecture's
//! `step` follows it. The architectures mirror each other file for file:
//! `rule` has the equations, `fields` their bits, `registers` what a frame is,
//! `step` the walk.

pub mod aarch64;
mod lookup;
mod row;
mod stop;
pub mod x86_64;

pub use lookup::find_rule;
pub use row::{BUCKET_BYTES, BUCKET_SHIFT, MAX_BUCKET_ROWS, PackedRule, RULE_BITS, Row};
pub use stop::Stop;

/// The registers of the code that the sample interrupted, for the few rules
/// that name one.
pub trait Interrupted {
    /// The register with this DWARF number, or `None` if it was not kept.
    fn register(&self, dwarf_number: u32) -> Option<u64>;
}

/// Nothing was kept.
impl Interrupted for () {
    #[inline(always)]
    fn register(&self, _: u32) -> Option<u64> {
        None
    }
}

/// Where the registers of a frame come from, as a word: it decides what its
/// rule may use, and at which address its row is looked up.
///
/// A return address points behind the call, so a caller's row is that of the
/// byte before; interrupted code has the row of its own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Origin(pub u64);

impl Origin {
    /// It called the frame below; only the registers that a callee restores
    /// are known.
    pub const CALLER: Self = Self(0);
    /// The sample interrupted it: all registers are at hand.
    pub const INTERRUPTED: Self = Self(1);

    /// A signal interrupted it, and the kernel left its registers on the
    /// stack, the first of them at this address.
    #[inline(always)]
    pub const fn signal(registers: u64) -> Self {
        Self(if registers < 2 {
            Self::INTERRUPTED.0
        } else {
            registers
        })
    }

    /// Whether this is the address of code that was interrupted.
    #[inline(always)]
    pub const fn is_interrupted(self) -> bool {
        self.0 != Self::CALLER.0
    }
}

#[cfg(test)]
mod words {
    extern crate std;
    use crate::Memory;
    use std::collections::BTreeMap;

    /// A memory that holds a few words and nothing else.
    pub struct Words(BTreeMap<u64, u64>);

    impl Words {
        pub fn new(words: &[(u64, u64)]) -> Self {
            Self(words.iter().copied().collect())
        }
    }

    impl Memory for Words {
        fn read_word(&mut self, address: u64) -> Option<u64> {
            self.0.get(&address).copied()
        }

        fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
            Some([self.read_word(address)?, self.read_word(address + 8)?])
        }
    }
}
