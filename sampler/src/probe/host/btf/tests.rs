#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

use std::process::Command;

use proptest::prelude::*;

use super::*;

/// `struct outer { int first; struct { char pad[4]; struct { long deep; }; };
/// int bits:3; }`, whose unnamed part contains itself once more.
fn invented() -> Vec<u8> {
    let strings = b"\0int\0long\0outer\0first\0deep\0bits\0pad\0char\0";
    let name = |wanted: &str| {
        let wanted = format!("\0{wanted}\0");
        let at = strings
            .windows(wanted.len())
            .position(|window| window == wanted.as_bytes());
        at.unwrap() as u32 + 1
    };
    let info = |kind: u8, members: u32, flag: u32| flag << 31 | u32::from(kind) << 24 | members;
    let words = [
        // 1: int, 2: long, 3: char
        vec![name("int"), info(kind::INT, 0, 0), 4, 32],
        vec![name("long"), info(kind::INT, 0, 0), 8, 64],
        vec![name("char"), info(kind::INT, 0, 0), 1, 8],
        // 4: char[4]
        vec![0, info(kind::ARRAY, 0, 0), 0, 3, 1, 4],
        // 5: struct { long deep; }
        vec![0, info(kind::STRUCT, 1, 0), 8, name("deep"), 2, 0],
        // 6: const 5
        vec![0, info(kind::CONST, 0, 0), 5],
        // 7: struct { char pad[4]; <7>; const <5>; }
        [
            vec![0, info(kind::STRUCT, 3, 0), 12],
            vec![name("pad"), 4, 0],
            vec![0, 7, 0],
            vec![0, 6, 32],
        ]
        .concat(),
        // 8: struct outer
        [
            vec![name("outer"), info(kind::STRUCT, 3, 1), 20],
            vec![name("first"), 1, 0],
            vec![0, 7, 32],
            vec![name("bits"), 1, 3 << 24 | 128],
        ]
        .concat(),
    ]
    .concat();
    let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    bytes.extend([VERSION, 0]);
    for word in [
        24,
        0,
        types.len() as u32,
        types.len() as u32,
        strings.len() as u32,
    ] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

#[test]
fn members_of_anonymous_structures_belong_to_the_outer_one() {
    let bytes = invented();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.member_offset_bytes("outer", "first"), Some(0));
    assert_eq!(btf.member_offset_bytes("outer", "pad"), Some(4));
    assert_eq!(btf.member_offset_bytes("outer", "deep"), Some(8));
    assert_eq!(btf.member_size_bytes("outer", "pad"), Some(4));
    assert_eq!(btf.member_size_bytes("outer", "deep"), Some(8));
    assert_eq!(btf.struct_size_bytes("outer"), Some(20));
}

#[test]
fn a_bit_field_or_an_unknown_name_has_no_offset() {
    let bytes = invented();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.member_offset_bytes("outer", "bits"), None);
    assert_eq!(btf.member_offset_bytes("outer", "absent"), None);
    assert_eq!(btf.member_offset_bytes("absent", "first"), None);
}

#[test]
fn what_is_not_btf_says_why() {
    let mut bytes = invented();
    assert_eq!(
        Btf::parse(&bytes[..20]).unwrap_err(),
        BtfError::Truncated("header")
    );
    assert_eq!(
        Btf::parse(&bytes[..bytes.len() - 1]).unwrap_err(),
        BtfError::Truncated("strings")
    );
    // The kind of type 1 lies in the top byte of its second word.
    bytes[HEADER_BYTES + 7] = 31;
    assert_eq!(
        Btf::parse(&bytes).unwrap_err(),
        BtfError::UnknownKind {
            type_id: 1,
            kind: 31
        }
    );
    bytes[2] = 9;
    assert_eq!(Btf::parse(&bytes).unwrap_err(), BtfError::Version(9));
    bytes[0] ^= 1;
    assert_eq!(Btf::parse(&bytes).unwrap_err(), BtfError::Magic);
}

/// Asks everything, so that every path sees the bytes.
fn interrogate(bytes: &[u8]) {
    if let Ok(btf) = Btf::parse(bytes) {
        for member in ["first", "deep", "pad", "bits", "absent"] {
            let _ = btf.member_offset_bytes("outer", member);
            let _ = btf.member_size_bytes("outer", member);
        }
        let _ = btf.struct_size_bytes("outer");
    }
}

proptest! {
    #[test]
    fn damaged_btf_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        kept in any::<prop::sample::Index>(),
    ) {
        let mut bytes = invented();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        interrogate(&bytes);
        interrogate(&bytes[..kept.index(bytes.len())]);
    }

    #[test]
    fn arbitrary_sections_never_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = invented()[..HEADER_BYTES].to_vec();
        bytes.extend(body);
        interrogate(&bytes);
    }
}

/// The lines of one structure in `bpftool btf dump … format raw`, as
/// (member, byte offset).
fn bpftool_members(dump: &str, structure: &str) -> Vec<(String, u32)> {
    let head = format!("STRUCT '{structure}' ");
    dump.lines()
        .skip_while(|line| !line.contains(&head))
        .skip(1)
        .take_while(|line| line.starts_with('\t'))
        .filter(|line| !line.contains("bitfield_size"))
        .filter_map(|line| {
            let name = line.split('\'').nth(1)?;
            let bits: u32 = line.split("bits_offset=").nth(1)?.trim().parse().ok()?;
            (name != "(anon)" && bits.is_multiple_of(8)).then(|| (name.to_owned(), bits / 8))
        })
        .collect()
}

#[test]
fn the_running_kernels_offsets_are_those_that_bpftool_prints() {
    let Ok(bytes) = read_kernel() else {
        eprintln!("skipped: this kernel shows no BTF");
        return;
    };
    let btf = Btf::parse(&bytes).unwrap();
    let dump = Command::new("bpftool")
        .args(["btf", "dump", "file", KERNEL_BTF, "format", "raw"])
        .output();
    let Some(dump) = dump.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: no bpftool here");
        return;
    };
    let dump = String::from_utf8_lossy(&dump.stdout);
    for structure in ["task_struct", "pid", "upid"] {
        let expected = bpftool_members(&dump, structure);
        assert!(expected.len() > 1, "bpftool shows {structure}");
        for (member, offset_bytes) in expected {
            assert_eq!(
                btf.member_offset_bytes(structure, &member),
                Some(offset_bytes),
                "{structure}.{member}"
            );
        }
    }
}
