//! The messages of pprof's `profile.proto`, package `perftools.profiles`.
//!
//! Field numbers and types follow
//! <https://github.com/google/pprof/blob/main/proto/profile.proto>. Every
//! `i64` that is a string is an index into [`Profile::string_table`].

// The messages and their names are the format's, not ours to choose.
#![allow(clippy::struct_excessive_bools, clippy::struct_field_names)]

use prost::Message;

/// The file.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What each sample's values are.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// Stacks and how often each was seen.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Mapped files, the main binary first.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// Addresses.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All strings; the first one is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// Start, nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// Length, nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What lies between two samples.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Remarks for people (strings).
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// Name of the value that is shown first (string).
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// A kind of value and its unit.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ValueType {
    /// Name (string).
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Unit (string).
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// One stack.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// Location ids, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value for each sample type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// Who ran.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// One label: a text, or a number with a unit.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Label {
    /// Name (string).
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Text (string), or 0.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// Number.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// Unit of the number (string).
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// One mapped file.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Mapping {
    /// Id from 1.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// First address behind it.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Offset of the first address in the file.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Path (string).
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Build ID in hexadecimal (string).
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Its functions have been looked up.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Source files are known.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Source lines are known.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Inlined functions are known.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// One address.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    /// Id from 1.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The mapping it lies in.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The address.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Functions, innermost first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// One function at an address.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Line {
    /// The function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Line from 1, or 0.
    #[prost(int64, tag = "2")]
    pub line: i64,
    /// Column from 1, or 0.
    #[prost(int64, tag = "3")]
    pub column: i64,
}

/// One function.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Function {
    /// Id from 1.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Name for people (string).
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Name in the symbol table (string).
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Source file (string).
    #[prost(int64, tag = "4")]
    pub filename: i64,
}
