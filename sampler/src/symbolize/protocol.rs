//! What the worker and the child that parses for it say to each other.
//!
//! One request at a time, so that it is always known over which file a child has
//! ended. What the child answers is as hostile as the file that it has read.

use serde::{Deserialize, Serialize};

use super::demangle::MAX_NAME_BYTES;
use super::frames::MAX_INLINED;
use super::jit::JitStats;
use super::names::FrameName;
use super::native::AddressKind;

/// Addresses that are asked for at once.
pub(super) const MAX_ADDRESSES: usize = 4096;
/// Symbols that are demangled at once, in bytes of their names.
pub(super) const SYMBOLS_AT_ONCE_BYTES: usize = 64 << 10;
/// What the symbol tables of a file may come to.
pub(super) const MAX_FILE_ROWS_BYTES: usize = 16 << 20;
/// One message from the child. It splits what is longer.
pub(super) const MAX_REPLY_BYTES: usize = 1 << 20;
/// What comes at once of a file without compression.
pub(super) const MAX_PART_BYTES: usize = 256 << 10;
/// A build ID or a debug link that the child may ask for.
pub(super) const MAX_LINK_BYTES: usize = 255;

/// What the worker asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Comes first; nothing is answered.
    Begin {
        /// What open parsers may hold together.
        max_parser_bytes: u64,
        /// What may be inflated.
        allowance_bytes: u64,
    },
    /// Look into the file that comes with this. Answered by [`Reply::Opened`],
    /// with [`Reply::Compressed`] and [`Reply::Wants`] before.
    Open {
        /// What it is called from now on.
        file: u64,
        /// The build ID that the kernel knows it by.
        build_id: Option<Box<[u8]>>,
        /// Its debug information is to be left alone.
        symbols_only: bool,
    },
    /// The next file that may be what [`Reply::Wants`] asks for.
    Candidate,
    /// There are no more of them.
    NoCandidate,
    /// What [`Reply::Compressed`] is about comes with this, without compression.
    Decompressed,
    /// It is to be sent without compression, in messages of at most
    /// [`MAX_PART_BYTES`]; an empty one says that it is broken. Then comes
    /// [`Self::Decompressed`] or [`Self::LeaveCompressed`].
    Decompress,
    /// Nobody keeps it without compression.
    LeaveCompressed,
    /// Name these addresses in a file that is open. Answered by [`Reply::Frames`],
    /// then [`Reply::Named`].
    Name {
        /// Which.
        file: u64,
        /// Where.
        addresses: Vec<u64>,
        /// How they are counted.
        kind: AddressKind,
    },
    /// What the symbol tables of a file that is open say of all of it. Answered by
    /// [`Reply::Symbols`].
    Symbols {
        /// Which.
        file: u64,
    },
    /// The frames of symbols, of which these are the names. Answered by
    /// [`Reply::Frames`].
    Demangle {
        /// Their names.
        symbols: Vec<Vec<u8>>,
    },
    /// Name these addresses of the kernel. Answered by [`Reply::Frames`], then
    /// [`Reply::KernelNamed`].
    Kernel {
        /// Where.
        addresses: Vec<u64>,
        /// Its symbol table comes with this, and is newer than the last one.
        is_new_table: bool,
    },
    /// The jitdump that comes with this belongs to the next [`Self::Jit`];
    /// nothing is answered.
    JitDump,
    /// Name these addresses, in ascending order, in code that was made at run
    /// time, by the jitdump before and the perf map that comes with this, as far
    /// as there are any. Answered by [`Reply::Frames`], then
    /// [`Reply::JitNamed`].
    Jit {
        /// Where.
        addresses: Vec<u64>,
        /// What may be read.
        allowance_bytes: u64,
    },
    /// Hold nothing that can be had again. Answered by [`Reply::Closed`].
    CloseParsers,
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The file is open.
    Opened(FileState),
    /// It has its debug information in another file, of this build ID and with
    /// this name.
    Wants {
        /// Its build ID.
        build_id: Box<[u8]>,
        /// The name in its debug link.
        link: Option<Box<[u8]>>,
    },
    /// The next candidate.
    WantsNext,
    /// The debug information of the file that came last is compressed. Answered by
    /// [`Request::Decompressed`], [`Request::Decompress`] or
    /// [`Request::LeaveCompressed`].
    Compressed {
        /// How large the file is without compression.
        size_bytes: u64,
    },
    /// The frames at the next addresses, in order.
    Frames(Vec<Vec<FrameName>>),
    /// All have been named.
    Named(FileState),
    /// Whether [rows](super::symbol_rows) follow, as a message of their own.
    Symbols(bool),
    /// As [`Self::Named`], for the kernel.
    KernelNamed {
        /// There are no addresses in its table.
        names_hidden: bool,
        /// Panics so far.
        panics: u64,
    },
    /// As [`Self::Named`], for code that was made at run time.
    JitNamed {
        /// What became of the files, this time.
        stats: JitStats,
        /// What may still be read.
        allowance_bytes: u64,
    },
    /// The parsers are closed.
    Closed,
}

/// How it stands with a file.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct FileState {
    /// Nothing of it can be read.
    pub failed: bool,
    /// It has debug information that is not used.
    pub lost_debug_info: bool,
    /// Some of the debug information that is used lies in a supplement, which is
    /// not read.
    pub lacks_supplement: bool,
    /// Panics so far.
    pub panics: u64,
    /// What its parser may take before it has read any DWARF.
    pub parser_bytes: u64,
    /// The DWARF that it reads, as it lies in the file.
    pub debug_bytes: u64,
    /// What may still be inflated, of all files.
    pub allowance_bytes: u64,
}

/// Whether frames are such as [`super::frames::frames`] makes.
pub(super) fn is_sound(frames: &[FrameName]) -> bool {
    let is_text = |text: &str| text.len() <= MAX_NAME_BYTES && !text.contains('\0');
    frames.len() <= MAX_INLINED + 1
        && frames.iter().all(|frame| {
            [&frame.name, &frame.system_name, &frame.source_file]
                .into_iter()
                .all(|text| is_text(text))
        })
}

/// Takes answers off the front that fit into one message, at least one. An
/// answer that fits into none is left out.
pub(super) fn split(answers: &mut Vec<Vec<FrameName>>) -> Vec<Vec<FrameName>> {
    let bytes_of = |frames: &Vec<FrameName>| {
        let texts = |frame: &FrameName| {
            frame.name.len() + frame.system_name.len() + frame.source_file.len()
        };
        // Lengths and numbers are at most ten bytes each.
        frames.iter().fold(10, |sum, frame| sum + texts(frame) + 50)
    };
    let mut room = MAX_REPLY_BYTES - 64;
    let mut taken = 0;
    for answer in answers.iter_mut() {
        let bytes = bytes_of(answer);
        match room.checked_sub(bytes) {
            Some(left) => room = left,
            None if taken == 0 => answer.clear(),
            None => break,
        }
        taken += 1;
    }
    let rest = answers.split_off(taken);
    std::mem::replace(answers, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str) -> FrameName {
        FrameName {
            name: name.to_owned(),
            system_name: String::new(),
            source_file: String::new(),
            line: u32::MAX,
            column: u32::MAX,
        }
    }

    fn long_frames(count: usize) -> Vec<FrameName> {
        vec![frame(&"x".repeat(MAX_NAME_BYTES)); count]
    }

    #[test]
    fn answers_go_in_as_few_messages_as_have_room_for_them() {
        let mut answers = vec![long_frames(100), vec![], long_frames(100), long_frames(100)];
        let whole = answers.clone();
        let mut parts = Vec::new();
        while !answers.is_empty() {
            let part = split(&mut answers);
            let message = Reply::Frames(part.clone());
            assert!(postcard::to_stdvec(&message).is_ok_and(|it| it.len() <= MAX_REPLY_BYTES));
            parts.push(part);
        }
        assert_eq!(parts.len(), 2);
        assert_eq!(parts.concat(), whole);
    }

    #[test]
    fn an_answer_that_fits_into_no_message_is_left_out_and_the_next_is_not() {
        let mut answers = vec![long_frames(300), vec![frame("f")]];
        assert_eq!(split(&mut answers), [vec![], vec![frame("f")]]);
        assert!(answers.is_empty());
    }

    #[test]
    fn frames_that_no_parser_here_makes_are_not_sound() {
        assert!(is_sound(&[frame("f"), frame("")]));
        assert!(!is_sound(&[frame("f\0g")]));
        assert!(!is_sound(&[frame(&"x".repeat(MAX_NAME_BYTES + 1))]));
        assert!(!is_sound(&vec![frame("f"); MAX_INLINED + 2]));
    }
}
