//! The functions of a gap: where they may start, and which are believed.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, Mnemonic};
use sampler_common::unwind::PackedRule;
use sampler_common::unwind::x86_64::Rule;

use super::function::{ALIGNMENT, Function, Reader};
use crate::object::unwind::Machine;
use crate::object::unwind::landmark::takes_stack;
use crate::object::unwind::padding::{has_long_nop, is_padding, padding_at_end};

/// Instructions that may be looked at for each byte of a gap: what hostile code
/// can make its functions overlap.
const MAX_LOOKS_PER_BYTE: usize = 8;
/// In one gap: a second's work. Files with more undescribed code than that get
/// rules for the functions that their symbols name first.
const MAX_LOOKS: usize = 1 << 20;

/// Padding in front of an aligned address.
const LONGEST_PADDING: usize = ALIGNMENT as usize - 1;

/// Code that nothing describes.
pub(in crate::object::unwind) struct Gap<'a> {
    pub code: &'a [u8],
    /// Of its first byte.
    pub address: u64,
    /// Where symbols say that functions start in it, in order.
    pub starts: &'a [u64],
    /// Where the kernel starts the program, if that lies in it, and the bytes
    /// from there on that can belong to that.
    pub entry: Option<(u64, u32)>,
}

/// Bytes of a gap for which a rule holds, counted from its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::object::unwind) struct Run {
    pub from: u32,
    pub to: u32,
    pub rule: PackedRule,
}

/// What is known of a gap while functions are followed.
pub(super) struct Known {
    /// Functions start here: symbols or believed functions' calls say so.
    pub starts: BTreeSet<u32>,
    /// A bit for each byte that is a believed function's.
    claimed: Vec<u64>,
}

impl Known {
    pub fn is_claimed(&self, at: u32) -> bool {
        self.claimed
            .get(at as usize / 64)
            .is_some_and(|word| word >> (at % 64) & 1 != 0)
    }

    fn claim(&mut self, from: u32, to: u32) {
        for at in from..to {
            if let Some(word) = self.claimed.get_mut(at as usize / 64) {
                *word |= 1 << (at % 64);
            }
        }
    }
}

/// The rules of a gap's believed functions, in order, without overlaps.
pub(in crate::object::unwind) fn runs(gap: &Gap<'_>) -> Vec<Run> {
    let looks = (gap.code.len().saturating_mul(MAX_LOOKS_PER_BYTE)).min(MAX_LOOKS);
    let mut functions = Functions {
        reader: Reader::new(gap.code, gap.address, looks),
        known: Known {
            starts: BTreeSet::new(),
            claimed: vec![0; gap.code.len().div_ceil(64)],
        },
        called: Vec::new(),
        runs: Vec::new(),
        believed: BTreeSet::new(),
    };
    functions.find(gap);
    functions.into_runs(gap)
}

struct Functions<'a> {
    reader: Reader<'a>,
    known: Known,
    /// Calls of believed functions that are to be followed.
    called: Vec<u32>,
    /// With the start of the function that they belong to.
    runs: Vec<(u32, Run)>,
    /// Where the believed functions start.
    believed: BTreeSet<u32>,
}

impl Functions<'_> {
    fn find(&mut self, gap: &Gap<'_>) {
        let known = gap.starts.iter().copied();
        let known = known.chain(gap.entry.map(|(entry, _)| entry));
        let known: Vec<u32> = known.filter_map(|at| self.reader.place(at)).collect();
        self.known.starts.extend(known.iter().copied());
        if let Some((entry, bytes)) = gap.entry {
            self.outermost(entry, bytes);
        }
        for start in known {
            self.follow(start, true);
        }
        self.follow(0, false);
        let first = gap.address.next_multiple_of(ALIGNMENT) - gap.address;
        for start in (first..gap.code.len() as u64).step_by(ALIGNMENT as usize) {
            if self.may_start(gap, start as u32) {
                self.follow(start as u32, false);
            }
        }
    }

    /// Whether an aligned place looks like a function's start: behind padding
    /// that is nothing else, or that follows on a function.
    fn may_start(&self, gap: &Gap<'_>, start: u32) -> bool {
        let before = &gap.code[..start as usize];
        let follows = |bytes: usize| {
            before
                .len()
                .checked_sub(bytes + 1)
                .is_some_and(|last| self.known.is_claimed(last as u32))
        };
        follows(0)
            || padding_at_end::<LONGEST_PADDING>(Machine::X86_64, before)
                .zip(1..)
                .any(|(is_padding, bytes)| {
                    is_padding && (follows(bytes) || has_long_nop(&before[before.len() - bytes..]))
                })
    }

    /// Follows a function, and those that it calls.
    fn follow(&mut self, start: u32, certain: bool) {
        self.one(start, certain);
        while let Some(start) = self.called.pop() {
            self.one(start, true);
        }
    }

    fn one(&mut self, start: u32, certain: bool) {
        if self.known.is_claimed(start) {
            return;
        }
        let (function, calls) = self.reader.function(start, &self.known);
        let function = function.filter(|function| certain || function.proved);
        let is_code = certain || function.is_some();
        if let Some(function) = function {
            self.believe(start, function);
        }
        // Whatever becomes of the frames, what it calls are functions.
        for target in calls.into_iter().filter(|_| is_code) {
            if self.known.starts.insert(target) {
                self.called.push(target);
            }
        }
    }

    fn believe(&mut self, start: u32, function: Function) {
        let mut own: Vec<Run> = Vec::new();
        for (at, reached) in function.reached {
            let to = at + reached.bytes;
            if (at..to).any(|at| self.known.is_claimed(at)) {
                return;
            }
            let Some(rule) = reached.frame.rule() else {
                return;
            };
            match own.last_mut() {
                Some(last) if last.to == at && last.rule == rule => last.to = to,
                _ => own.push(Run { from: at, to, rule }),
            }
        }
        for run in &own {
            self.known.claim(run.from, run.to);
        }
        self.runs.extend(own.into_iter().map(|run| (start, run)));
        self.known.starts.insert(start);
        self.believed.insert(start);
    }

    /// The code that the kernel starts: nothing called it.
    fn outermost(&mut self, entry: u64, bytes: u32) {
        let Some(entry) = self.reader.place(entry) else {
            return;
        };
        let Some(rule) = Rule::EndOfStack.pack() else {
            return;
        };
        let mut ahead = vec![entry];
        let mut reached = BTreeMap::new();
        while let Some(at) = ahead.pop() {
            if at < entry
                || at - entry >= bytes
                || at != entry && self.known.starts.contains(&at)
                || reached.contains_key(&at)
            {
                continue;
            }
            let Some(instruction) = self.reader.read(at) else {
                continue;
            };
            let next = at + instruction.len() as u32;
            reached.insert(at, next);
            let target = || self.reader.place(instruction.near_branch_target());
            match instruction.flow_control() {
                FlowControl::ConditionalBranch => {
                    ahead.extend(target());
                    ahead.push(next);
                }
                FlowControl::UnconditionalBranch => ahead.extend(target()),
                FlowControl::Next if instruction.mnemonic() == Mnemonic::Hlt => {}
                FlowControl::Call => {
                    // What it calls are functions; code that asks where it is
                    // calls what follows.
                    let called = target().filter(|called| *called != next);
                    self.called.extend(called);
                    self.known.starts.extend(called);
                    ahead.push(next);
                }
                FlowControl::Next | FlowControl::IndirectCall => ahead.push(next),
                _ => {}
            }
        }
        let mut end = 0;
        for (at, to) in reached {
            if at < end {
                continue;
            }
            end = to;
            self.known.claim(at, to);
            self.runs.push((entry, Run { from: at, to, rule }));
        }
        self.believed.insert(entry);
    }

    /// The runs that stand, and those of the padding between them.
    fn into_runs(self, gap: &Gap<'_>) -> Vec<Run> {
        let Self {
            known,
            mut runs,
            believed,
            ..
        } = self;
        runs.sort_unstable_by_key(|(_, run)| run.from);
        // A call into the middle of a function: its stack there is not what
        // following the function says.
        let mut doubted = BTreeSet::new();
        for start in &known.starts {
            let after = runs.partition_point(|(_, run)| run.from <= *start);
            if let Some((owner, run)) = after.checked_sub(1).and_then(|last| runs.get(last))
                && *start < run.to
                && !believed.contains(start)
            {
                doubted.insert(*owner);
            }
        }
        runs.retain(|(owner, _)| !doubted.contains(owner));
        let starts: Vec<u32> = known
            .starts
            .into_iter()
            .filter(|start| !doubted.contains(start))
            .collect();
        with_padding(gap, &runs, &starts)
    }
}

/// The runs with those of the padding in front of functions. What returns into
/// that, a caller's look-up being at the byte before, was made to by whoever
/// built the stack by hand: nothing called it.
fn with_padding(gap: &Gap<'_>, runs: &[(u32, Run)], starts: &[u32]) -> Vec<Run> {
    let end_of_stack = Rule::EndOfStack.pack();
    let mut all = Vec::with_capacity(runs.len());
    let mut runs = runs.iter().map(|(_, run)| *run).peekable();
    let (mut end, mut before) = (0, 0);
    for &start in starts {
        while let Some(run) = runs.next_if(|run| run.from < start) {
            end = run.to;
            all.push(run);
        }
        if end < start
            && before <= end
            && takes_stack(Machine::X86_64, &gap.code[start as usize..])
            && let Some(rule) = end_of_stack
            && is_padding(Machine::X86_64, &gap.code[end as usize..start as usize])
        {
            all.push(Run {
                from: end,
                to: start,
                rule,
            });
        }
        before = start;
    }
    all.extend(runs);
    all
}
