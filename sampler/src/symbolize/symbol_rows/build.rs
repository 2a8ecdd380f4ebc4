//! From the symbol tables of a file to rows.
//!
//! They say what blazesym says, which decides so: of the symbols that begin at or
//! before an address, those that begin last, and of them the largest that reaches
//! as far. One without a size reaches to the next symbol, in a table of dynamic
//! symbols to its first byte only; that table is asked where the other one has
//! nothing.

use std::cmp::Reverse;
use std::ops::Range;

use super::{NO_SYMBOL, NOT_CODE, SymbolRows};
use crate::symbolize::headers::{ElfError, ReadAt, Segment, word};

/// The largest symbol table that is made into rows, in bytes: half a million symbols,
/// which take four times as much meanwhile.
const MAX_TABLE_BYTES: u64 = 12 << 20;

const TYPE_NONE: u8 = 0;
const TYPE_OBJECT: u8 = 1;
const TYPE_FUNCTION: u8 = 2;
const TYPE_RESOLVER: u8 = 10;
const SECTION_UNDEFINED: u64 = 0;

/// How an entry of a symbol table is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::symbolize) enum SymbolLayout {
    /// `Elf64_Sym`
    #[default]
    Wide,
    /// `Elf32_Sym`
    Narrow,
}

/// Where a table lies in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::symbolize) struct SymbolTable {
    /// The entries.
    pub symbols: Range<u64>,
    /// The texts that they are called by.
    pub names: Range<u64>,
}

/// The symbol tables of a file, and what has to be known of the file besides.
#[derive(Debug, Default)]
pub(in crate::symbolize) struct SymbolTables {
    /// `.symtab`
    pub all: SymbolTable,
    /// `.dynsym`
    pub dynamic: SymbolTable,
    /// How both are laid out.
    pub layout: SymbolLayout,
}

/// An entry.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u64,
    size_bytes: u64,
    /// Offset of its name in the file.
    name: u32,
    kind: u8,
    is_defined: bool,
}

/// The addresses from `start` to before `end` are those of a symbol, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
    name: u32,
}

/// Whether the entries are those of dynamic symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Dynamic,
}

impl SymbolTables {
    /// The rows of a file with this code, segments that are executable and the
    /// addresses of its sections; `None` if it is too large for them.
    pub(in crate::symbolize) fn rows(
        &self,
        file: &(impl ReadAt + ?Sized),
        code: &[Segment],
        code_sections: &[Range<u64>],
    ) -> Result<Option<SymbolRows>, ElfError> {
        let tables = [&self.all, &self.dynamic];
        let is_small =
            |table: &SymbolTable| table.symbols.end - table.symbols.start <= MAX_TABLE_BYTES;
        let ends = tables.map(|table| table.names.end).into_iter();
        let mut ends = ends.chain(code.iter().map(|segment| segment.file.end));
        let is_within_32_bits = ends.all(|end| end < u64::from(NOT_CODE));
        if !tables.into_iter().all(is_small) || !is_within_32_bits {
            return Ok(None);
        }
        let mut spans = [Vec::new(), Vec::new()];
        for (at, which) in [Which::All, Which::Dynamic].into_iter().enumerate() {
            let symbols = self.read(file, tables[at])?;
            spans[at] = self::spans(&symbols, which, code_sections);
        }
        let [all, dynamic] = spans;
        Ok(rows(&filled(&all, &dynamic), code))
    }

    /// Those that blazesym takes, in the order in which it looks at them.
    fn read(
        &self,
        file: &(impl ReadAt + ?Sized),
        table: &SymbolTable,
    ) -> Result<Vec<Symbol>, ElfError> {
        let mut bytes = vec![0; (table.symbols.end - table.symbols.start) as usize];
        file.fill(&mut bytes, table.symbols.start)?;
        if !bytes.len().is_multiple_of(self.layout.bytes()) {
            return Err(ElfError::BrokenHeaders);
        }
        let symbols: Vec<Symbol> = bytes
            .chunks_exact(self.layout.bytes())
            .map(|entry| Symbol::read(entry, self.layout, &table.names))
            .collect();
        drop(bytes);
        let is_one = |at: &usize| {
            let kind = symbols[*at].kind;
            matches!(
                kind,
                TYPE_NONE | TYPE_OBJECT | TYPE_FUNCTION | TYPE_RESOLVER
            )
        };
        // Of several with the same start and size, which one comes first depends on
        // how they are sorted: as numbers, and not stably.
        let mut order: Vec<usize> = (0..symbols.len()).filter(is_one).collect();
        order.sort_unstable_by(|one, other| {
            let key = |at: usize| (symbols[at].start, Reverse(symbols[at].size_bytes));
            key(*one).cmp(&key(*other))
        });
        Ok(order.into_iter().map(|at| symbols[at]).collect())
    }
}

impl Symbol {
    /// An entry, whose name is among these.
    fn read(entry: &[u8], layout: SymbolLayout, names: &Range<u64>) -> Self {
        let name = names.start.saturating_add(word(entry, 0, 4));
        let (info, section, start, size_bytes) = match layout {
            SymbolLayout::Wide => (4, 6, word(entry, 8, 8), word(entry, 16, 8)),
            SymbolLayout::Narrow => (12, 14, word(entry, 4, 4), word(entry, 8, 4)),
        };
        Self {
            start,
            size_bytes,
            // A name that is not in the file is none.
            name: if names.contains(&name) {
                name as u32
            } else {
                NO_SYMBOL
            },
            kind: word(entry, info, 1) as u8 & 0xf,
            is_defined: word(entry, section, 2) != SECTION_UNDEFINED,
        }
    }
}

impl SymbolLayout {
    const fn bytes(self) -> usize {
        match self {
            Self::Wide => 24,
            Self::Narrow => 16,
        }
    }
}

/// Where each of the symbols holds, ascending. They are sorted by their starts, and
/// of those with the same start the largest comes first.
fn spans(symbols: &[Symbol], which: Which, code_sections: &[Range<u64>]) -> Vec<Span> {
    let mut spans = Vec::with_capacity(symbols.len());
    let mut groups = symbols
        .chunk_by(|one, other| one.start == other.start)
        .peekable();
    while let Some(group) = groups.next() {
        let start = group[0].start;
        let next = groups.peek().map_or(u64::MAX, |group| group[0].start);
        let mut defined = group.iter().filter(|symbol| symbol.is_defined).peekable();
        let mut end = start;
        if let Some(largest) = defined.peek()
            && largest.size_bytes > 0
        {
            end = start.saturating_add(largest.size_bytes).min(next);
            spans.push(Span {
                start,
                end,
                name: largest.name,
            });
        }
        let Some(endless) = defined.find(|symbol| symbol.size_bytes == 0) else {
            continue;
        };
        let name = endless.name;
        match which {
            Which::All => {
                let section_end = end_of_section(start, code_sections).clamp(end, next);
                let (of_it, of_none) = (end..section_end, section_end..next);
                spans.push(Span {
                    start: of_it.start,
                    end: of_it.end,
                    name,
                });
                spans.push(Span {
                    start: of_none.start,
                    end: of_none.end,
                    name: NO_SYMBOL,
                });
            }
            Which::Dynamic if end == start => spans.push(Span {
                start,
                end: start.saturating_add(1).min(next),
                name,
            }),
            Which::Dynamic => {}
        }
    }
    spans.retain(|span| span.start < span.end);
    spans
}

/// How far a symbol without a size may reach: to the end of its section.
fn end_of_section(start: u64, code_sections: &[Range<u64>]) -> u64 {
    if code_sections.is_empty() || start == 0 {
        return u64::MAX;
    }
    let holding = code_sections
        .iter()
        .filter(|section| section.contains(&start));
    holding.map(|section| section.end).max().unwrap_or(start)
}

/// The first ones, and of the second ones what lies between them.
fn filled(first: &[Span], second: &[Span]) -> Vec<Span> {
    let mut filled = Vec::with_capacity(first.len() + second.len());
    let mut second = second.iter().peekable();
    let mut settled = 0;
    let beyond = Span {
        start: u64::MAX,
        end: u64::MAX,
        name: NO_SYMBOL,
    };
    for span in first.iter().chain([&beyond]) {
        while let Some(other) = second.peek()
            && other.start < span.start
        {
            let part = Span {
                start: other.start.max(settled),
                end: other.end.min(span.start),
                ..**other
            };
            if part.start < part.end {
                filled.push(part);
            }
            if other.end > span.start {
                // It may go on behind this one.
                break;
            }
            second.next();
        }
        settled = span.end;
        if span.start < span.end {
            filled.push(*span);
        }
    }
    filled
}

/// The rows of spans in these segments; `None` if the segments overlap.
fn rows(spans: &[Span], code: &[Segment]) -> Option<SymbolRows> {
    let mut segments: Vec<&Segment> = code.iter().collect();
    segments.sort_unstable_by_key(|segment| segment.file.start);
    let mut rows = SymbolRows::default();
    let mut last_end = 0;
    for segment in segments {
        let (start, end) = (segment.file.start, segment.file.end);
        if start < last_end {
            return None;
        }
        last_end = end;
        // They were looked at before: all offsets are below 32 bits.
        rows.push(start as u32, NO_SYMBOL);
        let bytes = end.saturating_sub(start);
        let within = segment.virtual_start..segment.virtual_start.saturating_add(bytes);
        let first = spans.partition_point(|span| span.end <= within.start);
        for span in spans[first..]
            .iter()
            .take_while(|span| span.start < within.end)
        {
            let offset = |address: u64| (start + (address - within.start)) as u32;
            rows.push(offset(span.start.max(within.start)), span.name);
            rows.push(offset(span.end.min(within.end)), NO_SYMBOL);
        }
        rows.push(end as u32, NOT_CODE);
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::super::Held;
    use super::*;

    fn symbol(start: u64, size_bytes: u64, name: u32) -> Symbol {
        Symbol {
            start,
            size_bytes,
            name,
            kind: TYPE_FUNCTION,
            is_defined: true,
        }
    }

    fn said(spans: &[Span]) -> Vec<(u64, u64, u32)> {
        spans
            .iter()
            .map(|span| (span.start, span.end, span.name))
            .collect()
    }

    #[test]
    fn the_last_to_begin_holds_and_of_those_the_largest() {
        let symbols = [
            symbol(10, 30, 1),
            symbol(20, 8, 2),
            symbol(20, 4, 3),
            symbol(50, 5, 4),
        ];
        let expected = [(10, 20, 1), (20, 28, 2), (50, 55, 4)];
        assert_eq!(said(&spans(&symbols, Which::All, &[])), expected);
        let undefined = Symbol {
            is_defined: false,
            ..symbol(20, 8, 2)
        };
        let symbols = [symbol(10, 30, 1), undefined, symbol(20, 4, 3)];
        let expected = [(10, 20, 1), (20, 24, 3)];
        assert_eq!(said(&spans(&symbols, Which::All, &[])), expected);
    }

    #[test]
    fn one_without_a_size_reaches_as_far_as_it_may() {
        let symbols = [symbol(10, 5, 1), symbol(10, 0, 2), symbol(40, 0, 3)];
        let sections = [8..30, 40..60];
        let expected = [(10, 15, 1), (15, 30, 2), (30, 40, 0), (40, 60, 3)];
        let all = spans(&symbols, Which::All, &sections);
        assert_eq!(said(&all)[..4], expected);
        assert_eq!(said(&all)[4..], [(60, u64::MAX, 0)]);
        let expected = [(10, 15, 1), (40, 41, 3)];
        assert_eq!(said(&spans(&symbols, Which::Dynamic, &sections)), expected);
        // In no section at all.
        let expected = [(70, u64::MAX, 0)];
        assert_eq!(
            said(&spans(&[symbol(70, 0, 1)], Which::All, &sections)),
            expected
        );
        let expected = [(0, u64::MAX, 1)];
        assert_eq!(
            said(&spans(&[symbol(0, 0, 1)], Which::All, &sections)),
            expected
        );
    }

    #[test]
    fn dynamic_symbols_fill_the_gaps() {
        let span = |start, end, name| Span { start, end, name };
        let first = [span(10, 20, 1), span(30, 40, 2)];
        let second = [
            span(5, 12, 3),
            span(15, 35, 4),
            span(38, 39, 5),
            span(50, 60, 6),
        ];
        let expected = [
            (5, 10, 3),
            (10, 20, 1),
            (20, 30, 4),
            (30, 40, 2),
            (50, 60, 6),
        ];
        assert_eq!(said(&filled(&first, &second)), expected);
        assert_eq!(said(&filled(&[], &second)), said(&second));
        assert_eq!(said(&filled(&first, &[])), said(&first));
    }

    #[test]
    fn rows_are_counted_as_the_file_is_and_end_with_its_code() {
        let segment = |file: Range<u64>, virtual_start| Segment {
            kind: 1,
            flags: 1,
            file,
            virtual_start,
        };
        let span = |start, end, name| Span { start, end, name };
        let spans = [span(0x1000, 0x1010, 7), span(0x2ff0, 0x3010, 8)];
        let code = [segment(0x200..0x300, 0x3000), segment(0x100..0x180, 0x1008)];
        let rows = rows(&spans, &code).unwrap_or_default();
        let found = [0xff, 0x100, 0x107, 0x108, 0x180, 0x200, 0x20f, 0x210, 0x300];
        let found = found.map(|at| rows.find(at));
        let (none, nothing) = (None, Some(Held::Nothing));
        let (seven, eight) = (Some(Held::NamedAt(7)), Some(Held::NamedAt(8)));
        let expected = [
            none, seven, seven, nothing, none, eight, eight, nothing, none,
        ];
        assert_eq!(found, expected);
        let overlapping = [segment(0..0x100, 0), segment(0x80..0x200, 0x1000)];
        assert_eq!(super::rows(&spans, &overlapping), None);
    }
}
