//! From the locations of a profile to questions, and back to its lines.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{FilePlaces, Files, FoundFiles, parse_build_id};
use super::kernel::KernelNames;
use super::reason::{Named, Reason, Unnamed};
use crate::format::pprof::{Document, Location, Mapping, NewLines, SourceLine};
use crate::object::{BuildId, FileOffset, MappedRange};
use crate::symbolize::{self, Names, Place, Query, Symbolizer, Waiting, vdso_build_id};

/// How long naming may take. Whoever waits can end it.
const MAX_WAIT: Duration = Duration::from_secs(12 * 3600);
/// How long a file may be looked into, on a machine that may be a slow one.
const FILE_DEADLINE: Duration = Duration::from_secs(120);

/// Where names are looked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where files are looked for.
    pub files: FilePlaces,
    /// The symbols of the kernel that the profiles are of; this kernel's, where
    /// they are of this boot, if none are given.
    pub kallsyms: Option<PathBuf>,
    /// Is told how far naming is, while [`Lookup::finish`] waits for it.
    pub on_wait: fn(Waiting),
}

/// Asks for the names of any number of profiles.
#[derive(Debug)]
pub struct Lookup {
    resolver: Resolver,
    symbolizer: Symbolizer,
}

/// What was found for them.
#[derive(Debug)]
pub struct Answers {
    resolver: Resolver,
    names: Names,
}

impl Lookup {
    /// Starts to look for names in the background. It fails only if the system
    /// refuses a thread.
    pub fn start(options: Options) -> io::Result<Self> {
        let mut debug_dirs = options.files.searched.clone();
        debug_dirs.extend(options.files.system.iter().cloned());
        let servers = options.files.servers.clone();
        let files = Files::new(options.files);
        let mut symbolizer = symbolize::Options {
            debug_dirs,
            // Where their cache cannot be used, that has been said.
            debug_servers: servers.filter(|_| files.asks_servers()),
            max_wait: MAX_WAIT,
            on_wait: options.on_wait,
            file_deadline: FILE_DEADLINE,
            ..symbolize::Options::default()
        };
        let kernel = match options.kallsyms {
            Some(kallsyms) => {
                symbolizer.kallsyms = kallsyms;
                KernelNames::Brought
            }
            None => KernelNames::of_this_boot(),
        };
        Ok(Self {
            resolver: Resolver {
                files,
                kernel,
                vdso_build_id: vdso_build_id(),
            },
            symbolizer: Symbolizer::spawn(symbolizer)?,
        })
    }

    /// Asks for all locations without lines. Returns before there are answers.
    pub fn ask(&mut self, document: &Document<'_>) {
        let mut queries = Vec::new();
        self.resolver.each_unnamed(document, |_, asked| {
            queries.extend(asked.unwrap_or_default());
        });
        self.symbolizer.submit(queries);
    }

    /// Waits for the answers.
    pub fn finish(self) -> Answers {
        Answers {
            resolver: self.resolver,
            names: self.symbolizer.finish(),
        }
    }
}

impl Answers {
    /// The lines of a profile that was asked for, and what became of the rest.
    pub fn lines(&mut self, document: &Document<'_>) -> (NewLines, Named) {
        let mut lines = NewLines::new();
        let mut unnamed: BTreeMap<(Option<u32>, Reason), usize> = BTreeMap::new();
        let names = &self.names;
        self.resolver.each_unnamed(document, |at, asked| {
            let found = asked.and_then(|queries| {
                let mut found = queries.iter().filter_map(|query| found_lines(names, query));
                found.next().ok_or(Reason::NoSymbol)
            });
            match found {
                Ok(found) => {
                    lines.insert(at, found);
                }
                Err(reason) => {
                    let mapping = document.locations()[at].mapping;
                    *unnamed.entry((mapping, reason)).or_default() += 1;
                }
            }
        });
        let locations = document.locations();
        let before = locations
            .iter()
            .filter(|location| location.has_lines)
            .count();
        let outcome = Named {
            locations: locations.len(),
            before,
            after: before + lines.len(),
            unnamed: unnamed
                .into_iter()
                .map(|((mapping, reason), locations)| {
                    let mapping = mapping.map(|at| &document.mappings()[at as usize]);
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    Unnamed {
                        module: mapping.map_or_else(String::new, |mapping| text(mapping.file)),
                        build_id: mapping
                            .map(|mapping| text(mapping.build_id))
                            .filter(|build_id| !build_id.is_empty()),
                        locations,
                        reason,
                    }
                })
                .collect(),
        };
        (lines, outcome)
    }
}

/// The lines that answer a question, if there are any.
fn found_lines(names: &Names, query: &Query) -> Option<Vec<SourceLine>> {
    let found = names.get(&query.place.key(), query.address)?;
    let lines = found.iter().map(|frame| SourceLine {
        name: frame.name.clone(),
        system_name: frame.system_name.clone(),
        file: frame.source_file.clone(),
        line: frame.line,
        column: frame.column,
    });
    (!found.is_empty()).then(|| lines.collect())
}

/// Says what to ask for a location.
#[derive(Debug)]
struct Resolver {
    files: Files,
    kernel: KernelNames,
    vdso_build_id: Option<BuildId>,
}

/// What lies behind a mapping.
enum Target {
    Files(FoundFiles),
    Vdso,
    Kernel,
    None(Reason),
}

impl Resolver {
    /// Hands out each location without lines, by position, with the questions
    /// that may name it, best first, or the reason why there are none.
    fn each_unnamed(
        &mut self,
        document: &Document<'_>,
        mut take: impl FnMut(usize, Result<Vec<Query>, Reason>),
    ) {
        let kernel = self.kernel.admitted(document.comments());
        let mut targets: HashMap<u32, Target> = HashMap::new();
        for (at, location) in document.locations().iter().enumerate() {
            if location.has_lines {
                continue;
            }
            let asked = location.mapping.ok_or(Reason::NoFile).and_then(|number| {
                let mapping = &document.mappings()[number as usize];
                let target = targets
                    .entry(number)
                    .or_insert_with(|| self.target(mapping));
                match target {
                    Target::Kernel => {
                        let address = location.address;
                        let is_admitted = kernel.clone()?.contains(&address);
                        let place = Place::Kernel;
                        is_admitted
                            .then(|| vec![Query { place, address }])
                            .ok_or(Reason::KernelModule)
                    }
                    Target::Vdso => Ok(vec![Query {
                        place: Place::Vdso,
                        address: file_offset(mapping, location)?.0,
                    }]),
                    Target::Files(files) => in_files(files, mapping, location),
                    Target::None(reason) => Err(*reason),
                }
            });
            take(at, asked);
        }
    }

    fn target(&mut self, mapping: &Mapping<'_>) -> Target {
        if mapping.file.starts_with(b"[kernel.kallsyms]") {
            return Target::Kernel;
        }
        let is_vdso = mapping.file == b"[vdso]" || mapping.file.starts_with(b"linux-vdso");
        let path = Path::new(OsStr::from_bytes(mapping.file));
        let Some(build_id) = parse_build_id(mapping.build_id) else {
            return match mapping.file {
                // Memory without a file, and remarks.
                [] | [b'[', ..] | [b'/', b'/', ..] => Target::None(Reason::NoFile),
                _ if is_vdso => Target::None(Reason::NoBuildId),
                _ if !self.files.trusts_paths() || !mapping.build_id.is_empty() => {
                    Target::None(Reason::NoBuildId)
                }
                _ => match self.files.at_path(path) {
                    FoundFiles { whole: None, .. } => Target::None(Reason::NothingAtPath),
                    found => Target::Files(found),
                },
            };
        };
        if is_vdso && self.vdso_build_id.as_ref() == Some(&build_id) {
            return Target::Vdso;
        }
        let found = self.files.with_build_id(&build_id, path);
        match found {
            FoundFiles {
                whole: None,
                debug: None,
                is_other_at_path: true,
            } => Target::None(Reason::OtherAtPath),
            FoundFiles {
                whole: None,
                debug: None,
                ..
            } => Target::None(Reason::NotFound),
            found => Target::Files(found),
        }
    }
}

fn in_files(
    files: &FoundFiles,
    mapping: &Mapping<'_>,
    location: &Location,
) -> Result<Vec<Query>, Reason> {
    let offset = file_offset(mapping, location)?;
    let mut queries = Vec::new();
    let virtual_address = match (&files.whole, &files.debug) {
        (Some(whole), _) => {
            let address = whole.layout.virtual_address(offset);
            Some(address.ok_or(Reason::OutsideOfCode)?)
        }
        (None, Some(debug)) => {
            let mapped = MappedRange {
                start: mapping.start,
                limit: mapping.limit,
                file_offset: mapping.file_offset,
            };
            let layout = &debug.layout;
            let address = layout.virtual_address_of_mapped(mapped, location.address);
            Some(address.ok_or(Reason::LayoutUnknown)?)
        }
        (None, None) => None,
    };
    if let (Some(debug), Some(address)) = (&files.debug, virtual_address) {
        queries.push(Query {
            place: Place::DebugFile(debug.pin.clone()),
            address,
        });
    }
    if let Some(whole) = &files.whole {
        queries.push(Query {
            place: Place::File(whole.pin.clone()),
            address: offset.0,
        });
    }
    Ok(queries)
}

/// Where in its file a location lies.
fn file_offset(mapping: &Mapping<'_>, location: &Location) -> Result<FileOffset, Reason> {
    if !(mapping.start..mapping.limit).contains(&location.address) {
        return Err(Reason::OutsideOfMapping);
    }
    let offset = (location.address - mapping.start).checked_add(mapping.file_offset);
    offset.map(FileOffset).ok_or(Reason::OutsideOfMapping)
}
