//! Naming the locations of a profile that is written already.
//!
//! The message is copied field by field. What changes is appended to: a location
//! gets lines, a mapping says what is known of it, functions and strings come at
//! the end. All else, fields that nobody here knows included, stays byte by byte.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::read::{Document, field};
use super::wire::{Fields, WireError, put_bytes, put_number};
use crate::format::safe;

/// A function at an address, inlined or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SourceLine {
    /// Demangled name, for people.
    pub name: String,
    /// Name as the symbol table has it.
    pub system_name: String,
    /// Source file, empty where it is not known.
    pub file: String,
    /// Line from 1, or 0 where it is not known.
    pub line: u32,
    /// Column from 1, or 0 where it is not known.
    pub column: u32,
}

/// Lines for locations, by position in [`Document::locations`]; the innermost
/// inlined function first.
pub type NewLines = BTreeMap<usize, Vec<SourceLine>>;

/// The message with these lines in it.
pub fn rename(document: &Document<'_>, lines: &NewLines) -> Result<Vec<u8>, WireError> {
    let mut tables = Tables::new(document);
    let mut known = BTreeMap::<u32, Known>::new();
    for (at, lines) in lines.iter().filter(|(_, lines)| !lines.is_empty()) {
        if let Some(mapping) = document
            .locations
            .get(*at)
            .and_then(|location| location.mapping)
        {
            known.entry(mapping).or_default().add(lines);
        }
    }
    let mut out = Vec::with_capacity(document.message.len() + document.message.len() / 4);
    let (mut mapping, mut location) = (0, 0);
    for field in Fields(document.message) {
        let field = field?;
        match field.number {
            field::MAPPING => {
                match known.get(&mapping) {
                    Some(known) => {
                        let message = known.added_to(field.bytes()?)?;
                        put_bytes(&mut out, field::MAPPING, &message);
                    }
                    None => out.extend_from_slice(field.raw),
                }
                mapping += 1;
            }
            field::LOCATION => {
                match lines.get(&location) {
                    Some(lines) => {
                        let mut message = field.bytes()?.to_vec();
                        for line in lines {
                            put_bytes(&mut message, 4, &tables.line(line));
                        }
                        put_bytes(&mut out, field::LOCATION, &message);
                    }
                    None => out.extend_from_slice(field.raw),
                }
                location += 1;
            }
            _ => out.extend_from_slice(field.raw),
        }
    }
    out.append(&mut tables.functions);
    out.append(&mut tables.strings);
    Ok(out)
}

/// What becomes known of a mapping.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    filenames: bool,
    line_numbers: bool,
    inline_frames: bool,
}

impl Known {
    fn add(&mut self, lines: &[SourceLine]) {
        self.inline_frames |= lines.len() > 1;
        self.filenames |= lines.iter().any(|line| !line.file.is_empty());
        self.line_numbers |= lines.iter().any(|line| line.line != 0);
    }

    /// The mapping with what is known now in place of what was said to be.
    fn added_to(self, mapping: &[u8]) -> Result<Vec<u8>, WireError> {
        let new = [true, self.filenames, self.line_numbers, self.inline_frames];
        let mut out = Vec::with_capacity(mapping.len() + 8);
        let becomes_known = |number: u32| {
            let at = number
                .checked_sub(7)
                .and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| new.get(at)) == Some(&true)
        };
        for field in Fields(mapping) {
            let field = field?;
            if !becomes_known(field.number) {
                out.extend_from_slice(field.raw);
            }
        }
        for (number, _) in (7..).zip(new).filter(|(_, is_new)| *is_new) {
            put_number(&mut out, number, 1);
        }
        Ok(out)
    }
}

/// Functions and strings, with those that are new.
struct Tables<'a> {
    taken_ids: HashSet<u64>,
    next_id: u64,
    /// By name, name in the symbol table, and file.
    function_ids: HashMap<[u64; 3], u64>,
    old_strings: HashMap<&'a [u8], u64>,
    new_strings: HashMap<String, u64>,
    next_string: u64,
    /// As fields of the file.
    functions: Vec<u8>,
    strings: Vec<u8>,
}

impl<'a> Tables<'a> {
    fn new(document: &Document<'a>) -> Self {
        let functions = || document.functions.iter();
        let mut old_strings = HashMap::new();
        for (text, index) in document.strings.iter().zip(0..) {
            old_strings.entry(*text).or_insert(index);
        }
        Self {
            taken_ids: functions().map(|function| function.id).collect(),
            next_id: document.functions.len() as u64 + 1,
            function_ids: functions()
                .filter(|function| function.start_line == 0)
                .map(|function| {
                    let key = [function.name, function.system_name, function.file];
                    (key, function.id)
                })
                .collect(),
            old_strings,
            new_strings: HashMap::new(),
            next_string: document.strings.len() as u64,
            functions: Vec::new(),
            strings: Vec::new(),
        }
    }

    /// A line as a message.
    fn line(&mut self, line: &SourceLine) -> Vec<u8> {
        let mut message = Vec::new();
        put_number(&mut message, 1, self.function(line));
        put_known(&mut message, 2, line.line.into());
        put_known(&mut message, 3, line.column.into());
        message
    }

    fn function(&mut self, line: &SourceLine) -> u64 {
        let texts = [&line.name, &line.system_name, &line.file];
        let key = texts.map(|text| self.string(text));
        if let Some(id) = self.function_ids.get(&key) {
            return *id;
        }
        // The ids of most files are their positions, counted from 1, and stay so.
        while self.taken_ids.contains(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.function_ids.insert(key, id);
        let mut message = Vec::new();
        put_number(&mut message, 1, id);
        for (number, index) in (2..).zip(key) {
            put_known(&mut message, number, index);
        }
        put_bytes(&mut self.functions, field::FUNCTION, &message);
        id
    }

    /// The index of `text`, made printable: reports are read on terminals.
    fn string(&mut self, text: &str) -> u64 {
        let text = safe::visible(text);
        if let Some(index) = self.old_strings.get(text.as_bytes()) {
            return *index;
        }
        if let Some(index) = self.new_strings.get(&*text) {
            return *index;
        }
        let index = self.next_string;
        self.next_string += 1;
        put_bytes(&mut self.strings, field::STRING, text.as_bytes());
        self.new_strings.insert(text.into_owned(), index);
        index
    }
}

/// A number that is left out when it is 0, as everywhere in this format.
fn put_known(message: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_number(message, number, value);
    }
}
