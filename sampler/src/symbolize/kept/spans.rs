//! Names by the ranges of addresses that they hold for, each text once.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::symbolize::demangle::MAX_NAME_BYTES;
use crate::symbolize::frames::MAX_INLINED;
use crate::symbolize::names::{FrameName, Named};

/// Ranges of a file that are kept.
const MAX_SPANS: usize = 100_000;

/// Ranges of addresses, and the frames at each.
#[expect(clippy::struct_field_names, reason = "spans are what it holds")]
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spans {
    /// Ascending; none reaches into the next one.
    spans: Vec<Span>,
    frames: Vec<Frame>,
    texts: Texts,
}

/// The addresses from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    start: u64,
    end: u64,
    first_frame: u32,
    /// None where it is known that there is no name.
    frame_count: u32,
}

/// A [`FrameName`] whose texts are told by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Frame {
    name: u32,
    system_name: u32,
    source_file: u32,
    line: u32,
    column: u32,
}

/// Texts by number, behind each other.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Texts {
    all: String,
    ends: Vec<u32>,
}

impl Spans {
    /// Which range holds an address.
    pub(super) fn find(&self, address: u64) -> Option<usize> {
        let after = self.spans.partition_point(|span| span.start <= address);
        let at = after.checked_sub(1)?;
        (address < self.spans[at].end).then_some(at)
    }

    /// The frames in a range.
    pub(super) fn named(&self, at: usize) -> Named {
        let text = |number: u32| self.texts.get(number).unwrap_or_default().to_owned();
        self.frames_of(&self.spans[at])
            .iter()
            .map(|frame| FrameName {
                name: text(frame.name),
                system_name: text(frame.system_name),
                source_file: text(frame.source_file),
                line: frame.line,
                column: frame.column,
            })
            .collect()
    }

    fn frames_of(&self, span: &Span) -> &[Frame] {
        let first = span.first_frame as usize;
        let frames = self.frames.get(first..first + span.frame_count as usize);
        frames.unwrap_or_default()
    }

    /// How many more ranges there is room for.
    pub(super) fn room(&self) -> usize {
        MAX_SPANS.saturating_sub(self.spans.len())
    }

    /// These and others. Where two say something about the same address, the one
    /// that begins first stays.
    pub(super) fn with(&self, others: &[(Range<u64>, Named)]) -> Self {
        enum Source<'a> {
            Own(&'a Span),
            Other(&'a Named),
        }
        let own = self.spans.iter();
        let own = own.map(|span| (span.start..span.end, Source::Own(span)));
        let others = others.iter();
        let others = others.map(|(range, named)| (range.clone(), Source::Other(named)));
        let mut all: Vec<_> = own.chain(others).collect();
        all.sort_by_key(|(range, _)| range.start);

        let mut with = Builder::default();
        for (range, source) in &all {
            let text = |number: u32| self.texts.get(number).unwrap_or_default();
            match source {
                Source::Own(span) => {
                    let frames = self.frames_of(span).iter();
                    with.push(
                        range,
                        frames.map(|frame| {
                            let texts = [frame.name, frame.system_name, frame.source_file];
                            (texts.map(text), [frame.line, frame.column])
                        }),
                    );
                }
                Source::Other(named) => with.push(
                    range,
                    named.iter().map(|frame| {
                        let texts = [&frame.name, &frame.system_name, &frame.source_file];
                        (texts.map(String::as_str), [frame.line, frame.column])
                    }),
                ),
            }
        }
        with.built
    }

    /// Whether all of it is such as [`Self::with`] makes of what a child may say.
    pub(super) fn is_sound(&self) -> bool {
        let mut last_end = 0;
        let are_apart = self.spans.iter().all(|span| {
            let is_apart = last_end <= span.start && span.start < span.end;
            last_end = span.end;
            is_apart
        });
        let have_frames = self.spans.iter().all(|span| {
            let end = u64::from(span.first_frame) + u64::from(span.frame_count);
            end <= self.frames.len() as u64 && span.frame_count as usize <= MAX_INLINED + 1
        });
        let have_texts = self.frames.iter().all(|frame| {
            let mut texts = [frame.name, frame.system_name, frame.source_file].into_iter();
            texts.all(|number| (number as usize) < self.texts.ends.len())
        });
        self.spans.len() <= MAX_SPANS
            && are_apart
            && have_frames
            && have_texts
            && self.texts.are_sound()
    }
}

impl Texts {
    fn get(&self, number: u32) -> Option<&str> {
        let number = number as usize;
        let start = number
            .checked_sub(1)
            .map_or(Some(&0), |before| self.ends.get(before));
        self.all
            .get(*start? as usize..*self.ends.get(number)? as usize)
    }

    fn are_sound(&self) -> bool {
        let mut start = 0;
        let are_texts = self.ends.iter().all(|end| {
            let text = self.all.get(start..*end as usize);
            start = *end as usize;
            text.is_some_and(|text| text.len() <= MAX_NAME_BYTES && !text.contains('\0'))
        });
        are_texts && start == self.all.len()
    }
}

/// Makes [`Spans`] of ranges that ascend.
#[derive(Default)]
struct Builder<'a> {
    numbers: HashMap<&'a str, u32>,
    built: Spans,
}

impl<'a> Builder<'a> {
    /// Adds a range, unless it reaches into the one before, or there is no room.
    fn push(&mut self, range: &Range<u64>, frames: impl Iterator<Item = ([&'a str; 3], [u32; 2])>) {
        let last_end = self.built.spans.last().map_or(0, |span| span.end);
        if range.is_empty() || range.start < last_end || self.built.room() == 0 {
            return;
        }
        let first = self.built.frames.len();
        for (texts, [line, column]) in frames {
            let numbers = texts.map(|text| self.number(text));
            let [Some(name), Some(system_name), Some(source_file)] = numbers else {
                self.built.frames.truncate(first);
                return;
            };
            self.built.frames.push(Frame {
                name,
                system_name,
                source_file,
                line,
                column,
            });
        }
        let count = self.built.frames.len() - first;
        let (Ok(first_frame), Ok(frame_count)) = (u32::try_from(first), u32::try_from(count))
        else {
            return;
        };
        self.built.spans.push(Span {
            start: range.start,
            end: range.end,
            first_frame,
            frame_count,
        });
    }

    /// The number of a text; `None` if all of them together are too long.
    fn number(&mut self, text: &'a str) -> Option<u32> {
        if let Some(number) = self.numbers.get(text) {
            return Some(*number);
        }
        let texts = &mut self.built.texts;
        let number = u32::try_from(texts.ends.len()).ok()?;
        texts
            .ends
            .push(u32::try_from(texts.all.len() + text.len()).ok()?);
        texts.all.push_str(text);
        self.numbers.insert(text, number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use super::*;

    fn named(names: &[&str]) -> Named {
        let frames = names.iter().map(|name| FrameName {
            name: (*name).to_owned(),
            system_name: format!("_Z{name}"),
            source_file: "file.c".to_owned(),
            line: 7,
            column: 0,
        });
        frames.collect()
    }

    fn at(spans: &Spans, address: u64) -> Option<Named> {
        spans.find(address).map(|at| spans.named(at))
    }

    fn some() -> Spans {
        Spans::default().with(&[
            (20..30, named(&["g", "f"])),
            (10..20, named(&["f"])),
            (40..41, named(&[])),
        ])
    }

    #[test]
    fn names_hold_in_their_range_and_not_beyond() {
        let spans = some();
        assert_eq!(at(&spans, 10), Some(named(&["f"])));
        assert_eq!(at(&spans, 19), Some(named(&["f"])));
        assert_eq!(at(&spans, 20), Some(named(&["g", "f"])));
        assert_eq!(at(&spans, 40), Some(named(&[])));
        for address in [0, 9, 30, 39, 41, u64::MAX] {
            assert_eq!(at(&spans, address), None, "{address}");
        }
        assert!(spans.is_sound());
    }

    #[test]
    fn each_text_is_kept_once() {
        assert_eq!(some().texts.all.matches("file.c").count(), 1);
        assert_eq!(some().texts.ends.len(), 5);
    }

    #[test]
    fn others_come_to_those_that_there_are() {
        let spans = some().with(&[(30..35, named(&["h"])), (15..17, named(&["wrong"]))]);
        assert_eq!(at(&spans, 34), Some(named(&["h"])));
        assert_eq!(at(&spans, 16), Some(named(&["f"])));
        assert_eq!(at(&spans, 25), Some(named(&["g", "f"])));
        assert!(spans.is_sound());
        let read: Spans = postcard::from_bytes(&postcard::to_stdvec(&spans).unwrap()).unwrap();
        assert_eq!(read, spans);
    }

    #[test]
    fn what_no_recording_writes_is_not_sound() {
        let damaged: [fn(&mut Spans); 8] = [
            |it| it.spans.swap(0, 1),
            |it| it.spans[0].end = 21,
            |it| it.spans[0].end = 10,
            |it| it.spans[1].frame_count = 3,
            |it| it.spans[2].first_frame = u32::MAX,
            |it| it.frames[0].name = 5,
            |it| it.texts.ends[0] = u32::MAX,
            |it| it.texts.all.push('\0'),
        ];
        for (number, damage) in damaged.iter().enumerate() {
            let mut spans = some();
            damage(&mut spans);
            assert!(!spans.is_sound(), "{number}");
        }
        let long = Spans::default().with(&[(1..2, named(&[&"x".repeat(MAX_NAME_BYTES + 1)]))]);
        assert!(!long.is_sound());
        let deep = Spans::default().with(&[(1..2, named(&["f"; MAX_INLINED + 2]))]);
        assert!(!deep.is_sound());
    }
}
