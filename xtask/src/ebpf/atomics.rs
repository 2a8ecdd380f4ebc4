//! Which atomic instructions a BPF program holds.
//!
//! LLVM drops the fetch of an atomic whose old value looks unused, in silence;
//! the drain then races with the tick. So the object is read back.
//!
//! The encoding is RFC 9669, section 5.3: 8 bytes an instruction, opcode
//! `STX | ATOMIC | size`, the operation in the 32-bit immediate.

use std::collections::BTreeMap;

const OPCODE_ATOMIC_32: u8 = 0xc3;
const OPCODE_ATOMIC_64: u8 = 0xdb;
/// `lddw`: the only instruction of 16 bytes.
const OPCODE_LOAD_64: u8 = 0x18;

/// An atomic operation, by what it returns and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Atomic {
    /// old = *p; *p = new
    Exchange,
    /// old = *p; *p = new if old == expected
    CompareExchange,
    /// old = *p; *p = old + n
    FetchAdd,
    /// *p += n, the old value is not returned
    Add,
    /// Any other.
    Other,
}

/// How often each operation occurs in the code of one section, 32 and 64 bits
/// wide together.
pub fn count(code: &[u8]) -> BTreeMap<Atomic, usize> {
    let mut counts = BTreeMap::new();
    let (instructions, _) = code.as_chunks::<8>();
    let mut rest = instructions.iter();
    while let Some(instruction) = rest.next() {
        let [opcode, _, _, _, immediate @ ..] = instruction;
        match *opcode {
            OPCODE_LOAD_64 => {
                rest.next();
            }
            OPCODE_ATOMIC_32 | OPCODE_ATOMIC_64 => {
                let atomic = operation(u32::from_le_bytes(*immediate));
                *counts.entry(atomic).or_insert(0) += 1;
            }
            _ => {}
        }
    }
    counts
}

fn operation(immediate: u32) -> Atomic {
    match immediate {
        0xe1 => Atomic::Exchange,
        0xf1 => Atomic::CompareExchange,
        0x01 => Atomic::FetchAdd,
        0x00 => Atomic::Add,
        _ => Atomic::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As llvm-objdump prints them beside the source:
    const XCHG_64: [u8; 8] = [0xdb, 0x16, 0, 0, 0xe1, 0, 0, 0]; // r1 = xchg_64(r6 + 0x0, r1)
    const FETCH_ADD_64: [u8; 8] = [0xdb, 0x16, 0, 0, 0x01, 0, 0, 0];
    const ADD_32: [u8; 8] = [0xc3, 0x16, 0, 0, 0, 0, 0, 0]; // lock *(u32 *)(r6 + 0x0) += w1
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn operations_are_told_apart_by_their_immediate() {
        let code = [XCHG_64, EXIT, FETCH_ADD_64, ADD_32, XCHG_64].concat();
        assert_eq!(
            count(&code),
            BTreeMap::from([
                (Atomic::Exchange, 2),
                (Atomic::FetchAdd, 1),
                (Atomic::Add, 1)
            ])
        );
    }

    #[test]
    fn the_second_half_of_a_64_bit_load_is_not_an_instruction() {
        let load = [0x18, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(count(&[load, XCHG_64].concat()), BTreeMap::new());
    }
}
