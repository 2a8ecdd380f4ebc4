//! All that the symbol tables of a file say, and the frames of the symbols that
//! recordings met.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use crate::object::PinnedFile;
use crate::symbolize::demangle::MAX_NAME_BYTES;
use crate::symbolize::names::Named;
use crate::symbolize::symbol_rows::{Held, SymbolRows};

use super::addresses::Addresses;

/// Bytes of a symbol's name that are read at once; most are shorter.
const NAME_STEP_BYTES: usize = 256;

/// What is known of all code of a file.
#[derive(Debug)]
pub(super) struct Symbols {
    rows: SymbolRows,
    /// The frames of symbols, by where their names are in the file: those of earlier
    /// recordings.
    kept: Addresses,
    /// Those that were asked for since.
    new: HashMap<u64, Named>,
}

/// A symbol without frames so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::symbolize) struct Symbol {
    /// Where its name is in the file.
    at: u64,
    /// The name, or as much of one that is too long as shows that.
    pub name: Vec<u8>,
}

impl Symbols {
    pub(super) fn new(rows: SymbolRows, kept: Addresses) -> Self {
        Self {
            rows,
            kept,
            new: HashMap::new(),
        }
    }

    /// What was found at addresses before the rows came, as frames of symbols.
    pub(super) fn met(rows: SymbolRows, found: &HashMap<u64, Named>) -> Self {
        let frames =
            found.iter().filter_map(
                |(address, named)| match (rows.find(*address)?, &named[..]) {
                    (Held::NamedAt(at), [_]) => Some((at.into(), Named::clone(named))),
                    _ => None,
                },
            );
        let new = frames.collect();
        Self {
            new,
            ..Self::new(rows, Addresses::default())
        }
    }

    /// What the rows take.
    pub(super) fn rows_bytes(&self) -> usize {
        self.rows.as_bytes().len()
    }

    /// The frames at an address, as far as they are known.
    pub(super) fn named(&self, address: u64) -> Option<Named> {
        match self.rows.find(address)? {
            Held::Nothing => Some(Named::from([])),
            Held::NamedAt(at) => self.frames_of(at.into()),
        }
    }

    fn frames_of(&self, at: u64) -> Option<Named> {
        let new = self.new.get(&at).cloned();
        new.or_else(|| self.kept.named(at))
    }

    /// The symbols that hold at these addresses and have no frames so far, each once.
    pub(super) fn missing(&self, pin: &PinnedFile, addresses: &[u64]) -> Vec<Symbol> {
        let named_at = addresses.iter().filter_map(|address| {
            let Held::NamedAt(at) = self.rows.find(*address)? else {
                return None;
            };
            let at = at.into();
            let is_known = self.new.contains_key(&at) || self.kept.knows(at);
            (!is_known).then_some(at)
        });
        let named_at: HashSet<u64> = named_at.collect();
        if named_at.is_empty() {
            return Vec::new();
        }
        let Ok(file) = pin.as_fd().try_clone_to_owned().map(File::from) else {
            return Vec::new();
        };
        let symbols = named_at.into_iter().filter_map(|at| {
            let name = text(&file, at)?;
            Some(Symbol { at, name })
        });
        symbols.collect()
    }

    /// Takes the frames of symbols that were asked for.
    pub(super) fn have(&mut self, symbols: &[Symbol], named: Vec<Named>) {
        let at = symbols.iter().map(|symbol| symbol.at);
        self.new.extend(at.zip(named));
    }

    /// Whether there are frames that no earlier recording had, and room for them.
    pub(super) fn is_changed(&self) -> bool {
        !self.new.is_empty() && self.kept.room() > 0
    }

    /// The frames of all symbols that were met.
    pub(super) fn frames(&self) -> Addresses {
        self.kept.with(&self.new)
    }
}

/// The text at an offset of a file, up to a NUL; of one that is longer than a name,
/// one byte more than a name has. `None` if the file ends before it does.
fn text(file: &File, offset: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let mut step = [0; NAME_STEP_BYTES];
        let found = file.read_at(&mut step, offset + text.len() as u64).ok()?;
        let step = &step[..found];
        let end = step.iter().position(|byte| *byte == 0);
        text.extend_from_slice(&step[..end.unwrap_or(found)]);
        if end.is_some() || text.len() > MAX_NAME_BYTES {
            text.truncate(MAX_NAME_BYTES + 1);
            return Some(text);
        }
        if found == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_text_ends_with_a_nul_or_is_too_long() {
        let mut file = tempfile::tempfile().unwrap();
        let long = "x".repeat(5000);
        file.write_all(format!("{long}\0short\0\0open").as_bytes())
            .unwrap();
        let length_at = |offset| text(&file, offset).map(|text| text.len());
        assert_eq!(length_at(0), Some(MAX_NAME_BYTES + 1));
        assert_eq!(length_at(4000), Some(1000));
        assert_eq!(text(&file, 5001).unwrap(), b"short");
        assert_eq!(length_at(5007), Some(0));
        assert_eq!(length_at(5008), None);
        assert_eq!(length_at(9000), None);
    }
}
