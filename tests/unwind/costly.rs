//! Files made up to cost: a small file is a small piece of work.

use libtest_mimic::Trial;
use object::elf::{ELFCOMPRESS_ZSTD, PF_R, PF_X, PT_LOAD, SHF_COMPRESSED, SHT_PROGBITS};

use crate::crafted::{CODE, RETURN, library};
use crate::elf::Elf;
use crate::frames::{CALLED, Frames};
use crate::hostile::built;
use crate::tool::{Outcome, Stop, fail, trial};

/// `DW_CFA_def_cfa` rbx, 8
const FROM_RBX: [u8; 3] = [0x0c, 3, 8];
/// `DW_CFA_nop`
const NOP: u8 = 0;
/// `DW_CFA_remember_state`, `DW_CFA_restore_state`
const AND_BACK: [u8; 2] = [0x0a, 0x0b];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a costly CIE is not run for all its entries", costly_cie),
        trial("a callee's long entry is read once", many_calls),
        trial("CIEs are not kept by the million", many_cies),
        trial("a small section does not unpack to much", bomb),
    ]
}

/// Fails if building held more than that.
fn holds(file: &[u8], most_bytes: u64) -> Outcome {
    let (table, cost) = built(file).map_err(Stop::Failed)?;
    if cost.held_bytes <= most_bytes {
        return Ok(());
    }
    let tally = table.map(|table| table.tally);
    fail(format!("{cost:?} of {}: {tally:?}", file.len()))
}

/// The CIE remembers many registers, many times over.
fn costly_cie() -> Outcome {
    let mut instructions = CALLED.to_vec();
    instructions.extend((0..64).flat_map(|register| [0x80 | register, 1]));
    instructions.extend(AND_BACK.repeat(170));
    let mut frames = Frames::default();
    let cie = frames.cie(&instructions);
    let entries = 200_000;
    for entry in 0..entries {
        frames.fde(cie, CODE + entry, 1, &[]);
    }
    let file = library(&vec![RETURN; entries as usize], &frames);
    holds(&file, 2 * file.len() as u64)
}

/// Thirteen thousand calls of one function, whose entry says nothing for long.
fn many_calls() -> Outcome {
    let caller_bytes = 64 << 10;
    let mut frames = Frames::default();
    let cie = frames.cie(&CALLED);
    frames.fde(cie, CODE, caller_bytes, &FROM_RBX);
    frames.fde(cie, CODE + caller_bytes, 16, &vec![NOP; 1 << 20]);
    let mut code = Vec::new();
    for call in (5..caller_bytes as u32).step_by(5) {
        code.push(0xe8);
        code.extend((caller_bytes as u32 - call).to_le_bytes());
    }
    code.resize(caller_bytes as usize + 16, RETURN);
    let file = library(&code, &frames);
    holds(&file, file.len() as u64)
}

/// Entries that each name another place as their CIE.
fn entries_without_cies(bytes: usize) -> Vec<u8> {
    let mut frames = Frames::default();
    while frames.bytes.len() < bytes {
        let half = frames.bytes.len() as u32 / 2;
        frames.entry(half, &[]);
    }
    frames.bytes
}

/// A library whose code `.debug_frame` describes.
fn with_debug_frame(flags: u32, contents: &[u8]) -> Vec<u8> {
    let mut elf = Elf::new(false, false, CODE);
    let code = elf.contents(&[RETURN]);
    let contents = elf.contents(contents);
    elf.segment(PT_LOAD, PF_R | PF_X, CODE, &code);
    elf.section(".debug_frame", SHT_PROGBITS, flags, 0, &contents);
    elf.finish()
}

fn many_cies() -> Outcome {
    let file = with_debug_frame(0, &entries_without_cies(8 << 20));
    holds(&file, 2 << 20)
}

fn bomb() -> Outcome {
    for megabytes in [16, 60, 80] {
        let plain = entries_without_cies(megabytes << 20);
        let mut contents = [ELFCOMPRESS_ZSTD.to_le_bytes(), [0; 4]].concat();
        for word in [plain.len() as u64, 1] {
            contents.extend(word.to_le_bytes());
        }
        contents.extend(zstd::encode_all(&*plain, 1)?);
        drop(plain);
        // The buffer, twice: it moves when it grows.
        holds(&with_debug_frame(SHF_COMPRESSED, &contents), 130 << 20)?;
    }
    Ok(())
}
