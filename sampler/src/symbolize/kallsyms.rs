//! The lines of `/proc/kallsyms` that describe the kernel's own code.

use std::io::{self, BufRead};
use std::ops::Range;

/// The symbols around the code.
const FIRST: &[u8] = b"_stext";
const LAST: &[u8] = b"_etext";
/// The last one of the code that has started the kernel, which is in the stacks of
/// idle CPUs for ever.
const LAST_OF_START: &[u8] = b"_einittext";

/// The lines from the code's start to its end, that of the code that has started the
/// kernel if it comes, which ascend, with those of other symbols that start where
/// the code does; `None` if there are none such, or if they hide their addresses.
pub(super) fn core_lines(mut lines: impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut core = Vec::new();
    let (mut last_address, mut is_inside) = (0, false);
    let mut end_of_code = None;
    loop {
        let start = core.len();
        let is_over = lines.read_until(b'\n', &mut core)? == 0;
        let symbol = symbol(&core[start..]).filter(|_| !is_over);
        let symbol = symbol.filter(|(address, _)| !is_inside || *address >= last_address);
        let Some((address, name)) = symbol else {
            core.truncate(end_of_code.unwrap_or(0));
            break;
        };
        let is_elsewhere = !is_inside && address != last_address;
        last_address = address;
        is_inside |= name == FIRST && address != 0;
        if is_inside && name == LAST {
            end_of_code = Some(core.len());
        } else if end_of_code.is_some() && name == LAST_OF_START {
            break;
        }
        if is_elsewhere {
            core.drain(..start);
        }
    }
    Ok(code(&core).map(|_| core))
}

/// From the first symbol of such lines to the last.
pub(super) fn code(lines: &[u8]) -> Option<Range<u64>> {
    let lines = lines.strip_suffix(b"\n")?;
    let last = lines.rsplit(|byte| *byte == b'\n').next()?;
    let (start, _) = symbol(lines.split(|byte| *byte == b'\n').next()?)?;
    let (end, last_name) = symbol(last)?;
    let is_end = last_name == LAST || last_name == LAST_OF_START;
    (is_end && start < end).then_some(start..end)
}

/// Address and name of a line, if it is one of the kernel proper.
fn symbol(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = line.trim_ascii_end().split(|byte| *byte == b' ');
    let address = str::from_utf8(fields.next()?).ok()?;
    let (_kind, name) = (fields.next()?, fields.next()?);
    let is_of_module = name.contains(&b'\t') || fields.next().is_some();
    (!is_of_module).then_some((u64::from_str_radix(address, 16).ok()?, name))
}

/// The name and the start of the symbol that an address belongs to, by lines that
/// ascend: of the last one that does not start behind it, and of several that start
/// where that one does, of the first.
pub(super) fn find(lines: &[u8], address: u64) -> Option<(&[u8], u64)> {
    let behind = partition(lines, |start| start <= address)?;
    let before = lines[..behind].strip_suffix(b"\n")?;
    let mut backwards = before.rsplit(|byte| *byte == b'\n').map(symbol);
    let (start, mut first) = backwards.next()??;
    while let Some(Some((at, name))) = backwards.next()
        && at == start
    {
        first = name;
    }
    Some((first, start))
}

/// Where the first line is whose symbol does not start as `before` says, all those
/// in front of it doing so; `None` if a line that is met is none of a symbol.
fn partition(lines: &[u8], before: impl Fn(u64) -> bool) -> Option<usize> {
    let (mut from, mut to) = (0, lines.len());
    while from < to {
        let middle = from + (to - from) / 2;
        let line_end = lines[from..middle].iter().rposition(|byte| *byte == b'\n');
        let start = line_end.map_or(from, |end| from + end + 1);
        let line = line_at(lines, start);
        if before(symbol(line)?.0) {
            from = start + line.len();
        } else {
            to = start;
        }
    }
    Some(from)
}

/// The line that starts there, with its end.
fn line_at(lines: &[u8], start: usize) -> &[u8] {
    let rest = &lines[start..];
    let end = rest.iter().position(|byte| *byte == b'\n');
    &rest[..end.map_or(rest.len(), |end| end + 1)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use super::*;

    const CORE: &str = "\
        ffffffff81000000 T first_of_all\n\
        ffffffff81000000 T _stext\n\
        ffffffff81000100 t schedule\n\
        ffffffff81000180 t f\n\
        ffffffff81000180 t a_long_name_of_the_same\n\
        ffffffff81000180 t g\n\
        ffffffff81000200 T _etext\n";

    fn core_of(kallsyms: &str) -> Option<String> {
        let lines = core_lines(kallsyms.as_bytes()).unwrap();
        lines.map(|lines| String::from_utf8(lines).unwrap())
    }

    #[test]
    fn it_is_the_code_proper_without_what_lies_around_it() {
        let all = format!(
            "0000000000001000 A per_cpu_thing\n\
             {CORE}ffffffff82000000 D jiffies\n\
             ffffffffc0000000 t bpf_prog_6deef7357e7b4530_f\t[bpf]\n"
        );
        assert_eq!(core_of(&all).as_deref(), Some(CORE));
        let code = code(CORE.as_bytes()).unwrap();
        assert_eq!(code, 0xffff_ffff_8100_0000..0xffff_ffff_8100_0200);
    }

    #[test]
    fn the_code_that_started_the_kernel_belongs_to_it() {
        const START: &str = "\
            ffffffff82000000 D jiffies\n\
            ffffffff83000000 T _sinittext\n\
            ffffffff83000100 T start_kernel\n\
            ffffffff83000200 T _einittext\n";
        let all = format!("{CORE}{START}ffffffff83001000 b __brk\n");
        assert_eq!(core_of(&all), Some(format!("{CORE}{START}")));
        let code = code(format!("{CORE}{START}").as_bytes()).unwrap();
        assert_eq!(code, 0xffff_ffff_8100_0000..0xffff_ffff_8300_0200);
        // Not where it is in another place, or another's.
        for other in [
            START.replace("ffffffff830001", "ffffffff800001"),
            START.replace("start_kernel", "start_kernel\t[module]"),
            START.replace("_einittext", "end"),
        ] {
            assert_eq!(core_of(&format!("{CORE}{other}")).as_deref(), Some(CORE));
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
        assert_eq!(code(&CORE.as_bytes()[..CORE.len() - 3]), None);
    }

    #[test]
    fn an_address_is_its_last_symbols_and_of_equals_the_first_ones() {
        let at = |offset: u64| {
            let found = find(CORE.as_bytes(), 0xffff_ffff_8100_0000 + offset);
            found.map(|(name, start)| (str::from_utf8(name).unwrap(), start & 0xfff))
        };
        for (offset, expected) in [
            (0, ("first_of_all", 0)),
            (0xff, ("first_of_all", 0)),
            (0x100, ("schedule", 0x100)),
            (0x17f, ("schedule", 0x100)),
            (0x180, ("f", 0x180)),
            (0x1ff, ("f", 0x180)),
            (0x200, ("_etext", 0x200)),
            (0x300, ("_etext", 0x200)),
        ] {
            assert_eq!(at(offset), Some(expected), "{offset:#x}");
        }
        assert_eq!(find(CORE.as_bytes(), 0xffff_ffff_80ff_ffff), None);
        assert_eq!(find(b"", 1), None);
        assert_eq!(find(b"nonsense\nwithout end", u64::MAX), None);
    }
}
