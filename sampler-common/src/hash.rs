//! The content address of a stack trace.

/// A 128-bit hash over the frames of a stack trace, fed while it is walked.
///
/// Two lanes of multiply and rotate, seeded anew for each recording. Equal
/// hash, length and ending are taken for the same stack: if the lanes spread
/// well, 2^32 distinct stacks collide with a probability of 2^-65 (the birthday
/// bound). It is not a cryptographic hash; a program that found two stacks of
/// its own that collide would merge them in its own profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct StackHash {
    /// First lane.
    pub low: u64,
    /// Second lane.
    pub high: u64,
}

impl StackHash {
    /// The hash of no frames.
    #[inline(always)]
    pub const fn new(seed: [u64; 2]) -> Self {
        Self {
            low: seed[0],
            high: seed[1],
        }
    }

    /// Adds one frame.
    #[inline(always)]
    pub const fn add(&mut self, frame: u64) {
        // Odd constants from the fractional parts of the golden ratio and of
        // the square root of two: bijections on 64 bits with well-mixed tops.
        self.low = (self.low ^ frame)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        self.high = (self.high.rotate_left(31) ^ frame).wrapping_mul(0x6a09_e667_f3bc_c909);
    }

    /// Where to start looking in a hash index.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        let mixed = self.low ^ self.high.rotate_left(17);
        (mixed ^ (mixed >> 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::StackHash;

    fn hash(frames: &[u64]) -> StackHash {
        let mut hash = StackHash::new([1, 2]);
        for frame in frames {
            hash.add(*frame);
        }
        hash
    }

    #[test]
    fn order_and_content_matter() {
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert_ne!(hash(&[1, 2]), hash(&[1, 2, 0]));
        assert_eq!(hash(&[1, 2, 3]), hash(&[1, 2, 3]));
    }

    #[test]
    fn both_lanes_tell_neighbouring_addresses_apart() {
        for address in 0..10_000 {
            let (a, b) = (hash(&[address]), hash(&[address + 1]));
            assert!(a.low != b.low && a.high != b.high);
        }
    }
}
