//! Files that lie: whatever they hold, there is a table that keeps its
//! promises or an error, soon.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use libtest_mimic::Trial;
use object::{LittleEndian, Object as _, ObjectSection as _};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sampler::object::unwind::{BuildError, Table, build};
use sampler_common::unwind::{MAX_BUCKET_ROWS, Row};

use crate::cost::{self, Cost};
use crate::tool::{Outcome, Stop, fail, trial};

/// A small program that every Debian has, and one with expressions.
const SMALL: &str = "/bin/dash";
const EXPRESSIONS: &str = "/lib64/ld-linux-x86-64.so.2";

/// Processor time, more than the slowest build of a small file ever takes here.
const SOON: Duration = Duration::from_secs(5);
/// Memory, in bytes, more than any small file is worth: the largest index, and
/// as many rows that start a bucket, are half of it.
const MUCH: u64 = 64 << 20;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("changed bytes anywhere do no harm", || {
            mutated(SMALL, None, 400)
        }),
        trial("changed headers do no harm", || {
            mutated(SMALL, Some("headers"), 600)
        }),
        trial("changed .eh_frame does no harm", || {
            mutated(SMALL, Some(".eh_frame"), 400)?;
            mutated(EXPRESSIONS, Some(".eh_frame"), 200)
        }),
        trial("a file cut off anywhere does no harm", truncated),
        trial("a file cut off at every 64 bytes does no harm", cut_off),
        trial("sizes of two gigabytes and more cost nothing", huge_sizes),
        trial(
            "an .eh_frame that breaks off leaves no guesses behind it",
            broken_off,
        ),
    ]
}

/// What a table promises to those who look rows up.
fn promises(table: &Table) -> Result<(), String> {
    let index = &table.index;
    if index.last().copied() != Some(table.rows.len() as u32) {
        return Err("the index does not end with the number of rows".into());
    }
    if !table.lowest.is_multiple_of(256) {
        return Err("the lowest address starts no bucket".into());
    }
    for pair in index.windows(2) {
        let count = pair[1]
            .checked_sub(pair[0])
            .ok_or("the index goes backwards")?;
        if count == 0 || count > MAX_BUCKET_ROWS {
            return Err(format!("a bucket of {count} rows"));
        }
        let rows = table
            .rows
            .get(pair[0] as usize..pair[1] as usize)
            .ok_or("a bucket without its rows")?;
        if Row(rows[0]).offset() != 0 {
            return Err("a bucket that starts late".into());
        }
        if rows
            .windows(2)
            .any(|pair| Row(pair[0]).offset() >= Row(pair[1]).offset())
        {
            return Err("rows out of order".into());
        }
    }
    Ok(())
}

fn holds(file: &[u8]) -> Result<(), String> {
    built(file).map(|_| ())
}

/// What a file becomes and what that cost, if the table keeps its promises and
/// came soon.
pub fn built(file: &[u8]) -> Result<(Result<Table, BuildError>, Cost), String> {
    let (built, cost) = cost::of(|| build(file));
    if cost.time > SOON || cost.held_bytes > MUCH + 8 * file.len() as u64 {
        return Err(format!("took {cost:?}"));
    }
    if let Ok(table) = &built {
        promises(table)?;
    }
    Ok((built, cost))
}

fn read(path: &str) -> Result<Vec<u8>, Stop> {
    fs::read(path).map_err(|error| Stop::Missing(format!("{path}: {error}")))
}

fn section(file: &[u8], name: &str) -> Result<Range<usize>, Stop> {
    object::read::elf::ElfFile64::<LittleEndian>::parse(file)
        .ok()
        .and_then(|elf| elf.section_by_name(name)?.file_range())
        .map(|(offset, size)| offset as usize..(offset + size) as usize)
        .ok_or_else(|| Stop::Failed(format!("no {name}")))
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

/// A byte that is likely to mean something: any, or an extreme.
fn byte() -> impl Strategy<Value = u8> {
    proptest::prop_oneof![
        any::<u8>(),
        proptest::sample::select(vec![0, 1, 0x7f, 0x80, 0xff])
    ]
}

/// Changes up to 48 bytes: in the headers, in a section, or anywhere.
fn mutated(path: &str, place: Option<&str>, cases: u32) -> Outcome {
    let file = read(path)?;
    // The ELF header with the program headers, and the section headers.
    let (start, end) = (0..0x400, file.len() - 0x780..file.len());
    let ranges = match place {
        None => [start.start..end.end, end],
        Some("headers") => [start, end],
        Some(name) => {
            let section = section(&file, name)?;
            [section.clone(), section]
        }
    };
    let places = (0..ranges.len(), any::<proptest::sample::Index>(), byte());
    let changes = vec(places, 1..48);
    let result = runner(cases).run(&changes, |changes| {
        let mut file = file.clone();
        for (range, at, byte) in changes {
            let range = ranges[range].clone();
            file[range.start + at.index(range.len())] = byte;
        }
        holds(&file).map_err(TestCaseError::fail)
    });
    result.map_err(|error| Stop::Failed(error.to_string()))
}

fn truncated() -> Outcome {
    let file = read(SMALL)?;
    let result = runner(300).run(&(0..file.len()), |bytes| {
        holds(&file[..bytes]).map_err(TestCaseError::fail)
    });
    result.map_err(|error| Stop::Failed(error.to_string()))
}

fn cut_off() -> Outcome {
    let file = read(SMALL)?;
    for bytes in (0..file.len()).step_by(64) {
        holds(&file[..bytes]).map_err(|error| Stop::Failed(format!("{bytes}: {error}")))?;
    }
    Ok(())
}

/// Puts huge numbers into every field of headers that holds a size or a place.
fn huge_sizes() -> Outcome {
    let file = read(SMALL)?;
    let section_headers = u64::from_le_bytes(file[0x28..0x30].try_into()?) as usize;
    let program_headers = 64..64 + 56 * usize::from(file[0x38]);
    let section_headers = section_headers..section_headers + 64 * usize::from(file[0x3c]);
    for range in [0x18..0x38, program_headers, section_headers] {
        for at in range.step_by(8) {
            for huge in [
                0x8000_0000_u64,
                1 << 40,
                u64::MAX,
                u64::MAX - 0xfff,
                1 << 63,
            ] {
                let mut changed = file.clone();
                changed[at..at + 8].copy_from_slice(&huge.to_le_bytes());
                holds(&changed)
                    .map_err(|error| Stop::Failed(format!("{huge:x} at {at:x}: {error}")))?;
            }
        }
    }
    Ok(())
}

/// A length that points out of the section, halfway through it: the code that
/// was described behind it is not taken for stubs.
fn broken_off() -> Outcome {
    use sampler_common::unwind::x86_64::Rule;

    let mut file = read(SMALL)?;
    let whole = build(&file).map_err(|error| Stop::Failed(error.to_string()))?;
    let section = section(&file, ".eh_frame")?;
    let mut at = section.start;
    while at < section.start + section.len() / 2 {
        at += 4 + u32::from_le_bytes(file[at..at + 4].try_into()?) as usize;
    }
    file[at..at + 4].copy_from_slice(&0x7fff_fff0_u32.to_le_bytes());
    let broken = build(&file).map_err(|error| Stop::Failed(error.to_string()))?;
    if broken.tally.broken_sections != 1 || broken.tally.entries >= whole.tally.entries {
        return fail(format!("{:?}", broken.tally));
    }
    let end = whole.lowest + whole.buckets() as u64 * 256;
    for address in whole.lowest..end {
        let (before, after) = (whole.rule_at(address), broken.rule_at(address));
        let unsupported = after.map(Rule::unpack) == Some(Rule::Unsupported);
        let landmark = matches!(
            after.map(Rule::unpack),
            Some(Rule::GapFramePointer | Rule::Offset { .. } | Rule::EndOfStack)
        );
        if before != after && !unsupported && !landmark {
            return fail(format!("{address:x}: {before:?} became {after:?}"));
        }
    }
    Ok(())
}
