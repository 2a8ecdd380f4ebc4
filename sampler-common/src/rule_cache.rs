//! Rules that the last walks of a CPU used, in the order in which they did.
//!
//! Most of a stack is what it was at the tick before. So the rules lie in a
//! ring in walk order: after a hit the next frame is expected in the next
//! entry, which is on the same cache line or the one after. A hash index finds
//! the place only for the innermost frame and where the stack differs.
//!
//! Entries are asked for by address and address space, before anything is known
//! of the mapping. The number of an address space has 56 bits and is a hash of
//! what makes it: two of them that are alike would have to meet at one address,
//! so that a wrong rule comes up with a probability of 2^-56 for each pair of
//! address spaces that share an address.

use crate::unwind::{PackedRule, RULE_BITS};

/// Entries: a power of two.
pub const RULE_RING: usize = 4096;
/// Slots of the hash index: a power of two.
pub const RULE_INDEX: usize = 8192;

/// Bits of a user address.
const ADDRESS_BITS: u32 = 48;

/// One rule.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct CachedRule {
    /// The address, and in the upper 16 bits the upper bits of the space.
    address: u64,
    /// The rule, and above it the rest of the space.
    rule: u64,
}

/// One CPU's cache.
#[derive(Debug)]
#[repr(C)]
pub struct RuleCache {
    /// Where the next new entry goes.
    next: u32,
    /// Zero.
    reserved: u32,
    /// Frames whose rule was found where it was expected.
    pub in_order: u64,
    /// Frames whose rule the index found.
    pub by_index: u64,
    /// Frames whose rule was not there.
    pub missed: u64,
    index: [u16; RULE_INDEX],
    ring: [CachedRule; RULE_RING],
}

/// What a rule is asked for by.
#[derive(Debug, Clone, Copy)]
pub struct RuleKey {
    address: u64,
    space: u64,
}

impl RuleKey {
    /// The rule at an address of an address space; `None` for an address that
    /// no user code has.
    #[inline(always)]
    pub const fn new(address: u64, space: u64) -> Option<Self> {
        if address >> ADDRESS_BITS != 0 {
            return None;
        }
        Some(Self {
            address: address | space >> 40 << ADDRESS_BITS,
            space: space << RULE_BITS,
        })
    }

    #[inline(always)]
    const fn slot(self) -> usize {
        let mixed = (self.address ^ self.space).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 48) as usize & (RULE_INDEX - 1)
    }

    #[inline(always)]
    const fn is_of(self, entry: &CachedRule) -> bool {
        entry.address == self.address && (entry.rule ^ self.space) >> RULE_BITS == 0
    }
}

/// The number of an address space, of 56 bits, from what makes it.
#[inline(always)]
pub const fn space_number(parts: [u64; 4]) -> u64 {
    let mut low = parts[0].wrapping_mul(0x9e37_79b9_7f4a_7c15);
    low = (low ^ low >> 32 ^ parts[1]).wrapping_mul(0x6a09_e667_f3bc_c909);
    low = (low ^ low >> 29 ^ parts[2]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    low = (low ^ low >> 32 ^ parts[3]).wrapping_mul(0x6a09_e667_f3bc_c909);
    (low ^ low >> 31) >> 8
}

impl RuleCache {
    /// The rule, and where to expect that of the next frame. `expected` is what
    /// the last call or [`Self::insert`] returned; for the first frame of a
    /// walk, anything.
    ///
    /// # Safety
    /// `cache` is this CPU's, and nobody else writes it.
    #[inline(always)]
    pub unsafe fn find(cache: *mut Self, key: RuleKey, expected: u32) -> Option<(PackedRule, u32)> {
        // SAFETY: all positions are masked to the arrays' lengths.
        unsafe {
            let ring = (&raw const (*cache).ring).cast::<CachedRule>();
            let at = expected & (RULE_RING as u32 - 1);
            let entry = &*ring.add(at as usize);
            if key.is_of(entry) {
                (*cache).in_order += 1;
                return Some((PackedRule::from_bits(entry.rule as u32), at + 1));
            }
            let index = (&raw const (*cache).index).cast::<u16>();
            let at = u32::from(*index.add(key.slot())) & (RULE_RING as u32 - 1);
            let entry = &*ring.add(at as usize);
            if key.is_of(entry) {
                (*cache).by_index += 1;
                return Some((PackedRule::from_bits(entry.rule as u32), at + 1));
            }
            (*cache).missed += 1;
        }
        None
    }

    /// Enters a rule that was not there, and returns where to expect the next.
    ///
    /// # Safety
    /// As for [`Self::find`].
    #[inline(always)]
    pub unsafe fn insert(cache: *mut Self, key: RuleKey, rule: PackedRule) -> u32 {
        // SAFETY: as there.
        unsafe {
            let at = (*cache).next & (RULE_RING as u32 - 1);
            let ring = (&raw mut (*cache).ring).cast::<CachedRule>();
            let entry = ring.add(at as usize);
            (*entry).address = key.address;
            (*entry).rule = key.space | rule.bits() as u64;
            let index = (&raw mut (*cache).index).cast::<u16>();
            *index.add(key.slot()) = at as u16;
            (*cache).next = at + 1;
            at + 1
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{RULE_RING, RuleCache, RuleKey, space_number};
    use crate::unwind::PackedRule;
    use std::alloc::{Layout, alloc_zeroed};
    use std::boxed::Box;

    fn cache() -> Box<RuleCache> {
        // SAFETY: all-zero memory is a valid, empty cache of this layout.
        unsafe { Box::from_raw(alloc_zeroed(Layout::new::<RuleCache>()).cast()) }
    }

    fn key(address: u64, space: u64) -> RuleKey {
        RuleKey::new(address, space).expect("a user address")
    }

    fn find(cache: &mut RuleCache, address: u64, space: u64, expected: u32) -> Option<(u32, u32)> {
        // SAFETY: the reference is exclusive.
        unsafe { RuleCache::find(cache, key(address, space), expected) }
            .map(|(rule, next)| (rule.bits(), next))
    }

    fn insert(cache: &mut RuleCache, address: u64, space: u64, rule: u32) -> u32 {
        // SAFETY: the reference is exclusive.
        unsafe { RuleCache::insert(cache, key(address, space), PackedRule::from_bits(rule)) }
    }

    #[test]
    fn a_walk_that_comes_again_is_found_in_order() {
        let mut cache = cache();
        let space = space_number([1, 2, 3, 4]);
        for frame in 0..40 {
            assert_eq!(find(&mut cache, 0x40_0000 + frame, space, 0), None);
            insert(&mut cache, 0x40_0000 + frame, space, frame as u32 + 7);
        }
        let mut expected = 0xffff;
        for frame in 0..40 {
            let (rule, next) =
                find(&mut cache, 0x40_0000 + frame, space, expected).expect("it was entered");
            assert_eq!(rule, frame as u32 + 7);
            expected = next;
        }
        assert_eq!((cache.in_order, cache.by_index, cache.missed), (39, 1, 40));
    }

    #[test]
    fn another_address_space_has_its_own_rules() {
        let mut cache = cache();
        let spaces: std::vec::Vec<u64> = (0..64)
            .map(|bit| space_number([1 << bit, 0, 0, 0]))
            .chain([space_number([0, 1, 0, 0]), space_number([0, 0, 0, 1])])
            .collect();
        for (number, space) in (0..).zip(&spaces) {
            assert_eq!(find(&mut cache, 0x1000, *space, number), None, "{number}");
            let next = insert(&mut cache, 0x1000, *space, number);
            assert_eq!(
                find(&mut cache, 0x1000, *space, next - 1),
                Some((number, next))
            );
        }
    }

    #[test]
    fn what_was_overwritten_is_not_found() {
        let mut cache = cache();
        insert(&mut cache, 0x1000, 5, 1);
        for other in 0..RULE_RING as u64 {
            insert(&mut cache, 0x10_0000 + other, 5, 2);
        }
        assert_eq!(find(&mut cache, 0x1000, 5, 0), None);
    }

    #[test]
    fn an_empty_entry_is_no_rule_and_a_kernel_address_no_key() {
        // An address of 0 in the space 0 would be the empty entry: no space has
        // that number, but for one in 2^56, and no code that address.
        assert_eq!(find(&mut cache(), 1, 0, 0), None);
        assert!(RuleKey::new(0xffff_8000_0000_0000, 1).is_none());
    }
}
