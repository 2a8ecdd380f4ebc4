//! Names of code that was made at run time, from what its runtime wrote down.
//!
//! Two kinds of files: perf maps and jitdumps. Both are written by the process
//! that is looked at, so nothing in them is believed. The parsers are pure: from
//! the bytes of a file and some addresses to names. They hold no table; what they
//! take grows with the addresses that are asked for.

mod jitdump;
mod newest;
mod perf_map;
mod source;

use super::demangle::clean;

pub use jitdump::look_up as look_up_in_jitdump;
pub use perf_map::look_up as look_up_in_perf_map;
pub use source::{JitSource, JitStats};

/// What is read of a name at most, in bytes.
const MAX_NAME_BYTES: usize = 4096;

/// What is known of a function that was made at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Its name as the runtime spelt it, without NUL.
    pub name: Box<str>,
    /// Path of the source file; "" if unknown.
    pub source_file: Box<str>,
    /// Line of that address, counted from 1; 0 if unknown.
    pub line: u32,
}

/// What a file says about some addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// For each address, in their order.
    pub symbols: Vec<Option<Symbol>>,
    /// Lines or records that made no sense.
    pub bad: u64,
}

/// A name of bytes that anybody may have written.
fn name_of(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_NAME_BYTES)];
    clean(&String::from_utf8_lossy(bytes))
}

fn symbol_of(name: String) -> Option<Symbol> {
    (!name.is_empty()).then(|| Symbol {
        name: name.into(),
        source_file: "".into(),
        line: 0,
    })
}
