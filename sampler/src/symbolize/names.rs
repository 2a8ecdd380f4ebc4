//! What symbolization found.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::thread::JoinHandle;

use ahash::HashMap;
use serde::{Deserialize, Serialize};

use super::demangle::{clean, demangle};
use super::jit::JitStats;
use super::place::PlaceKey;

/// One frame of source code: a function, or a function inlined into one.
///
/// All text is valid UTF-8 without NUL and at most a few KiB long, whatever the
/// file said; it may hold control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameName {
    /// The name for people, demangled.
    pub name: String,
    /// The name as the file has it.
    pub system_name: String,
    /// Path of the source file as the compiler recorded it; "" if unknown.
    pub source_file: String,
    /// Line, counted from 1; 0 if unknown.
    pub line: u32,
    /// Column, counted from 1; 0 if unknown.
    pub column: u32,
}

impl FrameName {
    /// A frame of which a symbol is all that is known.
    pub(super) fn of_symbol(symbol: &str) -> Self {
        Self {
            name: demangle(symbol),
            system_name: clean(symbol),
            source_file: String::new(),
            line: 0,
            column: 0,
        }
    }
}

/// The frames at one address, innermost inlined function first. Empty where no
/// name is known.
pub type Named = Arc<[FrameName]>;

/// The names of all addresses that were asked for.
#[derive(Debug, Default)]
pub struct Names {
    places: HashMap<PlaceKey, HashMap<u64, Named>>,
    stats: Stats,
    keepers: Keepers,
}

/// The threads that keep names for the next recording. Who drops the names waits
/// for them, so that the program does not end in the middle of it.
#[derive(Debug, Default)]
struct Keepers(Vec<JoinHandle<()>>);

impl Drop for Keepers {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // If it panicked, nothing is kept.
            let _ = thread.join();
        }
    }
}

/// What symbolization achieved, counted in distinct addresses and files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Distinct addresses with a name.
    pub named: u64,
    /// Distinct addresses without one.
    pub unnamed: u64,
    /// Addresses that had no answer when the wait for it ended. They have no
    /// name, and the counters of files and panics may lack the last ones.
    pub unanswered: u64,
    /// Files asked about.
    pub files: u64,
    /// Files of which nothing could be read: not ELF, truncated, broken.
    pub failed_files: u64,
    /// Files whose debug information had to be left aside, so that they have
    /// symbols only: broken, too large when decompressed, or pointing to files of
    /// the parser's own.
    pub files_without_debug_info: u64,
    /// Files whose debug information lies in part in a supplement (dwz), which is
    /// not read: functions inlined into others may have no names.
    pub files_without_supplement: u64,
    /// Panics of the parser that were caught.
    pub parser_panics: u64,
    /// What named code that was made at run time.
    pub jit: JitStats,
    /// How often a child that parses has ended over a file, or was ended because
    /// it did not answer in time or answered nonsense. The file is then tried
    /// without its debug information, and after that given up.
    pub parser_deaths: u64,
    /// Files that took longer than they may.
    pub timed_out_files: u64,
    /// Files that were given up; their frames have no names from then on.
    pub given_up_files: u64,
    /// Addresses in files that an earlier recording had looked up.
    pub kept: u64,
    /// The kernel keeps its symbols from us (`kptr_restrict`, no privilege, no
    /// kallsyms), so kernel frames have no names.
    pub kernel_names_hidden: bool,
    /// CPU time that finding names took until now, of the thread and of its
    /// children, in nanoseconds.
    pub cpu_ns: u64,
    /// Highest memory of the profiler that was seen while parsers were open, in
    /// bytes, as [`super::Options::rss_bytes`] measures it.
    pub peak_rss_bytes: u64,
}

impl Stats {
    /// Adds what was achieved for other places.
    fn add(&mut self, more: Self) {
        self.named += more.named;
        self.unnamed += more.unnamed;
        self.unanswered += more.unanswered;
        self.files += more.files;
        self.failed_files += more.failed_files;
        self.files_without_debug_info += more.files_without_debug_info;
        self.files_without_supplement += more.files_without_supplement;
        self.parser_panics += more.parser_panics;
        self.jit.add(more.jit);
        self.parser_deaths += more.parser_deaths;
        self.timed_out_files += more.timed_out_files;
        self.given_up_files += more.given_up_files;
        self.kept += more.kept;
        self.kernel_names_hidden |= more.kernel_names_hidden;
        self.cpu_ns += more.cpu_ns;
        self.peak_rss_bytes = self.peak_rss_bytes.max(more.peak_rss_bytes);
    }
}

impl Names {
    /// The frames at an address; `None` if it was never asked for.
    pub fn get(&self, place: &PlaceKey, address: u64) -> Option<&Named> {
        self.places.get(place)?.get(&address)
    }

    /// What was achieved.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Adds those of other places.
    pub(super) fn add(&mut self, mut more: Self) {
        self.places.extend(more.places.drain());
        self.stats.add(more.stats);
    }

    /// Says which thread keeps some of them, and is about to end.
    pub(super) fn add_keeper(&mut self, thread: JoinHandle<()>) {
        self.keepers.0.push(thread);
    }

    /// Whether an address has been answered, named or not.
    pub(super) fn knows(&self, place: &PlaceKey, address: u64) -> bool {
        self.get(place, address).is_some()
    }

    /// Records the answers for addresses in one place; the first one for each stays.
    pub(super) fn insert(&mut self, place: PlaceKey, named: impl Iterator<Item = (u64, Named)>) {
        let answers = self.places.entry(place).or_default();
        for (address, named) in named {
            let is_named = !named.is_empty();
            if let Entry::Vacant(slot) = answers.entry(address) {
                slot.insert(named);
                if is_named {
                    self.stats.named += 1;
                } else {
                    self.stats.unnamed += 1;
                }
            }
        }
    }

    /// The counters that are not kept by [`Self::insert`].
    pub(super) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::*;

    fn named(name: &str) -> Named {
        Arc::from([FrameName {
            name: name.to_owned(),
            system_name: name.to_owned(),
            source_file: String::new(),
            line: 0,
            column: 0,
        }])
    }

    #[test]
    fn an_address_nobody_asked_for_differs_from_one_without_a_name() {
        let mut names = Names::default();
        names.insert(PlaceKey::Kernel, [(1, named("f"))].into_iter());
        names.insert(PlaceKey::Kernel, [(2, Arc::from([]))].into_iter());
        assert_eq!(names.get(&PlaceKey::Kernel, 1).unwrap()[0].name, "f");
        assert!(names.get(&PlaceKey::Kernel, 2).unwrap().is_empty());
        assert!(names.get(&PlaceKey::Kernel, 3).is_none());
        assert!(names.get(&PlaceKey::Vdso, 1).is_none());
    }

    #[test]
    fn each_distinct_address_counts_once() {
        let mut names = Names::default();
        names.insert(PlaceKey::Kernel, [(1, named("f"))].into_iter());
        names.insert(PlaceKey::Kernel, [(1, named("g"))].into_iter());
        names.insert(PlaceKey::Vdso, [(1, Arc::from([]))].into_iter());
        assert_eq!((names.stats().named, names.stats().unnamed), (1, 1));
        assert_eq!(names.get(&PlaceKey::Kernel, 1).unwrap()[0].name, "f");
    }
}
