//! Profiles for the tests of all formats.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::profile::{
    Function, Header, Labels, Line, Location, LocationId, Mapping, Profile, ValueType,
};

const PERIOD_NS: i64 = 10_101_010;

/// A program in a loop, a system call below it and a library without symbols.
pub(crate) fn typical() -> Profile {
    let mut profile = Profile::new(Header::cpu(
        PERIOD_NS,
        1_700_000_000_000_000_000,
        2_000_000_000,
    ));
    let binary = profile.mapping(Mapping {
        start: 0x40_0000,
        limit: 0x40_8000,
        file_offset: 0x1000,
        file: "/usr/bin/spin".into(),
        build_id: Some("0123456789abcdef0123456789abcdef01234567".into()),
    });
    let libc = profile.mapping(Mapping {
        start: 0x7f00_0000_0000,
        limit: 0x7f00_0010_0000,
        file_offset: 0x2_0000,
        file: "/lib/x86_64-linux-gnu/libc.so.6".into(),
        build_id: None,
    });
    let kernel = profile.mapping(Mapping {
        start: 0xffff_ffff_8100_0000,
        limit: 0xffff_ffff_8200_0000,
        file_offset: 0,
        file: "[kernel.kallsyms]".into(),
        build_id: None,
    });
    let mut function = |name: &str, system_name: &str, file: &str| {
        profile.function(Function {
            name: name.into(),
            system_name: system_name.into(),
            file: file.into(),
        })
    };
    let main = function("main", "_ZN4spin4mainE", "src/main.rs");
    let outer = function("outer", "_ZN4spin5outerE", "src/main.rs");
    let inner = function("inner", "_ZN4spin5innerE", "src/main.rs");
    let syscall = function("do_syscall_64", "do_syscall_64", "");
    let line = |function, line, column| Line {
        function,
        line,
        column,
    };
    let mut location = |mapping, address, lines| {
        profile.location(Location {
            mapping,
            address,
            lines,
        })
    };
    let in_main = location(binary, 0x40_0010, vec![line(main, 10, 5)]);
    let inlined = location(
        binary,
        0x40_0020,
        vec![line(inner, 3, 9), line(outer, 7, 1)],
    );
    let in_libc = location(libc, 0x7f00_0000_9d8f, Vec::new());
    let in_kernel = location(kernel, 0xffff_ffff_8100_0040, vec![line(syscall, 0, 0)]);
    let nameless = location(kernel, 0xffff_ffff_8100_1234, Vec::new());

    let mut add = |stack: &[LocationId], tid, count| {
        let labels = Labels {
            strings: vec![("comm", "spin".into()), ("thread_name", "spin".into())],
            numbers: vec![("pid", 7), ("tid", tid)],
        };
        profile.add_sample(stack, labels, &[count, count * PERIOD_NS]);
    };
    add(&[inlined, in_main], 7, 1);
    add(&[inlined, in_main], 8, 2);
    add(&[nameless, in_kernel, inlined, in_main], 7, 2);
    add(&[in_libc, in_main], 7, 1);
    profile.comment("ledger: ticks 6, counted 6");
    profile
}

/// One sample in which the process, the thread, the file and the function all
/// bear the same name.
pub(crate) fn named(name: &str) -> Profile {
    let mut profile = Profile::new(Header::cpu(PERIOD_NS, 1, 1));
    let mapping = profile.mapping(Mapping {
        start: 0x1000,
        limit: 0x2000,
        file_offset: 0,
        file: name.into(),
        build_id: None,
    });
    let function = profile.function(Function {
        name: name.into(),
        system_name: name.into(),
        file: name.into(),
    });
    let lines = vec![Line {
        function,
        line: 1,
        column: 0,
    }];
    let leaf = profile.location(Location {
        mapping,
        address: 0x1001,
        lines,
    });
    let caller = profile.location(Location {
        mapping,
        address: 0x1002,
        lines: Vec::new(),
    });
    let labels = Labels {
        strings: vec![("comm", name.into()), ("thread_name", name.into())],
        numbers: vec![("pid", 1), ("cpu", 0)],
    };
    profile.add_sample(&[leaf, caller], labels, &[1, PERIOD_NS]);
    profile
}

/// A name as a hostile target may choose it.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z]{0,6}",
        "[ ;#\\[\\]0-9.\n\t\x1b<>&\"'a]{0,8}",
    ]
}

prop_compose! {
    /// Any profile at all, small enough to look at.
    pub(crate) fn any_profile()(
        width in 1_usize..4,
        mappings in vec((any::<u64>(), any::<u64>(), any::<u64>(), any_name(), any::<Option<String>>()), 1..4),
        functions in vec((any_name(), any_name(), any_name()), 1..6),
        locations in vec(
            (any::<prop::sample::Index>(), any::<u64>(), vec((any::<prop::sample::Index>(), any::<u32>(), any::<u32>()), 0..3)),
            1..8,
        ),
        samples in vec(
            (vec(any::<prop::sample::Index>(), 0..6), any::<Option<String>>(), any_name(), any::<i64>(), -2..1_000_000_i64),
            0..8,
        ),
        comments in vec(any_name(), 0..3),
        times in any::<(i64, i64, i64)>(),
    ) -> Profile {
        let mut profile = Profile::new(Header {
            sample_types: (0..width).map(|n| ValueType::new(format!("kind_{n}"), "count")).collect(),
            period_type: ValueType::new("cpu", "nanoseconds"),
            period: times.0,
            start_unix_ns: times.1,
            duration_ns: times.2,
        });
        let mappings: Vec<_> = mappings.into_iter().map(|(start, limit, file_offset, file, build_id)| {
            profile.mapping(Mapping { start, limit, file_offset, file, build_id })
        }).collect();
        let functions: Vec<_> = functions.into_iter().map(|(name, system_name, file)| {
            profile.function(Function { name, system_name, file })
        }).collect();
        let locations: Vec<_> = locations.into_iter().map(|(mapping, address, lines)| {
            let lines = lines.into_iter().map(|(function, line, column)| Line {
                function: *function.get(&functions),
                line,
                column,
            }).collect();
            profile.location(Location { mapping: *mapping.get(&mappings), address, lines })
        }).collect();
        for (stack, comm, thread_name, tid, value) in samples {
            let stack: Vec<_> = stack.iter().map(|index| *index.get(&locations)).collect();
            let mut labels = Labels { strings: vec![("thread_name", thread_name)], numbers: vec![("tid", tid)] };
            labels.strings.extend(comm.map(|comm| ("comm", comm)));
            profile.add_sample(&stack, labels, &vec![value; width]);
        }
        for comment in comments {
            profile.comment(comment);
        }
        profile
    }
}
