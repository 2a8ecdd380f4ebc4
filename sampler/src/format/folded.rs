//! Folded stacks: one line for each stack, `comm;root;…;leaf COUNT`.
//!
//! What `flamegraph.pl`, inferno and speedscope read. The format has no
//! quoting, so a name gives up the characters that mean something in it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::safe;
use crate::profile::{Location, Mapping, Profile, Sample};

/// Writes the stacks with the values of sample type `value` (its place in
/// the header), sorted, stacks that read the same summed up.
///
/// Inlined functions are frames of their own; stacks whose value is not
/// positive are left out, since the format cannot say them.
pub fn write(profile: &Profile, value: usize, mut out: impl Write) -> io::Result<()> {
    for (stack, sum) in lines(profile, value) {
        writeln!(out, "{stack} {sum}")?;
    }
    out.flush()
}

/// Folded stacks and their sums, all positive.
pub(super) fn lines(profile: &Profile, value: usize) -> BTreeMap<String, i64> {
    let frames: Vec<String> = profile
        .locations()
        .map(|location| location_text(profile, location))
        .collect();
    let mut lines = BTreeMap::new();
    for sample in profile.samples() {
        let amount = sample.values.get(value).copied().unwrap_or_default();
        if amount <= 0 {
            continue;
        }
        let sum: &mut i64 = lines.entry(stack_text(sample, &frames)).or_default();
        *sum = sum.saturating_add(amount);
    }
    lines
}

/// Root first. `frames` holds the text of each location.
fn stack_text(sample: Sample<'_>, frames: &[String]) -> String {
    let mut line = sample
        .labels
        .string("comm")
        .map_or_else(|| "[unknown]".to_owned(), root_text);
    if sample.stack.is_empty() {
        // Without a frame the process would stand last, where a name that ends
        // in a number is read as a count.
        line.push_str(";[no stack]");
    }
    for location in sample.stack.iter().rev() {
        line.push(';');
        line.push_str(&frames[location.index()]);
    }
    line
}

/// The frames of one address, outermost first, joined by `;`.
fn location_text(profile: &Profile, location: &Location) -> String {
    let names = location.lines.iter().rev().map(|line| {
        let function = profile.get_function(line.function);
        let name = if function.name.is_empty() {
            &function.system_name
        } else {
            &function.name
        };
        frame_text(name)
    });
    let text = names.collect::<Vec<_>>().join(";");
    if text.is_empty() {
        address_text(profile.get_mapping(location.mapping), location.address)
    } else {
        text
    }
}

/// A name as a frame.
fn frame_text(name: &str) -> String {
    let mut text = plain(name);
    if text.is_empty() {
        return "[unnamed]".to_owned();
    }
    // "f 12" at the end of a line followed by the count reads as two counts.
    if let Some((head, last)) = text.rsplit_once(' ')
        && last.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        text = format!("{head}_{last}");
    }
    text
}

/// A name as the first frame of a line, where `#` would start a remark.
fn root_text(comm: &str) -> String {
    let text = plain(comm);
    match text.strip_prefix('#') {
        _ if text.is_empty() => "[unnamed]".to_owned(),
        Some(rest) => format!("\\x23{rest}"),
        None => text,
    }
}

/// What names no function: the file and the place in it.
fn address_text(mapping: &Mapping, address: u64) -> String {
    let base = mapping.file.rsplit('/').next().unwrap_or_default();
    let base = plain(base.trim_start_matches('[').trim_end_matches(']'));
    let base = if base.is_empty() { "unknown" } else { &base };
    match mapping.file_offset_of(address) {
        Some(offset) => format!("[{base}+{offset:#x}]"),
        None => format!("[{base}@{address:#x}]"),
    }
}

/// One line without the separator and without blanks at its ends.
fn plain(name: &str) -> String {
    safe::visible(name).trim().replace(';', ":")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test
    use super::*;
    use crate::format::example;
    use crate::profile::{Header, Labels};
    use proptest::prelude::*;

    fn folded(profile: &Profile, value: usize) -> String {
        let mut out = Vec::new();
        write(profile, value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stacks_are_written_root_first_with_inlined_frames_and_bare_addresses() {
        let profile = example::typical();
        assert_eq!(
            folded(&profile, 0),
            "spin;main;[libc.so.6+0x29d8f] 1\n\
             spin;main;outer;inner 3\n\
             spin;main;outer;inner;do_syscall_64;[kernel.kallsyms+0x1234] 2\n"
        );
    }

    #[test]
    fn another_value_can_be_chosen_and_a_missing_one_is_empty() {
        let profile = example::typical();
        assert!(folded(&profile, 1).contains("spin;main;outer;inner 30303030\n"));
        assert_eq!(folded(&profile, 2), "");
    }

    #[test]
    fn a_profile_without_samples_is_an_empty_file() {
        assert_eq!(folded(&Profile::new(Header::cpu(1, 0, 0)), 0), "");
    }

    #[test]
    fn a_name_cannot_add_frames_lines_or_counts() {
        assert_eq!(frame_text("[u8; 8]::f"), "[u8: 8]::f");
        assert_eq!(frame_text("a\nb 5"), "a\\x0ab_5");
        assert_eq!(frame_text("f 1.5"), "f_1.5");
        assert_eq!(frame_text("\x1b[31m"), "\\x1b[31m");
        assert_eq!(frame_text("   "), "[unnamed]");
        assert_eq!(root_text("# note"), "\\x23 note");
        assert_eq!(root_text("worker 1"), "worker 1");
    }

    #[test]
    fn a_sample_without_frames_says_so() {
        let mut profile = Profile::new(Header::cpu(1, 0, 0));
        let labels = Labels {
            strings: vec![("comm", "worker 1".into())],
            numbers: Vec::new(),
        };
        profile.add_sample(&[], labels, &[4, 4]);
        assert_eq!(folded(&profile, 0), "worker 1;[no stack] 4\n");
    }

    #[test]
    fn an_address_below_its_mapping_is_shown_as_it_is() {
        let mapping = Mapping {
            start: 0x1000,
            limit: 0x2000,
            file_offset: 0,
            file: "/memfd:x;y (deleted)".into(),
            build_id: None,
        };
        assert_eq!(address_text(&mapping, 0x10), "[memfd:x:y (deleted)@0x10]");
        let nameless = Mapping {
            file: String::new(),
            ..mapping
        };
        assert_eq!(address_text(&nameless, 0x1010), "[unknown+0x10]");
    }

    proptest! {
        #[test]
        fn every_line_has_its_frames_and_one_count(profile in example::any_profile()) {
            let text = folded(&profile, 0);
            let positive = profile.samples().filter(|s| s.values[0] > 0);
            let depths: std::collections::BTreeSet<usize> = positive
                .map(|s| {
                    let frames: usize = s.stack.iter()
                        .map(|id| profile.get_location(*id).lines.len().max(1))
                        .sum();
                    1 + frames.max(1)
                })
                .collect();
            let mut seen = std::collections::BTreeSet::new();
            for line in text.lines() {
                let (stack, count) = line.rsplit_once(' ').unwrap();
                prop_assert!(count.parse::<i64>().unwrap() > 0);
                if let Some((_, last)) = stack.rsplit_once(' ') {
                    let number = last.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                    prop_assert!(!number, "two counts in {:?}", line);
                }
                prop_assert!(stack.split(';').all(|frame| !frame.is_empty()));
                prop_assert_eq!(line.trim(), line);
                seen.insert(stack.split(';').count());
            }
            prop_assert_eq!(seen, depths);
        }
    }
}
