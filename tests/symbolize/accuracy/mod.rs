//! How often names, inline chains and lines are those of addr2line and
//! llvm-symbolizer, where these two agree.
//!
//! `SAMPLER_TEST_NAMES=10000` takes so many addresses instead of 500, makes more
//! files, and prints the table with `--nocapture`.

mod files;
mod oracle;

use std::collections::BTreeMap;
use std::path::Path;

use libtest_mimic::Trial;
use sampler::symbolize::Place;

use crate::fixture::{in_file, names_of, pin};
use crate::tool::{Outcome, Stop, fail, trial};
use files::{Code, Subject};
use oracle::{Frame, Tool};

const ADDRESSES: usize = 500;
/// Of the addresses on which the tools agree, in percent.
const LEAST_EQUAL: f64 = 99.5;

pub fn trials() -> Vec<Trial> {
    vec![trial("names_are_those_of_two_other_tools", compare)]
}

/// How our answer differs from the tools'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// We have no name and they have.
    Unnamed,
    /// We have a name and they have none.
    NamedAlone,
    /// Fewer inlined functions, or more.
    ChainLength,
    Name,
    File,
    Line,
}

/// What was found in one file.
#[derive(Debug, Default)]
struct Tally {
    sampled: u64,
    /// Addresses on which the tools agree.
    agreed: u64,
    /// Of these, those on which we agree too.
    equal: u64,
    /// Of these, those with an inlined function.
    inlined: u64,
    /// Addresses on which the tools do not agree, and we agree with one.
    with_one: u64,
    differences: BTreeMap<Difference, u64>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.sampled += other.sampled;
        self.agreed += other.agreed;
        self.equal += other.equal;
        self.inlined += other.inlined;
        self.with_one += other.with_one;
        for (difference, count) in &other.differences {
            *self.differences.entry(*difference).or_default() += count;
        }
    }

    fn line(&self, what: &str) -> String {
        format!(
            "{what:<30} {:>8} {:>8} {:>8} {:>8} {:>8.2} % {:>9}  {:?}",
            self.sampled,
            self.agreed,
            self.inlined,
            self.equal,
            self.equal_percent(),
            self.with_one,
            self.differences
        )
    }

    fn equal_percent(&self) -> f64 {
        100.0 * self.equal as f64 / self.agreed.max(1) as f64
    }
}

fn compare() -> Outcome {
    let asked = std::env::var("SAMPLER_TEST_NAMES").ok();
    let addresses = match &asked {
        Some(count) => count
            .parse()
            .map_err(|_| Stop::Failed("SAMPLER_TEST_NAMES is no number".into()))?,
        None => ADDRESSES,
    };
    let tools = Tool::both()?;
    let subjects = files::subjects(asked.is_some())?;
    let mut report = vec![format!(
        "{:<30} {:>8} {:>8} {:>8} {:>8} {:>10} {:>9}  differences",
        "file", "sampled", "agreed", "inlined", "equal", "equal", "else one"
    )];
    let mut examples = Vec::new();
    let mut sum = Tally::default();
    let mut random = Random(20_240_229);
    for subject in &subjects {
        let code = Code::of(&subject.program)?;
        let share = addresses.div_ceil(subjects.len());
        let addresses: Vec<u64> = (0..share)
            .map(|_| code.start + random.below(code.end - code.start))
            .collect();
        let tally = compare_file(subject, &code, &addresses, &tools, &mut examples)?;
        report.push(tally.line(&subject.name));
        sum.add(&tally);
    }
    report.push(sum.line("all"));
    let report = format!("{}\n{}", report.join("\n"), examples.join("\n"));
    eprintln!("{report}");
    if sum.agreed * 2 < sum.sampled {
        return fail(format!("the tools agree too rarely to judge:\n{report}"));
    }
    if sum.equal_percent() < LEAST_EQUAL {
        return fail(report);
    }
    Ok(())
}

fn compare_file(
    subject: &Subject,
    code: &Code,
    addresses: &[u64],
    tools: &[Tool; 2],
    examples: &mut Vec<String>,
) -> Result<Tally, Stop> {
    let debug = subject.debug.as_deref().unwrap_or(&subject.program);
    let [first, second] = tools;
    let first = first.ask(debug, addresses)?;
    let second = second.ask(debug, addresses)?;
    let ours = ours(&subject.program, code, addresses)?;
    let mut tally = Tally::default();
    for (at, &address) in addresses.iter().enumerate() {
        tally.sampled += 1;
        let (theirs, other) = (&first[at], &second[at]);
        if difference(theirs, other).is_some() {
            let agrees = |tool: &[Frame]| difference(&ours[at], tool).is_none();
            tally.with_one += u64::from(agrees(theirs) || agrees(other));
            continue;
        }
        tally.agreed += 1;
        tally.inlined += u64::from(theirs.len() > 1);
        let Some(difference) = difference(&ours[at], theirs) else {
            tally.equal += 1;
            continue;
        };
        let count = tally.differences.entry(difference).or_default();
        *count += 1;
        if *count <= 3 {
            let name = &subject.name;
            examples.push(format!(
                "{name} {address:#x} {difference:?}\n  ours   {:?}\n  theirs {theirs:?}\n  second {other:?}",
                ours[at]
            ));
        }
    }
    Ok(tally)
}

fn ours(program: &Path, code: &Code, addresses: &[u64]) -> Result<Vec<Vec<Frame>>, Stop> {
    let file = pin(program)?;
    let offsets: Vec<u64> = addresses
        .iter()
        .map(|address| address - code.start + code.offset)
        .collect();
    let names = names_of(in_file(&file, &offsets))?;
    let key = Place::File(file).key();
    let frames = |offset: &u64| {
        let answer = names.get(&key, *offset).map(|frames| frames.iter());
        answer
            .into_iter()
            .flatten()
            .map(|frame| Frame::new(&frame.system_name, &frame.source_file, frame.line))
            .collect()
    };
    Ok(offsets.iter().map(frames).collect())
}

/// The first difference between two answers.
fn difference(ours: &[Frame], theirs: &[Frame]) -> Option<Difference> {
    match (ours, theirs) {
        ([], []) => None,
        ([], _) => Some(Difference::Unnamed),
        (_, []) => Some(Difference::NamedAlone),
        _ if ours.len() != theirs.len() => Some(Difference::ChainLength),
        _ => {
            let differ = |which: fn(&Frame, &Frame) -> bool| {
                ours.iter()
                    .zip(theirs)
                    .any(|(one, other)| !which(one, other))
            };
            if differ(Frame::has_name_of) {
                Some(Difference::Name)
            } else if differ(Frame::has_file_of) {
                Some(Difference::File)
            } else if differ(|one, other| one.line == other.line) {
                Some(Difference::Line)
            } else {
                None
            }
        }
    }
}

/// Knuth's MMIX generator; its upper half is the better one.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}
