//! The pprof format, such that every reader of it is content.
//!
//! Stricter than pprof's own checks, because other readers are: ids are
//! dense from 1, every location has a mapping, every string is printable.

mod check;
mod error;
mod ids;
mod packing;
mod proto;
mod read;
mod rename;
mod wire;

pub use error::ReadError;
pub use packing::{Packing, pack, unpack};
pub use read::{Document, Location, Mapping};
pub use rename::{NewLines, SourceLine, rename};
pub use wire::WireError;

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use prost::Message as _;

use super::safe;
use crate::profile::{Interner, Labels, Profile, ValueType};

/// The profile as an uncompressed protobuf message.
pub fn encode(profile: &Profile) -> Vec<u8> {
    message(profile).encode_to_vec()
}

/// The profile as a `.pb.gz` file.
///
/// The same profile always gives the same bytes: the gzip header holds
/// neither a time nor a name.
pub fn write(profile: &Profile, out: impl Write) -> io::Result<()> {
    // The time this takes is taken from the host that is being profiled.
    let mut gzip = GzBuilder::new().write(out, Compression::fast());
    gzip.write_all(&encode(profile))?;
    gzip.finish()?.flush()
}

fn message(profile: &Profile) -> proto::Profile {
    let mut strings = Strings::new();
    let header = profile.header();
    let sample_type = header
        .sample_types
        .iter()
        .map(|value_type| strings.value_type(value_type))
        .collect();
    let period_type = Some(strings.value_type(&header.period_type));
    let default_sample_type = header
        .sample_types
        .last()
        .map_or(0, |value_type| strings.index(&value_type.kind));
    proto::Profile {
        sample_type,
        period_type,
        period: header.period,
        time_nanos: header.start_unix_ns,
        duration_nanos: header.duration_ns,
        default_sample_type,
        mapping: mappings(profile, &mut strings),
        location: locations(profile),
        function: functions(profile, &mut strings),
        sample: samples(profile, &mut strings),
        comment: profile
            .comments()
            .map(|comment| strings.index(comment))
            .collect(),
        string_table: strings.into_table(),
    }
}

/// Mappings with what is known of each.
///
/// `has_functions` says that the lookup is over, whatever it found: without it
/// `go tool pprof` tries again itself, and a nameless address can then fail the
/// whole report. If there was no lookup, it may try.
fn mappings(profile: &Profile, strings: &mut Strings) -> Vec<proto::Mapping> {
    let mut mappings: Vec<_> = profile
        .mappings()
        .zip(1..)
        .map(|(mapping, id)| proto::Mapping {
            id,
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.file_offset,
            filename: strings.index(&mapping.file),
            build_id: strings.index(mapping.build_id.as_deref().unwrap_or_default()),
            has_functions: profile.names_sought(),
            ..proto::Mapping::default()
        })
        .collect();
    for location in profile.locations() {
        let mapping = &mut mappings[location.mapping.index()];
        mapping.has_functions |= !location.lines.is_empty();
        mapping.has_inline_frames |= location.lines.len() > 1;
        for line in &location.lines {
            mapping.has_line_numbers |= line.line != 0;
            mapping.has_filenames |= !profile.get_function(line.function).file.is_empty();
        }
    }
    mappings
}

fn locations(profile: &Profile) -> Vec<proto::Location> {
    profile
        .locations()
        .zip(1..)
        .map(|(location, id)| proto::Location {
            id,
            mapping_id: id_from_1(location.mapping.index()),
            address: location.address,
            line: location
                .lines
                .iter()
                .map(|line| proto::Line {
                    function_id: id_from_1(line.function.index()),
                    line: line.line.into(),
                    column: line.column.into(),
                })
                .collect(),
        })
        .collect()
}

fn functions(profile: &Profile, strings: &mut Strings) -> Vec<proto::Function> {
    profile
        .functions()
        .zip(1..)
        .map(|(function, id)| proto::Function {
            id,
            name: strings.index(&function.name),
            system_name: strings.index(&function.system_name),
            filename: strings.index(&function.file),
        })
        .collect()
}

fn samples(profile: &Profile, strings: &mut Strings) -> Vec<proto::Sample> {
    profile
        .samples()
        .map(|sample| proto::Sample {
            location_id: sample
                .stack
                .iter()
                .map(|id| id_from_1(id.index()))
                .collect(),
            value: sample.values.to_vec(),
            label: labels(sample.labels, strings),
        })
        .collect()
}

/// Texts, then numbers. A number has its key as its unit: readers drop a
/// zero without one.
fn labels(labels: &Labels, strings: &mut Strings) -> Vec<proto::Label> {
    let mut out = Vec::with_capacity(labels.strings.len() + labels.numbers.len());
    for (key, text) in &labels.strings {
        out.push(proto::Label {
            key: strings.index(key),
            str: strings.index(text),
            ..proto::Label::default()
        });
    }
    for (key, num) in &labels.numbers {
        let key = strings.index(key);
        out.push(proto::Label {
            key,
            num: *num,
            num_unit: key,
            ..proto::Label::default()
        });
    }
    out
}

/// pprof's ids count from 1 and mean nothing by 0.
fn id_from_1(index: usize) -> u64 {
    index as u64 + 1
}

/// The string table. Its first entry is the empty string, so that an index
/// of 0 means "none".
struct Strings(Interner<str>);

impl Strings {
    fn new() -> Self {
        let mut strings = Interner::default();
        strings.intern("");
        Self(strings)
    }

    /// The index of `text`, made printable: reports are read on terminals.
    fn index(&mut self, text: &str) -> i64 {
        self.0.intern(&*safe::visible(text)).into()
    }

    fn value_type(&mut self, value_type: &ValueType) -> proto::ValueType {
        proto::ValueType {
            r#type: self.index(&value_type.kind),
            unit: self.index(&value_type.unit),
        }
    }

    fn into_table(self) -> Vec<String> {
        self.0.iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests;
