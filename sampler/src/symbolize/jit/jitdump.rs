//! Jitdumps: a header and records, each with its length, in the order in which
//! the runtime compiled.
//!
//! Format: `tools/perf/Documentation/jitdump-specification.txt` of Linux. The
//! code itself and its unwinding information are passed over.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::newest::Newest;
use super::{Found, MAX_NAME_BYTES, Symbol, name_of};
use crate::object::Contents;

/// The largest dump that is read, in bytes. The code is in there too.
pub const MAX_BYTES: u64 = 512 << 20;
/// Line entries looked at of one function.
const MAX_ENTRIES_EACH: u64 = 100_000;
/// Line entries looked at in all.
const MAX_ENTRIES: u64 = 4_000_000;
/// Stands for the file of the entry before.
const SAME_FILE: &[u8] = &[0xff];

/// `JiTD` as a number of this machine's byte order. A dump of the other order
/// was written by an emulated program, whose addresses are none of ours.
const MAGIC: u32 = 0x4A69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 40;
/// V8 writes this where the header has padding, and adds what follows to each
/// address of a line.
const V8_PADDING: u32 = 0xDEAD_BEEF;
const V8_LINE_BIAS: u64 = 0x40;

const LOAD: u32 = 0;
const MOVE: u32 = 1;
const DEBUG_INFO: u32 = 2;
const CLOSE: u32 = 3;

const RECORD_BYTES: u64 = 16;
const LOAD_BYTES: u64 = 56;
const MOVE_BYTES: u64 = 64;
const DEBUG_BYTES: u64 = 32;

/// A record of interest, after its length was checked.
#[derive(Debug, Clone, Copy)]
enum Record {
    /// A function was compiled.
    Load { at: u64, index: u64 },
    /// It was moved.
    Move { index: u64 },
    /// Lines of the function that a later record loads to this address.
    Debug { at: u64 },
}

/// The functions at some addresses, which are in ascending order. Where code
/// took the place of other code, the newest counts.
///
/// Memory depends on the number of addresses, not on the dump. A last record
/// that is cut is still being written.
pub fn look_up(dump: &impl Contents, addresses: &[u64]) -> Found {
    let mut found = Found {
        symbols: vec![None; addresses.len()],
        bad: 0,
    };
    let Some(header) = Header::of(dump) else {
        found.bad = 1;
        return found;
    };
    let mut newest = Newest::over(addresses);
    let mut has_lines = false;
    found.bad = for_each_record(dump, header.bytes, |record_at, record, code| match record {
        Record::Load { .. } | Record::Move { .. } => newest.lay(code, record_at),
        Record::Debug { .. } => has_lines = true,
    });
    let mut by_mark: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, mark) in newest.marks().enumerate() {
        if let Some(mark) = mark {
            by_mark.entry(mark).or_default().push(index);
        }
    }
    let mut functions = functions(dump, header.bytes, by_mark.keys());
    if has_lines {
        note_lines(dump, header.bytes, &mut functions);
    }
    let mut entries_left = MAX_ENTRIES;
    for (mark, function) in &functions {
        let Some(name) = function.name(dump) else {
            continue;
        };
        let lines = Lines::of(dump, function, header.line_bias, &mut entries_left);
        for index in by_mark.get(mark).into_iter().flatten() {
            let (source_file, line) = lines.at(dump, addresses[*index]);
            found.symbols[*index] = Some(Symbol {
                name: name.clone(),
                source_file,
                line,
            });
        }
    }
    found
}

/// What the beginning of a dump says.
struct Header {
    bytes: u64,
    line_bias: u64,
}

impl Header {
    fn of(dump: &impl Contents) -> Option<Self> {
        let header = dump.read(0, HEADER_BYTES as usize)?;
        let bytes = u64::from(u32_at(&header, 8)?);
        let is_ours = u32_at(&header, 0)? == MAGIC && u32_at(&header, 4)? == VERSION;
        (is_ours && bytes >= HEADER_BYTES).then_some(Self {
            bytes,
            line_bias: if u32_at(&header, 16)? == V8_PADDING {
                V8_LINE_BIAS
            } else {
                0
            },
        })
    }
}

/// A function that one of the addresses lies in.
#[derive(Debug, Clone, Copy)]
struct Function {
    /// Where its load record is.
    load: u64,
    /// The address that it was loaded to.
    loaded_at: u64,
    /// Of its code.
    bytes: u64,
    /// How far it was moved since.
    moved: u64,
    /// Where the record with its lines is.
    lines_at: Option<u64>,
}

/// Calls `each` with where a record of interest is, what it is, and what range
/// of code it is about. Returns how many made no sense.
fn for_each_record(
    dump: &impl Contents,
    mut at: u64,
    mut each: impl FnMut(u64, Record, Range<u64>),
) -> u64 {
    let size_bytes = dump.size_bytes().min(MAX_BYTES);
    let mut bad = 0;
    while let Some(head) = dump.read(at, RECORD_BYTES as usize) {
        let (Some(id), Some(bytes)) = (u32_at(&head, 0), u32_at(&head, 4)) else {
            break;
        };
        let bytes = u64::from(bytes);
        if bytes < RECORD_BYTES {
            // Where the next one begins is anybody's guess.
            bad += 1;
            break;
        }
        if at.saturating_add(bytes) > size_bytes || id == CLOSE {
            break;
        }
        match parse(dump, at, id, bytes) {
            Some(Some((record, code))) => each(at, record, code),
            Some(None) => {}
            None => bad += 1,
        }
        at += bytes;
    }
    bad
}

/// A record; `Some(None)` for one of no interest, `None` for a bad one.
#[expect(clippy::option_option, reason = "of interest, of none, bad")]
fn parse(
    dump: &impl Contents,
    at: u64,
    id: u32,
    bytes: u64,
) -> Option<Option<(Record, Range<u64>)>> {
    let least = match id {
        LOAD => LOAD_BYTES,
        MOVE => MOVE_BYTES,
        DEBUG_INFO => DEBUG_BYTES,
        _ => return Some(None),
    };
    if bytes < least {
        return None;
    }
    let body = dump.read(at, least as usize)?;
    let field = |offset| u64_at(&body, offset);
    let range = |start: u64, size: u64| Some(start..start.checked_add(size)?);
    Some(Some(match id {
        LOAD => {
            let start = field(32)?;
            let record = Record::Load {
                at: start,
                index: field(48)?,
            };
            (record, range(start, field(40)?)?)
        }
        MOVE => {
            let record = Record::Move { index: field(56)? };
            (record, range(field(40)?, field(48)?)?)
        }
        _ => (Record::Debug { at: field(16)? }, 0..0),
    }))
}

/// The functions that the marks mean, by mark.
fn functions<'a>(
    dump: &impl Contents,
    records_at: u64,
    marks: impl Iterator<Item = &'a u64>,
) -> BTreeMap<u64, Function> {
    let mut wanted: BTreeMap<u64, Function> = BTreeMap::new();
    // By number of the function: the marks of its moves, and where to.
    let mut moved: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    for mark in marks {
        let Some(id) = dump.read(*mark, 4).and_then(|head| u32_at(&head, 0)) else {
            continue;
        };
        let bytes = if id == LOAD { LOAD_BYTES } else { MOVE_BYTES };
        match parse(dump, *mark, id, bytes) {
            Some(Some((Record::Load { at, .. }, code))) => {
                wanted.insert(*mark, Function::new(*mark, &code, at));
            }
            Some(Some((Record::Move { index }, code))) => {
                moved.entry(index).or_default().push((*mark, code.start));
            }
            _ => {}
        }
    }
    if !moved.is_empty() {
        for_each_record(dump, records_at, |load, record, code| {
            if let Record::Load { index, .. } = record
                && let Some(moves) = moved.get(&index)
            {
                for (mark, now_at) in moves.iter().filter(|(mark, _)| load < *mark) {
                    wanted.insert(*mark, Function::new(load, &code, *now_at));
                }
            }
        });
    }
    wanted
}

/// Finds the line records of functions: the last one before the load, for the
/// same address.
fn note_lines(dump: &impl Contents, records_at: u64, functions: &mut BTreeMap<u64, Function>) {
    let mut by_load: HashMap<u64, Vec<&mut Function>> = HashMap::new();
    let mut pending: HashMap<u64, Option<u64>> = HashMap::new();
    for function in functions.values_mut() {
        pending.insert(function.loaded_at, None);
        by_load.entry(function.load).or_default().push(function);
    }
    for_each_record(dump, records_at, |record_at, record, _| match record {
        Record::Debug { at } => {
            if let Some(pending) = pending.get_mut(&at) {
                *pending = Some(record_at);
            }
        }
        Record::Load { at, .. } => {
            let lines_at = pending.get_mut(&at).and_then(Option::take);
            for function in by_load.get_mut(&record_at).into_iter().flatten() {
                function.lines_at = lines_at;
            }
        }
        Record::Move { .. } => {}
    });
}

impl Function {
    fn new(load: u64, code: &Range<u64>, now_at: u64) -> Self {
        Self {
            load,
            loaded_at: code.start,
            bytes: code.end - code.start,
            moved: now_at.wrapping_sub(code.start),
            lines_at: None,
        }
    }

    fn name(&self, dump: &impl Contents) -> Option<Box<str>> {
        let at = self.load + LOAD_BYTES;
        let most = record_end(dump, self.load).checked_sub(at)?;
        let text = dump.read(at, most.min(MAX_NAME_BYTES as u64) as usize)?;
        let name = name_of(text.split(|byte| *byte == 0).next()?);
        (!name.is_empty()).then(|| name.into())
    }
}

/// The lines of one function.
#[derive(Debug, Default)]
struct Lines {
    /// From which address on, which line, and where its file's name is; in the
    /// order of addresses.
    entries: Vec<(u64, u32, u64)>,
    /// Where the record ends.
    end: u64,
    /// What to add to an address to find it in here.
    bias: u64,
}

impl Lines {
    /// None if an entry is not about the function: V8 is known to write names
    /// over that it has freed, and then nothing in the record can be relied on.
    fn of(
        dump: &impl Contents,
        function: &Function,
        line_bias: u64,
        entries_left: &mut u64,
    ) -> Self {
        let Some(at) = function.lines_at else {
            return Self::default();
        };
        let mut lines = Self {
            entries: Vec::new(),
            end: record_end(dump, at),
            bias: line_bias.wrapping_sub(function.moved),
        };
        let count = dump.read(at + 24, 8).and_then(|count| u64_at(&count, 0));
        let mut at = at + DEBUG_BYTES;
        let mut file_at = None;
        for _ in 0..count.unwrap_or(0).min(MAX_ENTRIES_EACH).min(*entries_left) {
            let Some(entry) = dump.read(at, 16) else {
                break;
            };
            let (Some(address), Some(line)) = (u64_at(&entry, 0), u32_at(&entry, 8)) else {
                break;
            };
            let Some((name, behind)) = text_at(dump, at + 16, lines.end) else {
                break;
            };
            let offset = address.wrapping_sub(function.loaded_at.wrapping_add(line_bias));
            if offset > function.bytes {
                return Self::default();
            }
            if *name != *SAME_FILE {
                if !is_path(&name) {
                    return Self::default();
                }
                file_at = Some(at + 16);
            }
            if let Some(file_at) = file_at {
                lines.entries.push((address, line, file_at));
            }
            at = behind;
            *entries_left -= 1;
        }
        lines.entries.sort_by_key(|(address, ..)| *address);
        lines
    }

    /// Source file and line of an address; "" and 0 if unknown.
    fn at(&self, dump: &impl Contents, address: u64) -> (Box<str>, u32) {
        let address = address.wrapping_add(self.bias);
        let behind = self.entries.partition_point(|(at, ..)| *at <= address);
        let entry = behind.checked_sub(1).map(|index| self.entries[index]);
        let found = entry.and_then(|(_, line, file_at)| {
            let (file, _) = text_at(dump, file_at, self.end)?;
            Some((name_of(&file).into(), line))
        });
        found.unwrap_or_default()
    }
}

fn is_path(text: &[u8]) -> bool {
    str::from_utf8(text).is_ok_and(|text| !text.contains(char::is_control))
}

/// Where the record at `at` ends.
fn record_end(dump: &impl Contents, at: u64) -> u64 {
    let bytes = dump.read(at + 4, 4).and_then(|bytes| u32_at(&bytes, 0));
    at + u64::from(bytes.unwrap_or(0))
}

/// The text from `at` to its NUL, and where the next thing begins. `None` if it
/// reaches beyond `end`, or is longer than a name may be.
fn text_at(dump: &impl Contents, at: u64, end: u64) -> Option<(Vec<u8>, u64)> {
    let most = end.checked_sub(at)?.min(MAX_NAME_BYTES as u64);
    let mut text = dump.read(at, most as usize)?.into_owned();
    let length = text.iter().position(|byte| *byte == 0)?;
    text.truncate(length);
    Some((text, at + length as u64 + 1))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::*;

    /// A dump under construction.
    struct Dump(Vec<u8>);

    fn words(values: &[u64]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect()
    }

    impl Dump {
        fn new(padding: u32) -> Self {
            let mut bytes = Vec::new();
            for field in [MAGIC, VERSION, 40, 62, padding, 12] {
                bytes.extend_from_slice(&field.to_ne_bytes());
            }
            bytes.extend_from_slice(&words(&[0, 0]));
            Self(bytes)
        }

        fn record(mut self, id: u32, parts: &[&[u8]]) -> Self {
            let body: usize = parts.iter().map(|part| part.len()).sum();
            self.0.extend_from_slice(&id.to_ne_bytes());
            self.0.extend_from_slice(&(16 + body as u32).to_ne_bytes());
            self.0.extend_from_slice(&words(&[0]));
            for part in parts {
                self.0.extend_from_slice(part);
            }
            self
        }

        fn load(self, at: u64, bytes: u64, index: u64, name: &str) -> Self {
            let fixed = words(&[0, at, at, bytes, index]);
            let code = vec![0xcc; bytes as usize];
            self.record(LOAD, &[&fixed, name.as_bytes(), b"\0", &code])
        }

        fn moved(self, from: u64, to: u64, bytes: u64, index: u64) -> Self {
            self.record(MOVE, &[&words(&[0, to, from, to, bytes, index])])
        }

        fn lines(self, at: u64, lines: &[(u64, u32, &[u8])]) -> Self {
            let mut body = words(&[at, lines.len() as u64]);
            for (address, line, file) in lines {
                body.extend_from_slice(&words(&[*address]));
                body.extend_from_slice(&line.to_ne_bytes());
                body.extend_from_slice(&[0; 4]);
                body.extend_from_slice(file);
                body.push(0);
            }
            self.record(DEBUG_INFO, &[&body])
        }

        fn names(&self, addresses: &[u64]) -> Vec<String> {
            self.found(addresses)
                .symbols
                .into_iter()
                .map(|symbol| symbol.map_or_else(String::new, |symbol| symbol.name.to_string()))
                .collect()
        }

        fn found(&self, addresses: &[u64]) -> Found {
            look_up(&self.0.as_slice(), addresses)
        }

        fn place(&self, address: u64) -> (String, u32) {
            let symbol = self.found(&[address]).symbols.remove(0).unwrap();
            (symbol.source_file.to_string(), symbol.line)
        }
    }

    #[test]
    fn code_that_took_the_place_of_other_code_counts() {
        let dump = Dump::new(0)
            .load(0x1000, 0x100, 1, "old")
            .record(4, &[&[0; 24]])
            .load(0x1080, 0x10, 2, "new");
        let addresses = [0xfff, 0x1000, 0x1080, 0x108f, 0x1090, 0x1100];
        assert_eq!(dump.names(&addresses), ["", "old", "new", "new", "old", ""]);
        assert_eq!(dump.found(&addresses).bad, 0);
    }

    #[test]
    fn code_that_was_moved_keeps_its_name_and_its_lines() {
        let dump = Dump::new(0)
            .lines(0x1000, &[(0x1000, 3, b"a.js"), (0x1008, 4, b"\xff")])
            .load(0x1000, 0x10, 7, "f")
            .moved(0x1000, 0x2000, 0x10, 7)
            .load(0x1000, 0x10, 8, "g");
        assert_eq!(dump.names(&[0x1000, 0x2000]), ["g", "f"]);
        assert_eq!(dump.place(0x2007), ("a.js".to_owned(), 3));
        assert_eq!(dump.place(0x2008), ("a.js".to_owned(), 4));
        assert_eq!(dump.place(0x1008), (String::new(), 0));
    }

    #[test]
    fn lines_of_v8_lie_behind_an_elf_header() {
        let lines: [(u64, u32, &[u8]); 2] = [(0x1040, 3, b"a.js"), (0x1048, 4, b"a.js")];
        let dump = Dump::new(V8_PADDING)
            .lines(0x1000, &lines)
            .load(0x1000, 0x10, 7, "f");
        assert_eq!(dump.place(0x1007), ("a.js".to_owned(), 3));
        assert_eq!(dump.place(0x1008), ("a.js".to_owned(), 4));
    }

    #[test]
    fn lines_that_are_not_of_the_function_spoil_all_of_them() {
        for bad in [(0x1011_u64, b"a.js"), (0x1008, b"\xd1\xb3\x01s")] {
            let lines: [(u64, u32, &[u8]); 2] = [(0x1000, 3, b"a.js"), (bad.0, 4, bad.1)];
            let dump = Dump::new(0)
                .lines(0x1000, &lines)
                .load(0x1000, 0x10, 7, "f");
            assert_eq!(dump.names(&[0x1000]), ["f"]);
            assert_eq!(dump.place(0x1000), (String::new(), 0));
        }
    }

    #[test]
    fn what_is_no_dump_of_this_machine_is_refused() {
        let good = Dump::new(0).load(0x1000, 0x10, 1, "f");
        for (at, value) in [(0, MAGIC.swap_bytes()), (4, 2), (8, 39)] {
            let mut bad = Dump(good.0.clone());
            bad.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            assert_eq!(bad.names(&[0x1000]), [""]);
            assert_eq!(bad.found(&[0x1000]).bad, 1);
        }
        assert_eq!(Dump(Vec::new()).found(&[1]).bad, 1);
        assert_eq!(good.names(&[0x1000]), ["f"]);
    }

    #[test]
    fn records_of_impossible_size_are_counted() {
        let short = Dump::new(0)
            .record(LOAD, &[&words(&[0, 0x1000, 0x1000, 0x10])])
            .load(0x1000, 0x10, 1, "f");
        assert_eq!(short.names(&[0x1000]), ["f"]);
        assert_eq!(short.found(&[0x1000]).bad, 1);
        let wraps = Dump::new(0)
            .record(LOAD, &[&words(&[0, 0, u64::MAX, 2, 1]), b"f\0"])
            .load(0x1000, 0x10, 1, "g");
        assert_eq!(wraps.names(&[0x1000, u64::MAX]), ["g", ""]);
        assert_eq!(wraps.found(&[0x1000]).bad, 1);
        // Of no length at all: there is no next record.
        let mut endless = Dump::new(0).load(0x1000, 0x10, 1, "f");
        endless.0.extend_from_slice(&[0; 64]);
        assert_eq!(endless.names(&[0x1000]), ["f"]);
        assert_eq!(endless.found(&[0x1000]).bad, 1);
    }

    #[test]
    fn a_dump_that_is_cut_anywhere_loses_its_last_records_only() {
        let whole = Dump::new(0)
            .load(0x1000, 0x10, 1, "f")
            .lines(0x2000, &[(0x2000, 3, b"a.js")])
            .load(0x2000, 0x10, 2, "g");
        let first = Dump::new(0).load(0x1000, 0x10, 1, "f").0.len();
        for bytes in first..whole.0.len() {
            let cut = Dump(whole.0[..bytes].to_vec());
            assert_eq!(cut.names(&[0x1000, 0x2000]), ["f", ""]);
            assert_eq!(cut.found(&[0x1000]).bad, 0, "{bytes}");
        }
        assert_eq!(whole.names(&[0x1000, 0x2000]), ["f", "g"]);
    }

    #[test]
    fn nothing_behind_the_end_counts() {
        let dump = Dump::new(0).record(CLOSE, &[]).load(0x1000, 0x10, 1, "f");
        assert_eq!(dump.names(&[0x1000]), [""]);
    }
}
