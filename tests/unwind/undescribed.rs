//! Real files, their call frame information taken away: what the builder finds
//! in their instructions, and what the compiler had said.

use libtest_mimic::Trial;
use object::elf::{FileHeader64, PT_GNU_EH_FRAME, PT_NULL, SHT_NOBITS};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _};
use sampler::object::unwind::build;
use sampler_common::unwind::x86_64::{Base, Rule, Saved};

use crate::files::{library, read, row_addresses};
use crate::peer::described;
use crate::tool::{Outcome, Stop, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("instructions say what entries say: libc", || {
            agrees(&library("libc.so.6"), 10)
        }),
        trial("instructions say what entries say: libcrypto", || {
            agrees(&library("libcrypto.so.3"), 2)
        }),
        trial("instructions say what entries say: libstdc++", || {
            agrees(&library("libstdc++.so.6"), 0)
        }),
        trial("instructions say what entries say: ld.so", || {
            agrees("/lib64/ld-linux-x86-64.so.2", 0)
        }),
        trial("instructions say what entries say: bash", || {
            agrees("/bin/bash", 0)
        }),
        trial("instructions say what entries say: perl", || {
            agrees("/usr/bin/perl", 0)
        }),
        trial("instructions say what entries say: gdb", || {
            agrees("/usr/bin/gdb", 9)
        }),
    ]
}

/// The file as if its compiler had been told to describe nothing.
fn stripped(file: &[u8]) -> Result<Vec<u8>, Stop> {
    let little = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(file)?;
    let sections = header.section_headers(little, file)?;
    let names = header.section_strings(little, file, sections)?;
    let mut changes = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        if section.name(little, names)? == b".eh_frame" {
            let at = header.e_shoff.get(little) as usize + number * size_of_val(section);
            // sh_type
            changes.push((at + 4, SHT_NOBITS));
        }
    }
    let segments = header.program_headers(little, file)?;
    for (number, segment) in segments.iter().enumerate() {
        if segment.p_type.get(little) == PT_GNU_EH_FRAME {
            let at = header.e_phoff.get(little) as usize + number * size_of_val(segment);
            // p_type
            changes.push((at, PT_NULL));
        }
    }
    let mut file = file.to_vec();
    for (at, value) in changes {
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Ok(file)
}

/// What a comparison found.
#[derive(Debug, Default)]
struct Found {
    entries: u64,
    /// Entries of which every instruction has a rule of its own.
    whole: u64,
    same: u64,
    /// Of these, `rbp` has its value back, and the entry names the slot.
    restored: u64,
    /// Of these, `rbp` is in a slot already, and the entry does not say so.
    early: u64,
    /// One counts from `rbp` and the other from `rsp`.
    other_register: u64,
    not_believed: u64,
    differ: Vec<String>,
}

/// Compares a file, in which so many rules at most differ, each looked into:
///
/// - libc, libcrypto: assembly whose directives forget a `push` or a `lea`, so
///   that it is the entry that is wrong.
/// - gdb: a landmark inside the displacement of a call, where nothing is looked
///   up (7); code that ends in a write to address zero, with another part behind
///   it (2 for one address).
fn agrees(path: &str, explained: usize) -> Outcome {
    let file = read(path)?;
    let bare = stripped(&file)?;
    let [said, found] = [&file, &bare]
        .map(|file| build(file).map_err(|error| Stop::Failed(format!("{path}: {error}"))));
    let (said, followed) = (said?, found?);
    if followed.tally.entries > 0 {
        return fail("the entries are still there");
    }
    let elf = object::read::elf::ElfFile64::<LittleEndian>::parse(&*file)?;
    let section = elf
        .section_by_name(".eh_frame")
        .ok_or_else(|| Stop::Missing(format!("{path}: no .eh_frame")))?;
    let mut addresses = row_addresses(&said);
    addresses.extend(row_addresses(&followed));
    addresses.sort_unstable();
    addresses.dedup();
    let mut found = Found::default();
    for entry in described(section.address(), section.data()?) {
        let first = addresses.partition_point(|at| *at < entry.start);
        let inside = addresses[first..].iter().copied();
        let inside = inside.take_while(|at| *at < entry.end);
        let mut whole = true;
        for at in [entry.start].into_iter().chain(inside) {
            let [said, followed] = [&said, &followed]
                .map(|table| table.rule_at(at).map_or(Rule::Unsupported, Rule::unpack));
            whole &= matches!(followed, Rule::Offset { .. });
            compare(at, said, followed, &mut found);
        }
        found.entries += 1;
        found.whole += u64::from(whole);
    }
    let counts = format!(
        "{} of {} entries whole; of their rules {} the same ({} restored, {} early), {} by the \
         other register, {} not believed, {} different",
        found.whole,
        found.entries,
        found.same,
        found.restored,
        found.early,
        found.other_register,
        found.not_believed,
        found.differ.len(),
    );
    if found.differ.len() > explained {
        return fail(format!("{counts}, such as\n{}", found.differ.join("\n")));
    }
    // A comparison that compares little proves little.
    if found.same < found.not_believed || found.same < 20 * found.other_register {
        return fail(counts);
    }
    Ok(())
}

fn compare(at: u64, said: Rule, followed: Rule, found: &mut Found) {
    let Rule::Offset {
        base,
        cfa_words,
        saved,
    } = followed
    else {
        found.not_believed += 1;
        return;
    };
    // What a PLT's entry says at this one address.
    let said = match said {
        Rule::Plt { threshold } => Rule::Offset {
            base: Base::StackPointer,
            cfa_words: 1 + u32::from(at & 15 >= u64::from(threshold)),
            saved: Saved::Unchanged,
        },
        said => said,
    };
    if let Rule::Offset {
        base: said_base,
        cfa_words: said_words,
        saved: said_saved,
    } = said
    {
        if said_base != base {
            found.other_register += 1;
            return;
        }
        let restored = matches!((said_saved, saved),
            (Saved::BelowCfa(slot), Saved::Unchanged) if u32::from(slot) > cfa_words);
        let early = matches!((said_saved, saved), (Saved::Unchanged, Saved::BelowCfa(_)));
        if said_words == cfa_words && (said_saved == saved || restored || early) {
            found.same += 1;
            found.restored += u64::from(restored);
            found.early += u64::from(early);
            return;
        }
    }
    found
        .differ
        .push(format!("{at:x}: {said:?}, found {followed:?}"));
}
