//! Files made up to mislead: what they describe is taken for no more than it
//! is worth.

use libtest_mimic::Trial;
use object::elf::{PF_R, PF_X, PT_LOAD, SHF_ALLOC, SHF_EXECINSTR, SHT_PROGBITS};
use sampler::object::unwind::{BuildError, MAX_SPAN_BYTES, Table};
use sampler_common::unwind::x86_64::{Base, Rule, Saved};

use crate::elf::Elf;
use crate::frames::{CALLED, Frames, cfa_from_sp};
use crate::hostile::built;
use crate::tool::{Outcome, Stop, fail, trial};

/// Where the code is, and the section that describes it.
pub const CODE: u64 = 0x10_0000;
pub const EH_FRAME: u64 = 0x1000_0000;
/// `ret`
pub const RETURN: u8 = 0xc3;
const CODE_BYTES: usize = 0x1000;
const TWO_GIB: u64 = 2 << 30;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("entries that name themselves as their CIE are none", cycles),
        trial("of overlapping entries the last to start holds", overlaps),
        trial("an entry for two gigabytes ends with its code", huge_range),
        trial("an entry of two gigabytes ends the section", huge_length),
        trial(
            "a segment of two gigabytes is its file's bytes",
            huge_segment,
        ),
        trial("section and segment counts are not believed", counts),
        trial("data between code is no code", data_between),
    ]
}

/// `push %rbp; mov %rsp,%rbp; pop %rbp; ret`, which nothing describes.
const FUNCTION: [u8; 6] = [0x55, 0x48, 0x89, 0xe5, 0x5d, RETURN];

/// Functions, data that looks like functions, and functions again, in one segment.
fn data_between() -> Outcome {
    let mut code = vec![0xcc; 4 * CODE_BYTES];
    for at in (0..code.len()).step_by(64) {
        code[at..at + FUNCTION.len()].copy_from_slice(&FUNCTION);
    }
    let (data_start, data_end) = (CODE_BYTES as u64, 3 * CODE_BYTES as u64);
    let table = |data_flags: u32| -> Result<Table, Stop> {
        let mut elf = Elf::new(false, false, CODE);
        let place = elf.contents(&code);
        elf.segment(PT_LOAD, PF_R | PF_X, CODE, &place);
        let part = |from: u64, to: u64| place.start + from as usize..place.start + to as usize;
        let parts = [
            (".text", SHF_ALLOC | SHF_EXECINSTR, 0, data_start),
            (".rodata", data_flags, data_start, data_end),
            (
                ".fini",
                SHF_ALLOC | SHF_EXECINSTR,
                data_end,
                code.len() as u64,
            ),
        ];
        for (name, flags, from, to) in parts {
            elf.section(name, SHT_PROGBITS, flags, CODE + from, &part(from, to));
        }
        let (table, _) = built(&elf.finish()).map_err(Stop::Failed)?;
        table.map_err(|error| Stop::Failed(error.to_string()))
    };
    let pushed = Rule::Offset {
        base: Base::StackPointer,
        cfa_words: 2,
        saved: Saved::BelowCfa(2),
    };
    let with_data = table(SHF_ALLOC)?;
    for offset in [64 + 1, data_end + 64 + 1] {
        expect(&with_data, offset, pushed)?;
    }
    for offset in [data_start, data_start + 64 + 1, data_end - 1] {
        expect(&with_data, offset, Rule::Unsupported)?;
    }
    // The same bytes, if they are code.
    let without = table(SHF_ALLOC | SHF_EXECINSTR)?;
    expect(&without, data_start + 64 + 1, pushed)
}

/// A library with that code and `.eh_frame`.
pub fn library(code: &[u8], frames: &Frames) -> Vec<u8> {
    let mut elf = Elf::new(false, false, CODE);
    let code = elf.contents(code);
    let eh_frame = elf.contents(&frames.bytes);
    elf.segment(PT_LOAD, PF_R | PF_X, CODE, &code);
    elf.section(".eh_frame", SHT_PROGBITS, 0, EH_FRAME, &eh_frame);
    elf.finish()
}

/// Has the decoder of instructions make its tables, which it does once, at first
/// use: they are no file's cost.
pub fn warm_up() {
    let undescribed = library(&[RETURN; CODE_BYTES], &Frames::default());
    drop(built(&undescribed));
}

fn table(frames: &Frames) -> Result<Table, Stop> {
    let (table, cost) = built(&library(&[RETURN; CODE_BYTES], frames)).map_err(Stop::Failed)?;
    if cost.held_bytes > 64 << 10 {
        return fail(format!("{cost:?}"));
    }
    table.map_err(|error| Stop::Failed(error.to_string()))
}

fn rule(cfa_words: u32) -> Rule {
    Rule::Offset {
        base: Base::StackPointer,
        cfa_words,
        saved: Saved::Unchanged,
    }
}

fn expect(table: &Table, offset: u64, expected: Rule) -> Outcome {
    match table.rule_at(CODE + offset).map(Rule::unpack) {
        Some(found) if found == expected => Ok(()),
        found => fail(format!("{offset:x}: {found:?}, not {expected:?}")),
    }
}

fn cycles() -> Outcome {
    let mut frames = Frames::default();
    let cie = frames.cie(&CALLED);
    frames.fde(cie, CODE, 16, &[]);
    // Itself, then each other.
    let next = frames.bytes.len();
    let itself = frames.fde(next, CODE + 16, 16, &[]);
    let one = frames.fde(itself, CODE + 32, 16, &[]);
    let other = frames.fde(one, CODE + 48, 16, &[]);
    frames.put(one + 4, (one as u32 + 4).wrapping_sub(other as u32));
    frames.fde(cie, CODE + 64, 16, &cfa_from_sp(2));
    let table = table(&frames)?;
    expect(&table, 0, rule(1))?;
    for broken in [16, 32, 48] {
        expect(&table, broken, Rule::Unsupported)?;
    }
    // How far the section can be read depends on where the cycle points.
    if table.tally.broken_sections == 1 {
        Ok(())
    } else {
        fail(format!("{:?}", table.tally))
    }
}

fn overlaps() -> Outcome {
    let mut frames = Frames::default();
    let cie = frames.cie(&CALLED);
    for entry in 0..15 {
        let start = entry * 16;
        let left = CODE_BYTES as u64 - start;
        frames.fde(cie, CODE + start, left, &cfa_from_sp(entry as u8 + 1));
        // The same again, differently: what was said first holds.
        frames.fde(cie, CODE + start, left, &cfa_from_sp(15));
    }
    let table = table(&frames)?;
    for offset in 0..CODE_BYTES as u64 {
        expect(&table, offset, rule((offset / 16).min(14) as u32 + 1))?;
    }
    Ok(())
}

fn huge_range() -> Outcome {
    for bytes in [TWO_GIB, 1 << 40, u64::MAX] {
        let mut frames = Frames::default();
        let cie = frames.cie(&CALLED);
        frames.fde(cie, CODE + 256, bytes, &cfa_from_sp(2));
        frames.fde(cie, CODE + 1024, 16, &[]);
        let table = table(&frames)?;
        expect(&table, 256, rule(2))?;
        expect(&table, 1023, rule(2))?;
        expect(&table, 1024, rule(1))?;
        if table.buckets() * 256 != CODE_BYTES {
            return fail(format!("{} buckets", table.buckets()));
        }
    }
    Ok(())
}

fn huge_length() -> Outcome {
    for length in [&0x8000_0000_u32.to_le_bytes()[..], &{
        let mut wide = u32::MAX.to_le_bytes().to_vec();
        wide.extend(TWO_GIB.to_le_bytes());
        wide
    }] {
        let mut frames = Frames::default();
        let cie = frames.cie(&CALLED);
        frames.fde(cie, CODE, 16, &[]);
        frames.bytes.extend(length);
        frames.fde(cie, CODE + 16, 16, &[]);
        let table = table(&frames)?;
        expect(&table, 0, rule(1))?;
        expect(&table, 16, Rule::Unsupported)?;
        if (table.tally.entries, table.tally.broken_sections) != (1, 1) {
            return fail(format!("{:?}", table.tally));
        }
    }
    Ok(())
}

fn huge_segment() -> Outcome {
    let mut elf = Elf::new(false, false, CODE);
    let code = elf.contents(&[RETURN; CODE_BYTES]);
    let claimed = code.start..code.start + TWO_GIB as usize;
    elf.segment(PT_LOAD, PF_R | PF_X, CODE, &claimed);
    let file = elf.finish();
    let (table, cost) = built(&file).map_err(Stop::Failed)?;
    let table = table.map_err(|error| Stop::Failed(error.to_string()))?;
    if table.buckets() * 256 > file.len() + 256 || cost.held_bytes > 64 << 10 {
        return fail(format!("{} buckets, {cost:?}", table.buckets()));
    }
    // What the file does hold, but further apart than a table reaches.
    let mut elf = Elf::new(false, false, CODE);
    let code = elf.contents(&[RETURN]);
    elf.segment(PT_LOAD, PF_R | PF_X, CODE, &code);
    elf.segment(PT_LOAD, PF_R | PF_X, CODE + MAX_SPAN_BYTES, &code);
    match built(&elf.finish()).map_err(Stop::Failed)? {
        (Err(BuildError::TooLarge(_)), cost) if cost.held_bytes < 4096 => Ok(()),
        (other, cost) => fail(format!("{:?}, {cost:?}", other.map(|table| table.tally))),
    }
}

fn counts() -> Outcome {
    let mut frames = Frames::default();
    let cie = frames.cie(&CALLED);
    frames.fde(cie, CODE, 16, &[]);
    let file = library(&[RETURN; CODE_BYTES], &frames);
    let first_section = u64::from_le_bytes(file[0x28..0x30].try_into()?) as usize;
    let changed = |changes: &[(usize, &[u8])]| {
        let mut file = file.clone();
        for (at, bytes) in changes {
            file[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        file
    };
    // e_phnum and e_shnum; where they have no room, the first section's
    // sh_info and sh_size.
    let (segments, sections) = (0x38, 0x3c);
    let (info, size) = (first_section + 44, first_section + 32);
    let all = u32::MAX.to_le_bytes();
    for (name, file) in [
        ("65,535 sections", changed(&[(sections, &all[..2])])),
        (
            "2^40 sections",
            changed(&[(sections, &[0; 2]), (size, &(1_u64 << 40).to_le_bytes())]),
        ),
        ("65,534 segments", changed(&[(segments, &[0xfe, 0xff])])),
        (
            "2^32 segments",
            changed(&[(segments, &all[..2]), (info, &all)]),
        ),
    ] {
        let (_, cost) = built(&file).map_err(|error| Stop::Failed(format!("{name}: {error}")))?;
        if cost.held_bytes > 64 << 10 {
            return fail(format!("{name}: {cost:?}"));
        }
    }
    // As many as there can be, and all of them there.
    let mut elf = Elf::new(false, false, CODE);
    let code = elf.contents(&[RETURN; CODE_BYTES]);
    for _ in 0..0xfff0 {
        elf.section("", SHT_PROGBITS, 0, 0, &code);
    }
    elf.segment(PT_LOAD, PF_R | PF_X, CODE, &code);
    match built(&elf.finish()).map_err(Stop::Failed)? {
        (Ok(_), cost) if cost.held_bytes < 64 << 10 => Ok(()),
        (other, cost) => fail(format!("{:?}, {cost:?}", other.map(|table| table.tally))),
    }
}
