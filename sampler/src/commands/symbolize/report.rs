//! What was named, for people and for programs.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commands::Failure;
use crate::format::safe;
use crate::offline::Named;

/// A file that was named.
#[derive(Debug)]
pub struct Rewrite {
    /// The profile.
    pub file: PathBuf,
    /// Where the result is; `None` if there was nothing to change in place.
    pub output: Option<PathBuf>,
    /// What became of its locations.
    pub named: Named,
}

/// A file that was not.
#[derive(Debug)]
pub struct Failed {
    /// Its path, made safe for a terminal.
    pub file: String,
    /// Why.
    pub failure: Failure,
}

/// All files of a run.
#[derive(Debug)]
pub struct Report {
    is_json: bool,
    rewritten: Vec<Rewrite>,
    failed: Vec<Failed>,
}

impl Report {
    /// An empty one.
    pub fn new(is_json: bool) -> Self {
        Self {
            is_json,
            rewritten: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// A file is done.
    pub fn rewritten(&mut self, rewrite: Rewrite) {
        self.rewritten.push(rewrite);
    }

    /// A file could not be done.
    pub fn failed(&mut self, file: &Path, failure: Failure) {
        let file = shown(file);
        self.failed.push(Failed { file, failure });
    }

    /// The files that could not be done.
    pub fn failures(&self) -> &[Failed] {
        &self.failed
    }

    /// 0, or the code of the first failure.
    pub fn exit_code(&self) -> i32 {
        let first = self.failed.first();
        first.map_or(0, |failed| failed.failure.exit_code())
    }

    /// Prints what was named.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if self.is_json {
            serde_json::to_writer_pretty(&mut *out, &self.json())?;
            out.write_all(b"\n")?;
        } else {
            out.write_all(self.text().as_bytes())?;
        }
        out.flush()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Rewrite {
            file,
            output,
            named,
        } in &self.rewritten
        {
            let result = match output {
                Some(output) if output == file => "rewritten in place".to_owned(),
                Some(output) => format!("written to {}", shown(output)),
                None => "left as it is".to_owned(),
            };
            let _infallible = writeln!(
                text,
                "{}: {} of {} locations named, {} before; {result}",
                shown(file),
                named.after,
                named.locations,
                named.before,
            );
            for unnamed in &named.unnamed {
                let module = match unnamed.module.as_str() {
                    "" => "[no mapping]".to_owned(),
                    module => safe::terminal(module),
                };
                let build_id = unnamed.build_id.as_ref();
                let build_id = build_id.map_or_else(String::new, |build_id| {
                    format!(" (build ID {})", safe::terminal(build_id))
                });
                let _infallible = writeln!(
                    text,
                    "{:>8} in {module}{build_id}: {}",
                    unnamed.locations, unnamed.reason,
                );
            }
        }
        text
    }

    fn json(&self) -> Json<'_> {
        Json {
            sampler: env!("CARGO_PKG_VERSION"),
            files: self.rewritten.iter().map(FileJson::new).collect(),
            failed: self
                .failed
                .iter()
                .map(|failed| FailedJson {
                    file: &failed.file,
                    error: failed.failure.to_string(),
                })
                .collect(),
        }
    }
}

fn shown(path: &Path) -> String {
    safe::terminal(path.to_string_lossy().as_ref())
}

/// The shape of `--json`: stable; later versions add fields and reasons only.
#[derive(Serialize)]
struct Json<'a> {
    sampler: &'static str,
    files: Vec<FileJson<'a>>,
    failed: Vec<FailedJson<'a>>,
}

#[derive(Serialize)]
struct FileJson<'a> {
    file: String,
    output: Option<String>,
    locations: usize,
    named_before: usize,
    named_after: usize,
    unnamed: Vec<UnnamedJson<'a>>,
}

#[derive(Serialize)]
struct UnnamedJson<'a> {
    module: &'a str,
    build_id: Option<&'a str>,
    locations: usize,
    reason: &'static str,
}

#[derive(Serialize)]
struct FailedJson<'a> {
    file: &'a str,
    error: String,
}

impl<'a> FileJson<'a> {
    fn new(rewrite: &'a Rewrite) -> Self {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let named = &rewrite.named;
        Self {
            file: path(&rewrite.file),
            output: rewrite.output.as_ref().map(path),
            locations: named.locations,
            named_before: named.before,
            named_after: named.after,
            unnamed: named
                .unnamed
                .iter()
                .map(|unnamed| UnnamedJson {
                    module: &unnamed.module,
                    build_id: unnamed.build_id.as_deref(),
                    locations: unnamed.locations,
                    reason: unnamed.reason.name(),
                })
                .collect(),
        }
    }
}
