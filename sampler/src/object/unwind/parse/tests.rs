//! Plain entries against gimli, in real files and in random ones.

#![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

use std::fs;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What gimli makes of an entry; `None` if it cannot be read.
fn by_gimli<'s, S>(reader: &mut Reader<'s, S>, entry: &Entry) -> Option<(Rows, Tally)>
where
    S: UnwindSection<Slice<'s>>,
{
    let mut rows = Rows::starting_with(unsupported(Machine::X86_64));
    let mut tally = Tally::default();
    let mut context = gimli::UnwindContext::new();
    let machine = Machine::X86_64;
    reader.rows(entry, machine, &mut context, &mut rows, &mut tally)?;
    Some((rows, tally))
}

/// Whether an entry is read at a glance; it is the same then as by gimli.
fn agrees<'s, S>(plain: &mut Plain<'_>, reader: &mut Reader<'s, S>, entry: &Entry) -> bool
where
    S: UnwindSection<Slice<'s>>,
{
    let Some(found) = entry.plain_rows(plain) else {
        return false;
    };
    let mut rows = Rows::starting_with(unsupported(Machine::X86_64));
    for (at, rule) in found {
        rows.push(entry.start + *at as u32, *rule);
    }
    let (expected, tally) = by_gimli(reader, entry).unwrap();
    assert_eq!(rows.as_slice(), expected.as_slice(), "{entry:?}");
    assert_eq!(tally.unsupported.total(), 0, "{entry:?}");
    true
}

#[cfg(target_arch = "x86_64")]
#[test]
fn plain_entries_of_real_files_are_nearly_all_and_read_as_gimli_reads_them() {
    let libraries = fs::read_to_string("/proc/self/maps").unwrap();
    let libraries = libraries.lines().filter_map(|line| {
        let path = line.split_once('/')?.1;
        Some(PathBuf::from(format!("/{path}")))
    });
    let mut files: Vec<PathBuf> = libraries.collect();
    files.sort();
    files.dedup();
    assert!(files.len() > 2, "{files:?}");
    let (mut plain_entries, mut all) = (0, 0);
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let bytes = &bytes[..];
        let room = Room::of(u64::MAX);
        let image = Image::parse(&bytes, &room).unwrap();
        let sections = Sections::of(&image);
        let lowest = image.executable[0].address;
        let entries = sections.entries(&image, &room, lowest, &mut Tally::default());
        let (Some(mut plain), Some(mut reader)) = (sections.plain(), sections.eh_frame()) else {
            continue;
        };
        for entry in &entries {
            if entry.origin == Origin::EhFrame {
                plain_entries += u64::from(agrees(&mut plain, &mut reader, entry));
                all += 1;
            }
        }
    }
    assert!(all > 10_000);
    assert!(plain_entries * 100 >= all * 98, "{plain_entries} of {all}");
}

/// A CIE as gcc writes it, with these instructions at its end, and an entry
/// for 200 bytes of code, with those.
fn section(of_cie: &[u8], of_entry: &[u8]) -> (Vec<u8>, Entry) {
    let record = |content: Vec<u8>| {
        let length = (content.len() as u32).to_le_bytes().to_vec();
        [length, content].concat()
    };
    let mut cie = vec![0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b];
    cie.extend([0x0c, 7, 8, 0x90, 1]);
    cie.extend(of_cie);
    let mut section = record(cie);
    let offset = section.len() as u32;
    let mut entry = (offset + 4).to_le_bytes().to_vec();
    entry.extend([0; 4]);
    entry.extend(200_u32.to_le_bytes());
    entry.push(0);
    entry.extend(of_entry);
    section.extend(record(entry));
    section.extend([0; 4]);
    let entry = Entry {
        start: 1000,
        end: 1200,
        origin: Origin::EhFrame,
        offset,
    };
    (section, entry)
}

fn plain_agrees(of_cie: &[u8], of_entry: &[u8]) -> bool {
    let (section, entry) = section(of_cie, of_entry);
    let mut eh_frame = EhFrame::new(&section, LittleEndian);
    eh_frame.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(0x1000);
    let mut reader = Reader::new(eh_frame, &bases);
    agrees(&mut Plain::new(&section), &mut reader, &entry)
}

#[test]
fn what_compilers_write_is_plain() {
    // push rbp; mov rbp, rsp; …; leave in one path, a call of 16 bytes in another.
    let framed = [
        0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 100, 0x0a, 0x0c, 7, 8, 0x41,
    ];
    assert!(plain_agrees(&[], &framed));
    assert!(plain_agrees(
        &[],
        &[&framed[..], &[0x0b, 0x45, 0x2e, 16, 0xc6, 0x41]].concat()
    ));
    assert!(plain_agrees(&[0x86, 2], &[0x44, 0xc6, 0x08, 6]));
    // More code than the entry is for.
    assert!(plain_agrees(&[], &[0x02, 199, 0x0e, 24, 0x41, 0x0e, 32]));
}

#[test]
fn what_is_not_plain_is_left() {
    for of_entry in [
        // The CFA by an expression, and from another register.
        &[0x41, 0x0f, 2, 0x77, 8][..],
        &[0x41, 0x0c, 10, 0],
        // Nothing to return to; the return address in a register, and elsewhere.
        &[0x07, 16],
        &[0x09, 16, 3],
        &[0x90, 2],
        // Another stack pointer, or one by an expression.
        &[0x87, 2],
        &[0x16, 7, 2, 0x77, 8],
        // Nothing is remembered; more than one row is; cut off.
        &[0x0b],
        &[0x0a, 0x0a, 0x0b, 0x0b],
        &[0x41, 0x0e],
    ] {
        assert!(!plain_agrees(&[], of_entry), "{of_entry:x?}");
    }
    assert!(!plain_agrees(&[0x00; 128], &[0x41]));
}

fn instruction() -> impl Strategy<Value = Vec<u8>> {
    let register = prop_oneof![Just(6_u8), Just(3), Just(16), Just(7), 0_u8..64];
    let number = prop_oneof![0_u8..40, Just(8), Just(16)];
    prop_oneof![
        8 => (0x40_u8..0x60).prop_map(|advance| vec![advance]),
        1 => (2_u8..4, any::<[u8; 2]>()).prop_map(|(code, by)| [&[code], &by[..code as usize - 1]].concat()),
        4 => (register.clone(), number.clone()).prop_map(|(of, at)| vec![0x80 | of, at]),
        2 => register.clone().prop_map(|of| vec![0xc0 | of]),
        4 => number.clone().prop_map(|to| vec![0x0e, to]),
        2 => register.clone().prop_map(|of| vec![0x0d, of]),
        2 => (register.clone(), number).prop_map(|(of, to)| vec![0x0c, of, to]),
        2 => Just(vec![0x0a]),
        2 => Just(vec![0x0b]),
        1 => register.prop_map(|of| vec![0x08, of]),
        1 => any::<u8>().prop_map(|code| vec![code]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn whatever_is_read_at_a_glance_is_read_as_gimli_reads_it(
        of_cie in vec(instruction(), 0..2),
        of_entry in vec(instruction(), 0..12),
    ) {
        plain_agrees(&of_cie.concat(), &of_entry.concat());
    }
}
