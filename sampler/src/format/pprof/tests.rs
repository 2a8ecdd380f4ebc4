#![allow(clippy::unwrap_used)] // a failed expectation is a failed test
//! The writer against a reader whose schema is not ours.

use std::collections::HashSet;
use std::io::Read as _;

use libdd_profiling_protobuf::prost_impls::{Message as _, Profile as Decoded, ValueType};
use proptest::prelude::*;

use super::*;
use crate::format::example;
use crate::profile::Header;

fn decoded(profile: &Profile) -> Decoded {
    Decoded::decode(encode(profile).as_slice()).unwrap()
}

fn text(decoded: &Decoded, index: i64) -> &str {
    &decoded.string_table[usize::try_from(index).unwrap()]
}

fn type_text(decoded: &Decoded, value_type: ValueType) -> (&str, &str) {
    (
        text(decoded, value_type.r#type),
        text(decoded, value_type.unit),
    )
}

#[test]
fn the_header_says_what_was_counted_when_and_how_often() {
    let read = decoded(&example::typical());
    let types: Vec<_> = read
        .sample_types
        .iter()
        .map(|t| type_text(&read, *t))
        .collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert_eq!(
        type_text(&read, read.period_type.unwrap()),
        ("cpu", "nanoseconds")
    );
    assert_eq!(read.period, 10_101_010);
    assert_eq!(read.time_nanos, 1_700_000_000_000_000_000);
    assert_eq!(read.duration_nanos, 2_000_000_000);
    assert_eq!(text(&read, read.default_sample_type), "cpu");
    assert_eq!((read.drop_frames, read.keep_frames), (0, 0));
    let comments: Vec<_> = read.comment.iter().map(|c| text(&read, *c)).collect();
    assert_eq!(comments, ["ledger: ticks 6, counted 6"]);
}

#[test]
fn a_stack_reads_leaf_first_down_to_the_source_line() {
    let read = decoded(&example::typical());
    let deepest = read
        .samples
        .iter()
        .max_by_key(|s| s.location_ids.len())
        .unwrap();
    assert_eq!(deepest.values, [2, 20_202_020]);
    let mut frames = Vec::new();
    for id in &deepest.location_ids {
        let location = &read.locations[usize::try_from(*id).unwrap() - 1];
        let mapping = &read.mappings[usize::try_from(location.mapping_id).unwrap() - 1];
        let lines: Vec<_> = location
            .lines
            .iter()
            .map(|line| {
                let function = &read.functions[usize::try_from(line.function_id).unwrap() - 1];
                (
                    text(&read, function.name),
                    text(&read, function.system_name),
                    text(&read, function.filename),
                    line.line,
                )
            })
            .collect();
        frames.push((text(&read, mapping.filename), location.address, lines));
    }
    let binary = "/usr/bin/spin";
    let kernel = "[kernel.kallsyms]";
    assert_eq!(
        frames,
        [
            (kernel, 0xffff_ffff_8100_1234, vec![]),
            (
                kernel,
                0xffff_ffff_8100_0040,
                vec![("do_syscall_64", "do_syscall_64", "", 0)]
            ),
            (
                binary,
                0x40_0020,
                vec![
                    ("inner", "_ZN4spin5innerE", "src/main.rs", 3),
                    ("outer", "_ZN4spin5outerE", "src/main.rs", 7)
                ]
            ),
            (
                binary,
                0x40_0010,
                vec![("main", "_ZN4spin4mainE", "src/main.rs", 10)]
            ),
        ]
    );
}

#[test]
fn a_column_is_kept_beside_the_line() {
    // The other reader's schema is older than columns.
    let read = proto::Profile::decode(encode(&example::typical()).as_slice()).unwrap();
    let line = &read.location[0].line[0];
    assert_eq!((line.line, line.column), (10, 5));
}

#[test]
fn mappings_claim_what_is_known_and_that_the_lookup_is_over() {
    let read = decoded(&example::typical());
    let claims: Vec<_> = read
        .mappings
        .iter()
        .map(|m| {
            (
                text(&read, m.filename),
                text(&read, m.build_id),
                [
                    m.has_functions,
                    m.has_filenames,
                    m.has_line_numbers,
                    m.has_inline_frames,
                ],
            )
        })
        .collect();
    assert_eq!(
        claims,
        [
            (
                "/usr/bin/spin",
                "0123456789abcdef0123456789abcdef01234567",
                [true; 4]
            ),
            (
                "/lib/x86_64-linux-gnu/libc.so.6",
                "",
                [true, false, false, false]
            ),
            ("[kernel.kallsyms]", "", [true, false, false, false]),
        ]
    );
}

#[test]
fn where_nobody_looked_for_names_readers_may() {
    let mut profile = example::typical();
    profile.leave_unnamed();
    let read = decoded(&profile);
    let looked_up: Vec<_> = read.mappings.iter().map(|m| m.has_functions).collect();
    // The library has no line; the others' names came with the profile.
    assert_eq!(looked_up, [true, false, true]);
}

#[test]
fn a_number_has_its_key_as_unit_even_when_it_is_zero() {
    let read = decoded(&example::named("n"));
    let labels: Vec<_> = read.samples[0]
        .labels
        .iter()
        .map(|l| {
            (
                text(&read, l.key),
                text(&read, l.str),
                l.num,
                text(&read, l.num_unit),
            )
        })
        .collect();
    assert_eq!(
        labels,
        [
            ("comm", "n", 0, ""),
            ("thread_name", "n", 0, ""),
            ("cpu", "", 0, "cpu"),
            ("pid", "", 1, "pid"),
        ]
    );
}

#[test]
fn a_profile_without_samples_has_a_string_table_and_its_types() {
    let read = decoded(&Profile::new(Header::cpu(1, 0, 0)));
    assert_eq!(read.string_table[0], "");
    assert_eq!(read.sample_types.len(), 2);
    assert!(read.samples.is_empty() && read.mappings.is_empty());
}

#[test]
fn the_file_is_gzip_around_the_message_and_the_same_each_time() {
    let profile = example::typical();
    let mut file = Vec::new();
    write(&profile, &mut file).unwrap();
    let mut again = Vec::new();
    write(&profile, &mut again).unwrap();
    assert_eq!(file, again);
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(file.as_slice())
        .read_to_end(&mut raw)
        .unwrap();
    assert_eq!(raw, encode(&profile));
}

#[test]
fn a_full_disk_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = write(&example::typical(), Full).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

/// Ids 1, 2, … in order, so that a reader may use them as positions.
fn dense(ids: impl Iterator<Item = u64>) -> bool {
    ids.zip(1..).all(|(id, position)| id == position)
}

proptest! {
    #[test]
    fn any_profile_resolves_in_every_reader(profile in example::any_profile()) {
        let read = decoded(&profile);
        prop_assert!(dense(read.mappings.iter().map(|m| m.id)));
        prop_assert!(dense(read.locations.iter().map(|l| l.id)));
        prop_assert!(dense(read.functions.iter().map(|f| f.id)));

        let (mappings, functions, locations) =
            (read.mappings.len() as u64, read.functions.len() as u64, read.locations.len() as u64);
        for location in &read.locations {
            prop_assert!((1..=mappings).contains(&location.mapping_id));
            prop_assert!(location.lines.iter().all(|l| (1..=functions).contains(&l.function_id)));
            prop_assert!(read.mappings[location.mapping_id as usize - 1].has_functions);
        }
        for sample in &read.samples {
            prop_assert!(sample.location_ids.iter().all(|id| (1..=locations).contains(id)));
            prop_assert_eq!(sample.values.len(), read.sample_types.len());
            let keys: HashSet<_> = sample.labels.iter().map(|l| l.key).collect();
            prop_assert_eq!(keys.len(), sample.labels.len());
            prop_assert!(!keys.contains(&0));
        }

        let strings = &read.string_table;
        prop_assert_eq!(&strings[0], "");
        prop_assert_eq!(strings.iter().collect::<HashSet<_>>().len(), strings.len());
        prop_assert!(strings.iter().all(|s| safe::terminal(s) == *s));
        let used = read.mappings.iter().flat_map(|m| [m.filename, m.build_id])
            .chain(read.functions.iter().flat_map(|f| [f.name, f.system_name, f.filename]))
            .chain(read.samples.iter().flat_map(|s| &s.labels).flat_map(|l| [l.key, l.str, l.num_unit]))
            .chain(read.sample_types.iter().chain(&read.period_type).flat_map(|t| [t.r#type, t.unit]))
            .chain(read.comment.iter().copied())
            .chain([read.default_sample_type]);
        for index in used {
            prop_assert!((0..strings.len() as i64).contains(&index));
        }
    }

    #[test]
    fn no_sample_is_lost_on_the_way(profile in example::any_profile()) {
        let read = decoded(&profile);
        let written: Vec<_> = read.samples.iter().map(|s| {
            (s.location_ids.iter().map(|id| *id as usize - 1).collect::<Vec<_>>(), s.values.clone())
        }).collect();
        let held: Vec<_> = profile.samples().map(|s| {
            (s.stack.iter().map(|id| id.index()).collect::<Vec<_>>(), s.values.to_vec())
        }).collect();
        prop_assert_eq!(written, held);
    }
}
