//! Directives written by hand, assembled, and the rules that come of them.

use std::collections::BTreeMap;
use std::fs;

use libtest_mimic::Trial;
use object::{Object as _, ObjectSymbol as _};
use sampler::object::unwind::{BuildError, Table, build};
use sampler_common::unwind::x86_64::{Base, Rule, Saved};
use tempfile::TempDir;

use crate::tool::{Outcome, Stop, fail, run, trial};

const RULES: &str = include_str!("programs/rules.s");

pub fn trials() -> Vec<Trial> {
    vec![
        trial("each directive becomes its rule", each_directive),
        trial("gaps are decided by what is in them", gaps),
        trial("what no rule expresses is counted by its cause", causes),
        trial(
            "a file without section headers has the same rows",
            without_headers,
        ),
        trial(
            "a file with .debug_frame alone has the same rows",
            debug_frame,
        ),
        trial(
            "a file that describes nothing is walked by frame pointer",
            nothing,
        ),
        trial("what is no ELF file of ours has no table", not_ours),
    ]
}

/// A shared library made of [`RULES`], and its labels.
struct Assembled {
    file: Vec<u8>,
    labels: BTreeMap<String, u64>,
}

impl Assembled {
    fn new(source: &str, linking: &[&str]) -> Result<Self, Stop> {
        let directory = TempDir::new()?;
        let (path, linked) = (
            directory.path().join("rules.s"),
            directory.path().join("rules.so"),
        );
        fs::write(&path, source)?;
        let (path, out) = (path.display().to_string(), linked.display().to_string());
        let mut arguments = vec!["-nostdlib", "-shared", "-o", &out, &path];
        arguments.extend(linking);
        run("gcc", arguments)?;
        let file = fs::read(linked)?;
        let Ok(elf) = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&*file) else {
            return fail("gcc made no ELF file");
        };
        let labels = elf
            .symbols()
            .filter_map(|symbol| Some((symbol.name().ok()?.into(), symbol.address())))
            .collect();
        Ok(Self { file, labels })
    }

    fn table(&self) -> Result<Table, Stop> {
        build(&self.file).map_err(|error| Stop::Failed(error.to_string()))
    }

    fn rule(&self, table: &Table, label: &str) -> Result<Rule, Stop> {
        let Some(address) = self.labels.get(label) else {
            return fail(format!("no label {label}"));
        };
        match table.rule_at(*address) {
            Some(rule) => Ok(Rule::unpack(rule)),
            None => fail(format!("no rule at {label}")),
        }
    }

    fn expect(&self, table: &Table, expected: &[(&str, Rule)]) -> Outcome {
        for (label, expected) in expected {
            let found = self.rule(table, label)?;
            if found != *expected {
                return fail(format!("{label}: {found:?}, not {expected:?}"));
            }
        }
        Ok(())
    }
}

const fn from_sp(cfa_words: u32, saved: Saved) -> Rule {
    Rule::Offset {
        base: Base::StackPointer,
        cfa_words,
        saved,
    }
}

const PUSHED: Saved = Saved::BelowCfa(2);

/// In a function that keeps a frame pointer.
const FRAME: Rule = Rule::Offset {
    base: Base::FramePointer,
    cfa_words: 2,
    saved: PUSHED,
};

/// What the labels of described code say.
const DESCRIBED: &[(&str, Rule)] = &[
    ("pushes", from_sp(1, Saved::Unchanged)),
    ("pushed", from_sp(2, PUSHED)),
    ("very_large", from_sp(540_080 / 8, PUSHED)),
    ("too_large", Rule::Unsupported),
    (
        "has_frame_pointer",
        Rule::Offset {
            base: Base::FramePointer,
            cfa_words: 2,
            saved: PUSHED,
        },
    ),
    (
        "in_r10",
        Rule::Register {
            register: 10,
            cfa_words: 0,
            saved: Saved::Unchanged,
        },
    ),
    (
        "in_slot",
        Rule::Dereferenced {
            base: Base::FramePointer,
            slot_words: -1,
            add_words: 0,
            saved: Saved::AtFramePointer,
        },
    ),
    (
        "openssl",
        Rule::Dereferenced {
            base: Base::StackPointer,
            slot_words: 19,
            add_words: 1,
            saved: Saved::BelowCfa(3),
        },
    ),
    (
        "probing",
        Rule::Probe {
            cfa_words: 16_385,
            saved: Saved::Unchanged,
        },
    ),
    (
        "in_rdi",
        Rule::ReturnAddressIn {
            register: 5,
            cfa_words: 0,
            saved: Saved::Unchanged,
        },
    ),
    ("has_no_caller", Rule::EndOfStack),
    ("switching", Rule::Unsupported),
    ("not_in_words", Rule::Unsupported),
    ("computed", Rule::Unsupported),
    ("rbp_elsewhere", Rule::Unsupported),
    ("last", from_sp(1, Saved::Unchanged)),
];

fn each_directive() -> Outcome {
    let assembled = Assembled::new(RULES, &[])?;
    assembled.expect(&assembled.table()?, DESCRIBED)
}

fn gaps() -> Outcome {
    let assembled = Assembled::new(RULES, &[])?;
    let table = assembled.table()?;
    assembled.expect(
        &table,
        &[
            ("stub", Rule::GapStub),
            // Followed from its start to its return.
            ("undescribed", from_sp(1, Saved::Unchanged)),
            ("undescribed_pushed", from_sp(2, PUSHED)),
            ("undescribed_body", FRAME),
            ("undescribed_return", from_sp(1, Saved::Unchanged)),
            ("undescribed_cold", Rule::GapFramePointer),
            // The next function is judged on its own.
            ("other_body", from_sp(1, Saved::Unchanged)),
            ("trampoline", Rule::SignalFrame),
        ],
    )?;
    let before = assembled.labels["trampoline"] - 1;
    match table.rule_at(before).map(Rule::unpack) {
        Some(Rule::SignalFrame) => Ok(()),
        other => fail(format!(
            "a return into the trampoline is looked up at {other:?}"
        )),
    }
}

fn causes() -> Outcome {
    let tally = Assembled::new(RULES, &[])?.table()?.tally;
    let causes = tally.unsupported;
    let found = [
        causes.cfa_expression,
        causes.cfa_register,
        causes.frame_pointer,
        causes.return_address,
        causes.malformed,
    ];
    // `computes`; `too_large`, `switches` and `odd`; `elsewhere`.
    if found == [1, 3, 1, 0, 0] && causes.total() == 5 && tally.broken_sections == 0 {
        Ok(())
    } else {
        fail(format!("{tally:?}"))
    }
}

fn without_headers() -> Outcome {
    let mut assembled = Assembled::new(RULES, &[])?;
    // e_shoff, e_shnum and e_shstrndx of a 64-bit header.
    for field in [0x28..0x30, 0x3c..0x3e, 0x3e..0x40] {
        assembled.file[field].fill(0);
    }
    let table = assembled.table()?;
    if table.tally.entries == 0 {
        return fail("no entries found");
    }
    assembled.expect(&table, DESCRIBED)
}

fn debug_frame() -> Outcome {
    let source = format!(".cfi_sections .debug_frame\n{RULES}");
    for linking in [&[][..], &["-Wl,--compress-debug-sections=zlib"]] {
        let assembled = Assembled::new(&source, linking)?;
        let table = assembled.table()?;
        if table.tally.entries == 0 {
            return fail(format!("no entries found {linking:?}"));
        }
        assembled.expect(&table, DESCRIBED)?;
    }
    Ok(())
}

fn nothing() -> Outcome {
    let undirected: Vec<&str> = RULES
        .lines()
        .filter(|line| !line.trim_start().starts_with(".cfi_"))
        .collect();
    let bare = undirected.join("\n") + "\n";
    let assembled = Assembled::new(&bare, &[])?;
    let table = assembled.table()?;
    assembled.expect(
        &table,
        &[
            ("stub", Rule::GapFramePointer),
            ("undescribed_pushed", from_sp(2, PUSHED)),
            ("undescribed_body", FRAME),
            ("trampoline", Rule::SignalFrame),
        ],
    )
}

fn not_ours() -> Outcome {
    let found = [
        build(b""),
        build(b"#!/bin/sh\nexit 0\n"),
        build(&[0x7f, b'E', b'L', b'F', 2, 1, 1]),
    ];
    if found.iter().any(|found| *found != Err(BuildError::NotElf)) {
        return fail(format!("{found:?}"));
    }
    let mut file = Assembled::new(RULES, &[])?.file;
    // e_machine of RISC-V.
    file[0x12] = 243;
    match build(&file) {
        Err(BuildError::OtherMachine(243)) => Ok(()),
        other => fail(format!("{other:?}")),
    }
}
