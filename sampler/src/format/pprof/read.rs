//! A pprof file of anybody's, checked.
//!
//! Nothing of it is turned into something else: a [`Document`] lends what lies in
//! the message, so that whoever changes a part of it leaves the rest as it is.

use super::check::text;
use super::error::{ReadError, wire};
use super::ids::Ids;
use super::wire::{Fields, WireError};

/// The most mappings, locations, functions and strings: what is kept of each in
/// memory is larger than the two bytes that it may take in the file.
const MAX_MAPPINGS: usize = 1 << 20;
const MAX_LOCATIONS: usize = 8 << 20;
const MAX_FUNCTIONS: usize = 8 << 20;
const MAX_STRINGS: usize = 16 << 20;

/// The fields of the file that are looked into.
pub(super) mod field {
    pub const SAMPLE_TYPE: u32 = 1;
    pub const SAMPLE: u32 = 2;
    pub const MAPPING: u32 = 3;
    pub const LOCATION: u32 = 4;
    pub const FUNCTION: u32 = 5;
    pub const STRING: u32 = 6;
    pub const DROP_FRAMES: u32 = 7;
    pub const KEEP_FRAMES: u32 = 8;
    pub const TIME: u32 = 9;
    pub const PERIOD_TYPE: u32 = 11;
    pub const COMMENT: u32 = 13;
    pub const DEFAULT_SAMPLE_TYPE: u32 = 14;
    pub const DOC_URL: u32 = 15;
}

/// A profile, as it lies in its message.
#[derive(Debug)]
pub struct Document<'a> {
    pub(super) message: &'a [u8],
    pub(super) mappings: Vec<Mapping<'a>>,
    pub(super) locations: Vec<Location>,
    pub(super) functions: Vec<Function>,
    pub(super) strings: Vec<&'a [u8]>,
    pub(super) comments: Vec<u64>,
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping<'a> {
    pub(super) id: u64,
    /// First address.
    pub start: u64,
    /// First address behind it; 0 where it is not known.
    pub limit: u64,
    /// Where in the file `start` lies.
    pub file_offset: u64,
    /// Path, or a name such as `[vdso]`. Any bytes.
    pub file: &'a [u8],
    /// Build ID as text. Any bytes.
    pub build_id: &'a [u8],
    strings: [u64; 2],
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub(super) id: u64,
    mapping_id: u64,
    /// The address, in the process.
    pub address: u64,
    /// Position of the mapping that it lies in, in [`Document::mappings`].
    pub mapping: Option<u32>,
    /// Whether anything is known of it: a function, a line.
    pub has_lines: bool,
}

/// A function; the fields that tell it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Function {
    pub id: u64,
    pub name: u64,
    pub system_name: u64,
    pub file: u64,
    pub start_line: u64,
}

impl<'a> Document<'a> {
    /// Checks the whole message: each number of a string, each ID, the values of
    /// each sample.
    pub fn parse(message: &'a [u8]) -> Result<Self, ReadError> {
        if message.is_empty() {
            return Err(ReadError::Empty);
        }
        let (mut document, types) = Self::tables(message)?;
        if document.strings.first() != Some(&b"".as_slice()) {
            return Err(ReadError::NoStrings);
        }
        document.resolve_mappings()?;
        let mappings = Ids::new(
            "mapping",
            document.mappings.iter().map(|mapping| mapping.id),
        )?;
        for (position, location) in document.locations.iter_mut().enumerate() {
            if location.mapping_id != 0 {
                let mapping = mappings.position(location.mapping_id, "location", position)?;
                location.mapping = Some(mapping);
            }
        }
        document.check(types)?;
        Ok(document)
    }

    /// The mappings.
    pub fn mappings(&self) -> &[Mapping<'a>] {
        &self.mappings
    }

    /// The locations.
    pub fn locations(&self) -> &[Location] {
        &self.locations
    }

    /// The remarks. Any bytes.
    pub fn comments(&self) -> impl Iterator<Item = &'a [u8]> {
        let text = |index: &u64| self.strings.get(usize::try_from(*index).ok()?).copied();
        self.comments.iter().filter_map(text)
    }

    /// Reads the tables, and how many sample types there are.
    fn tables(message: &'a [u8]) -> Result<(Self, usize), ReadError> {
        let mut document = Self {
            message,
            mappings: Vec::new(),
            locations: Vec::new(),
            functions: Vec::new(),
            strings: Vec::new(),
            comments: Vec::new(),
        };
        let (mut types, mut times) = (0, 0);
        for (position, field) in Fields(message).enumerate() {
            let wrong = |error| wire("field", position)(error);
            let field = field.map_err(wrong)?;
            match field.number {
                field::SAMPLE_TYPE => types += 1,
                field::MAPPING => {
                    let bytes = field.bytes().map_err(wrong)?;
                    let read = Mapping::read(bytes);
                    let read = read.map_err(wire("mapping", document.mappings.len()))?;
                    push(&mut document.mappings, read, "mapping", MAX_MAPPINGS)?;
                }
                field::LOCATION => {
                    let bytes = field.bytes().map_err(wrong)?;
                    let read = Location::read(bytes);
                    let read = read.map_err(wire("location", document.locations.len()))?;
                    push(&mut document.locations, read, "location", MAX_LOCATIONS)?;
                }
                field::FUNCTION => {
                    let bytes = field.bytes().map_err(wrong)?;
                    let read = Function::read(bytes);
                    let read = read.map_err(wire("function", document.functions.len()))?;
                    push(&mut document.functions, read, "function", MAX_FUNCTIONS)?;
                }
                field::STRING => {
                    let text = field.bytes().map_err(wrong)?;
                    push(&mut document.strings, text, "string", MAX_STRINGS)?;
                }
                field::COMMENT => {
                    for index in field.numbers() {
                        let index = index.map_err(wrong)?;
                        push(&mut document.comments, index, "comment", MAX_STRINGS)?;
                    }
                }
                field::TIME => times += 1,
                _ => {}
            }
        }
        if times > 1 {
            return Err(ReadError::Concatenated);
        }
        Ok((document, types))
    }

    fn resolve_mappings(&mut self) -> Result<(), ReadError> {
        let strings = &self.strings;
        for (position, mapping) in self.mappings.iter_mut().enumerate() {
            let [file, build_id] = mapping.strings;
            mapping.file = text(strings, file, "mapping", position)?;
            mapping.build_id = text(strings, build_id, "mapping", position)?;
        }
        Ok(())
    }
}

impl Mapping<'_> {
    fn read(message: &[u8]) -> Result<Self, WireError> {
        let mut mapping = Self {
            id: 0,
            start: 0,
            limit: 0,
            file_offset: 0,
            file: b"",
            build_id: b"",
            strings: [0; 2],
        };
        for field in Fields(message) {
            let field = field?;
            let slot = match field.number {
                1 => &mut mapping.id,
                2 => &mut mapping.start,
                3 => &mut mapping.limit,
                4 => &mut mapping.file_offset,
                5 => &mut mapping.strings[0],
                6 => &mut mapping.strings[1],
                7..=10 => {
                    field.number()?;
                    continue;
                }
                _ => continue,
            };
            *slot = field.number()?;
        }
        Ok(mapping)
    }
}

impl Location {
    fn read(message: &[u8]) -> Result<Self, WireError> {
        let mut location = Self {
            id: 0,
            mapping_id: 0,
            address: 0,
            mapping: None,
            has_lines: false,
        };
        for field in Fields(message) {
            let field = field?;
            match field.number {
                1 => location.id = field.number()?,
                2 => location.mapping_id = field.number()?,
                3 => location.address = field.number()?,
                4 => location.has_lines = field.bytes().map(|_| true)?,
                _ => {}
            }
        }
        Ok(location)
    }
}

impl Function {
    fn read(message: &[u8]) -> Result<Self, WireError> {
        let mut function = Self {
            id: 0,
            name: 0,
            system_name: 0,
            file: 0,
            start_line: 0,
        };
        for field in Fields(message) {
            let field = field?;
            let slot = match field.number {
                1 => &mut function.id,
                2 => &mut function.name,
                3 => &mut function.system_name,
                4 => &mut function.file,
                5 => &mut function.start_line,
                _ => continue,
            };
            *slot = field.number()?;
        }
        Ok(function)
    }
}

fn push<T>(table: &mut Vec<T>, entry: T, what: &'static str, max: usize) -> Result<(), ReadError> {
    if table.len() >= max {
        return Err(ReadError::TooMany { what, max });
    }
    table.push(entry);
    Ok(())
}
