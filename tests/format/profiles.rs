//! The profiles that are shown to pprof.

use sampler::profile::{Function, Header, Labels, Line, Location, Mapping, MappingId, Profile};

const PERIOD_NS: i64 = 10_101_010;

/// Nothing was seen.
pub fn empty() -> Profile {
    Profile::new(Header::cpu(
        PERIOD_NS,
        1_700_000_000_000_000_000,
        2_000_000_000,
    ))
}

/// Three samples in an inlined function, one in a library without symbols;
/// that one by thread 0.
pub fn typical(pid: i64) -> Profile {
    let mut profile = empty();
    let binary = mapping(
        &mut profile,
        0x40_0000,
        "/usr/bin/spin",
        Some("0123456789abcdef"),
    );
    let libc = mapping(&mut profile, 0x7f00_0000_0000, "/lib/libc.so.6", None);
    let [main, outer, inner] = ["main", "outer", "inner"].map(|name| {
        let function = profile.function(Function {
            name: format!("spin::{name}"),
            system_name: format!("_ZN4spin{}{name}E", name.len()),
            file: "src/main.rs".into(),
        });
        Line {
            function,
            line: 3,
            column: 1,
        }
    });
    let mut location = |mapping, address, lines| {
        profile.location(Location {
            mapping,
            address,
            lines,
        })
    };
    let in_main = location(binary, 0x40_0010, vec![main]);
    let inlined = location(binary, 0x40_0020, vec![inner, outer]);
    let in_libc = location(libc, 0x7f00_0000_0d8f, Vec::new());
    profile.add_sample(&[inlined, in_main], labels("spin", pid, pid), &values(3));
    profile.add_sample(&[in_libc, in_main], labels("spin", pid, 0), &values(1));
    profile.comment("ledger: ticks 4, counted 4");
    profile
}

/// A deleted binary, the kernel without symbols, and generated code.
pub fn unsymbolized() -> Profile {
    let mut profile = empty();
    let places = [
        (0x40_0000, "/tmp/gone", Some("00ff")),
        (0xffff_ffff_8100_0000, "[kernel.kallsyms]", None),
        (0x7f00_0000_0000, "//anon", None),
    ];
    for (start, file, build_id) in places {
        let mapping = mapping(&mut profile, start, file, build_id);
        let location = profile.location(Location {
            mapping,
            address: start + 0x10,
            lines: Vec::new(),
        });
        profile.add_sample(&[location], labels("gone", 7, 7), &values(1));
    }
    profile
}

/// Everything that a process can name is named `name`.
pub fn hostile(name: &str) -> Profile {
    let mut profile = empty();
    let mapping = mapping(&mut profile, 0x40_0000, name, None);
    let function = profile.function(Function {
        name: name.into(),
        system_name: name.into(),
        file: name.into(),
    });
    let location = profile.location(Location {
        mapping,
        address: 0x40_0010,
        lines: vec![Line {
            function,
            line: 1,
            column: 0,
        }],
    });
    profile.add_sample(&[location], labels(name, 7, 7), &values(1));
    profile
}

fn mapping(profile: &mut Profile, start: u64, file: &str, build_id: Option<&str>) -> MappingId {
    profile.mapping(Mapping {
        start,
        limit: start + 0x1000,
        file_offset: 0,
        file: file.into(),
        build_id: build_id.map(Into::into),
    })
}

fn labels(comm: &str, pid: i64, tid: i64) -> Labels {
    Labels {
        strings: vec![("comm", comm.into())],
        numbers: vec![("pid", pid), ("tid", tid)],
    }
}

fn values(samples: i64) -> [i64; 2] {
    [samples, samples * PERIOD_NS]
}
