//! Names by address, or by any number that stands for one, each text once.

use ahash::HashMap;
use serde::{Deserialize, Serialize};

use crate::symbolize::demangle::MAX_NAME_BYTES;
use crate::symbolize::frames::MAX_INLINED;
use crate::symbolize::names::{FrameName, Named};

/// Addresses of a file that are kept.
const MAX_ADDRESSES: usize = 100_000;

/// Addresses, and the frames at each.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Addresses {
    /// Ascending, each once.
    answers: Vec<Answer>,
    frames: Vec<Frame>,
    texts: Texts,
}

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    address: u64,
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

impl Addresses {
    /// The frames at an address; `None` where it is not known what there is.
    pub(super) fn named(&self, address: u64) -> Option<Named> {
        let found = self.answers.binary_search_by_key(&address, |it| it.address);
        let answer = &self.answers[found.ok()?];
        let text = |number: u32| self.texts.get(number).unwrap_or_default().to_owned();
        let frames = self.frames_of(answer).iter();
        let frames = frames.map(|frame| FrameName {
            name: text(frame.name),
            system_name: text(frame.system_name),
            source_file: text(frame.source_file),
            line: frame.line,
            column: frame.column,
        });
        Some(frames.collect())
    }

    fn frames_of(&self, answer: &Answer) -> &[Frame] {
        let first = answer.first_frame as usize;
        let frames = self.frames.get(first..first + answer.frame_count as usize);
        frames.unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.answers.len()
    }

    /// How many more there is room for.
    pub(super) fn room(&self) -> usize {
        MAX_ADDRESSES.saturating_sub(self.answers.len())
    }

    /// These and others; where both say something of one address, these stay.
    pub(super) fn with(&self, others: &HashMap<u64, Named>) -> Self {
        enum Source<'a> {
            Own(&'a Answer),
            Other(&'a Named),
        }
        let own = self.answers.iter();
        let own = own.map(|answer| (answer.address, Source::Own(answer)));
        let others = others.iter();
        let others = others.map(|(address, named)| (*address, Source::Other(named)));
        let mut all: Vec<_> = own.chain(others).collect();
        // Keeps the own one of two first.
        all.sort_by_key(|(address, _)| *address);

        let mut with = Builder::default();
        for (address, source) in &all {
            let text = |number: u32| self.texts.get(number).unwrap_or_default();
            match source {
                Source::Own(answer) => {
                    let frames = self.frames_of(answer).iter();
                    with.push(
                        *address,
                        frames.map(|frame| {
                            let texts = [frame.name, frame.system_name, frame.source_file];
                            (texts.map(text), [frame.line, frame.column])
                        }),
                    );
                }
                Source::Other(named) => with.push(
                    *address,
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
        let ascend = self
            .answers
            .is_sorted_by(|one, other| one.address < other.address);
        let have_frames = self.answers.iter().all(|answer| {
            let end = u64::from(answer.first_frame) + u64::from(answer.frame_count);
            end <= self.frames.len() as u64 && answer.frame_count as usize <= MAX_INLINED + 1
        });
        let have_texts = self.frames.iter().all(|frame| {
            let mut texts = [frame.name, frame.system_name, frame.source_file].into_iter();
            texts.all(|number| (number as usize) < self.texts.ends.len())
        });
        self.answers.len() <= MAX_ADDRESSES
            && ascend
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

/// Makes [`Addresses`] of such as ascend.
#[derive(Default)]
struct Builder<'a> {
    numbers: HashMap<&'a str, u32>,
    built: Addresses,
}

impl<'a> Builder<'a> {
    /// Adds an address, unless it is the one before, or there is no room.
    fn push(&mut self, address: u64, frames: impl Iterator<Item = ([&'a str; 3], [u32; 2])>) {
        let last = self.built.answers.last();
        if last.is_some_and(|last| last.address >= address) || self.built.room() == 0 {
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
        self.built.answers.push(Answer {
            address,
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

    fn with(addresses: &Addresses, others: &[(u64, Named)]) -> Addresses {
        addresses.with(&others.iter().cloned().collect())
    }

    fn some() -> Addresses {
        let answers = [
            (20, named(&["g", "f"])),
            (10, named(&["f"])),
            (40, named(&[])),
        ];
        with(&Addresses::default(), &answers)
    }

    #[test]
    fn each_address_has_its_frames() {
        let addresses = some();
        assert_eq!(addresses.named(10), Some(named(&["f"])));
        assert_eq!(addresses.named(20), Some(named(&["g", "f"])));
        assert_eq!(addresses.named(40), Some(named(&[])));
        for address in [0, 9, 11, 41, u64::MAX] {
            assert_eq!(addresses.named(address), None, "{address}");
        }
        assert!(addresses.is_sound());
    }

    #[test]
    fn each_text_is_kept_once() {
        assert_eq!(some().texts.all.matches("file.c").count(), 1);
        assert_eq!(some().texts.ends.len(), 5);
    }

    #[test]
    fn others_come_to_those_that_there_are() {
        let addresses = with(&some(), &[(30, named(&["h"])), (20, named(&["wrong"]))]);
        assert_eq!(addresses.named(30), Some(named(&["h"])));
        assert_eq!(addresses.named(20), Some(named(&["g", "f"])));
        assert!(addresses.is_sound());
        let bytes = postcard::to_stdvec(&addresses).unwrap();
        let read: Addresses = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read, addresses);
    }

    #[test]
    fn what_no_recording_writes_is_not_sound() {
        let damaged: [fn(&mut Addresses); 7] = [
            |it| it.answers.swap(0, 1),
            |it| it.answers[0].address = 20,
            |it| it.answers[1].frame_count = 3,
            |it| it.answers[2].first_frame = u32::MAX,
            |it| it.frames[0].name = 5,
            |it| it.texts.ends[0] = u32::MAX,
            |it| it.texts.all.push('\0'),
        ];
        for (number, damage) in damaged.iter().enumerate() {
            let mut addresses = some();
            damage(&mut addresses);
            assert!(!addresses.is_sound(), "{number}");
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let long = with(&Addresses::default(), &[(1, named(&[&long]))]);
        assert!(!long.is_sound());
        let deep = with(
            &Addresses::default(),
            &[(1, named(&["f"; MAX_INLINED + 2]))],
        );
        assert!(!deep.is_sound());
    }
}
