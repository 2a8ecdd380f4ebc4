//! Bytes between functions that never run.

use super::Machine;

/// Zeros that are told at once.
const EMPTY_BYTES: usize = 64;

/// Whether bytes of code are nothing but fill: what compilers and linkers put
/// between functions to align them.
pub(super) fn is_padding(machine: Machine, bytes: &[u8]) -> bool {
    padding_bytes(machine, bytes) == bytes.len()
}

/// Whether fill has in it what `nop`s of three bytes and more have, and little else
/// has in front of an aligned address.
pub(super) fn has_long_nop(padding: &[u8]) -> bool {
    padding.windows(2).any(|pair| pair == [0x0f, 0x1f])
}

/// For each place in the last bytes of `code`, nearest to the end first, whether
/// all from there on is fill: at 0 for the last byte alone.
pub(super) fn padding_at_end<const BYTES: usize>(
    machine: Machine,
    code: &[u8],
) -> impl Iterator<Item = bool> {
    let mut is_fill = [false; BYTES];
    // What fill ends in: its own opcode, or a displacement's upper byte.
    let ends_in_fill = matches!(
        (machine, code.last()),
        (Machine::X86_64, Some(0x90 | 0xcc | 0)) | (Machine::Aarch64, Some(_))
    );
    let places = if ends_in_fill {
        BYTES.min(code.len())
    } else {
        0
    };
    for place in 0..places {
        let filled = fill(machine, &code[code.len() - 1 - place..]);
        // It ends where the code does, or where more fill begins.
        is_fill[place] = filled.is_some_and(|bytes| match (place + 1).checked_sub(bytes) {
            Some(0) => true,
            Some(left) => is_fill[left - 1],
            None => false,
        });
    }
    is_fill.into_iter().take(places)
}

/// Bytes of fill that code starts with.
pub(super) fn padding_bytes(machine: Machine, code: &[u8]) -> usize {
    let mut bytes = 0;
    while let Some(rest) = code.get(bytes..).filter(|rest| !rest.is_empty()) {
        // Linkers leave whole pages empty.
        let empty = rest.chunks_exact(EMPTY_BYTES);
        let empty = empty.take_while(|some| **some == [0; EMPTY_BYTES]).count();
        if empty > 0 {
            bytes += empty * EMPTY_BYTES;
            continue;
        }
        match fill(machine, rest) {
            Some(filled) => bytes += filled,
            None => break,
        }
    }
    bytes
}

/// Bytes of the one piece of fill at the start of `bytes`.
fn fill(machine: Machine, bytes: &[u8]) -> Option<usize> {
    match machine {
        Machine::X86_64 => x86_64(bytes),
        Machine::Aarch64 => aarch64(bytes),
    }
}

/// Bytes of one `nop` of any length, `int3` or zero at the start of `bytes`.
///
/// Intel SDM volume 2, "NOP": `[66]* [2e] 0f 1f /0` and `[66]* 90`.
fn x86_64(bytes: &[u8]) -> Option<usize> {
    if matches!(bytes[0], 0xcc | 0) {
        return Some(1);
    }
    let prefixes = bytes
        .iter()
        .take_while(|byte| matches!(byte, 0x66 | 0x2e))
        .count();
    match bytes.get(prefixes..)? {
        [0x90, ..] => Some(prefixes + 1),
        [0x0f, 0x1f, mode, ..] => {
            // No register form, no absolute address: mod 0, 1 or 2 with
            // displacements of 0, 1 and 4 bytes, and a SIB byte for rm = 4.
            let displacement = match mode >> 6 {
                0 if mode & 7 != 5 => 0,
                1 => 1,
                2 => 4,
                _ => return None,
            };
            let scaled = usize::from(mode & 7 == 4);
            let length = prefixes + 3 + scaled + displacement;
            (length <= bytes.len()).then_some(length)
        }
        _ => None,
    }
}

/// Bytes of one `nop` or undefined word at the start of `bytes`.
fn aarch64(bytes: &[u8]) -> Option<usize> {
    const NOP: u32 = 0xd503_201f;
    let word = u32::from_le_bytes(*bytes.first_chunk()?);
    matches!(word, NOP | 0).then_some(4)
}

#[cfg(test)]
mod tests {
    use super::{is_padding, padding_at_end};
    use crate::object::unwind::Machine;

    #[test]
    fn what_assemblers_fill_with_is_padding() {
        for fill in [
            &[][..],
            &[0x90],
            &[0xcc, 0xcc],
            // gas' choices from 2 to 11 bytes.
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
            &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            &[
                0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00,
            ],
        ] {
            assert!(is_padding(Machine::X86_64, fill), "{fill:x?}");
        }
        assert!(is_padding(
            Machine::Aarch64,
            &[0x1f, 0x20, 0x03, 0xd5, 0, 0, 0, 0]
        ));
    }

    #[test]
    fn code_is_not_padding() {
        for code in [
            &[0xc3][..],
            &[0x90, 0xc3],
            &[0x0f, 0x1f],
            &[0x0f, 0x1f, 0x84, 0x00],
            &[0x66],
            &[0x0f, 0x05],
        ] {
            assert!(!is_padding(Machine::X86_64, code), "{code:x?}");
        }
        assert!(!is_padding(Machine::Aarch64, &[0xc0, 0x03, 0x5f, 0xd6]));
        assert!(!is_padding(Machine::Aarch64, &[0x1f, 0x20]));
    }

    #[test]
    fn padding_is_told_from_its_end_as_from_its_start() {
        for code in [
            &[0xc3][..],
            &[0xc3, 0x90, 0x66, 0x90, 0xcc],
            &[0xc3, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            &[0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00],
            &[],
        ] {
            let told: Vec<bool> = padding_at_end::<15>(Machine::X86_64, code).collect();
            for bytes in 1..=code.len() {
                let expected = is_padding(Machine::X86_64, &code[code.len() - bytes..]);
                let found = told.get(bytes - 1).copied().unwrap_or(false);
                assert_eq!(found, expected, "the last {bytes} of {code:x?}");
            }
        }
    }
}
