//! From attributed samples and found names to the profile of one file.

use ahash::{HashMap, HashMapExt as _};

use super::attribution::SampledProcess;
use super::ledger::Completeness;
use super::traces::{FramePlace, Traces};
use crate::process::{Backing, Mapping};
use crate::profile::{
    Function, Header, Labels, Line, Location, LocationId, Mapping as ProfileMapping, MappingId,
    Profile,
};
use crate::symbolize::{Named, Names};

/// Frames with and without a name; each counts once for each sample it is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// With a name.
    pub named: u64,
    /// With an address and a module at best.
    pub unnamed: u64,
}

/// A profile and what can be said of it beside.
#[derive(Debug)]
pub struct GroupProfile {
    /// The profile, ready to be written.
    pub profile: Profile,
    /// Its samples.
    pub samples: u64,
    /// How complete their stacks are.
    pub completeness: Completeness,
    /// How many of their frames are named.
    pub frames: FrameCounts,
}

/// The build IDs of what is no file, in hexadecimal, where they are known.
#[derive(Debug, Clone, Default)]
pub struct ModuleIds {
    /// The kernel's.
    pub kernel: Option<String>,
    /// The vDSO's, of this machine's own word size.
    pub vdso: Option<String>,
}

/// Builds profiles from a recording.
#[derive(Debug)]
pub struct ProfileBuilder<'a> {
    traces: &'a Traces,
    names: Option<&'a Names>,
    period_ns: i64,
    build_ids: ModuleIds,
    header: Header,
}

/// What the building of one profile remembers.
struct Building<'a> {
    from: &'a ProfileBuilder<'a>,
    processes: &'a [&'a SampledProcess],
    profile: Profile,
    /// By place: its mapping, and what to add to an offset in it.
    mappings: HashMap<u32, (MappingId, u64)>,
    /// By frame: its location, and whether it has a name; `None` for a frame
    /// that stands for missing ones.
    locations: HashMap<u32, (LocationId, Option<bool>)>,
}

impl<'a> ProfileBuilder<'a> {
    /// One for all files of a recording; `names` is `None` if nobody looked for
    /// any.
    pub fn new(
        traces: &'a Traces,
        names: Option<&'a Names>,
        period_ns: i64,
        build_ids: ModuleIds,
        header: Header,
    ) -> Self {
        Self {
            traces,
            names,
            period_ns,
            build_ids,
            header,
        }
    }

    /// The profile of these processes.
    pub fn build(&self, processes: &[&SampledProcess]) -> GroupProfile {
        let mut building = Building {
            from: self,
            processes,
            profile: Profile::new(self.header.clone()),
            mappings: HashMap::new(),
            locations: HashMap::new(),
        };
        if self.names.is_none() {
            building.profile.leave_unnamed();
        }
        building.main_binary_first();
        let mut samples = 0;
        let mut completeness = Completeness::default();
        let mut frames = FrameCounts::default();
        let mut stack = Vec::new();
        for process in processes {
            completeness.merge(&process.completeness);
            let comm = process.comm.to_string_lossy();
            for (key, ticks) in &process.samples {
                stack.clear();
                for frame in self.traces.stack_by_id(key.stack) {
                    let (location, named) = building.location(*frame);
                    stack.push(location);
                    match named {
                        Some(true) => frames.named += ticks,
                        Some(false) => frames.unnamed += ticks,
                        None => {}
                    }
                }
                samples += ticks;
                let labels = Labels {
                    strings: vec![
                        ("comm", comm.clone().into_owned()),
                        (
                            "thread_name",
                            key.thread_name.to_string_lossy().into_owned(),
                        ),
                    ],
                    numbers: vec![("pid", i64::from(process.pid)), ("tid", i64::from(key.tid))],
                };
                let ticks = *ticks as i64;
                building
                    .profile
                    .add_sample(&stack, labels, &[ticks, ticks * self.period_ns]);
            }
        }
        GroupProfile {
            profile: building.profile,
            samples,
            completeness,
            frames,
        }
    }
}

impl Building<'_> {
    /// pprof takes the first mapping for the program itself.
    fn main_binary_first(&mut self) {
        let processes = self.processes;
        let Some(exe) = processes.iter().find_map(|process| process.exe.as_deref()) else {
            return;
        };
        let traces = self.from.traces;
        let main = processes
            .iter()
            .flat_map(|process| process.samples.keys())
            .flat_map(|key| traces.stack_by_id(key.stack))
            .map(|frame| traces.frame_by_id(*frame).place)
            .find(|place| match traces.place(*place) {
                FramePlace::Mapped { mapping, .. } => mapping.name() == exe,
                _ => false,
            });
        if let Some(place) = main {
            self.mapping(place);
        }
    }

    fn location(&mut self, frame: u32) -> (LocationId, Option<bool>) {
        if let Some(known) = self.locations.get(&frame) {
            return *known;
        }
        let traces = self.from.traces;
        let at = traces.frame_by_id(frame);
        let (mapping, start) = self.mapping(at.place);
        let (lines, named) = if let FramePlace::Marker(marker) = traces.place(at.place) {
            let text = marker.text();
            let function = self.profile.function(Function {
                name: text.clone(),
                system_name: text,
                file: String::new(),
            });
            let line = Line {
                function,
                line: 0,
                column: 0,
            };
            (vec![line], None)
        } else {
            let answers = self.from.names;
            let found = traces
                .keys(at)
                .filter_map(|(place, address)| answers?.get(&place, address))
                .find(|named| !named.is_empty());
            let lines = found.map_or_else(Vec::new, |named| self.lines(named));
            let named = !lines.is_empty();
            (lines, Some(named))
        };
        let location = self.profile.location(Location {
            mapping,
            address: start.wrapping_add(at.offset),
            lines,
        });
        self.locations.insert(frame, (location, named));
        (location, named)
    }

    fn lines(&mut self, named: &Named) -> Vec<Line> {
        named
            .iter()
            .map(|frame| Line {
                function: self.profile.function(Function {
                    name: frame.name.clone(),
                    system_name: frame.system_name.clone(),
                    file: frame.source_file.clone(),
                }),
                line: frame.line,
                column: frame.column,
            })
            .collect()
    }

    /// The mapping of a place and where it starts: in the first of the processes
    /// that has it.
    fn mapping(&mut self, place: u32) -> (MappingId, u64) {
        if let Some(known) = self.mappings.get(&place) {
            return *known;
        }
        let mut start = 0;
        let mapping = match self.from.traces.place(place) {
            FramePlace::Kernel => ProfileMapping {
                // The upper half of the address space, on every architecture.
                start: 1 << 63,
                limit: u64::MAX,
                file_offset: 0,
                file: "[kernel.kallsyms]".to_owned(),
                build_id: self.from.build_ids.kernel.clone(),
            },
            FramePlace::Mapped {
                mapping: first_seen,
                ..
            } => {
                let mut located = self.processes.iter().map(|process| &process.located);
                let mapping = located.find_map(|located| located.mapping(place));
                let mapping = mapping.unwrap_or(first_seen);
                start = mapping.start;
                of_process(mapping, &self.from.build_ids)
            }
            FramePlace::Unmapped => nowhere("[unmapped]"),
            FramePlace::Marker(_) => nowhere("[sampler]"),
        };
        let found = (self.profile.mapping(mapping), start);
        self.mappings.insert(place, found);
        found
    }
}

fn of_process(mapping: &Mapping, build_ids: &ModuleIds) -> ProfileMapping {
    ProfileMapping {
        start: mapping.start,
        limit: mapping.end,
        file_offset: match &mapping.backing {
            Backing::Anonymous { .. } => 0,
            _ => mapping.file_offset,
        },
        file: mapping.name().into_owned(),
        build_id: match &mapping.backing {
            Backing::File(file) => file.build_id.as_ref().map(ToString::to_string),
            Backing::Unpinned { build_id, .. } => build_id.as_ref().map(ToString::to_string),
            Backing::Vdso if mapping.is_wide() => build_ids.vdso.clone(),
            _ => None,
        },
    }
}

/// A mapping for locations that have none: readers want one for each.
fn nowhere(name: &str) -> ProfileMapping {
    ProfileMapping {
        start: 0,
        limit: 0,
        file_offset: 0,
        file: name.to_owned(),
        build_id: None,
    }
}
