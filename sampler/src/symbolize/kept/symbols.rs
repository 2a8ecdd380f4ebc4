//! All that the symbol tables of a file say, and the frames of the symbols that
//! recordings met.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd as _;

use crate::object::PinnedFile;
use crate::symbolize::names::Named;
use crate::symbolize::symbol_rows::{Held, SymbolRows};
use crate::symbolize::text::text_at;

use super::WORTH_KEEPING;
use super::addresses::Addresses;

/// What is known of all code of a file.
#[derive(Debug)]
pub(super) struct Symbols {
    rows: SymbolRows,
    /// The frames of symbols, by where their names are in the file: those of earlier
    /// recordings.
    kept: Addresses,
    /// Those that this recording met, be they kept or new.
    met: HashMap<u64, Named>,
    /// How many of them were not kept.
    new: usize,
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
            met: HashMap::new(),
            new: 0,
        }
    }

    /// What was found at addresses before the rows came, as frames of symbols.
    pub(super) fn found(rows: SymbolRows, found: &HashMap<u64, Named>) -> Self {
        let frames =
            found.iter().filter_map(
                |(address, named)| match (rows.find(*address)?, &named[..]) {
                    (Held::NamedAt(at), [_]) => Some((at.into(), Named::clone(named))),
                    _ => None,
                },
            );
        let met: HashMap<u64, Named> = frames.collect();
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

    /// The frames at addresses, as far as they are known: those of symbols must have
    /// been [met](Self::meet).
    pub(super) fn named(&self, addresses: &[u64]) -> Vec<Option<Named>> {
        let held = self.rows.find_all(addresses);
        let named = held.map(|held| match held? {
            Held::Nothing => Some(Named::from([])),
            Held::NamedAt(at) => self.met.get(&at.into()).cloned(),
        });
        named.collect()
    }

    /// Has the frames of the symbols ready that hold at these addresses. Returns those
    /// symbols that have none so far, each once.
    pub(super) fn meet(&mut self, pin: &PinnedFile, addresses: &[u64]) -> Vec<Symbol> {
        let mut missing = HashSet::new();
        for held in self.rows.find_all(addresses) {
            let Some(Held::NamedAt(at)) = held else {
                continue;
            };
            if let Entry::Vacant(symbol) = self.met.entry(at.into()) {
                match self.kept.named(at.into()) {
                    Some(named) => drop(symbol.insert(named)),
                    None => drop(missing.insert(at)),
                }
            }
        }
        if missing.is_empty() {
            return Vec::new();
        }
        let Ok(file) = pin.as_fd().try_clone_to_owned().map(File::from) else {
            return Vec::new();
        };
        let symbols = missing.into_iter().map(u64::from).filter_map(|at| {
            let name = text_at(&file, at)?;
            Some(Symbol { at, name })
        });
        symbols.collect()
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
        self.kept.with(&self.met)
    }
}
