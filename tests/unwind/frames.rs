//! Call frame information, written out: what no assembler would.

/// Where every function starts: the CFA is rsp + 8, the return address below.
pub const CALLED: [u8; 5] = [0x0c, 7, 8, 0x90, 1];

/// `DW_CFA_def_cfa_offset`: the CFA is rsp + 8 words, with words below 16.
pub const fn cfa_from_sp(words: u8) -> [u8; 2] {
    [0x0e, words * 8]
}

/// `.eh_frame` in the making: version 1, absolute addresses of eight bytes.
#[derive(Debug, Default)]
pub struct Frames {
    /// What is there so far.
    pub bytes: Vec<u8>,
}

impl Frames {
    /// Adds a CIE with these instructions; where it starts.
    pub fn cie(&mut self, instructions: &[u8]) -> usize {
        // Version, no augmentation, factors 1 and -8, return address in 16.
        let fixed = [1, 0, 1, 0x78, 16];
        self.entry(0, &[&fixed, instructions])
    }

    /// Adds an FDE for `bytes` of code; where it starts.
    pub fn fde(&mut self, cie: usize, address: u64, bytes: u64, instructions: &[u8]) -> usize {
        // The distance from this field back to the CIE.
        let distance = (self.bytes.len() + 4).wrapping_sub(cie) as u32;
        let range = [address.to_le_bytes(), bytes.to_le_bytes()].concat();
        self.entry(distance, &[&range, instructions])
    }

    /// Adds an entry that says what it is in its second word.
    pub fn entry(&mut self, what: u32, parts: &[&[u8]]) -> usize {
        let start = self.bytes.len();
        let parts = parts.concat();
        self.bytes.extend((parts.len() as u32 + 4).to_le_bytes());
        self.bytes.extend(what.to_le_bytes());
        self.bytes.extend(parts);
        start
    }

    /// Writes over what is there.
    pub fn put(&mut self, at: usize, word: u32) {
        self.bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}
