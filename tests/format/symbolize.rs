//! Naming a profile of anybody's: what changes, what does not, and what is refused.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use libdd_profiling_protobuf::prost_impls::{
    Function, Label, Line, Location, Mapping, Message as _, Profile, Sample, ValueType,
};
use proptest::prelude::*;
use sampler::format::pprof::{
    Document, NewLines, Packing, ReadError, SourceLine, pack, rename, unpack,
};

use crate::go;

/// A profile as another tool could have written it: ids with gaps, three sample
/// types, labels with units, filters, fields that this reader has never heard of.
fn foreign() -> Vec<u8> {
    let strings = [
        "",
        "alloc_objects",
        "count",
        "alloc_space",
        "bytes",
        "main.main",
        "main.go",
        "/bin/app",
        "00112233445566778899",
        "request",
        "GET /",
        "size",
        "kibibytes",
        "made by hand",
        "runtime\\..*",
        "keep",
        "inuse_space",
    ];
    let value_type = |r#type, unit| ValueType { r#type, unit };
    let label = |key, str, num, num_unit| Label {
        key,
        str,
        num,
        num_unit,
    };
    let location = |id, address, lines| Location {
        id,
        mapping_id: 40,
        address,
        lines,
        is_folded: true,
    };
    let known = Line {
        function_id: 9,
        line: 12,
    };
    let profile = Profile {
        sample_types: vec![value_type(1, 2), value_type(3, 4), value_type(16, 4)],
        samples: vec![
            Sample {
                location_ids: vec![700, 3, 3, 5],
                values: vec![i64::MAX, -5, 0],
                labels: vec![
                    label(9, 10, 0, 0),
                    label(11, 0, 64, 12),
                    label(11, 0, 0, 12),
                ],
            },
            Sample {
                location_ids: vec![3],
                values: vec![1, 2, 3],
                labels: vec![],
            },
        ],
        mappings: vec![Mapping {
            id: 40,
            memory_start: 0x40_0000,
            memory_limit: 0x50_0000,
            file_offset: 0x1000,
            filename: 7,
            build_id: 8,
            has_functions: false,
            has_filenames: true,
            has_line_numbers: false,
            has_inline_frames: false,
        }],
        locations: vec![
            location(3, 0x40_0010, vec![]),
            location(700, 0x40_0020, vec![known, known]),
            location(5, 0x40_0030, vec![]),
        ],
        functions: vec![Function {
            id: 9,
            name: 5,
            system_name: 5,
            filename: 6,
        }],
        string_table: strings.iter().map(|text| (*text).to_owned()).collect(),
        drop_frames: 14,
        keep_frames: 15,
        time_nanos: -1,
        duration_nanos: 1,
        period_type: Some(value_type(3, 4)),
        period: 524_288,
        comment: vec![13, 13],
        default_sample_type: 16,
    };
    let mut message = profile.encode_to_vec();
    // doc_url, of which that schema does not know; then fields that nobody knows.
    message.extend([15 << 3, 13]);
    message.extend([0xfa, 0x7f, 3, b'n', b'e', b'w']);
    message.extend([0xf9, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8]);
    message
}

fn line(name: &str, file: &str, line: u32) -> SourceLine {
    SourceLine {
        name: name.to_owned(),
        system_name: format!("_{name}"),
        file: file.to_owned(),
        line,
        column: line * 2,
    }
}

fn named(message: &[u8], lines: &NewLines) -> Vec<u8> {
    rename(&Document::parse(message).unwrap(), lines).unwrap()
}

/// The top-level fields of a message: number, bytes, tag included.
fn fields(message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &[u8], at: &mut usize) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let (mut found, mut at) = (Vec::new(), 0);
    while at < message.len() {
        let start = at;
        let tag = varint(message, &mut at);
        match tag & 7 {
            0 => {
                varint(message, &mut at);
            }
            1 => at += 8,
            5 => at += 4,
            2 => at += varint(message, &mut at) as usize,
            other => panic!("wire type {other}"),
        }
        found.push((tag >> 3, message[start..at].to_vec()));
    }
    found
}

/// Two locations get names; nothing else may change, as another reader sees it and
/// byte by byte.
pub fn only_names_change() {
    let before = foreign();
    let lines = NewLines::from([
        (0, vec![line("inner", "a.c", 3), line("main.main", "", 0)]),
        (2, vec![line("inner", "a.c", 4)]),
    ]);
    let after = named(&before, &lines);

    let untouched = |message: &[u8]| -> Vec<_> {
        let mut fields = fields(message);
        fields.retain(|(number, _)| !(3..=6).contains(number));
        fields
    };
    assert_eq!(untouched(&after), untouched(&before));
    assert_eq!(untouched(&before).len(), 16);

    let (old, mut new) = (decoded(&before), decoded(&after));
    let text = |new: &Profile, index: i64| new.string_table[index as usize].clone();
    let frames = |new: &Profile, at: usize| -> Vec<_> {
        let function = |id| {
            new.functions
                .iter()
                .find(|function| function.id == id)
                .unwrap()
        };
        let of = |line: &Line| {
            let function = function(line.function_id);
            let texts = [function.name, function.system_name, function.filename];
            (texts.map(|index| text(new, index)), line.line)
        };
        new.locations[at].lines.iter().map(of).collect()
    };
    let texts = |name: &str, file: &str| [name.to_owned(), format!("_{name}"), file.to_owned()];
    assert_eq!(
        frames(&new, 0),
        [(texts("inner", "a.c"), 3), (texts("main.main", ""), 0)]
    );
    assert_eq!(frames(&new, 2), [(texts("inner", "a.c"), 4)]);
    let mapping = &mut new.mappings[0];
    assert!(mapping.has_functions && mapping.has_line_numbers && mapping.has_inline_frames);
    // One function for both, and the old ones where they were.
    assert_eq!(new.functions.len(), 3);
    let ids: Vec<u64> = new.functions.iter().map(|function| function.id).collect();
    assert_eq!(ids, [9, 2, 3]);

    new.mappings[0] = old.mappings[0];
    for at in [0, 2] {
        new.locations[at].lines.clear();
    }
    new.functions.truncate(old.functions.len());
    new.string_table.truncate(old.string_table.len());
    assert_eq!(new, old);
}

/// Bytes that mean the same in another order stay in theirs.
pub fn nothing_named_is_nothing_changed() {
    let before = foreign();
    assert_eq!(named(&before, &NewLines::new()), before);
    let (message, packing) = unpack(before.as_slice()).unwrap();
    assert_eq!(
        (message.as_slice(), packing),
        (before.as_slice(), Packing::Plain)
    );
    let mut file = Vec::new();
    pack(&before, Packing::Gzip, &mut file).unwrap();
    let (message, packing) = unpack(file.as_slice()).unwrap();
    assert_eq!((message, packing), (before, Packing::Gzip));
}

/// A name of a program reaches a report as one harmless line.
pub fn names_are_made_harmless() {
    let lines = NewLines::from([(0, vec![line("\x1b[31m\u{202e}\n", "", 0)])]);
    let after = decoded(&named(&foreign(), &lines));
    let added = &after.string_table[decoded(&foreign()).string_table.len()..];
    assert_eq!(
        added,
        ["\\x1b[31m\\u{202e}\\x0a", "_\\x1b[31m\\u{202e}\\x0a"]
    );
}

pub fn go_sees_the_names() {
    let lines = NewLines::from([(0, vec![line("inner", "a.c", 3), line("outer", "a.c", 9)])]);
    let file = go::File::of_message(&named(&foreign(), &lines));
    let raw = file.report(&["-raw"]);
    assert!(raw.contains("0x400010 M=1 [F] inner a.c:3"), "{raw}");
    assert!(raw.contains("request:[GET /]"), "{raw}");
    let top = file.report(&["-top", "-sample_index=alloc_space", "-symbolize=none"]);
    assert!(top.contains("inner (inline)"), "{top}");
    assert!(top.contains("main.main"), "{top}");
}

fn decoded(message: &[u8]) -> Profile {
    Profile::decode(message).unwrap()
}

fn refused(change: impl FnOnce(&mut Profile)) -> ReadError {
    let mut profile = decoded(&foreign());
    change(&mut profile);
    Document::parse(&profile.encode_to_vec()).unwrap_err()
}

/// Each error names what is wrong.
pub fn what_does_not_fit_together_is_refused() {
    for (error, expected) in [
        (
            refused(|profile| profile.samples[0].location_ids[1] = 4),
            "sample 0 is of the location 4, which is not there",
        ),
        (
            refused(|profile| profile.samples[1].values.truncate(2)),
            "sample 1 has 2 values for 3 sample types",
        ),
        (
            refused(|profile| profile.samples[0].labels[1].num_unit = 99),
            "a label of sample 0 has the string 99 of 17",
        ),
        (
            refused(|profile| profile.locations[2].mapping_id = 41),
            "location 2 is of the mapping 41, which is not there",
        ),
        (
            refused(|profile| profile.locations[2].id = 3),
            "location 2 has the ID 3, which is 0 or another's",
        ),
        (
            refused(|profile| profile.mappings[0].id = 0),
            "mapping 0 has the ID 0, which is 0 or another's",
        ),
        (
            refused(|profile| profile.locations[1].lines[1].function_id = 0),
            "a line of location 1 is of the function 0, which is not there",
        ),
        (
            refused(|profile| profile.functions[0].filename = -1),
            "function 0 has the string 18446744073709551615 of 17",
        ),
        (
            refused(|profile| profile.mappings[0].build_id = 17),
            "mapping 0 has the string 17 of 17",
        ),
        (
            refused(|profile| profile.comment.push(17)),
            "comment 2 has the string 17 of 17",
        ),
        (
            refused(|profile| "x".clone_into(&mut profile.string_table[0])),
            "its string table does not begin with the empty string",
        ),
        (
            refused(|profile| profile.string_table.clear()),
            "its string table does not begin with the empty string",
        ),
    ] {
        assert_eq!(error.to_string(), expected);
    }
    let twice = foreign().repeat(2);
    assert!(matches!(
        Document::parse(&twice),
        Err(ReadError::Concatenated)
    ));
    assert!(matches!(Document::parse(&[]), Err(ReadError::Empty)));
    for text in [
        "heap profile: 1: 2 [3: 4] @ heap/1048576\n",
        "{\"nodes\": []}",
    ] {
        let error = Document::parse(text.as_bytes()).unwrap_err();
        assert!(
            matches!(error, ReadError::Wire { .. } | ReadError::NoStrings),
            "{error}"
        );
    }
}

/// A claim costs nothing until it is true.
pub fn bombs_and_cut_files_are_refused() {
    let mut claim = foreign();
    // A string of 1 GB, and nothing behind it.
    claim.extend([0x32, 0x80, 0x94, 0xeb, 0xdc, 0x03]);
    let error = Document::parse(&claim).unwrap_err();
    assert!(
        error.to_string().contains("cut inside of a field"),
        "{error}"
    );

    let mut file = Vec::new();
    pack(&foreign(), Packing::Gzip, &mut file).unwrap();
    for length in 2..file.len() {
        let cut = unpack(&file[..length]);
        assert!(matches!(cut, Err(ReadError::Gzip(_))), "{length}");
    }
    let mut damaged = file.clone();
    let at = file.len() - 6;
    damaged[at] ^= 1;
    assert!(matches!(
        unpack(damaged.as_slice()),
        Err(ReadError::Gzip(_))
    ));

    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..=512 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 8 << 20);
    assert!(matches!(unpack(bomb.as_slice()), Err(ReadError::TooLarge)));

    // Two bytes each, and a table entry for each.
    let crowd = [3 << 3 | 2, 0].repeat((1 << 20) + 1);
    let error = Document::parse(&crowd).unwrap_err();
    assert_eq!(error.to_string(), "it has more than 1048576 mappings");
}

/// Whatever is changed in the bytes: no panic, and what is taken can be named
/// without a sample less or more.
pub fn no_bytes_make_it_panic() {
    let before = foreign();
    let length = before.len();
    proptest!(ProptestConfig::with_cases(4_000), |(
        at in 0..length,
        noise in proptest::collection::vec(any::<u8>(), 0..6),
        cut in 0..length * 2,
    )| {
        let mut message = before.clone();
        let end = (at + noise.len()).min(length);
        message[at..end].copy_from_slice(&noise[..end - at]);
        message.truncate(cut.max(1));
        if let Ok(document) = Document::parse(&message) {
            let all = (0..document.locations().len()).map(|at| (at, vec![line("f", "g", 1)]));
            let after = rename(&document, &all.collect()).unwrap();
            let again = Document::parse(&after).unwrap();
            prop_assert_eq!(again.locations().len(), document.locations().len());
            prop_assert!(again.locations().iter().all(|location| location.has_lines));
            let samples = |message: &[u8]| -> Vec<_> {
                fields(message).into_iter().filter(|(number, _)| *number == 2).collect()
            };
            prop_assert_eq!(samples(&after), samples(&message));
        }
    });
}
