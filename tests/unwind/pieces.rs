//! Files that are read piece by piece: the tables are the same, and little is
//! held for them.

use std::fs::File;

use libtest_mimic::Trial;
use object::elf::{PF_R, PF_X, PT_LOAD};
use sampler::object::FileContents;
use sampler::object::unwind::{BuildError, build, build_within};
use sampler_common::unwind::x86_64::{Base, Rule, Saved};

use crate::cost;
use crate::elf::Elf;
use crate::files::{library, read, rustc};
use crate::tool::{Outcome, Stop, fail, trial};

const CODE: u64 = 0x1000;
/// Not a multiple of what windows are.
const FUNCTION_BYTES: usize = 4_099;
const FUNCTIONS: usize = 10_000;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("little is held of a file: libcrypto", || {
            holds_little(&library("libcrypto.so.3"))
        }),
        trial("little is held of a file: node", || {
            holds_little("/usr/bin/node")
        }),
        trial(
            "little is held of a file: rustc",
            || holds_little(&rustc()?),
        ),
        trial("undescribed code is looked at in windows", windows),
    ]
}

fn contents(path: &str) -> Result<FileContents, Stop> {
    let file = File::open(path).map_err(|error| Stop::Missing(format!("{path}: {error}")))?;
    Ok(FileContents::new(file)?)
}

/// With as little room as is enough, no more than that is held, and what comes
/// of it is what comes of the whole file.
fn holds_little(path: &str) -> Outcome {
    let whole = read(path)?;
    let expected = build(&whole).map_err(|error| Stop::Failed(error.to_string()))?;
    let mut room_bytes = 1 << 16;
    let (table, cost) = loop {
        let contents = contents(path)?;
        let (table, cost) = cost::of(|| build_within(&contents, room_bytes));
        // Vectors that grow hold up to twice what is in them.
        if cost.held_bytes > 2 * room_bytes + (1 << 20) {
            return fail(format!("{room_bytes} bytes of room, and {cost:?}"));
        }
        match table {
            Ok(table) => break (table, cost),
            Err(BuildError::NoRoom(_)) => room_bytes += room_bytes / 4,
            Err(error) => return fail(error.to_string()),
        }
    };
    if cost.held_bytes * 2 > whole.len() as u64 {
        return fail(format!("{cost:?} for {} bytes", whole.len()));
    }
    if table.segments != expected.segments || table.tally.entries != expected.tally.entries {
        return fail("another table".to_owned());
    }
    // With room for all, the code is looked at in the same windows, too.
    let again = build_within(&contents(path)?, u64::MAX);
    match again {
        Ok(again) if again == expected => Ok(()),
        _ => fail("the file and its bytes give different tables".to_owned()),
    }
}

/// Forty megabytes of functions with frame pointers that nothing describes.
fn windows() -> Outcome {
    let mut function = vec![0x55, 0x48, 0x89, 0xe5];
    // inc %rax
    while function.len() + 3 <= FUNCTION_BYTES - 2 {
        function.extend([0x48, 0xff, 0xc0]);
    }
    function.resize(FUNCTION_BYTES - 2, 0x90);
    function.extend([0x5d, 0xc3]);
    let mut elf = Elf::new(false, false, 0);
    let code = elf.contents(&function.repeat(FUNCTIONS));
    elf.segment(PT_LOAD, PF_R | PF_X, CODE, &code);
    let file = elf.finish();
    let table = build(&file).map_err(|error| Stop::Failed(error.to_string()))?;
    let pushed = |cfa_words, saved| Rule::Offset {
        base: Base::StackPointer,
        cfa_words,
        saved,
    };
    // The last ones lie in a window whose instructions are not followed.
    for number in FUNCTIONS - 100..FUNCTIONS {
        let start = CODE + (number * FUNCTION_BYTES) as u64;
        for (offset, expected) in [
            (0, pushed(1, Saved::Unchanged)),
            (1, pushed(2, Saved::BelowCfa(2))),
            (4, Rule::GapFramePointer),
            (2_000, Rule::GapFramePointer),
            (FUNCTION_BYTES as u64 - 1, pushed(1, Saved::Unchanged)),
        ] {
            let found = table.rule_at(start + offset).map(Rule::unpack);
            if found != Some(expected) {
                return fail(format!("{number} + {offset}: {found:?}, not {expected:?}"));
            }
        }
    }
    // Where windows meet, every address has a rule that walks on.
    for at in (0..(FUNCTIONS * FUNCTION_BYTES) as u64).step_by(61) {
        match table.rule_at(CODE + at).map(Rule::unpack) {
            Some(Rule::Offset { .. } | Rule::GapFramePointer) => {}
            found => return fail(format!("{at:#x}: {found:?}")),
        }
    }
    Ok(())
}
