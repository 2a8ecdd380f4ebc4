//! What names the code that processes make while they run.
//!
//! A file is looked for from the first sample in such code on, for as long as
//! the process runs that program and once more at its end, because runtimes write
//! it when they like. It is read when nothing more can come: after the process
//! ended, or at the end of the recording.

use std::collections::HashMap;
use std::sync::Arc;

use super::attribution::Attribution;
use super::traces::Program;
use crate::object::PinnedFile;
use crate::process::{
    AddressSpace, Backing, JitFolder, ProcessKey, ProcessTable, Refusal, monotonic_ns,
};
use crate::symbolize::{JitSource, Place, PlaceKey, Query};

/// Programs watched at once, where descriptors are plenty.
const MAX_WATCHED: u64 = 512;
/// What one program takes: its folder and two files.
const DESCRIPTORS_EACH: u64 = 3;
/// The longest time between two looks, in looks that might have been.
const MAX_PAUSE: u32 = 8;

/// How far a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It runs.
    Runs,
    /// It has ended; its last samples may not have been drained yet.
    Ended,
}

/// A program with samples in code that it made.
#[derive(Debug)]
struct Watched {
    program: Program,
    key: ProcessKey,
    state: State,
    folder: Option<JitFolder>,
    dump: Option<Arc<PinnedFile>>,
    map: Option<Arc<PinnedFile>>,
    /// Looks to let pass, and how many that were last time.
    pause: u32,
    last_pause: u32,
}

/// What became of the files of programs that made code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JitCounts {
    /// Programs with samples in such code.
    pub programs: u64,
    /// Those of them for which a file was found.
    pub programs_with_files: u64,
}

/// The programs that make code, and their files.
#[derive(Debug)]
pub struct JitCode {
    max_watched: usize,
    watched: Vec<Watched>,
    next_id: u64,
    counts: JitCounts,
    refusals: HashMap<Program, Refusal>,
}

impl JitCode {
    /// What it may hold open of so many descriptors.
    pub fn descriptors(open_file_limit: u64) -> u64 {
        (open_file_limit / 4).min(MAX_WATCHED * DESCRIPTORS_EACH)
    }

    /// None yet. It holds at most so many descriptors; code of programs beyond
    /// that stays without names.
    pub fn new(descriptors: u64) -> Self {
        Self {
            max_watched: (descriptors / DESCRIPTORS_EACH) as usize,
            watched: Vec::new(),
            next_id: 0,
            counts: JitCounts::default(),
            refusals: HashMap::new(),
        }
    }

    /// Looks for files that have come, and returns the questions that can be
    /// asked for good. Call it after each drain.
    pub fn look(&mut self, attribution: &mut Attribution, table: &ProcessTable) -> Vec<Query> {
        self.watch_new(attribution);
        let mut done = Vec::new();
        let watched = std::mem::take(&mut self.watched);
        for mut watched in watched {
            if watched.state == State::Ended {
                done.push(watched);
                continue;
            }
            if watched.runs(table) {
                if watched.pause > 0 {
                    watched.pause -= 1;
                } else {
                    self.look_at(&mut watched, table);
                    watched.last_pause = (2 * watched.last_pause).clamp(1, MAX_PAUSE);
                    watched.pause = watched.last_pause;
                }
            } else {
                self.look_at_last_map(&mut watched, table);
                watched.state = State::Ended;
            }
            self.watched.push(watched);
        }
        self.ask(done, attribution)
    }

    /// Looks for the last time, and returns the questions for all that is left.
    pub fn finish(&mut self, attribution: &mut Attribution, table: &ProcessTable) -> Vec<Query> {
        self.watch_new(attribution);
        let mut watched = std::mem::take(&mut self.watched);
        for watched in &mut watched {
            if watched.runs(table) {
                self.look_at(watched, table);
            } else if watched.state == State::Runs {
                self.look_at_last_map(watched, table);
            }
        }
        self.ask(watched, attribution)
    }

    /// What became of the files.
    pub fn counts(&self) -> JitCounts {
        self.counts
    }

    /// Why files were not read, of the programs that have none.
    pub fn into_refusals(self) -> HashMap<Program, Refusal> {
        self.refusals
    }

    fn watch_new(&mut self, attribution: &mut Attribution) {
        for program in attribution.traces.take_new_makers() {
            let key = attribution.processes()[program.process].key;
            self.counts.programs += 1;
            if let Some(key) = key
                && self.watched.len() < self.max_watched
            {
                self.watched.push(Watched {
                    program,
                    key,
                    state: State::Runs,
                    folder: None,
                    dump: None,
                    map: None,
                    pause: 0,
                    last_pause: 0,
                });
            }
        }
    }

    fn look_at(&mut self, watched: &mut Watched, table: &ProcessTable) {
        if watched.folder.is_none() {
            watched.folder = table.jit_folder(watched.key, watched.program.since_ns);
        }
        let Some(folder) = &watched.folder else {
            return;
        };
        if watched.dump.is_none() {
            let space = table.address_space(watched.key, monotonic_ns());
            let found = mapped_dump(&space, folder.namespace_pid());
            let checked = found.map(|dump| folder.check_dump(&dump).map(|()| dump));
            watched.dump = self.note(watched.program, checked.transpose());
        }
        self.look_at_map(watched);
    }

    /// The one that a program wrote as it ended; after an exec it may already be
    /// the next program's.
    fn look_at_last_map(&mut self, watched: &mut Watched, table: &ProcessTable) {
        let has_ended = table
            .process(watched.key)
            .is_none_or(|process| process.exited_ns().is_some());
        if has_ended {
            self.look_at_map(watched);
        }
    }

    fn look_at_map(&mut self, watched: &mut Watched) {
        let Some(folder) = &watched.folder else {
            return;
        };
        let found = self.note(watched.program, folder.perf_map());
        watched.map = found.or(watched.map.take());
    }

    fn note(
        &mut self,
        program: Program,
        found: Result<Option<Arc<PinnedFile>>, Refusal>,
    ) -> Option<Arc<PinnedFile>> {
        found.unwrap_or_else(|refusal| {
            self.refusals.insert(program, refusal);
            None
        })
    }

    /// The questions for all frames in the code of programs that have a file.
    fn ask(&mut self, of: Vec<Watched>, attribution: &mut Attribution) -> Vec<Query> {
        let mut sources = HashMap::new();
        for Watched {
            program, dump, map, ..
        } in of
        {
            if dump.is_none() && map.is_none() {
                continue;
            }
            let id = self.next_id;
            self.next_id += 1;
            self.counts.programs_with_files += 1;
            self.refusals.remove(&program);
            attribution.traces.set_source(program, PlaceKey::Jit(id));
            sources.insert(program, Arc::new(JitSource { id, dump, map }));
        }
        if sources.is_empty() {
            return Vec::new();
        }
        attribution
            .traces
            .made()
            .filter_map(|(program, address)| {
                let source = sources.get(&program)?;
                Some(Query {
                    place: Place::Jit(Arc::clone(source)),
                    address,
                })
            })
            .collect()
    }
}

impl Watched {
    /// Whether the process still runs that program.
    fn runs(&self, table: &ProcessTable) -> bool {
        let process = table.process(self.key);
        process.is_some_and(|process| process.exited_ns().is_none())
            && table.address_space(self.key, monotonic_ns()).since_ns == self.program.since_ns
    }
}

/// The jitdump of a process with that number: runtimes map a page of it as code
/// for profilers to see.
fn mapped_dump(space: &AddressSpace, namespace_pid: u32) -> Option<Arc<PinnedFile>> {
    let name = format!("jit-{namespace_pid}.dump");
    space.mappings().find_map(|mapping| match &mapping.backing {
        Backing::File(file) if file.path.file_name().is_some_and(|found| *found == *name) => {
            Some(Arc::clone(file))
        }
        _ => None,
    })
}
