//! The pprof files of a recording: stacks as places in files.

use anyhow::{Context as _, Result};
use flate2::read::GzDecoder;
use libdd_profiling_protobuf::prost_impls::{Message as _, Profile as Message};
use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

/// How often a stack was seen.
pub struct Sample {
    /// Leaf first.
    pub stack: Vec<Frame>,
    /// How often.
    pub count: u64,
}

/// A frame, by where it lies.
#[derive(Clone)]
pub struct Frame {
    /// The mapped file's path, or what stands for it, as `[vdso]`.
    pub file: String,
    /// In that file. Of a caller it is that of the call.
    pub offset: u64,
    /// Of that file, in lowercase hexadecimal; empty where there is none.
    pub build_id: String,
    /// Of the innermost function; empty where the profile has none.
    pub name: String,
    /// No frame but a remark on the stack, like `[truncated: depth_limit]`.
    pub remark: Option<String>,
    /// Of the kernel.
    pub is_kernel: bool,
}

/// The first bytes of what gzip writes.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads one file, compressed or not.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let mut bytes = fs::read(path).with_context(|| path.display().to_string())?;
    if bytes.starts_with(&GZIP) {
        let mut inflated = Vec::new();
        GzDecoder::new(&*bytes)
            .read_to_end(&mut inflated)
            .with_context(|| path.display().to_string())?;
        bytes = inflated;
    }
    let message = Message::decode(&*bytes).with_context(|| path.display().to_string())?;
    samples(&message).with_context(|| format!("{}: a dangling reference", path.display()))
}

fn samples(message: &Message) -> Option<Vec<Sample>> {
    let frames: HashMap<u64, Frame> = frames(message)?;
    message
        .samples
        .iter()
        .map(|sample| {
            let stack = sample.location_ids.iter().map(|id| frames.get(id).cloned());
            Some(Sample {
                stack: stack.collect::<Option<_>>()?,
                count: u64::try_from(*sample.values.first()?).ok()?,
            })
        })
        .collect()
}

fn frames(message: &Message) -> Option<HashMap<u64, Frame>> {
    let text = |index: i64| message.string_table.get(usize::try_from(index).ok()?);
    let mappings: HashMap<u64, _> = message.mappings.iter().map(|one| (one.id, one)).collect();
    let functions: HashMap<u64, _> = message.functions.iter().map(|one| (one.id, one)).collect();
    message
        .locations
        .iter()
        .map(|location| {
            let mapping = mappings.get(&location.mapping_id)?;
            let file = text(mapping.filename)?;
            let name = match location.lines.first() {
                Some(line) => text(functions.get(&line.function_id)?.name)?,
                None => "",
            };
            let is_remark = location.address == 0 && name.starts_with('[');
            let frame = Frame {
                offset: location
                    .address
                    .wrapping_sub(mapping.memory_start)
                    .wrapping_add(mapping.file_offset),
                remark: is_remark.then(|| name.to_owned()),
                is_kernel: file.starts_with("[kernel.kallsyms]"),
                file: file.clone(),
                build_id: text(mapping.build_id)?.clone(),
                name: name.to_owned(),
            };
            Some((location.id, frame))
        })
        .collect()
}
