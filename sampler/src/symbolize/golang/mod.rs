//! Names in Go programs, with or without a symbol table.
//!
//! Go's runtime prints stacks by a table of its own, `pclntab`, which no strip
//! takes away: functions by address, files and lines by instruction, and calls
//! that were inlined. Its layout is told by the sources of the runtime only
//! (`runtime/symtab.go`); it is read here from Go 1.16 on, and inlined calls
//! from Go 1.18 on.
//!
//! The table is read where it lies, a page at a time, and only as far as
//! addresses are asked for. Nothing in it is trusted: a place outside the file
//! has no bytes, and what is read for one address and for one file has bounds.

mod function;
mod inlined;
mod layout;
mod memory;
mod module;
mod pages;
#[cfg(test)]
mod tests;
mod values;

use super::demangle::{MAX_NAME_BYTES, clean};
use super::frames::MAX_INLINED;
use super::headers::{Header, ReadAt, Section};
use super::names::FrameName;
use function::Function;
use inlined::{Call, TABLE_OF_CALLS};
use layout::{Layout, is_start};
use memory::{Memory, Search};
use module::Module;
use values::Patience;

/// The table of a Go program.
#[derive(Debug)]
pub(super) struct GoTable<F> {
    memory: Memory<F>,
    layout: Layout,
    module: Module,
    patience: Patience,
}

/// The frames at each of these virtual addresses of an ELF file, innermost
/// inlined function first; `None` if it is no Go program.
pub fn frames_at(file: &[u8], addresses: &[u64]) -> Option<Vec<Vec<FrameName>>> {
    let table = GoTable::find(file)?;
    Some(addresses.iter().map(|at| table.frames(*at)).collect())
}

impl<F: ReadAt> GoTable<F> {
    /// Finds the table of an ELF file; `None` if it has none.
    pub(super) fn find(file: F) -> Option<Self> {
        let header = Header::read(&file).ok()?;
        let sections = header.sections(&file).unwrap_or_default();
        if !may_be_go(&sections) {
            return None;
        }
        let memory = Memory::of(file, &header)?;
        let mut search = Search::default();
        let named = sections.iter().find(|section| is_table(section));
        let (layout, module) = if let Some(section) = named {
            let range = section.virtual_range();
            with_module(&memory, range.start, range.end, &mut search)?
        } else {
            let mut within = Search::default();
            memory.search(&mut search, false, 8, is_start, |start| {
                with_module(&memory, start, u64::MAX, &mut within)
            })?
        };
        Some(Self {
            memory,
            layout,
            module,
            patience: Patience::default(),
        })
    }

    /// The most memory that is held, in bytes.
    pub(super) fn held_bytes(&self) -> u64 {
        self.memory.held_bytes()
    }

    /// Frees that memory; it is read anew when it is needed.
    pub(super) fn close(&self) {
        self.memory.close();
    }

    /// The frames at a virtual address, innermost inlined function first; none
    /// if it is not in a Go function.
    pub(super) fn frames(&self, address: u64) -> Vec<FrameName> {
        self.function_at(address)
            .map_or_else(Vec::new, |(function, distance)| {
                self.frames_of(&function, distance)
            })
    }

    /// The function at an address, and how far behind its start that is.
    fn function_at(&self, address: u64) -> Option<(Function, u64)> {
        let place = address.checked_sub(self.module.code)?;
        let function = Function::find(&self.memory, &self.layout, place)?;
        Some((function, place - function.start))
    }

    fn frames_of(&self, function: &Function, mut distance: u64) -> Vec<FrameName> {
        let mut frames = Vec::new();
        while frames.len() < MAX_INLINED
            && let Some(call) = self.call(function, distance)
        {
            frames.extend(self.frame(function, call.name, distance));
            distance = call.distance;
        }
        frames.extend(self.frame(function, function.name, distance));
        frames
    }

    /// The inlined call that an instruction belongs to.
    fn call(&self, function: &Function, distance: u64) -> Option<Call> {
        let data = self.module.data?;
        let table = function.table(&self.memory, TABLE_OF_CALLS);
        let index = u32::try_from(self.value(table, distance)?).ok()?;
        Call::read(&self.memory, &self.layout, data, function, index)
    }

    fn value(&self, table: u32, distance: u64) -> Option<i32> {
        values::at(&self.memory, &self.layout, &self.patience, table, distance)
    }

    /// A frame with this name; `None` if the name is none.
    fn frame(&self, function: &Function, name: u32, distance: u64) -> Option<FrameName> {
        let name = self.layout.names.checked_add(name.into())?;
        let name = self.text(name, self.layout.units)?;
        let place = self.source_file(function, distance).and_then(|file| {
            let line = self.value(function.lines, distance)?;
            Some((file, u32::try_from(line).ok()?))
        });
        let (source_file, line) = place.unwrap_or_default();
        Some(FrameName {
            system_name: name.clone(),
            name,
            source_file,
            line,
            column: 0,
        })
    }

    fn source_file(&self, function: &Function, distance: u64) -> Option<String> {
        let layout = &self.layout;
        let file = u32::try_from(self.value(function.files, distance)?).ok()?;
        let index = u64::from(function.unit) + u64::from(file);
        let at = layout.units.checked_add(4 * index)?;
        let place = (at < layout.files).then(|| self.memory.word(at, 4))??;
        self.text(layout.files.checked_add(place)?, layout.values)
    }

    /// The text at an address before `end`; `None` if there is none.
    fn text(&self, address: u64, end: u64) -> Option<String> {
        let max_bytes = end.checked_sub(address)?.min(MAX_NAME_BYTES as u64);
        let text = self.memory.text(address, max_bytes as usize)?;
        (!text.is_empty()).then(|| clean(&String::from_utf8_lossy(&text)))
    }
}

/// The table at an address, which ends at `end` at the latest.
fn with_module<F: ReadAt>(
    memory: &Memory<F>,
    start: u64,
    end: u64,
    search: &mut Search,
) -> Option<(Layout, Module)> {
    let layout = Layout::read(memory, start, end)?;
    let module = Module::find(memory, &layout, search)?;
    Some((layout, module))
}

/// Whether a file looks as if Go's linker had written it, or does not say who
/// has.
fn may_be_go(sections: &[Section]) -> bool {
    let is_go = |section: &Section| is_table(section) || section.name == b".go.buildinfo";
    sections.is_empty() || sections.iter().any(is_go)
}

/// Whether a section holds the table. Where another linker makes a position
/// independent program, the table is in a section with much else.
fn is_table(section: &Section) -> bool {
    matches!(
        section.name.as_slice(),
        b".gopclntab" | b".data.rel.ro.gopclntab"
    )
}
