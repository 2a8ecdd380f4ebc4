//! Entries as compilers write them, read at a glance.
//!
//! Nearly all entries count the CFA from `rsp` or `rbp`, say where `rbp` was saved,
//! and leave the return address below the CFA. Of a row only that is kept here,
//! where gimli, which can read every entry, keeps the rules of all registers.
//! Whatever is not plain, in an entry or in its CIE, is gimli's: [`Plain::rows`] is
//! `None` then. `x86_64` only, and `.eh_frame`.

use sampler_common::unwind::{PackedRule, x86_64};

use super::convert::words;
use super::parse::MAX_CIE_BYTES;

const RBP: u64 = 6;
const RSP: u64 = 7;
const RETURN_ADDRESS: u64 = 16;
/// Registers up to here have numbers that are no more than names.
const MAX_REGISTER: u64 = 64;
/// Where the return address is, counted from the CFA.
const RETURN_ADDRESS_OFFSET: i64 = -8;
/// Rows of an entry, which are held until it has turned out to be plain.
const MAX_ROWS: usize = 4096;
/// CIEs that are remembered.
const REMEMBERED: usize = 8;

/// A row, as long as it is plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Register and offset.
    cfa: Option<(u64, i64)>,
    /// Where the caller's `rbp` is, counted from the CFA; in `rbp` if nowhere.
    frame_pointer: Option<i64>,
    return_address: Option<i64>,
}

/// What the entries of a CIE share.
#[derive(Debug, Clone, Copy)]
struct Shape {
    code_alignment: u64,
    data_alignment: i64,
    /// Bytes of an address in an entry.
    address_bytes: usize,
    initial: State,
}

/// Reads the plain entries of a section.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    section: &'a [u8],
    /// By a hash of their offsets; `None` where a CIE is not plain.
    shapes: [Option<(usize, Option<Shape>)>; REMEMBERED],
    rows: Vec<(u64, PackedRule)>,
}

impl<'a> Plain<'a> {
    /// Of an `.eh_frame`.
    pub(super) fn new(section: &'a [u8]) -> Self {
        Self {
            section,
            shapes: [None; REMEMBERED],
            rows: Vec::new(),
        }
    }

    /// The rows of the entry at an offset, as far as they start less than so many
    /// bytes behind its first address, each with that distance; `None` if it is not
    /// plain.
    pub(super) fn rows(&mut self, offset: usize, bytes: u64) -> Option<&[(u64, PackedRule)]> {
        let (id_at, mut fields) = record(self.section, offset)?;
        let cie = id_at.checked_sub(fields.fixed(4)? as usize)?;
        let shape = self.shape(cie)?;
        // Its first address, and how many there are.
        fields.skip(2 * shape.address_bytes)?;
        let augmentation_bytes = fields.unsigned()?;
        fields.skip(usize::try_from(augmentation_bytes).ok()?)?;
        self.rows.clear();
        let mut row = |at, state: &State| -> Option<bool> {
            if at >= bytes {
                return Some(false);
            }
            if self.rows.len() >= MAX_ROWS {
                return None;
            }
            self.rows.push((at, state.rule()?));
            Some(true)
        };
        if let Ran::ToTheEnd { at, state } = shape.run(fields, &mut row)? {
            row(at, &state)?;
        }
        Some(&self.rows)
    }

    fn shape(&mut self, offset: usize) -> Option<Shape> {
        let slot = &mut self.shapes[offset / 8 % REMEMBERED];
        match slot {
            Some((known, shape)) if *known == offset => *shape,
            _ => {
                let shape = Shape::read(self.section, offset);
                *slot = Some((offset, shape));
                shape
            }
        }
    }
}

/// How far the instructions were followed.
enum Ran {
    /// To their end: the last row, and where it starts.
    ToTheEnd { at: u64, state: State },
    /// As far as rows were wanted.
    Enough,
}

impl Shape {
    /// That of the CIE at an offset, if it is plain.
    fn read(section: &[u8], offset: usize) -> Option<Self> {
        let (_, mut fields) = record(section, offset)?;
        if fields.0.len() > MAX_CIE_BYTES || fields.fixed(4)? != 0 {
            return None;
        }
        let version = fields.byte()?;
        if version != 1 && version != 3 {
            return None;
        }
        let mut augmentation = Vec::new();
        loop {
            match fields.byte()? {
                0 => break,
                letter => augmentation.push(letter),
            }
        }
        let letters = augmentation.strip_prefix(b"z")?;
        let code_alignment = fields.unsigned()?;
        let data_alignment = fields.signed()?;
        let return_address = if version == 1 {
            u64::from(fields.byte()?)
        } else {
            fields.unsigned()?
        };
        let bytes = usize::try_from(fields.unsigned()?).ok()?;
        let mut data = Fields(fields.take(bytes)?);
        let mut address_bytes = 8;
        for letter in letters {
            match letter {
                b'R' => address_bytes = encoded_bytes(data.byte()?)?,
                b'L' => data.skip(1)?,
                b'P' => {
                    let encoding = data.byte()?;
                    data.skip(encoded_bytes(encoding)?)?;
                }
                _ => return None,
            }
        }
        let unset = State {
            cfa: None,
            frame_pointer: None,
            return_address: None,
        };
        let shape = Self {
            code_alignment,
            data_alignment,
            address_bytes,
            initial: unset,
        };
        // A CIE has one row, and nothing to return to.
        let ran = shape.run(fields, &mut |_, _| None)?;
        match ran {
            Ran::ToTheEnd { state, .. } if return_address == RETURN_ADDRESS => Some(Self {
                initial: state,
                ..shape
            }),
            _ => None,
        }
    }

    /// Follows instructions and shows each row but the last, with where it starts,
    /// until told to stop.
    fn run(
        &self,
        mut code: Fields<'_>,
        row: &mut impl FnMut(u64, &State) -> Option<bool>,
    ) -> Option<Ran> {
        let mut state = self.initial;
        let mut remembered = None;
        let mut at = 0_u64;
        while let Some(instruction) = code.byte() {
            let operand = u64::from(instruction & 0x3f);
            let advance = match instruction {
                0x40..=0x7f => Some(operand),
                0x02 => Some(code.fixed(1)?),
                0x03 => Some(code.fixed(2)?),
                0x04 => Some(code.fixed(4)?),
                _ => None,
            };
            if let Some(advance) = advance {
                if !row(at, &state)? {
                    return Some(Ran::Enough);
                }
                at = at.checked_add(advance.checked_mul(self.code_alignment)?)?;
                continue;
            }
            match instruction {
                // DW_CFA_nop
                0x00 => {}
                // DW_CFA_offset, DW_CFA_offset_extended
                0x80..=0xbf => self.saved(&mut state, operand, &mut code)?,
                0x05 => {
                    let register = code.unsigned()?;
                    self.saved(&mut state, register, &mut code)?;
                }
                // DW_CFA_restore, DW_CFA_restore_extended; a CIE has nothing to restore.
                0xc0..=0xff => self.restore(&mut state, operand)?,
                0x06 => {
                    let register = code.unsigned()?;
                    self.restore(&mut state, register)?;
                }
                // DW_CFA_same_value
                0x08 => match code.unsigned()? {
                    RBP => state.frame_pointer = None,
                    RSP | RETURN_ADDRESS | MAX_REGISTER.. => return None,
                    _ => {}
                },
                // DW_CFA_remember_state, DW_CFA_restore_state
                0x0a if remembered.is_none() => remembered = Some(state),
                0x0b => state = remembered.take()?,
                // DW_CFA_def_cfa
                0x0c => {
                    let register = code.unsigned()?;
                    state.cfa = Some((register, i64::try_from(code.unsigned()?).ok()?));
                }
                // DW_CFA_def_cfa_register
                0x0d => state.cfa = Some((code.unsigned()?, state.cfa?.1)),
                // DW_CFA_def_cfa_offset
                0x0e => state.cfa = Some((state.cfa?.0, i64::try_from(code.unsigned()?).ok()?)),
                // DW_CFA_GNU_args_size
                0x2e => {
                    code.unsigned()?;
                }
                _ => return None,
            }
        }
        Some(Ran::ToTheEnd { at, state })
    }

    fn saved(&self, state: &mut State, register: u64, code: &mut Fields<'_>) -> Option<()> {
        let factor = i64::try_from(code.unsigned()?).ok()?;
        let offset = factor.checked_mul(self.data_alignment)?;
        match register {
            RBP => state.frame_pointer = Some(offset),
            RETURN_ADDRESS => state.return_address = Some(offset),
            RSP | MAX_REGISTER.. => return None,
            _ => {}
        }
        Some(())
    }

    fn restore(&self, state: &mut State, register: u64) -> Option<()> {
        // That of a CIE, which is still being read.
        self.initial.cfa?;
        match register {
            RBP => state.frame_pointer = self.initial.frame_pointer,
            RETURN_ADDRESS => state.return_address = self.initial.return_address,
            RSP | MAX_REGISTER.. => return None,
            _ => {}
        }
        Some(())
    }
}

impl State {
    fn rule(&self) -> Option<PackedRule> {
        use x86_64::{Base, Rule, Saved};
        let (register, offset) = self.cfa?;
        if self.return_address != Some(RETURN_ADDRESS_OFFSET) {
            return None;
        }
        let saved = match self.frame_pointer {
            None => Saved::Unchanged,
            Some(offset) => Saved::BelowCfa(words(offset.checked_neg()?)?),
        };
        let base = match register {
            RBP => Base::FramePointer,
            RSP => Base::StackPointer,
            _ => return None,
        };
        let cfa_words = words(offset)?;
        Rule::Offset {
            base,
            cfa_words,
            saved,
        }
        .pack()
    }
}

/// Where the identity of the CIE or entry at an offset stands, and what the record
/// holds from there on.
fn record(section: &[u8], offset: usize) -> Option<(usize, Fields<'_>)> {
    let mut fields = Fields(section.get(offset..)?);
    let bytes = fields.fixed(4)? as usize;
    // Longer ones are told by 64 bits.
    (bytes < 0xffff_fff0).then_some(())?;
    Some((offset + 4, Fields(fields.take(bytes)?)))
}

/// The bytes of a pointer (`DW_EH_PE_*`), if they do not depend on where it stands.
fn encoded_bytes(encoding: u8) -> Option<usize> {
    match encoding {
        // Omitted, and aligned.
        0xff | 0x50 => None,
        _ => match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => Some(8),
            0x03 | 0x0b => Some(4),
            0x02 | 0x0a => Some(2),
            _ => None,
        },
    }
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.take(bytes).map(|_| ())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number of 1, 2 or 4 bytes.
    fn fixed(&mut self, bytes: usize) -> Option<u64> {
        let field = self.take(bytes)?.iter().rev();
        Some(field.fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A LEB128 number of 63 bits at most.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let mut value = 0_i64;
        for shift in (0..56).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - shift - 7;
                return Some(value << unused >> unused);
            }
        }
        None
    }
}
