//! Reads a profile the way its strictest readers do.
//!
//! Written from profile.proto and from what readers refuse (ids not dense, an
//! index out of range, a location without a mapping, a mapping without
//! `has_functions`), not from the profiler's own code.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::verdict::Verdict;
use super::wire::{Value, fields, numbers};

/// A profile with its references resolved.
pub struct Profile {
    /// (type, unit) of each value of a sample.
    pub sample_types: Vec<(String, String)>,
    pub period_type: (String, String),
    pub period: i64,
    pub time_nanos: i64,
    pub duration_nanos: i64,
    pub comments: Vec<String>,
    pub samples: Vec<Sample>,
    pub mappings: Vec<Mapping>,
}

pub struct Sample {
    /// Leaf first.
    pub stack: Vec<Location>,
    pub values: Vec<i64>,
    pub strings: BTreeMap<String, String>,
    /// (number, unit).
    pub numbers: BTreeMap<String, (i64, String)>,
}

#[derive(Clone)]
pub struct Location {
    pub address: u64,
    pub mapping: Mapping,
    /// The innermost inline frame first.
    pub lines: Vec<Line>,
}

#[derive(Clone)]
pub struct Line {
    pub name: String,
    pub system_name: String,
    pub file: String,
    /// In `file`; 0 when it is not known.
    pub number: i64,
}

#[derive(Clone, Default)]
pub struct Mapping {
    pub start: u64,
    pub limit: u64,
    pub file: String,
    pub build_id: String,
    pub has_functions: bool,
}

impl Location {
    /// Whether it is no frame but a remark on the stack, like
    /// `[truncated: depth_limit]`.
    pub fn is_note(&self) -> bool {
        self.address == 0
            && self
                .lines
                .iter()
                .any(|line| line.name.starts_with('[') && line.name.ends_with(']'))
    }
}

impl Mapping {
    pub fn is_kernel(&self) -> bool {
        self.file.starts_with("[kernel.kallsyms]")
    }
}

impl Sample {
    pub fn count(&self) -> u64 {
        u64::try_from(self.values.first().copied().unwrap_or(0)).unwrap_or(0)
    }

    /// Whether a frame of this name, inline frames included, is in the stack.
    pub fn holds(&self, name: &str) -> bool {
        self.frames().any(|line| line.name == name)
    }

    /// All frames, leaf first.
    pub fn frames(&self) -> impl Iterator<Item = &Line> {
        self.stack.iter().flat_map(|location| &location.lines)
    }

    pub fn kernel_frames(&self) -> usize {
        self.stack.iter().filter(|l| l.mapping.is_kernel()).count()
    }

    pub fn user_frames(&self) -> usize {
        let notes = self.stack.iter().filter(|l| l.is_note()).count();
        self.stack.len() - self.kernel_frames() - notes
    }
}

impl Profile {
    pub fn open(path: &Path) -> Verdict<Self> {
        let file = std::fs::File::open(path)?;
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("{} is no whole gzip file: {error}", path.display()))?;
        Self::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// All samples that `wanted` accepts.
    pub fn count(&self, wanted: impl Fn(&Sample) -> bool) -> u64 {
        self.samples
            .iter()
            .filter(|s| wanted(s))
            .map(Sample::count)
            .sum()
    }

    pub fn total(&self) -> u64 {
        self.count(|_| true)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let top = fields(bytes)?;
        let strings = string_table(&top)?;
        let text = |index: u64| -> Result<String, String> {
            usize::try_from(index)
                .ok()
                .and_then(|index| strings.get(index))
                .cloned()
                .ok_or_else(|| format!("string {index} of {}", strings.len()))
        };
        let mappings = dense(&top, 3, |n| mapping(n, &text))?;
        let functions = dense(&top, 5, |n| function(n, &text))?;
        let locations = dense(&top, 4, |n| location(n, &mappings, &functions))?;

        let mut profile = Self {
            sample_types: Vec::new(),
            period_type: (String::new(), String::new()),
            period: 0,
            time_nanos: 0,
            duration_nanos: 0,
            comments: Vec::new(),
            samples: Vec::new(),
            mappings,
        };
        for (number, value) in &top {
            match (number, value) {
                (1, Value::Bytes(bytes)) => profile.sample_types.push(value_type(bytes, &text)?),
                (2, Value::Bytes(bytes)) => profile.samples.push(sample(bytes, &locations, &text)?),
                (9, Value::Number(n)) => profile.time_nanos = *n as i64,
                (10, Value::Number(n)) => profile.duration_nanos = *n as i64,
                (11, Value::Bytes(bytes)) => profile.period_type = value_type(bytes, &text)?,
                (12, Value::Number(n)) => profile.period = *n as i64,
                (13, value) => {
                    let mut indices = Vec::new();
                    numbers(value, &mut indices)?;
                    for index in indices {
                        profile.comments.push(text(index)?);
                    }
                }
                _ => {}
            }
        }
        profile.check()?;
        Ok(profile)
    }

    /// What readers demand of a whole profile.
    fn check(&self) -> Result<(), String> {
        for sample in &self.samples {
            if sample.values.len() != self.sample_types.len() {
                return Err(
                    "a sample has another number of values than the profile has types".into(),
                );
            }
            if sample.values.iter().any(|value| *value < 0) {
                return Err("a negative value".into());
            }
            for location in &sample.stack {
                let mapping = &location.mapping;
                if !mapping.has_functions {
                    return Err(format!(
                        "{:?} is used without has_functions, so that pprof would go looking for names",
                        mapping.file
                    ));
                }
                let inside = mapping.start <= location.address && location.address < mapping.limit;
                if mapping.limit != 0 && !inside {
                    return Err(format!(
                        "address {:#x} lies outside of its mapping {:?}",
                        location.address, mapping.file
                    ));
                }
            }
        }
        Ok(())
    }
}

type Text<'a> = &'a dyn Fn(u64) -> Result<String, String>;

fn string_table(top: &[(u64, Value<'_>)]) -> Result<Vec<String>, String> {
    let mut strings = Vec::new();
    for (number, value) in top {
        if let (6, Value::Bytes(bytes)) = (number, value) {
            let text = std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8")?;
            strings.push(text.to_owned());
        }
    }
    if strings.first().map(String::as_str) != Some("") {
        return Err("the first string is not the empty one".into());
    }
    Ok(strings)
}

/// The messages of a table whose ids must be 1, 2, 3 … in order.
fn dense<T>(
    top: &[(u64, Value<'_>)],
    table: u64,
    parse: impl Fn(&[(u64, Value<'_>)]) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut found = Vec::new();
    for (number, value) in top {
        let Value::Bytes(bytes) = value else { continue };
        if *number != table {
            continue;
        }
        let message = fields(bytes)?;
        let id = one(&message, 1);
        if id != found.len() as u64 + 1 {
            return Err(format!(
                "id {id} at position {} of table {table}",
                found.len() + 1
            ));
        }
        found.push(parse(&message)?);
    }
    Ok(found)
}

/// A number field, 0 when it is not there.
fn one(message: &[(u64, Value<'_>)], wanted: u64) -> u64 {
    message
        .iter()
        .find_map(|(number, value)| match value {
            Value::Number(found) if *number == wanted => Some(*found),
            _ => None,
        })
        .unwrap_or(0)
}

/// The entry with this id of a table that starts at 1.
fn resolve<T: Clone>(table: &[T], id: u64, what: &str) -> Result<T, String> {
    usize::try_from(id)
        .ok()
        .and_then(|id| table.get(id.checked_sub(1)?))
        .cloned()
        .ok_or_else(|| format!("{what} {id} of {}", table.len()))
}

fn value_type(bytes: &[u8], text: Text<'_>) -> Result<(String, String), String> {
    let message = fields(bytes)?;
    Ok((text(one(&message, 1))?, text(one(&message, 2))?))
}

fn mapping(message: &[(u64, Value<'_>)], text: Text<'_>) -> Result<Mapping, String> {
    Ok(Mapping {
        start: one(message, 2),
        limit: one(message, 3),
        file: text(one(message, 5))?,
        build_id: text(one(message, 6))?,
        has_functions: one(message, 7) != 0,
    })
}

fn function(message: &[(u64, Value<'_>)], text: Text<'_>) -> Result<Line, String> {
    Ok(Line {
        name: text(one(message, 2))?,
        system_name: text(one(message, 3))?,
        file: text(one(message, 4))?,
        number: 0,
    })
}

fn location(
    message: &[(u64, Value<'_>)],
    mappings: &[Mapping],
    functions: &[Line],
) -> Result<Location, String> {
    let mut lines = Vec::new();
    for (number, value) in message {
        if let (4, Value::Bytes(bytes)) = (number, value) {
            let message = fields(bytes)?;
            let mut line = resolve(functions, one(&message, 1), "function")?;
            line.number = one(&message, 2) as i64;
            lines.push(line);
        }
    }
    Ok(Location {
        address: one(message, 3),
        mapping: resolve(mappings, one(message, 2), "mapping")?,
        lines,
    })
}

fn sample(bytes: &[u8], locations: &[Location], text: Text<'_>) -> Result<Sample, String> {
    let mut found = Sample {
        stack: Vec::new(),
        values: Vec::new(),
        strings: BTreeMap::new(),
        numbers: BTreeMap::new(),
    };
    let (mut ids, mut values) = (Vec::new(), Vec::new());
    for (number, value) in fields(bytes)? {
        match (number, &value) {
            (1, value) => numbers(value, &mut ids)?,
            (2, value) => numbers(value, &mut values)?,
            (3, Value::Bytes(bytes)) => {
                let label = fields(bytes)?;
                let key = text(one(&label, 1))?;
                if key.is_empty() {
                    return Err("a label without a key".into());
                }
                let string = text(one(&label, 2))?;
                let unit = text(one(&label, 4))?;
                let twice = if string.is_empty() {
                    let number = one(&label, 3) as i64;
                    found.numbers.insert(key.clone(), (number, unit)).is_some()
                } else {
                    found.strings.insert(key.clone(), string).is_some()
                };
                if twice {
                    return Err(format!("two labels named {key}"));
                }
            }
            _ => {}
        }
    }
    for id in ids {
        found.stack.push(resolve(locations, id, "location")?);
    }
    found.values = values.into_iter().map(|value| value as i64).collect();
    Ok(found)
}
