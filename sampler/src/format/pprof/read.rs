//! A pprof file of anybody's, checked.
//!
//! Nothing of it is turned into something else: a [`Document`] lends what lies in
//! the message, so that whoever changes a part of it leaves the rest as it is.

use std::collections::HashMap;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::wire::{Field, Fields, WireError};

/// The most that a file may hold, compressed or not, and once inflated.
const MAX_BYTES: u64 = 512 << 20;
/// The most mappings, locations, functions and strings: what is kept of each in
/// memory is larger than the two bytes that it may take in the file.
const MAX_MAPPINGS: usize = 1 << 20;
const MAX_LOCATIONS: usize = 8 << 20;
const MAX_FUNCTIONS: usize = 8 << 20;
const MAX_STRINGS: usize = 16 << 20;

const GZIP: &[u8] = &[0x1f, 0x8b];

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

/// Why a file is not a profile.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    /// It begins as gzip does, and is not.
    #[error("its compressed data is damaged or cut: {0}")]
    Gzip(io::Error),
    /// It is larger than any profile.
    #[error("it holds more than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is no message, or not this one.
    #[error("it is not in the pprof format: {what} {position}: {error}")]
    Wire {
        /// What was read.
        what: &'static str,
        /// Which of them, from 0.
        position: usize,
        /// What is wrong with it.
        error: WireError,
    },
    /// Several profiles, one behind the other.
    #[error("it is more than one profile")]
    Concatenated,
    /// More than any profile has.
    #[error("it has more than {max} {what}s")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// The first string is not the empty one.
    #[error("its string table does not begin with the empty string")]
    NoStrings,
    /// A string that is not in the table.
    #[error("{what} {position} has the string {index} of {strings}")]
    UnknownString {
        /// What refers to it.
        what: &'static str,
        /// Which of them, from 0.
        position: usize,
        /// The string.
        index: u64,
        /// How many there are.
        strings: usize,
    },
    /// An ID of 0, or one that is used twice.
    #[error("{what} {position} has the ID {id}, which is 0 or another's")]
    BadId {
        /// What has it.
        what: &'static str,
        /// Which of them, from 0.
        position: usize,
        /// The ID.
        id: u64,
    },
    /// An ID that nothing has.
    #[error("{what} {position} is of the {of} {id}, which is not there")]
    UnknownId {
        /// What refers to it.
        what: &'static str,
        /// Which of them, from 0.
        position: usize,
        /// What it refers to.
        of: &'static str,
        /// The ID.
        id: u64,
    },
    /// A sample that has not one value for each type.
    #[error("sample {position} has {values} values for {types} sample types")]
    Values {
        /// Which of them, from 0.
        position: usize,
        /// What it has.
        values: usize,
        /// What it should have.
        types: usize,
    },
}

/// Whether a file was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// By gzip.
    Gzip,
    /// Not at all.
    Plain,
}

/// The message in a file, gzip or not; at most 512 MiB of it.
pub fn unpack(file: impl Read) -> Result<(Vec<u8>, Packing), ReadError> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(ReadError::Io)?;
    let (bytes, packing) = if bytes.starts_with(GZIP) {
        let mut message = Vec::new();
        let inflated = MultiGzDecoder::new(bytes.as_slice())
            .take(MAX_BYTES + 1)
            .read_to_end(&mut message);
        inflated.map_err(ReadError::Gzip)?;
        (message, Packing::Gzip)
    } else {
        (bytes, Packing::Plain)
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    Ok((bytes, packing))
}

/// A profile, as it lies in its message.
#[derive(Debug)]
pub struct Document<'a> {
    pub(super) message: &'a [u8],
    pub(super) mappings: Vec<Mapping<'a>>,
    pub(super) locations: Vec<Location>,
    pub(super) functions: Vec<Function>,
    pub(super) strings: Vec<&'a [u8]>,
    comments: Vec<u64>,
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping<'a> {
    id: u64,
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
    id: u64,
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

    /// Everything but the mappings that locations lie in.
    fn check(&self, types: usize) -> Result<(), ReadError> {
        let functions = Ids::new(
            "function",
            self.functions.iter().map(|function| function.id),
        )?;
        let locations = Ids::new(
            "location",
            self.locations.iter().map(|location| location.id),
        )?;
        for (position, function) in self.functions.iter().enumerate() {
            for index in [function.name, function.system_name, function.file] {
                text(&self.strings, index, "function", position)?;
            }
        }
        for (position, index) in self.comments.iter().enumerate() {
            text(&self.strings, *index, "comment", position)?;
        }
        let (mut sample, mut location) = (0, 0);
        for (position, field) in Fields(self.message).enumerate() {
            let wrong = |error| wire("field", position)(error);
            let field = field.map_err(wrong)?;
            match field.number {
                field::SAMPLE => {
                    let bytes = field.bytes().map_err(wrong)?;
                    self.check_sample(bytes, sample, types, &locations)?;
                    sample += 1;
                }
                field::LOCATION => {
                    let bytes = field.bytes().map_err(wrong)?;
                    check_lines(bytes, location, &functions)?;
                    location += 1;
                }
                field::SAMPLE_TYPE | field::PERIOD_TYPE => {
                    let bytes = field.bytes().map_err(wrong)?;
                    self.check_texts(bytes, &[1, 2], "value type", position)?;
                }
                field::DROP_FRAMES
                | field::KEEP_FRAMES
                | field::DEFAULT_SAMPLE_TYPE
                | field::DOC_URL => {
                    let index = field.number().map_err(wrong)?;
                    text(&self.strings, index, "field", position)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_sample(
        &self,
        bytes: &[u8],
        position: usize,
        types: usize,
        locations: &Ids,
    ) -> Result<(), ReadError> {
        let wrong = wire("sample", position);
        let mut values = 0;
        for field in Fields(bytes) {
            let field = field.map_err(wrong)?;
            match field.number {
                1 => {
                    for id in field.numbers() {
                        locations.position(id.map_err(wrong)?, "sample", position)?;
                    }
                }
                2 => {
                    for value in field.numbers() {
                        value.map_err(wrong)?;
                        values += 1;
                    }
                }
                3 => {
                    let label = field.bytes().map_err(wrong)?;
                    self.check_texts(label, &[1, 2, 4], "a label of sample", position)?;
                }
                _ => {}
            }
        }
        if values != types {
            return Err(ReadError::Values {
                position,
                values,
                types,
            });
        }
        Ok(())
    }

    /// The fields of a message that are numbers of strings.
    fn check_texts(
        &self,
        message: &[u8],
        fields: &[u32],
        what: &'static str,
        position: usize,
    ) -> Result<(), ReadError> {
        for field in Fields(message) {
            let field = field.map_err(wire(what, position))?;
            if fields.contains(&field.number) {
                let index = field.number().map_err(wire(what, position))?;
                text(&self.strings, index, what, position)?;
            }
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

/// Each line is of a function that is there.
fn check_lines(message: &[u8], position: usize, functions: &Ids) -> Result<(), ReadError> {
    let wrong = wire("location", position);
    for field in Fields(message) {
        let field = field.map_err(wrong)?;
        if field.number != 4 {
            continue;
        }
        let mut function = 0;
        for field in Fields(field.bytes().map_err(wrong)?) {
            let field: Field<'_> = field.map_err(wrong)?;
            if field.number == 1 {
                function = field.number().map_err(wrong)?;
            }
        }
        functions.position(function, "a line of location", position)?;
    }
    Ok(())
}

fn push<T>(table: &mut Vec<T>, entry: T, what: &'static str, max: usize) -> Result<(), ReadError> {
    if table.len() >= max {
        return Err(ReadError::TooMany { what, max });
    }
    table.push(entry);
    Ok(())
}

fn wire(what: &'static str, position: usize) -> impl Fn(WireError) -> ReadError + Copy {
    move |error| ReadError::Wire {
        what,
        position,
        error,
    }
}

fn text<'a>(
    strings: &[&'a [u8]],
    index: u64,
    what: &'static str,
    position: usize,
) -> Result<&'a [u8], ReadError> {
    let found = usize::try_from(index).ok().and_then(|at| strings.get(at));
    found.copied().ok_or(ReadError::UnknownString {
        what,
        position,
        index,
        strings: strings.len(),
    })
}

/// Which entry of a table has an ID.
struct Ids {
    of: &'static str,
    len: u64,
    /// Empty when each ID is the position, counted from 1.
    positions: HashMap<u64, u32>,
}

impl Ids {
    fn new(
        of: &'static str,
        ids: impl ExactSizeIterator<Item = u64> + Clone,
    ) -> Result<Self, ReadError> {
        let len = ids.len() as u64;
        let mut positions = HashMap::new();
        if !ids.clone().zip(1..).all(|(id, dense)| id == dense) {
            for (position, id) in ids.enumerate() {
                if id == 0 || positions.insert(id, position as u32).is_some() {
                    return Err(ReadError::BadId {
                        what: of,
                        position,
                        id,
                    });
                }
            }
        }
        Ok(Self { of, len, positions })
    }

    fn position(&self, id: u64, what: &'static str, position: usize) -> Result<u32, ReadError> {
        let found = if self.positions.is_empty() {
            (1..=self.len).contains(&id).then(|| (id - 1) as u32)
        } else {
            self.positions.get(&id).copied()
        };
        found.ok_or(ReadError::UnknownId {
            what,
            position,
            of: self.of,
            id,
        })
    }
}
