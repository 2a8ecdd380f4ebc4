//! What `/proc/kallsyms` says of the kernel's own code.

use std::io::{self, BufRead};
use std::ops::Range;

use super::symbol_rows::SymbolRows;

/// The symbols around the code.
const FIRST: &[u8] = b"_stext";
const LAST: &[u8] = b"_etext";
/// The last one of the code that has started the kernel, which is in the stacks of
/// idle CPUs for ever.
const LAST_OF_START: &[u8] = b"_einittext";

/// The symbols of the kernel's own code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CoreSymbols {
    /// From the first symbol to the last one.
    pub code: Range<u64>,
    /// By offsets from the first symbol; of several with one start, the first.
    pub rows: SymbolRows,
    /// What the rows lead to, each with a NUL behind it.
    pub names: Vec<u8>,
}

/// The symbols from the code's start to its end, that of the code that has started the
/// kernel if it comes, which ascend, with others that start where the code does;
/// `None` if there are none such, or if they hide their addresses.
pub(super) fn core_symbols(mut lines: impl BufRead) -> io::Result<Option<CoreSymbols>> {
    let mut core = Found::default();
    let mut line = Vec::new();
    let (mut last_address, mut is_inside) = (0, false);
    let mut end_of_code = None;
    loop {
        line.clear();
        let is_over = lines.read_until(b'\n', &mut line)? == 0;
        let symbol = symbol(&line).filter(|_| !is_over);
        let symbol = symbol.filter(|(address, _)| !is_inside || *address >= last_address);
        let Some((address, name)) = symbol else {
            core.truncate(end_of_code.unwrap_or_default());
            break;
        };
        if !is_inside && address != last_address {
            core = Found::default();
        }
        last_address = address;
        is_inside |= name == FIRST && address != 0;
        core.add(address, name);
        if is_inside && name == LAST {
            end_of_code = Some(core.sizes());
        } else if end_of_code.is_some() && name == LAST_OF_START {
            break;
        }
    }
    Ok(core.symbols())
}

/// Symbols in the order of their lines.
#[derive(Debug)]
struct Found {
    /// Where each is, and where its name.
    symbols: Vec<(u64, usize)>,
    names: Vec<u8>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            symbols: Vec::new(),
            // No name is at 0.
            names: vec![0],
        }
    }
}

impl Found {
    fn add(&mut self, address: u64, name: &[u8]) {
        self.symbols.push((address, self.names.len()));
        self.names.extend(name);
        self.names.push(0);
    }

    fn sizes(&self) -> (usize, usize) {
        (self.symbols.len(), self.names.len())
    }

    /// Forgets what came after it had these sizes.
    fn truncate(&mut self, (symbols, names): (usize, usize)) {
        self.symbols.truncate(symbols);
        self.names.truncate(names);
    }

    /// As rows, if there are some and offsets have the room.
    fn symbols(self) -> Option<CoreSymbols> {
        let (start, end) = (self.symbols.first()?.0, self.symbols.last()?.0);
        let mut rows = SymbolRows::default();
        let mut before = None;
        for (address, name) in self.symbols {
            if before != Some(address) {
                let offset = u32::try_from(address - start).ok()?;
                rows.push(offset, u32::try_from(name).ok()?);
            }
            before = Some(address);
        }
        (start < end).then_some(CoreSymbols {
            code: start..end,
            rows,
            names: self.names,
        })
    }
}

/// Address and name of a line, if it is one of the kernel proper.
fn symbol(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = line.trim_ascii_end().split(|byte| *byte == b' ');
    let address = str::from_utf8(fields.next()?).ok()?;
    let (_kind, name) = (fields.next()?, fields.next()?);
    let is_of_module = name.contains(&b'\t') || fields.next().is_some();
    (!is_of_module).then_some((u64::from_str_radix(address, 16).ok()?, name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use super::super::symbol_rows::Held;
    use super::*;

    const CORE: &str = "\
        ffffffff81000000 T first_of_all\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000100 t schedule\n\
        ffffffff81000180 t f\n\
        ffffffff81000180 t a_long_name_of_the_same\n\
        ffffffff81000180 t g\n\
        ffffffff81000200 T _etext\n";

    fn core_of(kallsyms: &str) -> Option<CoreSymbols> {
        core_symbols(kallsyms.as_bytes()).unwrap()
    }

    /// What holds at an offset from the start of the code, and where that starts.
    fn found(core: &CoreSymbols, offset: u64) -> (&str, u64) {
        let (holds, held) = core.rows.look_up(offset);
        let Some(Held::NamedAt(name)) = held else {
            panic!("nothing holds at {offset:#x}");
        };
        let name = &core.names[name as usize..];
        let name = name.split(|byte| *byte == 0).next().unwrap();
        (str::from_utf8(name).unwrap(), holds.start)
    }

    #[test]
    fn it_is_the_code_proper_without_what_lies_around_it() {
        let all = format!(
            "0000000000001000 A per_cpu_thing\n\
             {CORE}ffffffff82000000 D jiffies\n\
             ffffffffc0000000 t bpf_prog_6deef7357e7b4530_f\t[bpf]\n"
        );
        let core = core_of(CORE).unwrap();
        assert_eq!(core_of(&all).as_ref(), Some(&core));
        assert_eq!(core.code, 0xffff_ffff_8100_0000..0xffff_ffff_8100_0200);
    }

    #[test]
    fn the_code_that_started_the_kernel_belongs_to_it() {
        const START: &str = "\
            ffffffff82000000 D jiffies\n\
            ffffffff83000000 T _sinittext\n\
            ffffffff83000100 T start_kernel\n\
            ffffffff83000200 T _einittext\n";
        let core = core_of(&format!("{CORE}{START}")).unwrap();
        assert_eq!(core.code, 0xffff_ffff_8100_0000..0xffff_ffff_8300_0200);
        assert_eq!(found(&core, 0x0200_01ff), ("start_kernel", 0x0200_0100));
        let all = format!("{CORE}{START}ffffffff83001000 b __brk\n");
        assert_eq!(core_of(&all), Some(core));
        // Not where it is in another place, or another's.
        for other in [
            START.replace("ffffffff830001", "ffffffff800001"),
            START.replace("start_kernel", "start_kernel\t[module]"),
            START.replace("_einittext", "end"),
        ] {
            let core = core_of(&format!("{CORE}{other}")).unwrap();
            assert_eq!(core.code, core_of(CORE).unwrap().code);
            assert_eq!(core.rows, core_of(CORE).unwrap().rows);
        }
    }

    #[test]
    fn what_is_no_such_table_is_not_kept() {
        let hidden = CORE.replace("ffffffff81000", "0000000000000");
        let without_end = CORE.replace("_etext", "end");
        let with_module = CORE.replace("schedule", "schedule\t[module]");
        let unordered = CORE.replace("ffffffff81000100", "ffffffff810001f0");
        for other in [
            &hidden,
            &without_end,
            &with_module,
            &unordered,
            "",
            "nonsense\n",
        ] {
            assert_eq!(core_of(other), None, "{other}");
        }
        let far = CORE.replace("ffffffff81000000", "fffffff081000000");
        assert_eq!(core_of(&far), None);
    }

    #[test]
    fn an_address_is_its_last_symbols_and_of_equals_the_first_ones() {
        let core = core_of(CORE).unwrap();
        for (offset, expected) in [
            (0, ("first_of_all", 0)),
            (0xff, ("first_of_all", 0)),
            (0x100, ("schedule", 0x100)),
            (0x17f, ("schedule", 0x100)),
            (0x180, ("f", 0x180)),
            (0x1ff, ("f", 0x180)),
        ] {
            assert_eq!(found(&core, offset), expected, "{offset:#x}");
        }
    }
}
