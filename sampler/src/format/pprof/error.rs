//! Why a file is not a profile.

use std::io;

use super::packing::MAX_BYTES;
use super::wire::WireError;

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

/// An error of the message, of what was read at a position.
pub(super) fn wire(what: &'static str, position: usize) -> impl Fn(WireError) -> ReadError + Copy {
    move |error| ReadError::Wire {
        what,
        position,
        error,
    }
}
