//! All that the symbol tables of a file say, and the frames of the symbols that
//! recordings met.

use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::fd::AsFd as _;

use ahash::{HashMap, HashSet};

use crate::object::PinnedFile;
use crate::symbolize::names::Named;
use crate::symbolize::symbol_rows::{Held, SymbolRows};
use crate::symbolize::text::text_at;

use super::WORTH_KEEPING;
use super::addresses::Addresses;

/// The symbols whose names are at these places of a file.
pub(super) fn symbols(pin: &PinnedFile, names: HashSet<u32>) -> Vec<Symbol> {
    if names.is_empty() {
        return Vec::new();
    }
    let Ok(file) = pin.as_fd().try_clone_to_owned().map(File::from) else {
        return Vec::new();
    };
    let symbols = names.into_iter().filter_map(|at| {
        let name = text_at(&file, at.into())?;
        Some(Symbol { at, name })
    });
    symbols.collect()
}

/// What is known of all code of a file.
#[derive(Debug)]
pub(super) struct Symbols {
    rows: SymbolRows,
    /// The frames of symbols, by where their names are in the file: those of earlier
    /// recordings.
    kept: Addresses,
    /// Those that this recording met, be they kept or new.
    met: HashMap<u32, Named>,
    /// How many of them were not kept.
    new: usize,
}

/// A symbol without frames so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::symbolize) struct Symbol {
    /// Where its name is in the file.
    at: u32,
    /// The name, or as much of one that is too long as shows that.
    pub name: Vec<u8>,
}

impl Symbols {
    pub(super) fn new(rows: SymbolRows, kept: Addresses) -> Self {
        Self {
            rows,
            kept,
            met: HashMap::default(),
            new: 0,
        }
    }

    /// What was found at addresses before the rows came, as frames of symbols.
    pub(super) fn found(rows: SymbolRows, found: &HashMap<u64, Named>) -> Self {
        let frames =
            found.iter().filter_map(
                |(address, named)| match (rows.find(*address)?, &named[..]) {
                    (Held::NamedAt(at), [_]) => Some((at, Named::clone(named))),
                    _ => None,
                },
            );
        let met: HashMap<u32, Named> = frames.collect();
        Self {
            new: met.len(),
            met,
            ..Self::new(rows, Addresses::default())
        }
    }

    /// What the rows take.
    pub(super) fn rows_bytes(&self) -> usize {
        self.rows.as_bytes().len()
    }

    /// The frames at addresses, as far as they are known, and where the names are of
    /// those symbols that hold there and have no frames so far, each once.
    pub(super) fn named(&mut self, addresses: &[u64]) -> (Vec<Option<Named>>, HashSet<u32>) {
        let mut missing = HashSet::default();
        let Self {
            rows, kept, met, ..
        } = self;
        let named = rows.find_all(addresses).map(|held| match held? {
            Held::Nothing => Some(Named::from([])),
            Held::NamedAt(at) => match met.entry(at) {
                Entry::Occupied(known) => Some(known.get().clone()),
                Entry::Vacant(new) => {
                    let kept = kept.named(at.into());
                    if kept.is_none() {
                        missing.insert(at);
                    }
                    Some(new.insert(kept?).clone())
                }
            },
        });
        (named.collect(), missing)
    }

    /// Takes the frames of symbols that were asked for.
    pub(super) fn have(&mut self, symbols: &[Symbol], named: Vec<Named>) {
        let at = symbols.iter().map(|symbol| symbol.at);
        self.met.extend(at.zip(named));
        self.new += symbols.len();
    }

    /// Whether so many frames are known that no earlier recording had, and have room,
    /// that they should be kept.
    pub(super) fn is_changed(&self) -> bool {
        self.new > self.kept.count() / WORTH_KEEPING && self.kept.room() > 0
    }

    /// The frames of all symbols that were met, by this recording or another.
    pub(super) fn frames(&self) -> Addresses {
        let met = self.met.iter();
        let met = met.map(|(at, named)| (u64::from(*at), Named::clone(named)));
        self.kept.with(&met.collect())
    }
}
