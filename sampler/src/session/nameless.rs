//! Which processes keep the names of the code that they make to themselves.

use std::collections::BTreeMap;

use super::recording::Recording;
use super::runtimes::advice;
use crate::process::Refusal;

/// Processes of one kind with samples in code without names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nameless {
    /// The name of the one with the most samples.
    pub comm: String,
    /// Its pid.
    pub pid: u32,
    /// How many processes there are.
    pub processes: u64,
    /// Their samples with at least one such frame.
    pub samples: u64,
    /// What would give names.
    pub cause: Cause,
}

/// Why there are no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The runtime has written none, and what would make it.
    NotWritten(&'static str),
    /// There is a file, but it is not to be trusted.
    Refused(Refusal),
}

impl Recording {
    /// The processes with samples in code that they made and that nothing names:
    /// known runtimes, and those whose file was refused. One entry for each
    /// cause.
    pub fn nameless(&self) -> Vec<Nameless> {
        // Where none were wanted, none are missing.
        if self.names.is_none() {
            return Vec::new();
        }
        let mut by_cause: BTreeMap<Cause, (Nameless, u64)> = BTreeMap::new();
        for (position, process) in self.processes().iter().enumerate() {
            let refusal = self.jit_refusals.iter();
            let refusal = refusal
                .filter(|(program, _)| program.process == position)
                .max_by_key(|(program, _)| program.since_ns);
            let advice = process.exe.as_deref().and_then(advice);
            let cause = match (refusal, advice) {
                // One that an earlier process with that number left is none.
                (Some((_, Refusal::Stale)) | None, Some(advice)) => Cause::NotWritten(advice),
                (Some((_, refusal)), _) => Cause::Refused(*refusal),
                (None, None) => continue,
            };
            let samples = self.nameless_samples(position);
            if samples == 0 {
                continue;
            }
            let (entry, most) = by_cause.entry(cause).or_insert_with(|| {
                let entry = Nameless {
                    comm: String::new(),
                    pid: 0,
                    processes: 0,
                    samples: 0,
                    cause,
                };
                (entry, 0)
            });
            entry.processes += 1;
            entry.samples += samples;
            if samples > *most {
                *most = samples;
                entry.pid = process.pid;
                entry.comm = process.comm.to_string_lossy().into_owned();
            }
        }
        by_cause.into_values().map(|(entry, _)| entry).collect()
    }

    /// Samples of a process with a frame in code that it made and that no file
    /// was found for.
    fn nameless_samples(&self, position: usize) -> u64 {
        let traces = &self.attribution.traces;
        let is_nameless = |frame: &u32| {
            let frame = traces.frame_by_id(*frame);
            traces
                .maker(frame)
                .is_some_and(|(program, _)| !traces.has_source(program))
                && traces
                    .keys(frame)
                    .filter_map(|(place, address)| self.names.as_ref()?.get(&place, address))
                    .all(|named| named.is_empty())
        };
        let samples = &self.processes()[position].samples;
        samples
            .iter()
            .filter(|(key, _)| traces.stack_by_id(key.stack).iter().any(is_nameless))
            .map(|(_, ticks)| ticks)
            .sum()
    }
}
