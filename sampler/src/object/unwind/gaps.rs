//! Code that nothing describes: the rule for each gap, decided when the table
//! is built.
//!
//! - The entry of a program or of its interpreter has no caller.
//! - A function that sets up a frame pointer is walked by it; what its
//!   prologue and its returns do to the stack is exact.
//! - Anything else is a stub, or assembly, if the file describes its other
//!   code, and code that keeps a frame pointer if the file describes none.
//! - Padding never runs and gets no row.
//! - Data that lies between code, as sections say, is never looked at.

use std::cell::OnceCell;
use std::ops::RangeInclusive;

use sampler_common::unwind::{PackedRule, aarch64, x86_64};

use super::flow::{self, Gap, Run};
use super::image::Image;
use super::landmark::{Landmark, bytes_before_landmark, landmark, takes_stack};
use super::padding::is_padding;
use super::parse::{Entry, unsupported};
use super::room::Room;
use super::rows::Rows;
use super::{Machine, Tally};

/// Code at the start of a program that is taken as its entry, in bytes: the
/// entry of ld.so has 62, others less.
const MAX_ENTRY_BYTES: u64 = 64;

/// Code of one gap that is looked at together, in bytes. A gap that has more, or
/// more than there is room for, is cut where a function starts, if it is known
/// where.
const WINDOW_BYTES: RangeInclusive<u64> = 64 << 10..=16 << 20;
/// The instructions of a gap that is cut are followed in its first window, if
/// that is no smaller: what is behind it may call what is in it.
const MIN_FOLLOWED_BYTES: u64 = 8 << 20;
/// Code looked at for how a function starts, in bytes.
const START_BYTES: u64 = 16;

/// The rules that gaps get.
#[derive(Clone, Copy)]
struct GapRules {
    frame_pointer: PackedRule,
    stub: PackedRule,
    end_of_stack: PackedRule,
    signal_frame: PackedRule,
    /// At a function's first instruction, and at its last.
    at_entry: PackedRule,
    /// Behind the instruction that pushes the frame pointer.
    pushed: PackedRule,
}

/// How much of its code a file describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Described {
    /// It describes what compilers made.
    Most,
    /// None.
    Nothing,
    /// It would, but cannot be read to the end: what lies in a gap may have
    /// been described, so nothing is taken for a stub.
    Unreadably,
}

impl Described {
    /// By what was read.
    pub fn by(entries: &[Entry], tally: &Tally) -> Self {
        if tally.broken_sections > 0 {
            Self::Unreadably
        } else if entries.is_empty() {
            Self::Nothing
        } else {
            Self::Most
        }
    }
}

/// Decides on gaps.
pub(super) struct Gaps<'i, 'a> {
    image: &'i Image<'a>,
    room: &'i Room,
    lowest: u64,
    described: Described,
    /// Where functions start, looked up for the first gap.
    starts: OnceCell<Vec<u64>>,
    entry: Option<u64>,
    rules: GapRules,
}

impl<'i, 'a> Gaps<'i, 'a> {
    pub fn new(image: &'i Image<'a>, room: &'i Room, lowest: u64, described: Described) -> Self {
        Self {
            image,
            room,
            lowest,
            described,
            starts: OnceCell::new(),
            entry: image.entry(),
            rules: GapRules::of(image.machine),
        }
    }

    /// Gives `rows` those of the code in `from..to`, counted from the lowest
    /// address, which no entry describes; one may start behind it.
    pub fn fill(&self, from: u64, to: u64, entry_behind: bool, rows: &mut Rows, tally: &mut Tally) {
        let (from, to) = (self.lowest + from, self.lowest + to);
        if from >= to {
            return;
        }
        let image = self.image;
        let mut at = from;
        let first = image
            .executable
            .partition_point(|segment| segment.address + segment.size <= from);
        for segment in &image.executable[first..] {
            if segment.address >= to {
                break;
            }
            let start = segment.address.max(at);
            let end = (segment.address + segment.size).min(to);
            if start >= end {
                continue;
            }
            if start > at {
                rows.push(self.relative(at), unsupported(image.machine));
            }
            at = start;
            while at < end {
                let data = image.data_from(at).filter(|data| data.start < end);
                if let Some(data) = data.filter(|data| data.start <= at) {
                    rows.push(self.relative(at), unsupported(image.machine));
                    at = data.end.min(end);
                    continue;
                }
                let code_end = data.map_or(end, |data| data.start);
                let border = self.border(at, code_end, rows);
                let entry_behind = entry_behind && border == to;
                // What may be looked at in a gap is used up by the first window.
                let follows =
                    at == start && (border == code_end || border - at >= MIN_FOLLOWED_BYTES);
                self.fill_code(at, border, entry_behind, follows, rows, tally);
                at = border;
            }
        }
        if at < to {
            rows.push(self.relative(at), unsupported(image.machine));
        }
    }

    /// Where the window that starts at an address ends: it may take half of the
    /// room that is left beside the rows.
    fn border(&self, from: u64, to: u64, rows: &Rows) -> u64 {
        let rows_bytes = size_of_val(rows.as_slice()) as u64;
        let left_bytes = self.room.left_bytes().saturating_sub(rows_bytes);
        let window_bytes = (left_bytes / 2).clamp(*WINDOW_BYTES.start(), *WINDOW_BYTES.end());
        let end = from.saturating_add(window_bytes);
        if end >= to {
            return to;
        }
        let starts = self.starts();
        let after = starts.partition_point(|start| *start <= end);
        let last = after.checked_sub(1).map(|last| starts[last]);
        last.filter(|start| *start > from).unwrap_or(end)
    }

    fn starts(&self) -> &[u64] {
        self.starts.get_or_init(|| self.image.function_starts())
    }

    fn relative(&self, address: u64) -> u32 {
        (address - self.lowest) as u32
    }

    fn fill_code(
        &self,
        from: u64,
        to: u64,
        entry_behind: bool,
        follows: bool,
        rows: &mut Rows,
        tally: &mut Tally,
    ) {
        let image = self.image;
        let Some(code) = image.code(from, to - from) else {
            return rows.push(self.relative(from), unsupported(image.machine));
        };
        let code = &*code;
        if is_padding(image.machine, code) {
            // What returns into padding, a caller's look-up being at the byte
            // before, was made to by hand.
            let behind = entry_behind.then(|| image.code(to, START_BYTES)).flatten();
            if behind.is_some_and(|code| takes_stack(image.machine, &code)) {
                rows.push(self.relative(from), self.rules.end_of_stack);
            }
            return;
        }
        tally.gaps += 1;
        let starts = self.starts();
        // A segment may promise more bytes than the file has.
        let to = from + code.len() as u64;
        let [first, end] = [from, to].map(|at| starts.partition_point(|start| *start < at));
        let starts = &starts[first..end];
        let entry = self.entry.filter(|entry| (from..to).contains(entry));
        let mut plain = Rows::starting_with(unsupported(image.machine));
        self.fill_plainly(from, code, starts, entry, &mut plain);
        let runs = match image.machine {
            Machine::X86_64 if follows && self.described != Described::Unreadably => {
                flow::runs(&Gap {
                    code,
                    address: from,
                    starts,
                    entry: entry.map(|entry| (entry, MAX_ENTRY_BYTES as u32)),
                })
            }
            _ => Vec::new(),
        };
        self.overlay(self.relative(from), code.len() as u32, &plain, &runs, rows);
    }

    /// What can be said of a gap without following its instructions.
    fn fill_plainly(
        &self,
        from: u64,
        code: &[u8],
        starts: &[u64],
        entry: Option<u64>,
        rows: &mut Rows,
    ) {
        let to = from + code.len() as u64;
        let mut borders: Vec<u64> = starts
            .iter()
            .copied()
            // Less of the code may be there than the gap is long.
            .filter(|start| *start > from && *start < to)
            .filter(|start| entry.is_none_or(|entry| start.abs_diff(entry) >= MAX_ENTRY_BYTES))
            .collect();
        borders.extend(entry.filter(|entry| *entry > from && *entry < to));
        borders.sort_unstable();
        let mut start = from;
        for end in borders.into_iter().chain([to]) {
            let piece = &code[((start - from) as usize).min(code.len())..];
            let piece = &piece[..piece.len().min((end - start) as usize)];
            if entry == Some(start) {
                let bytes = piece.len().min(MAX_ENTRY_BYTES as usize);
                rows.push(self.relative(start), self.rules.end_of_stack);
                self.fill_function(start + bytes as u64, &piece[bytes..], rows);
            } else {
                self.fill_function(start, piece, rows);
            }
            start = end;
        }
    }

    /// Gives `rows` the plain ones, but those of the runs where there are some.
    /// A signal's trampoline is one by its bytes, whatever runs into it.
    fn overlay(&self, base: u32, bytes: u32, plain: &Rows, runs: &[Run], rows: &mut Rows) {
        let plain = plain.as_slice();
        // The trampoline's row starts one byte early.
        let first = plain.partition_point(|row| row.at < base.saturating_sub(1));
        let mut borders: Vec<u32> = plain[first..].iter().map(|row| row.at).collect();
        borders.extend(runs.iter().flat_map(|run| [base + run.from, base + run.to]));
        borders.push(base);
        borders.retain(|at| *at < base + bytes);
        borders.sort_unstable();
        borders.dedup();
        let (mut plain, mut runs) = (plain.iter().peekable(), runs.iter().peekable());
        let mut rule = unsupported(self.image.machine);
        for at in borders {
            while let Some(row) = plain.next_if(|row| row.at <= at) {
                rule = row.rule;
            }
            while runs.next_if(|run| base + run.to <= at).is_some() {}
            let run = runs
                .peek()
                .filter(|run| base + run.from <= at && rule != self.rules.signal_frame);
            rows.push(at, run.map_or(rule, |run| run.rule));
        }
    }

    /// One function, or several whose borders are not known.
    fn fill_function(&self, start: u64, code: &[u8], rows: &mut Rows) {
        let rules = &self.rules;
        let base = self.relative(start);
        let mut current = match self.described {
            Described::Most => rules.stub,
            Described::Nothing => rules.frame_pointer,
            Described::Unreadably => unsupported(self.image.machine),
        };
        if code.is_empty() {
            return;
        }
        rows.push(base, current);
        let machine = self.image.machine;
        let mut scanned = bytes_before_landmark(machine, code);
        while let Some(rest) = code.get(scanned..).filter(|rest| !rest.is_empty()) {
            let here = base + scanned as u32;
            let (landmark, bytes) = landmark(machine, rest);
            let after = here + bytes as u32;
            match landmark {
                Some(Landmark::Trampoline) => {
                    // Its return address is looked up at the byte before it.
                    rows.push(here.saturating_sub(1), rules.signal_frame);
                    rows.push(after, current);
                }
                Some(Landmark::Prologue { pushed_bytes }) => {
                    current = rules.frame_pointer;
                    rows.push(here, rules.at_entry);
                    rows.push(here + pushed_bytes, rules.pushed);
                    rows.push(after, current);
                }
                Some(Landmark::Epilogue { popped_bytes }) if current == rules.frame_pointer => {
                    rows.push(here + popped_bytes, rules.at_entry);
                    rows.push(after, current);
                }
                Some(Landmark::Epilogue { .. }) | None => {}
            }
            scanned += bytes + bytes_before_landmark(machine, &rest[bytes..]);
        }
    }
}

impl GapRules {
    fn of(machine: Machine) -> Self {
        let fits = |rule: Option<PackedRule>| rule.unwrap_or(unsupported(machine));
        match machine {
            Machine::X86_64 => {
                use x86_64::{Base, Rule, Saved};
                let offset = |cfa_words, saved| Rule::Offset {
                    base: Base::StackPointer,
                    cfa_words,
                    saved,
                };
                Self {
                    frame_pointer: fits(Rule::GapFramePointer.pack()),
                    stub: fits(Rule::GapStub.pack()),
                    end_of_stack: fits(Rule::EndOfStack.pack()),
                    signal_frame: fits(Rule::SignalFrame.pack()),
                    at_entry: fits(offset(1, Saved::Unchanged).pack()),
                    pushed: fits(offset(2, Saved::BelowCfa(2)).pack()),
                }
            }
            Machine::Aarch64 => {
                use aarch64::{Base, Rule, Saved};
                let offset = |cfa_pairs, saved| Rule::Offset {
                    base: Base::StackPointer,
                    cfa_pairs,
                    saved,
                };
                Self {
                    frame_pointer: fits(Rule::GapFramePointer.pack()),
                    stub: fits(Rule::GapStub.pack()),
                    end_of_stack: fits(Rule::EndOfStack.pack()),
                    signal_frame: fits(Rule::SignalFrame.pack()),
                    at_entry: fits(offset(0, Saved::InRegisters).pack()),
                    pushed: fits(Rule::GapFramePointer.pack()),
                }
            }
        }
    }
}
