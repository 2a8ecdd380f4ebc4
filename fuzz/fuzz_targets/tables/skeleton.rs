//! A valid ELF file around sections that are not.

use std::ops::Range;

use object::elf::{
    ELFCOMPRESS_ZLIB, PF_R, PF_X, PT_GNU_EH_FRAME, PT_LOAD, SHF_COMPRESSED, SHT_PROGBITS,
    SHT_SYMTAB,
};

use crate::elf::Elf;

/// Which parts a skeleton has, by the bits of an input's first byte.
const SKELETON: u8 = 1;
const AARCH64: u8 = 1 << 1;
/// No section headers: `.eh_frame` is found by `.eh_frame_hdr`.
const HEADERLESS: u8 = 1 << 2;
/// A program, whose entry has no caller; else a library.
const PROGRAM: u8 = 1 << 3;
/// `.debug_frame` is compressed.
const COMPRESSED: u8 = 1 << 4;
/// The code once more, at a higher address.
const TWICE: u8 = 1 << 5;
/// The symbol table is what `.debug_frame` holds.
const SYMBOLS: u8 = 1 << 6;
/// `.eh_frame_hdr` starts with what `.debug_frame` holds, not with a pointer.
const OWN_HDR: u8 = 1 << 7;

/// Bytes in front of an input's contents: see [`Skeleton::of`].
const HEADER_BYTES: usize = 20;
const MAX_CODE_BYTES: usize = 1 << 16;

/// Between the code and the code once more: an odd number of buckets.
const HOLE_BYTES: u64 = 0x1_2345;
/// `ret`: the code of a skeleton that brings none.
const RETURN: u8 = 0xc3;

/// What an input says of a file.
pub struct Skeleton<'i> {
    shape: u8,
    code_address: u64,
    eh_frame_address: u64,
    code_bytes: usize,
    /// Repeated until there are as many bytes as asked for.
    code: &'i [u8],
    eh_frame: &'i [u8],
    debug_frame: &'i [u8],
    /// For the walk.
    pub stack: &'i [u8],
}

impl<'i> Skeleton<'i> {
    /// An input's parts; `None` if it is to be taken as it is.
    ///
    /// ```text
    /// bytes  0..4    address of the code
    ///        4..8    address of .eh_frame
    ///        8..12   bytes of code, its pattern repeated
    ///       12..14   bytes of the pattern
    ///       14..16   bytes of the stack
    ///       16..20   bytes of .eh_frame
    ///       then     stack, pattern, .eh_frame; .debug_frame is the rest
    /// ```
    pub fn of(shape: u8, input: &'i [u8]) -> Option<Self> {
        if shape & SKELETON == 0 || input.len() < HEADER_BYTES {
            return None;
        }
        let (header, mut rest) = input.split_at(HEADER_BYTES);
        let number = |range: Range<usize>| {
            let bytes = header[range].iter().rev();
            bytes.fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
        };
        let mut take = |bytes: usize| {
            let (taken, left) = rest.split_at(bytes.min(rest.len()));
            rest = left;
            taken
        };
        let stack = take(number(14..16));
        let code = take(number(12..14));
        let eh_frame = take(number(16..20));
        Some(Self {
            shape,
            code_address: number(0..4) as u64,
            eh_frame_address: number(4..8) as u64,
            code_bytes: number(8..12) % (MAX_CODE_BYTES + 1),
            code,
            eh_frame,
            debug_frame: rest,
            stack,
        })
    }

    fn has(&self, bit: u8) -> bool {
        self.shape & bit != 0
    }

    /// The file.
    pub fn file(&self) -> Vec<u8> {
        let pattern = if self.code.is_empty() {
            &[RETURN]
        } else {
            self.code
        };
        let code: Vec<u8> = pattern
            .iter()
            .copied()
            .cycle()
            .take(self.code_bytes)
            .collect();
        let code_end = self.code_address + code.len() as u64;
        let mut elf = Elf::new(self.has(AARCH64), self.has(PROGRAM), self.code_address);
        let code = elf.contents(&code);
        let eh_frame = elf.contents(self.eh_frame);
        let hdr = elf.contents(&self.eh_frame_hdr());
        let debug_frame = if self.has(COMPRESSED) {
            elf.contents(&compressed(self.debug_frame))
        } else {
            elf.contents(self.debug_frame)
        };

        elf.segment(PT_LOAD, PF_R | PF_X, self.code_address, &code);
        if self.has(TWICE) {
            elf.segment(PT_LOAD, PF_R | PF_X, code_end + HOLE_BYTES, &code);
        }
        elf.segment(PT_LOAD, PF_R, self.eh_frame_address, &eh_frame);
        elf.segment(PT_GNU_EH_FRAME, PF_R, self.eh_frame_address, &hdr);
        if !self.has(HEADERLESS) {
            let flags = if self.has(COMPRESSED) {
                SHF_COMPRESSED
            } else {
                0
            };
            elf.section(".text", SHT_PROGBITS, 0, self.code_address, &code);
            elf.section(
                ".eh_frame",
                SHT_PROGBITS,
                0,
                self.eh_frame_address,
                &eh_frame,
            );
            elf.section(".debug_frame", SHT_PROGBITS, flags, 0, &debug_frame);
            if self.has(SYMBOLS) {
                elf.section(".symtab", SHT_SYMTAB, 0, 0, &debug_frame);
            }
        }
        elf.finish()
    }

    /// A header that points at `.eh_frame`, without a table to search in.
    fn eh_frame_hdr(&self) -> Vec<u8> {
        if self.has(OWN_HDR) {
            return self.debug_frame.iter().copied().take(64).collect();
        }
        let [absolute, omitted] = [gimli::DW_EH_PE_absptr.0, gimli::DW_EH_PE_omit.0];
        let mut hdr = vec![1, absolute, omitted, omitted];
        hdr.extend(self.eh_frame_address.to_le_bytes());
        hdr
    }
}

/// As the contents of a section with `SHF_COMPRESSED`: `Elf64_Chdr`, then zlib
/// with nothing but stored blocks.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = ELFCOMPRESS_ZLIB.to_le_bytes().to_vec();
    packed.extend([0; 4]);
    packed.extend((bytes.len() as u64).to_le_bytes());
    packed.extend(1_u64.to_le_bytes());
    packed.extend([0x78, 0x01]);
    for block in bytes.chunks(0xffff) {
        let length = block.len() as u16;
        packed.push(0);
        packed.extend(length.to_le_bytes());
        packed.extend((!length).to_le_bytes());
        packed.extend(block);
    }
    packed
}
