//! A hostile profile that gets names.
//!
//! Whatever the bytes are, reading ends in an error or in a document; one that is
//! taken can be named, and is the same afterwards but for its names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sampler::format::pprof::{Document, NewLines, SourceLine, rename};

fuzz_target!(|input: &[u8]| {
    let Ok(document) = Document::parse(input) else {
        return;
    };
    let unchanged = rename(&document, &NewLines::new());
    assert_eq!(unchanged.as_deref(), Ok(input));
    assert!(document.comments().count() <= input.len());

    let lines = |at: usize| {
        let line = SourceLine {
            name: format!("f{}", at % 3),
            line: at as u32,
            ..SourceLine::default()
        };
        vec![line; at % 3]
    };
    let locations = document.locations();
    let new: NewLines = (0..locations.len()).map(|at| (at, lines(at))).collect();
    let Ok(named) = rename(&document, &new) else {
        panic!("what was read once can be read again");
    };
    let Ok(again) = Document::parse(&named) else {
        panic!("a named profile is a profile");
    };
    assert_eq!(again.mappings(), document.mappings());
    assert_eq!(again.locations().len(), locations.len());
    for (at, (new, old)) in again.locations().iter().zip(locations).enumerate() {
        assert_eq!((new.address, new.mapping), (old.address, old.mapping));
        assert_eq!(new.has_lines, old.has_lines || at % 3 > 0);
    }
    assert!(again.comments().eq(document.comments()));
});
