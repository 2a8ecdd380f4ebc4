//! The names in one ELF file.

use std::fs::File;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Reason, Sym, Symbolized, Symbolizer};
use serde::{Deserialize, Serialize};

use crate::object::{FileOffset, PinnedFile};

use super::debug_file::{self, Candidates};
use super::demangle::{Demangler, MAX_NAME_BYTES, is_mangled};
use super::frames::frames;
use super::golang::GoTable;
use super::headers::ElfError;
use super::inflation::Allowance;
use super::inspect::{Image, inspect};
use super::names::{FrameName, Named};
use super::symbol_rows::SymbolRows;

/// One ELF file and what is left to try on it.
///
/// Each file has a parser of its own, so that nothing in one can spoil another,
/// and so that a cache keyed by path never outlives the descriptor that the
/// path (`/proc/self/fd/N`) stands for.
pub(super) struct NativeFile {
    image: Image,
    /// In the order in which they are asked. One that fails as a whole is
    /// removed and never asked again.
    views: Vec<View>,
    parser: Option<Symbolizer>,
    /// The most memory that the parser takes.
    parser_bytes: u64,
    /// Keeps device and inode from being given to another file.
    _pin: Arc<PinnedFile>,
    /// The file has, or seems to have, DWARF that we cannot use.
    pub lost_debug_info: bool,
    /// Panics of the parser that were caught.
    pub panics: u64,
}

/// One way to look into a file.
#[derive(Debug)]
struct View {
    file: Arc<PinnedFile>,
    with_debug_info: bool,
    /// Some of its debug information lies in another file, which is not read.
    lacks_supplement: bool,
    /// A separate debug file has other file offsets and is asked by virtual
    /// address.
    is_separate: bool,
    /// What the parser inflates before it can answer.
    inflated_bytes: u64,
    /// The DWARF that it reads, as it lies in the file.
    debug_bytes: u64,
    /// Asked instead of the parser, by virtual address.
    golang: Option<GoTable<File>>,
}

/// How the addresses in a file are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AddressKind {
    /// As offsets into the file.
    FileOffset,
    /// As the file's own symbol tables count them.
    Virtual,
}

/// What a view says about one address.
#[derive(Debug, PartialEq, Eq)]
enum LookedUp {
    /// Its frames; none where it has no name.
    Frames(Vec<FrameName>),
    /// What covers the address cannot be read.
    Broken,
}

impl NativeFile {
    /// Looks at a file's headers and for its debug file. A file that is no
    /// usable ELF file simply has no names.
    pub(super) fn open(
        pin: Arc<PinnedFile>,
        candidates: &mut dyn Candidates,
        allowance: &mut Allowance,
    ) -> Self {
        let inspected = File::open(pin.reopen_path())
            .map_err(ElfError::from)
            .and_then(|file| {
                let mut image = inspect(&file, allowance)?;
                let plain = without_compression(&pin, &file, &mut image, candidates, allowance)?;
                Ok((image, plain, GoTable::find(file)))
            });
        let mut parser_bytes = 0;
        let (image, views, lost_debug_info) = match inspected {
            Ok((image, plain, golang)) => {
                parser_bytes += image.parser_bytes();
                let separate = if plain.is_some() || image.has_usable_debug_info() {
                    plain
                } else {
                    debug_file::choose(&pin, &image, candidates, allowance)
                };
                let separate = separate.map(|(file, image)| {
                    parser_bytes += image.parser_bytes();
                    (file, image)
                });
                let (mut views, lost) = views(&pin, &image, separate);
                if let Some(table) = golang {
                    parser_bytes += table.held_bytes();
                    // It knows lines, where a symbol table has none.
                    views.insert(views.len().saturating_sub(1), View::of_go(&pin, table));
                }
                (image, views, lost)
            }
            Err(error) => {
                tracing::debug!(%error, "a file without usable symbols");
                (Image::default(), Vec::new(), false)
            }
        };
        Self {
            image,
            views,
            parser: None,
            parser_bytes,
            _pin: pin,
            lost_debug_info,
            panics: 0,
        }
    }

    /// Whether nothing is left to try.
    pub(super) fn has_failed(&self) -> bool {
        self.views.is_empty()
    }

    /// The most memory that the parser takes, mapped files excluded.
    pub(super) fn parser_bytes(&self) -> u64 {
        self.parser_bytes
    }

    /// What a new parser has to inflate, if all views are asked.
    pub(super) fn inflated_bytes(&self) -> u64 {
        let largest = |is_separate| {
            let views = self.views.iter();
            let asked = views.filter(move |view| view.is_separate == is_separate);
            asked.map(|view| view.inflated_bytes).max().unwrap_or(0)
        };
        largest(false) + largest(true)
    }

    /// All that is said of the file, where its own symbol tables are all that is
    /// asked; `None` where something else is, or they are too large.
    pub(super) fn symbol_rows(&self) -> Option<SymbolRows> {
        let [view] = &self.views[..] else {
            return None;
        };
        let is_plain = !view.with_debug_info
            && !view.is_separate
            && view.inflated_bytes == 0
            && view.golang.is_none();
        let file = is_plain.then(|| File::open(view.file.reopen_path()));
        let rows = self.image.symbol_rows(&file?.ok()?);
        rows.unwrap_or_else(|error| {
            tracing::debug!(%error, "symbols that cannot be read again");
            None
        })
    }

    /// The DWARF that is read, as it lies in the file.
    pub(super) fn debug_bytes(&self) -> u64 {
        let views = self.views.iter();
        views.map(|view| view.debug_bytes).max().unwrap_or(0)
    }

    /// Whether some of the debug information that is used is not read.
    pub(super) fn lacks_supplement(&self) -> bool {
        self.views.iter().any(|view| view.lacks_supplement)
    }

    /// Goes on with the symbol tables alone.
    pub(super) fn forgo_debug_info(&mut self) {
        self.lost_debug_info |= self.views.iter().any(|view| view.with_debug_info);
        self.views.retain(|view| !view.with_debug_info);
    }

    /// Goes on with what can be read without inflating anything.
    pub(super) fn forgo_inflation(&mut self) {
        let inflates = |view: &View| view.inflated_bytes > 0;
        self.lost_debug_info |= self
            .views
            .iter()
            .any(|view| inflates(view) && view.with_debug_info);
        self.views.retain(|view| !inflates(view));
    }

    /// Frees what the parser holds; it is built anew when it is needed.
    pub(super) fn close_parser(&mut self) {
        self.parser = None;
        let tables = self.views.iter().filter_map(|view| view.golang.as_ref());
        tables.for_each(GoTable::close);
    }

    /// The frames at each of the addresses.
    pub(super) fn name(
        &mut self,
        asked_for: &[u64],
        kind: AddressKind,
        demangler: &mut Demangler,
    ) -> Vec<Named> {
        let mut answers: Vec<Named> = vec![Named::from([]); asked_for.len()];
        let mut open: Vec<usize> = (0..asked_for.len()).collect();
        let mut next = 0;
        while let Some(view) = self.views.get(next) {
            let (asked, addresses): (Vec<usize>, Vec<u64>) = open
                .iter()
                .filter_map(|&at| Some((at, view.address(&self.image, asked_for[at], kind)?)))
                .unzip();
            if !addresses.is_empty() {
                let parser = self.parser.get_or_insert_with(new_parser);
                match catch_unwind(AssertUnwindSafe(|| {
                    let kind = view.answers_to(kind);
                    view.look_up(parser, &self.image, &addresses, kind, demangler)
                })) {
                    Ok(Some(found)) => {
                        for (at, looked_up) in asked.into_iter().zip(found) {
                            match looked_up {
                                LookedUp::Frames(frames) => answers[at] = Named::from(frames),
                                LookedUp::Broken => self.lost_debug_info |= view.with_debug_info,
                            }
                        }
                        open.retain(|&at| answers[at].is_empty());
                    }
                    refused => {
                        self.panics += u64::from(refused.is_err());
                        self.drop_view(next);
                        continue;
                    }
                }
            }
            next += 1;
        }
        answers
    }

    fn drop_view(&mut self, index: usize) {
        let view = self.views.remove(index);
        self.lost_debug_info |= view.with_debug_info;
        // What a panic left behind is not trusted, not even to be dropped well.
        let parser = self.parser.take();
        self.panics += u64::from(catch_unwind(AssertUnwindSafe(|| drop(parser))).is_err());
        tracing::debug!(view.with_debug_info, "a file refused by the parser");
    }
}

/// A file's own debug information, if it is compressed, from who keeps it without
/// compression; otherwise it is inflated once, to see what the parser would do.
fn without_compression(
    pin: &PinnedFile,
    file: &File,
    image: &mut Image,
    candidates: &mut dyn Candidates,
    allowance: &mut Allowance,
) -> Result<Option<(Arc<PinnedFile>, Image)>, ElfError> {
    if !image.is_compressed() || !image.has_usable_debug_info() {
        return Ok(None);
    }
    let plain = debug_file::decompressed(file, image, candidates, allowance);
    if plain.is_none() {
        image.inflate(file, allowance)?;
    }
    Ok(plain.map(|plain| debug_file::pinned(pin, plain)))
}

/// The ways to look into a file, best first, and whether its debug information
/// is out of reach. A separate debug file is one whose DWARF can be used.
fn views(
    pin: &Arc<PinnedFile>,
    image: &Image,
    separate: Option<(Arc<PinnedFile>, Image)>,
) -> (Vec<View>, bool) {
    let view = |file: &Arc<PinnedFile>, image: &Image, with_debug_info, is_separate| View {
        file: Arc::clone(file),
        with_debug_info,
        lacks_supplement: with_debug_info && image.has_supplement,
        is_separate,
        inflated_bytes: image.inflated.symbols_bytes
            + if with_debug_info {
                image.inflated.debug_bytes
            } else {
                0
            },
        debug_bytes: if with_debug_info {
            image.debug_bytes
        } else {
            0
        },
        golang: None,
    };
    let symbols_only = view(pin, image, false, false);
    match separate {
        Some((file, image)) => {
            let separate = |with_debug_info| view(&file, &image, with_debug_info, true);
            (vec![separate(true), separate(false), symbols_only], false)
        }
        None if image.has_usable_debug_info() => {
            (vec![view(pin, image, true, false), symbols_only], false)
        }
        None => (vec![symbols_only], image.has_debug_info),
    }
}

impl View {
    /// Into a Go program, by its own table.
    fn of_go(file: &Arc<PinnedFile>, table: GoTable<File>) -> Self {
        Self {
            file: Arc::clone(file),
            with_debug_info: false,
            lacks_supplement: false,
            is_separate: false,
            inflated_bytes: 0,
            debug_bytes: 0,
            golang: Some(table),
        }
    }

    /// How it is asked for addresses that are counted so.
    fn answers_to(&self, kind: AddressKind) -> AddressKind {
        if self.is_separate || self.golang.is_some() {
            AddressKind::Virtual
        } else {
            kind
        }
    }

    /// An address as it is asked for one.
    fn address(&self, image: &Image, address: u64, kind: AddressKind) -> Option<u64> {
        if kind == self.answers_to(kind) {
            Some(address)
        } else {
            image.virtual_address(FileOffset(address))
        }
    }

    /// What is at each address; `None` if the file is refused as a whole.
    fn look_up(
        &self,
        parser: &Symbolizer,
        image: &Image,
        addresses: &[u64],
        kind: AddressKind,
        demangler: &mut Demangler,
    ) -> Option<Vec<LookedUp>> {
        if let Some(table) = &self.golang {
            let frames = addresses.iter().map(|at| table.frames(*at));
            return Some(frames.map(LookedUp::Frames).collect());
        }
        let symbols = self.ask(parser, self.with_debug_info, addresses, kind)?;
        let doubtful: Vec<usize> = (0..symbols.len())
            .filter(|&at| {
                let symbol = symbols[at].as_sym();
                self.with_debug_info && symbol.is_some_and(|symbol| !is_mangled(&symbol.name))
            })
            .collect();
        let mut elf_symbols: Vec<Option<String>> = vec![None; symbols.len()];
        if !doubtful.is_empty() {
            let addresses: Vec<u64> = doubtful.iter().map(|&at| addresses[at]).collect();
            let found = self
                .ask(parser, false, &addresses, kind)
                .unwrap_or_default();
            for (at, symbolized) in doubtful.into_iter().zip(found) {
                // A name ends at the next NUL, however far away that is.
                elf_symbols[at] = symbolized.as_sym().map(|symbol| {
                    let name = symbol.name.as_bytes();
                    let kept = &name[..name.len().min(MAX_NAME_BYTES)];
                    String::from_utf8_lossy(kept).into_owned()
                });
            }
        }
        let named = symbols.iter().zip(&elf_symbols);
        Some(
            named
                .map(|(symbolized, elf_symbol)| match symbolized {
                    Symbolized::Sym(symbol) if !is_covered(symbol, image) => {
                        LookedUp::Frames(Vec::new())
                    }
                    Symbolized::Sym(symbol) => {
                        LookedUp::Frames(frames(symbol, elf_symbol.as_deref(), demangler))
                    }
                    Symbolized::Unknown(Reason::IgnoredError) => LookedUp::Broken,
                    Symbolized::Unknown(_) => LookedUp::Frames(Vec::new()),
                })
                .collect(),
        )
    }

    fn ask<'parser>(
        &self,
        parser: &'parser Symbolizer,
        with_debug_info: bool,
        addresses: &[u64],
        kind: AddressKind,
    ) -> Option<Vec<Symbolized<'parser>>> {
        let mut elf = Elf::new(self.file.reopen_path());
        elf.debug_syms = with_debug_info;
        let input = match kind {
            AddressKind::Virtual => Input::VirtOffset(addresses),
            AddressKind::FileOffset => Input::FileOffset(addresses),
        };
        parser.symbolize(&Source::Elf(elf), input).ok()
    }
}

/// Whether a symbol can be the one at its address. Only one without a size can
/// fail to be; DWARF's functions of several parts have neither size nor start.
fn is_covered(symbol: &Sym<'_>, image: &Image) -> bool {
    let address = symbol.addr.wrapping_add(symbol.offset as u64);
    symbol.size.is_some() || symbol.addr == 0 || image.is_one_section(symbol.addr, address)
}

/// A parser for one file, which is pinned and therefore never looked at again
/// for changes of its path. It has no directories to look into for files that
/// this one links to: a child would find none there, and what comes of a debug
/// link is found before (`debug_file`).
fn new_parser() -> Symbolizer {
    Symbolizer::builder()
        .set_debug_dirs(Some(iter::empty::<&Path>()))
        .enable_auto_reload(false)
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .enable_demangling(false)
        .build()
}
