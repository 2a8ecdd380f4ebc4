//! Values that change along a function: files, lines, inlined calls.
//!
//! A table is a list of pairs of numbers of seven bits a byte: how much the
//! value changes, zigzag, and for how many instructions' bytes it then holds. The
//! value starts at -1, and a change of 0 ends the list.

use std::cell::Cell;

use super::super::headers::ReadAt;
use super::layout::Layout;
use super::memory::Memory;

/// Pairs that are read of one table: a function of that many statements would
/// not compile.
const MAX_PAIRS: u32 = 1 << 20;
/// Pairs that are read of one file in all: some seconds of work. Millions of
/// look-ups in a real program need fewer.
const MAX_FILE_PAIRS: u64 = 1 << 30;
/// Bytes of a number of 32 bits.
const MAX_NUMBER_BYTES: u32 = 5;

/// How many pairs of a file may still be read.
#[derive(Debug)]
pub(super) struct Patience {
    left_pairs: Cell<u64>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            left_pairs: Cell::new(MAX_FILE_PAIRS),
        }
    }
}

impl Patience {
    /// As if all had been read.
    #[cfg(test)]
    pub(super) fn spend(&self) {
        self.left_pairs.set(0);
    }

    fn take(&self) -> Option<()> {
        self.left_pairs.set(self.left_pairs.get().checked_sub(1)?);
        Some(())
    }
}

/// The value so many bytes behind a function's start; `None` where the table
/// does not reach, or is none. A table's place of 0 says that there is none.
pub(super) fn at<F: ReadAt>(
    memory: &Memory<F>,
    layout: &Layout,
    patience: &Patience,
    table: u32,
    distance: u64,
) -> Option<i32> {
    if table == 0 {
        return None;
    }
    let mut numbers = Numbers::new(memory, layout, table)?;
    let mut value = -1_i32;
    let mut reached = 0_u64;
    for pair in 0..MAX_PAIRS {
        patience.take()?;
        let change = numbers.next()?;
        if change == 0 && pair > 0 {
            return None;
        }
        let magnitude = (change >> 1).cast_signed();
        let change = if change & 1 == 0 {
            magnitude
        } else {
            !magnitude
        };
        value = value.wrapping_add(change);
        reached += u64::from(numbers.next()?) * layout.quantum;
        if distance < reached {
            return Some(value);
        }
    }
    None
}

/// Numbers of seven bits a byte, the lowest first.
struct Numbers<'m, F> {
    memory: &'m Memory<F>,
    /// Where the bytes behind those ahead are.
    address: u64,
    end: u64,
    ahead: [u8; 32],
    /// Bytes ahead, and how many of them are used.
    ahead_bytes: usize,
    used_bytes: usize,
}

impl<'m, F: ReadAt> Numbers<'m, F> {
    fn new(memory: &'m Memory<F>, layout: &Layout, table: u32) -> Option<Self> {
        Some(Self {
            memory,
            address: layout.values.checked_add(table.into())?,
            end: layout.functions,
            ahead: [0; 32],
            ahead_bytes: 0,
            used_bytes: 0,
        })
    }

    fn next(&mut self) -> Option<u32> {
        let mut number = 0;
        for position in 0..MAX_NUMBER_BYTES {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        if self.used_bytes == self.ahead_bytes {
            let left_bytes = self.end.checked_sub(self.address)?;
            let step = left_bytes.min(self.ahead.len() as u64) as usize;
            self.ahead_bytes = self.memory.read(self.address, &mut self.ahead[..step]);
            self.address += self.ahead_bytes as u64;
            self.used_bytes = 0;
        }
        let byte = self.ahead[..self.ahead_bytes].get(self.used_bytes)?;
        self.used_bytes += 1;
        Some(*byte)
    }
}
