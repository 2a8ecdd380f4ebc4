//! `sampler symbolize`: names for profiles that are written already.

mod report;
mod targets;

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::commands::cli::SymbolizeArgs;
use crate::commands::{Failure, naming_line, open_files};
use crate::format::pprof::{self, Document, Packing};
use crate::offline::{Answers, FilePlaces, Lookup, Options};
use crate::output::{Model, Rewritten};
use report::{Failed, Report, Rewrite};

/// Where the system keeps debug files.
const SYSTEM_DEBUG_DIR: &str = "/usr/lib/debug";

/// A profile in memory.
struct Loaded {
    message: Vec<u8>,
    packing: Packing,
    model: Model,
}

/// A profile to be named, and where the result goes.
struct Job<'a> {
    input: &'a Path,
    output: Rewritten,
}

/// Names each of the files; returns the exit code. What is wrong with one of them
/// costs the others nothing.
pub fn run(args: &SymbolizeArgs) -> Result<i32, Failure> {
    open_files::raise_open_file_limit();
    let options = options(args)?;
    let mut report = Report::new(args.json);
    let mut jobs = Vec::new();
    for (input, output) in targets::targets(args)? {
        if let Err(error) = input.metadata() {
            report.failed(input, Failure::Target(error.into()));
            continue;
        }
        match Rewritten::prepare(&output, args.in_place || args.force) {
            Ok(output) => jobs.push(Job { input, output }),
            Err(error) => report.failed(input, Failure::Output(error.into())),
        }
    }
    // Read twice, so that one profile at a time is in memory, and not all of them.
    let mut lookup = Lookup::start(options)
        .context("cannot start the symbolizer")
        .map_err(Failure::Host)?;
    jobs.retain(|job| match ask(job, &mut lookup) {
        Ok(()) => true,
        Err(failure) => {
            report.failed(job.input, failure);
            false
        }
    });
    let mut answers = lookup.finish();
    for job in &jobs {
        match rewrite(job, &mut answers, args.in_place) {
            Ok(rewritten) => report.rewritten(rewritten),
            Err(failure) => report.failed(job.input, failure),
        }
    }
    if let Err(error) = report.print(&mut io::stdout().lock()) {
        // The files are in place; a closed stdout is the reader's choice.
        tracing::debug!(%error, "the report could not be printed");
    }
    for Failed { file, failure } in report.failures() {
        tracing::error!("{file}: {failure}");
    }
    Ok(report.exit_code())
}

fn options(args: &SymbolizeArgs) -> Result<Options, Failure> {
    let missing = |option: &str, path: &Path, kind: &str| {
        let path = path.display();
        Failure::Target(anyhow!("`{option} {path}`: there is no such {kind}"))
    };
    if let Some(dir) = args.debug_dir.iter().find(|dir| !dir.is_dir()) {
        return Err(missing("--debug-dir", dir, "directory"));
    }
    if let Some(file) = args.kallsyms.iter().find(|file| !file.is_file()) {
        return Err(missing("--kallsyms", file, "file"));
    }
    Ok(Options {
        files: FilePlaces {
            searched: args.debug_dir.clone(),
            system: vec![PathBuf::from(SYSTEM_DEBUG_DIR)],
            servers: args.debug_servers.servers()?,
            trust_paths: args.trust_paths,
        },
        kallsyms: args.kallsyms.clone(),
        on_wait: naming_line::show,
    })
}

fn ask(job: &Job<'_>, lookup: &mut Lookup) -> Result<(), Failure> {
    let loaded = load(job.input)?;
    lookup.ask(&parse(&loaded.message)?);
    Ok(())
}

fn rewrite(job: &Job<'_>, answers: &mut Answers, in_place: bool) -> Result<Rewrite, Failure> {
    let loaded = load(job.input)?;
    let document = parse(&loaded.message)?;
    let (lines, named) = answers.lines(&document);
    let is_written = !in_place || !lines.is_empty();
    if is_written {
        let message = pprof::rename(&document, &lines).map_err(|e| Failure::Target(e.into()))?;
        // In place a file stays what it was; a new one is what its name says.
        let packing = if in_place {
            loaded.packing
        } else {
            Packing::Gzip
        };
        let written = job
            .output
            .write(loaded.model, |out| pprof::pack(&message, packing, out));
        written.map_err(|error| Failure::Output(error.into()))?;
    }
    Ok(Rewrite {
        file: job.input.to_owned(),
        output: is_written.then(|| job.output.path().to_owned()),
        named,
    })
}

/// Reads a file that may be anything.
fn load(path: &Path) -> Result<Loaded, Failure> {
    let open = || -> io::Result<(File, Model)> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let model = Model::of(&file)?;
        Ok((file, model))
    };
    let (file, model) = open().map_err(|error| Failure::Target(error.into()))?;
    let (message, packing) = pprof::unpack(file).map_err(not_a_profile)?;
    Ok(Loaded {
        message,
        packing,
        model,
    })
}

fn parse(message: &[u8]) -> Result<Document<'_>, Failure> {
    Document::parse(message).map_err(not_a_profile)
}

fn not_a_profile(error: pprof::ReadError) -> Failure {
    Failure::Target(anyhow::Error::new(error).context("this is no profile"))
}
