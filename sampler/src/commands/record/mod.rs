//! `sampler record`.

mod setup;
mod signals;
mod summary;

use std::io::{self, IsTerminal as _, Write};
use std::process::Child;

use anyhow::Context as _;

use super::cli::RecordArgs;
use super::{Failure, open_files};
use crate::format::safe::terminal;
use crate::output::{self, Index, OutputDirectory, OutputError, SummaryFile};
use crate::probe::host::preflight;
use crate::session::command;
use crate::session::{Cause, Ended, Progress, Recording, Running};
use signals::Signals;

/// Records and writes; returns the exit code.
pub fn run(args: &RecordArgs) -> Result<i32, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
        .map_err(Failure::Host)?;
    runtime.block_on(record(args))
}

async fn record(args: &RecordArgs) -> Result<i32, Failure> {
    // Everything that can be refused is refused before anything is begun.
    let mut options = setup::check(args)?;
    setup::check_targets(&options)?;
    let facts = preflight().map_err(|error| Failure::Host(error.into()))?;
    setup::check_host(&options, &facts)?;
    let directory = match &args.output {
        Some(path) => OutputDirectory::prepare(path, args.force),
        None => OutputDirectory::prepare_new(&setup::default_directory()),
    };
    let mut directory = directory?;
    let summary_file = args.summary.as_deref().map(SummaryFile::prepare);
    let summary_file = match summary_file.transpose() {
        Ok(file) => file,
        Err(error) => {
            directory.abandon();
            return Err(error.into());
        }
    };
    let is_ours = directory.is_ours() && summary_file.as_ref().is_none_or(SummaryFile::is_ours);
    options.overrides_permissions = !is_ours;
    let open_files = open_files::raise_open_file_limit();
    let mut signals = Signals::take()
        .context("cannot listen to signals")
        .map_err(Failure::Host)?;

    let mut running = match Running::start(options, &facts, open_files) {
        Ok(running) => running,
        Err(error) => {
            directory.abandon();
            return Err(setup::start_failure(error, &args.command));
        }
    };
    let mut progress = ProgressLine::new();
    let ended = running
        .run(signals.stop(running.command_pid()), |now| {
            progress.show(now);
        })
        .await;
    progress.clear();
    // Whatever went wrong while it ran, what was recorded is written.
    if let Err(error) = &ended {
        tracing::error!("the recording ended early: {error}");
    }
    let (recording, child) = running.finish();
    warn_of_losses(&recording);
    if let Some(verified) = &recording.verified {
        // To stderr whatever else is printed: it is about the profiler itself.
        let _reader_gone = write!(io::stderr().lock(), "{verified}");
    }

    let index = setup::index(&recording, &facts);
    let formats = args.formats();
    let written = output::write(&recording, args.group, &formats, index, &mut directory);
    let command_code = match (ended, child) {
        (Ok(Ended::Command(status)), _) => Some(command::exit_code(status)),
        // The recording's time was up before the command's.
        (_, Some(child)) => Some(wait_for(child, &mut signals).await?),
        (_, None) => None,
    };
    let reported = match written {
        Ok(index) => report(
            args,
            &index,
            &directory,
            summary_file,
            command_code.is_some(),
        ),
        Err(error) => {
            list_whole_files(&directory);
            Err(error)
        }
    };
    match (reported, command_code) {
        (Ok(()), code) => Ok(code.unwrap_or(0)),
        (Err(error), Some(code)) if code != 0 => {
            tracing::error!("{error}");
            Ok(code)
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Waits for the command, passing signals on to it.
async fn wait_for(child: Child, signals: &mut Signals) -> Result<i32, Failure> {
    let pid = child.id();
    let waiting = tokio::task::spawn_blocking(move || {
        let mut child = child;
        child.wait()
    });
    let status = tokio::select! {
        status = waiting => status,
        () = signals.stop(Some(pid)) => unreachable!("with a command, signals do not end the wait"),
    };
    status
        .map_err(io::Error::other)
        .and_then(|status| status)
        .map(command::exit_code)
        .context("cannot wait for the command")
        .map_err(Failure::Host)
}

fn warn_of_losses(recording: &Recording) {
    if recording.processes().is_empty() {
        tracing::warn!("no samples: what was asked for did not run on a CPU at any tick");
    }
    if recording.ledger.lost() > 0 {
        tracing::warn!(
            lost = recording.ledger.lost(),
            "samples were lost; the ledger says why"
        );
    }
    let symbols = recording.symbol_stats();
    if symbols.parser_deaths > 0 {
        tracing::warn!(
            deaths = symbols.parser_deaths,
            timed_out_files = symbols.timed_out_files,
            given_up_files = symbols.given_up_files,
            "files could not be parsed as they are: frames in them lack source lines, or names"
        );
    }
    if symbols.files_without_debug_info > 0 {
        tracing::warn!(
            files = symbols.files_without_debug_info,
            "debug information of files could not be used, or not all of it: frames in them lack source lines"
        );
    }
    if symbols.files_without_supplement > 0 {
        tracing::warn!(
            files = symbols.files_without_supplement,
            "debug information of files lies in part in supplements of dwz, which are not read: some inlined functions are shown as [inlined]"
        );
    }
    if symbols.kernel_names_hidden {
        tracing::warn!(
            "kernel frames have no names: needs CAP_SYSLOG and kernel.kptr_restrict below 2; `sampler doctor` says more"
        );
    }
    warn_of_nameless(recording);
    let outside = recording
        .processes()
        .iter()
        .filter(|process| process.outside)
        .count();
    if outside > 0 {
        tracing::warn!(
            "processes outside this pid namespace were sampled: their files are named cpu-outside-…, their user frames have no names"
        );
    }
}

/// Says of each runtime how its code would get names.
fn warn_of_nameless(recording: &Recording) {
    for nameless in recording.nameless() {
        let who = match nameless.processes {
            1 => format!("{} (pid {})", terminal(&nameless.comm), nameless.pid),
            many => format!(
                "{} (pid {}) and {} more like it",
                terminal(&nameless.comm),
                nameless.pid,
                many - 1
            ),
        };
        let samples = nameless.samples;
        match nameless.cause {
            Cause::NotWritten(advice) => tracing::warn!(
                "{who}: {samples} samples in code compiled at run time have no names; {advice}"
            ),
            Cause::Refused(refusal) => tracing::warn!(
                "{who}: {samples} samples in code compiled at run time have no names; there is a file with names, but {refusal}"
            ),
        }
    }
}

/// Prints the result to where it belongs. Fails if that is a file.
fn report(
    args: &RecordArgs,
    index: &Index,
    directory: &OutputDirectory,
    summary_file: Option<SummaryFile>,
    has_command: bool,
) -> Result<(), OutputError> {
    let path = directory.path().to_string_lossy();
    let json = || {
        let mut text = serde_json::to_string_pretty(index).unwrap_or_default();
        text.push('\n');
        text
    };
    let result = match summary_file {
        Some(file) => return file.write(json().as_bytes()),
        None if has_command => {
            let text = if args.json {
                json()
            } else {
                summary::text(index, &path, setup::columns(libc::STDERR_FILENO))
            };
            io::stderr().lock().write_all(text.as_bytes())
        }
        None => {
            let text = if args.json {
                json()
            } else {
                summary::text(index, &path, setup::columns(libc::STDOUT_FILENO))
            };
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
    };
    // The files are in place; a closed stdout is the reader's choice.
    if let Err(error) = result {
        tracing::debug!(%error, "the summary could not be printed");
    }
    Ok(())
}

/// What is left after a write that failed.
fn list_whole_files(directory: &OutputDirectory) {
    let written = directory.written();
    if written.is_empty() {
        tracing::error!("no file was written");
        return;
    }
    tracing::error!(
        "{} whole files are in {}:",
        written.len(),
        terminal(directory.path().to_string_lossy().as_ref()),
    );
    for name in written {
        tracing::error!("  {name}");
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::Output(error.into())
    }
}

/// One line on a terminal, rewritten in place.
struct ProgressLine {
    shown: bool,
    wanted: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self {
            shown: false,
            wanted: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, progress: Progress) {
        if !self.wanted {
            return;
        }
        let _terminal_gone = write!(
            io::stderr().lock(),
            "\r{:>4} s  {} samples of {} processes  (Ctrl-C ends)\x1b[K",
            progress.elapsed.as_secs(),
            progress.samples,
            progress.processes,
        );
        self.shown = true;
    }

    fn clear(&mut self) {
        if self.shown {
            let _terminal_gone = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
