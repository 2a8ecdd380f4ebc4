//! Perf maps: one line `START SIZE NAME` for each function, in hexadecimal.
//!
//! Written by runtimes under `--perf-basic-prof`, `-X perf`,
//! `jcmd PID Compiler.perfmap` and the like, in the order in which they compile.
//! Where lines overlap, the later one counts.

use std::ops::Range;

use super::newest::Newest;
use super::{Found, MAX_NAME_BYTES, Symbol, name_of, symbol_of};
use crate::object::Contents;

/// The largest map that is read, in bytes; those of large programs have some
/// tens of MiB.
pub const MAX_BYTES: u64 = 256 << 20;
/// Longer lines are bad ones, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Both numbers and the blanks around them, in bytes; more make a bad line.
const MAX_PREFIX_BYTES: usize = 64;
/// What is read at a time, in bytes.
const PIECE_BYTES: u64 = 256 << 10;

/// The functions at some addresses, which are in ascending order.
///
/// Memory depends on the number of addresses, not on the map. A last line
/// without an end is still being written and counts for nothing.
pub fn look_up(map: &impl Contents, addresses: &[u64]) -> Found {
    let mut newest = Newest::over(addresses);
    let mut bad = 0;
    for_each_line(map, |at, line| match line.and_then(parse_line) {
        Some((range, _)) => newest.lay(range, at + 1),
        None => bad += 1,
    });
    let mut last: Option<(u64, Option<Symbol>)> = None;
    let symbols = newest
        .marks()
        .map(|mark| {
            let at = mark? - 1;
            // Neighbours mostly lie in one function.
            match &last {
                Some((known, symbol)) if *known == at => symbol.clone(),
                _ => {
                    let symbol = name_at(map, at).and_then(symbol_of);
                    last = Some((at, symbol.clone()));
                    symbol
                }
            }
        })
        .collect();
    Found { symbols, bad }
}

/// Calls `each` with where a line begins and what it holds without its end;
/// `None` for one that is too long.
fn for_each_line(map: &impl Contents, mut each: impl FnMut(u64, Option<&[u8]>)) {
    let size_bytes = map.size_bytes().min(MAX_BYTES);
    let mut begun: Vec<u8> = Vec::new();
    let mut line_at = 0;
    let mut too_long = false;
    let mut at = 0;
    while at < size_bytes {
        let bytes = PIECE_BYTES.min(size_bytes - at);
        let Some(piece) = map.read(at, bytes as usize) else {
            return;
        };
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            at += part.len() as u64;
            let ended = part.strip_suffix(b"\n");
            let content = ended.unwrap_or(part);
            too_long = too_long || begun.len() + content.len() > MAX_LINE_BYTES;
            if ended.is_none() {
                if too_long {
                    begun.clear();
                } else {
                    begun.extend_from_slice(content);
                }
                continue;
            }
            if too_long {
                each(line_at, None);
            } else if begun.is_empty() {
                each(line_at, Some(content));
            } else {
                begun.extend_from_slice(content);
                each(line_at, Some(&begun));
            }
            begun.clear();
            too_long = false;
            line_at = at;
        }
    }
}

/// The range and the name of a line; `None` for a bad one.
fn parse_line(line: &[u8]) -> Option<(Range<u64>, &[u8])> {
    let (start, rest) = number(line)?;
    let (size, rest) = number(rest)?;
    let name = rest.trim_ascii_start();
    if line.len() - name.len() > MAX_PREFIX_BYTES {
        return None;
    }
    let name = name.trim_ascii_end();
    let end = start.checked_add(size)?;
    (size > 0 && !name.is_empty()).then_some((start..end, name))
}

/// Splits off a hexadecimal number, which a blank follows.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace)?;
    let (digits, rest) = text.split_at(end);
    let digits = digits
        .strip_prefix(b"0x")
        .or_else(|| digits.strip_prefix(b"0X"))
        .unwrap_or(digits);
    // `from_str_radix` takes a sign too.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let digits = str::from_utf8(digits).ok()?;
    Some((u64::from_str_radix(digits, 16).ok()?, rest))
}

/// The name in the line that begins at `at`; the file may have changed.
fn name_at(map: &impl Contents, at: u64) -> Option<String> {
    let most = MAX_PREFIX_BYTES + MAX_NAME_BYTES;
    let bytes = map.size_bytes().saturating_sub(at).min(most as u64);
    let piece = map.read(at, bytes as usize)?;
    let line = piece.split(|byte| *byte == b'\n').next()?;
    parse_line(line).map(|(_, name)| name_of(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::*;

    fn names(map: &[u8], addresses: &[u64]) -> (Vec<Option<String>>, u64) {
        let found = look_up(&map, addresses);
        let names = found.symbols.into_iter();
        (
            names.map(|symbol| Some(symbol?.name.to_string())).collect(),
            found.bad,
        )
    }

    fn some(names: &[&str]) -> Vec<Option<String>> {
        names
            .iter()
            .map(|name| (!name.is_empty()).then(|| (*name).to_owned()))
            .collect()
    }

    #[test]
    fn what_runtimes_write_is_read() {
        // From node 20, OpenJDK 17 and CPython 3.12.
        let map = b"7f12a67c5b80 180 JS:*fib /tmp/fib.js:1:13\n\
            0x00007fc4a8ec7640 0x0000000000000130 int Fib.fib(int)\n\
            7fe84390d7a6 b py::foo:<string>\n";
        let addresses = [
            0x7f12_a67c_5b7f,
            0x7f12_a67c_5b80,
            0x7f12_a67c_5cff,
            0x7f12_a67c_5d00,
            0x7fc4_a8ec_7640,
            0x7fe8_4390_d7b0,
        ];
        let expected = [
            "",
            "JS:*fib /tmp/fib.js:1:13",
            "JS:*fib /tmp/fib.js:1:13",
            "",
            "int Fib.fib(int)",
            "py::foo:<string>",
        ];
        assert_eq!(names(map, &addresses), (some(&expected), 0));
    }

    #[test]
    fn the_later_line_has_what_both_cover() {
        let map = b"1000 100 old\n1080 100 new\n";
        let addresses = [0x1000, 0x107f, 0x1080, 0x117f, 0x1180];
        let expected = ["old", "old", "new", "new", ""];
        assert_eq!(names(map, &addresses), (some(&expected), 0));
    }

    #[test]
    fn bad_lines_are_counted_and_cost_themselves_only() {
        let map = b"\nroot:x:0:0:root:/root:/bin/sh\n10 0 empty\n10 nothing\n10 10\n\
            +10 10 signed\nffffffffffffffff ffff wraps\n10000000000000000 1 large\n\
            1000 10 good\r\n";
        assert_eq!(names(map, &[0x10, 0x1000]), (some(&["", "good"]), 8));
    }

    #[test]
    fn a_line_that_is_still_being_written_does_not_count() {
        assert_eq!(names(b"10 10 a\n10 10 lon", &[0x10]), (some(&["a"]), 0));
    }

    #[test]
    fn long_lines_are_bad_and_long_names_are_cut() {
        let mut map = b"10 10 ".to_vec();
        map.resize(3 << 20, b'x');
        map.extend_from_slice(b"\n20 10 ");
        map.resize(map.len() + 10_000, b'y');
        map.extend_from_slice(b"\n30 10 z\n");
        let (names, bad) = names(&map, &[0x10, 0x20, 0x30]);
        assert_eq!((&names[0], &names[2], bad), (&None, &Some("z".into()), 1));
        let cut = names[1].as_ref().unwrap();
        assert!(cut.len() <= MAX_NAME_BYTES && cut.starts_with("yyy"));
    }

    #[test]
    fn lines_are_whole_wherever_they_are_read() {
        let mut map = Vec::new();
        for index in 0_u64..40_000 {
            let line = format!("{:x} 10 function {index}\n", index * 16);
            map.extend_from_slice(line.as_bytes());
        }
        assert!(map.len() as u64 > 3 * PIECE_BYTES);
        let addresses: Vec<u64> = (0..40_000).map(|index| index * 16 + 7).collect();
        let (names, bad) = names(&map, &addresses);
        assert_eq!(bad, 0);
        for (index, name) in names.into_iter().enumerate() {
            assert_eq!(name.unwrap(), format!("function {index}"));
        }
    }

    #[test]
    fn ranges_over_everything_take_no_time() {
        let map = b"0 ffffffffffffffff f\n".repeat(200_000);
        let addresses: Vec<u64> = (0..20_000).collect();
        let begun = std::time::Instant::now();
        let (names, _) = names(&map, &addresses);
        assert!(names.iter().all(Option::is_some));
        assert!(begun.elapsed().as_secs() < 20);
    }
}
