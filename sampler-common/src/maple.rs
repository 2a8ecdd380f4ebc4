//! Reading a maple tree: how Linux, from 6.1 on, keeps the mappings of an
//! address space.
//!
//! A node is 256 bytes, aligned so; the low byte of a reference to it says its
//! type. Entries of a leaf are what the tree holds, those of an inner node lead
//! to further nodes. Pivots are the last index of each entry, in order; the
//! entry behind the last pivot reaches up to the node's own end.
//!
//! ```text
//! leaf and range nodes   parent, pivot[15], slot[16]           (the last slot
//!                        may hold `end`, how many are in use)
//! allocation nodes       parent, pivot[9], slot[10], gap[10], end
//! ```
//!
//! It is read while it may be changed. What comes out has to be looked at
//! whether it is what was looked for.

/// Words of a node.
pub const NODE_WORDS: usize = 32;
/// Levels that are descended at most: one that is ten wide holds more mappings
/// than a process may have.
pub const LEVELS: u32 = 8;

const TYPE_LEAF: u64 = 1;
const TYPE_RANGE: u64 = 2;
const TYPE_ALLOCATION: u64 = 3;

/// Where what the tree holds is kept; checked against the kernel's own types.
pub const RANGE_SLOTS_AT: u32 = 16 * 8;
/// As above, for allocation nodes.
pub const ALLOCATION_SLOTS_AT: u32 = 10 * 8;
/// Where an allocation node says how many of its slots are in use.
pub const ALLOCATION_END_AT: u32 = 30 * 8;

/// A reference to a node, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeReference {
    /// Where the node is.
    pub address: u64,
    kind: u64,
}

impl NodeReference {
    /// The root, from the tree's own word; `None` if that is no node, but the
    /// only entry or nothing.
    #[inline(always)]
    pub const fn root(word: u64) -> Option<Self> {
        if word & 3 == 2 {
            Self::child(word)
        } else {
            None
        }
    }

    /// A node, from an entry of another; `None` if there is none.
    #[inline(always)]
    pub const fn child(entry: u64) -> Option<Self> {
        if entry < 4096 {
            return None;
        }
        Some(Self {
            address: entry & !255,
            kind: entry >> 3 & 15,
        })
    }

    /// Whether its entries are what the tree holds.
    #[inline(always)]
    pub const fn is_leaf(self) -> bool {
        self.kind == TYPE_LEAF
    }

    /// The entry for an index: 0 if there is none.
    ///
    /// # Safety
    /// `node` points to [`NODE_WORDS`] words, the node's.
    #[inline(always)]
    pub unsafe fn entry(self, node: *const u64, index: u64) -> u64 {
        // SAFETY: all positions are masked to the node's length.
        let word = |at: u32| unsafe { *node.add((at & (NODE_WORDS as u32 - 1)) as usize) };
        let (pivots, slots) = match self.kind {
            TYPE_ALLOCATION => (9, 10),
            TYPE_LEAF | TYPE_RANGE => (15, 16),
            _ => return 0,
        };
        // The number of the last slot in use.
        let end = if self.kind == TYPE_ALLOCATION {
            word(30) & 0xff
        } else if word(15) == 0 {
            word(31) & 0xff
        } else {
            pivots
        };
        let end = if end < pivots { end } else { pivots };
        let mut slot = 0_u64;
        while slot < 15 {
            if slot >= end || word(1 + slot as u32) >= index {
                break;
            }
            slot += 1;
        }
        word(slots + slot as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::{NODE_WORDS, NodeReference};

    const LEAF: u64 = 0x1_0000 | 1 << 3 | 2;
    const ALLOCATION: u64 = 0x2_0000 | 3 << 3 | 2;

    fn entry(reference: u64, node: &[u64; NODE_WORDS], index: u64) -> u64 {
        let reference = NodeReference::root(reference).expect("a node");
        // SAFETY: the array has the length.
        unsafe { reference.entry(node.as_ptr(), index) }
    }

    #[test]
    fn a_leaf_with_few_entries_says_how_many() {
        let mut node = [0; NODE_WORDS];
        node[1..4].copy_from_slice(&[0xfff, 0x1fff, 0x4fff]);
        node[16..20].copy_from_slice(&[0, 0xa0, 0, 0xb0]);
        node[31] = 3;
        assert_eq!(entry(LEAF, &node, 0x800), 0);
        assert_eq!(entry(LEAF, &node, 0x1000), 0xa0);
        assert_eq!(entry(LEAF, &node, 0x1fff), 0xa0);
        assert_eq!(entry(LEAF, &node, 0x2000), 0);
        assert_eq!(entry(LEAF, &node, 0x7fff_ffff_ffff), 0xb0);
    }

    #[test]
    fn a_full_leaf_uses_its_last_slot() {
        let mut node = [0; NODE_WORDS];
        for slot in 0..15 {
            node[1 + slot] = (slot as u64 + 1) * 0x1000 - 1;
        }
        for slot in 0..16 {
            node[16 + slot] = 0x100 + slot as u64;
        }
        assert_eq!(entry(LEAF, &node, 0), 0x100);
        assert_eq!(entry(LEAF, &node, 0xefff), 0x10e);
        assert_eq!(entry(LEAF, &node, 0xf000), 0x10f);
    }

    #[test]
    fn an_inner_node_leads_on() {
        let mut node = [0; NODE_WORDS];
        node[1..3].copy_from_slice(&[0xffff, 0x1_ffff]);
        node[10..13].copy_from_slice(&[0xa2, 0xb2, 0xc2]);
        node[30] = 2;
        assert_eq!(entry(ALLOCATION, &node, 0xffff), 0xa2);
        assert_eq!(entry(ALLOCATION, &node, 0x1_0000), 0xb2);
        assert_eq!(entry(ALLOCATION, &node, 0x7fff_ffff), 0xc2);
    }

    #[test]
    fn what_is_no_node_is_not_followed() {
        assert_eq!(NodeReference::root(0), None);
        assert_eq!(NodeReference::root(0xffff_8880_1234_5600), None);
        assert_eq!(NodeReference::root(1026), None);
        assert_eq!(NodeReference::child(0), None);
        assert!(NodeReference::child(0xffff_8880_1234_560c).is_some_and(NodeReference::is_leaf));
    }
}
