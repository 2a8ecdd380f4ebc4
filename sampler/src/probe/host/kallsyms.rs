//! A handful of the kernel's own addresses.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

/// The kernel's code, and that of it which tells how a task came into the kernel.
///
/// Each is None where the kernel has no such section, or hides its addresses
/// from this caller (`kptr_restrict`, or no `CAP_SYSLOG`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelText {
    /// Where the code starts.
    pub start: Option<u64>,
    /// Entry code: system calls, exceptions and interrupts.
    pub entry: Option<Range<u64>>,
}

/// On x86 they stand among the first thousands.
const NAMES: [&str; 3] = ["_stext", "__entry_text_start", "__entry_text_end"];

impl KernelText {
    /// Reads `/proc/kallsyms` once, as far as the last of the names.
    pub fn read() -> io::Result<Self> {
        Self::from_lines(BufReader::with_capacity(
            1 << 16,
            File::open("/proc/kallsyms")?,
        ))
    }

    fn from_lines(lines: impl BufRead) -> io::Result<Self> {
        let found = find(lines, NAMES)?;
        let [start, entry_start, entry_end] = found;
        let entry = entry_start.zip(entry_end).map(|(start, end)| start..end);
        Ok(Self {
            start,
            entry: entry.filter(|entry| entry.start < entry.end),
        })
    }

    /// Whether the caller sees addresses of the kernel at all.
    pub fn is_shown(&self) -> bool {
        self.start.is_some()
    }
}

/// The code of the kernel proper, without modules and what is generated; `None`
/// if it is hidden from this caller.
pub fn core_text() -> io::Result<Option<Range<u64>>> {
    let lines = BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?);
    let found = find(lines, ["_stext", "_etext"])?;
    let range = found[0].zip(found[1]).map(|(start, end)| start..end);
    Ok(range.filter(|range| range.start < range.end))
}

/// The addresses of symbols of the kernel proper (not of modules) in lines of
/// `ADDRESS TYPE NAME`; None for a hidden one, which reads as zero.
fn find<const N: usize>(mut lines: impl BufRead, names: [&str; N]) -> io::Result<[Option<u64>; N]> {
    let mut addresses = [None; N];
    let mut met = 0;
    let mut line = Vec::new();
    while met < N {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let Some((address, name)) = parse_line(&line) else {
            continue;
        };
        if let Some(index) = names.iter().position(|wanted| wanted.as_bytes() == name) {
            met += 1;
            addresses[index] = (address != 0).then_some(address);
        }
    }
    Ok(addresses)
}

fn parse_line(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = line.trim_ascii_end().split(|&byte| byte == b' ');
    let address = str::from_utf8(fields.next()?).ok()?;
    let _type = fields.next()?;
    Some((u64::from_str_radix(address, 16).ok()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    const SHOWN: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000010 T __entry_text_start
ffffffff81000300 T __irqentry_text_start
ffffffff81000f70 T __irqentry_text_end
ffffffff81001a87 T __entry_text_end
ffffffffc0000000 t __entry_text_start\t[module]
";

    #[test]
    fn sections_are_found_by_their_ends() {
        let sections = KernelText::from_lines(SHOWN.as_bytes()).unwrap();
        assert_eq!(
            sections.entry,
            Some(0xffff_ffff_8100_0010..0xffff_ffff_8100_1a87)
        );
        assert!(sections.is_shown());
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        let zeroed: Vec<String> = SHOWN
            .lines()
            .map(|line| format!("{:016x}{}", 0, &line[16..]))
            .collect();
        let sections = KernelText::from_lines(zeroed.join("\n").as_bytes()).unwrap();
        assert_eq!(sections, KernelText::default());
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        let text =
            b"zz T __entry_text_start\n\xff\xfe\n\n12\nffffffff81000010 T __entry_text_start\n\
            ffffffff81000000 T __entry_text_end";
        let sections = KernelText::from_lines(&text[..]).unwrap();
        assert_eq!(
            sections.entry, None,
            "an end before its start is no section"
        );
    }

    #[test]
    fn root_sees_the_entry_code_of_the_running_kernel() {
        let sections = KernelText::read().unwrap();
        if !sections.is_shown() {
            eprintln!("skipped: this caller may not see kernel addresses");
            return;
        }
        let entry = sections.entry.unwrap();
        assert!(entry.start > u64::MAX / 2, "kernel addresses are high");
    }
}
