//! The kernel's own symbols, kept for all recordings of one boot.
//!
//! Of `/proc/kallsyms`, which takes the kernel long to write, the part that does
//! not change until the next boot: the symbols of its code proper, without those
//! of modules and of code that was made at run time. They are kept as [rows](SymbolRows)
//! and names, in the [cache](crate::cache), under the name of the boot. The names stay
//! there: each is read when its symbol is met.

use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ahash::HashMap;

use crate::cache::{Cache, Key};

use super::kallsyms::{self, CoreSymbols};
use super::kernel;
use super::names::{FrameName, Named};
use super::symbol_rows::{Held, SymbolRows};
use super::text::text_at;

/// More than any kernel has symbols, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// What is kept of this boot's kernel.
#[derive(Debug)]
pub(super) struct KeptKernel {
    place: Option<(Arc<Cache>, Key)>,
    state: State,
}

#[derive(Debug)]
enum State {
    NotLookedFor,
    Missing,
    There(There),
}

#[derive(Debug)]
struct There {
    code: Range<u64>,
    rows: SymbolRows,
    /// With the names, from this offset on.
    file: File,
    names_start: u64,
    /// The frames of symbols whose names were read, by where these are.
    met: HashMap<u32, Named>,
}

/// Before the rows: where the code starts and ends, and what the rows take; 64 bits
/// each, little-endian.
const HEADER_BYTES: usize = 24;

impl KeptKernel {
    /// Nothing is kept without a cache, or for a boot without a name.
    pub(super) fn new(cache: Option<Arc<Cache>>, boot_id: Option<&str>) -> Self {
        let key = boot_id.and_then(Key::of_boot);
        Self {
            place: cache.zip(key),
            state: State::NotLookedFor,
        }
    }

    /// The frames at an address; `None` if it is not known, or not in the code of
    /// which symbols are kept.
    pub(super) fn name(&mut self, address: u64) -> Option<Named> {
        if matches!(self.state, State::NotLookedFor) {
            self.state = self.look().unwrap_or(State::Missing);
        }
        match &mut self.state {
            State::There(there) => there.name(address),
            State::NotLookedFor | State::Missing => None,
        }
    }

    fn look(&self) -> Option<State> {
        let (cache, key) = self.place.as_ref()?;
        let file = cache.file(key)?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).ok()?;
        let (words, _) = header.as_chunks::<8>();
        let [start, end, rows_bytes] = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
        let names_start = rows_bytes.checked_add(HEADER_BYTES as u64)?;
        if names_start > file.metadata().ok()?.len() {
            return None;
        }
        let mut rows = vec![0; rows_bytes as usize];
        file.read_exact_at(&mut rows, HEADER_BYTES as u64).ok()?;
        Some(State::There(There {
            code: start..end,
            rows: SymbolRows::from_bytes(rows),
            file,
            names_start,
            met: HashMap::default(),
        }))
    }

    /// Keeps what is missing.
    pub(super) fn keep(&self, kallsyms: &File) {
        let (State::Missing, Some((cache, key))) = (&self.state, &self.place) else {
            return;
        };
        let from_start = FromStart {
            file: kallsyms,
            at: 0,
        };
        let lines = BufReader::with_capacity(1 << 16, from_start.take(MAX_BYTES));
        match kallsyms::core_symbols(lines) {
            Ok(Some(symbols)) => cache.put(key, &entry(&symbols)),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the kernel's symbols could not be kept"),
        }
    }
}

impl There {
    fn name(&mut self, address: u64) -> Option<Named> {
        if !self.code.contains(&address) {
            return None;
        }
        let offset = address - self.code.start;
        let (holds, Some(Held::NamedAt(name))) = self.rows.look_up(offset) else {
            return None;
        };
        if !kernel::reaches(offset.checked_sub(holds.start)?) {
            return Some(Named::from([]));
        }
        let named = match self.met.entry(name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let text = text_at(&self.file, self.names_start + u64::from(name))?;
                let frame = FrameName::of_symbol(str::from_utf8(&text).ok()?);
                new.insert(Named::from([frame]))
            }
        };
        Some(Named::clone(named))
    }
}

/// What is kept of symbols.
fn entry(symbols: &CoreSymbols) -> Vec<u8> {
    let rows = symbols.rows.as_bytes();
    let words = [symbols.code.start, symbols.code.end, rows.len() as u64];
    let header = words.map(u64::to_le_bytes).concat();
    [&header, rows, &symbols.names].concat()
}

/// A file from its first byte on, wherever others are in it.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    const CORE: &str = "\
        ffffffff81000000 T _stext\n\
        ffffffff81000100 t schedule\n\
        ffffffff81000200 T _etext\n";

    #[test]
    fn a_second_recording_of_a_boot_has_the_symbols_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::open(folder.path()).unwrap());
        let mut kallsyms = tempfile::tempfile().unwrap();
        kallsyms.write_all(CORE.as_bytes()).unwrap();
        let kept = |boot: &str| KeptKernel::new(Some(Arc::clone(&cache)), Some(boot));

        let boot = "1b4e28ba-2fa1-11d2-883f-b9a761bde3fb";
        let address = 0xffff_ffff_8100_0104;
        let mut first = kept(boot);
        assert!(first.name(address).is_none());
        // Wherever the child has read to.
        kallsyms.seek(SeekFrom::End(0)).unwrap();
        first.keep(&kallsyms);

        let mut second = kept(boot);
        for offset in [0, 3] {
            assert_eq!(second.name(address + offset).unwrap()[0].name, "schedule");
        }
        assert!(second.name(0xffff_ffff_8200_0000).is_none());

        let other = "1b4e28ba-2fa1-11d2-883f-b9a761bde3fc";
        assert!(kept(other).name(address).is_none());
        assert!(KeptKernel::new(None, Some(boot)).name(address).is_none());
    }
}
