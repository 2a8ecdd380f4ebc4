//! Starts the profiler as a person would and collects what it says and writes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::fixture::scratch;
use super::recording::Recording;
use super::verdict::{Verdict, ensure};

/// No trial's recording takes longer than this, or something hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// The profiler itself.
pub fn sampler() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sampler"))
}

/// A recording to be made: `sampler record OPTIONS -o OUT [-- COMMAND]`.
pub struct Recorder {
    options: Vec<OsString>,
    command: Vec<OsString>,
    out: Option<PathBuf>,
    folder: TempDir,
}

impl Recorder {
    pub fn new(options: &[&str]) -> Verdict<Self> {
        Ok(Self {
            options: options.iter().map(OsString::from).collect(),
            command: Vec::new(),
            out: None,
            folder: scratch()?,
        })
    }

    /// Adds an option whose value is not plain text or known only now.
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.options.push(name.into());
        self.options.push(value.as_ref().to_owned());
        self
    }

    /// Adds an option that stands alone.
    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.into());
        self
    }

    /// Another output directory than a new one in this recorder's own folder.
    pub fn into(mut self, out: impl Into<PathBuf>) -> Self {
        self.out = Some(out.into());
        self
    }

    /// What stands after `--`.
    pub fn command(mut self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        self.command = vec![program.as_ref().to_owned()];
        self.command.extend(arguments.iter().map(OsString::from));
        self
    }

    /// The whole command line, the program first, and its output directory.
    pub fn words(&self) -> (Vec<OsString>, PathBuf) {
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| self.folder.path().join("out"));
        let mut words = vec![sampler().as_os_str().to_owned(), "record".into()];
        words.extend(self.options.iter().cloned());
        // What an earlier trial worked out would hide what this one is to show.
        let keeps = |option: &OsString| option == "--cache" || option == "--no-cache";
        if !self.options.iter().any(keeps) {
            words.push("--no-cache".into());
        }
        words.extend(["-o".into(), out.clone().into_os_string()]);
        if !self.command.is_empty() {
            words.push("--".into());
            words.extend(self.command.iter().cloned());
        }
        (words, out)
    }

    pub fn start(self) -> Verdict<Running> {
        self.start_under(&[])
    }

    /// Started by another program: `setpriv …`, `unshare …`.
    pub fn start_under(self, wrapper: &[&str]) -> Verdict<Running> {
        let (words, out) = self.words();
        let mut line: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
        line.extend(words);
        let child = Command::new(&line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(File::create(self.folder.path().join("stdout"))?)
            .stderr(File::create(self.folder.path().join("stderr"))?)
            .process_group(0)
            .spawn()?;
        Ok(Running {
            child,
            out,
            folder: Some(self.folder),
        })
    }

    pub fn run(self) -> Verdict<Finished> {
        self.start()?.finish()
    }
}

/// A profiler at work, in a process group of its own.
pub struct Running {
    child: Child,
    out: PathBuf,
    folder: Option<TempDir>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it holds perf events, and a moment longer, so that a signal
    /// meets a recording and not a start.
    pub fn wait_until_sampling(&mut self) -> Verdict {
        let end = Instant::now() + Duration::from_secs(30);
        let descriptors = format!("/proc/{}/fd", self.pid());
        loop {
            let samples = fs::read_dir(&descriptors).is_ok_and(|entries| {
                entries
                    .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
                    .any(|target| target == Path::new("anon_inode:[perf_event]"))
            });
            if samples {
                break;
            }
            ensure!(
                self.child.try_wait()?.is_none(),
                "the profiler ended before it sampled:\n{}",
                self.said()
            );
            ensure!(Instant::now() < end, "no perf event after 30 s");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(700));
        Ok(())
    }

    /// A signal to the profiler alone.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill only takes numbers; the child has not been waited for.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// A signal to everything in the foreground, as Ctrl-C sends it.
    pub fn signal_group(&self, signal: i32) {
        // SAFETY: as above; the group is the one that `start` made.
        unsafe { libc::kill(-(self.pid() as i32), signal) };
    }

    fn said(&self) -> String {
        let Some(folder) = &self.folder else {
            return String::new();
        };
        let bytes = fs::read(folder.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn finish(mut self) -> Verdict<Finished> {
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < end,
                "the profiler ran for more than {LIMIT:?}:\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        let folder = self.folder.take().ok_or("finished twice")?;
        Ok(Finished {
            status,
            stdout: fs::read(folder.path().join("stdout"))?,
            stderr: fs::read(folder.path().join("stderr"))?,
            out: self.out.clone(),
            _folder: folder,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal_group(libc::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// A profiler that has ended.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The output directory, which may not exist.
    pub out: PathBuf,
    /// Removed with everything in it when this is dropped.
    _folder: TempDir,
}

impl Finished {
    /// Its exit code, or a failure with everything it said.
    pub fn exits(&self, code: i32) -> Verdict<&Self> {
        ensure!(
            self.status.code() == Some(code),
            "{} instead of exit code {code}; it said:\n{}",
            self.status,
            self.talk()
        );
        Ok(self)
    }

    /// What it said to people on stderr.
    pub fn talk(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What it printed as its result.
    pub fn result(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless stderr names what a person has to look at.
    pub fn names(&self, what: &str) -> Verdict<&Self> {
        ensure!(
            self.talk().contains(what),
            "stderr does not name {what:?}:\n{}",
            self.talk()
        );
        Ok(self)
    }

    /// The files of a run that went well, read and checked.
    pub fn recording(&self) -> Verdict<Recording> {
        self.exits(0)?;
        Recording::open(&self.out)
    }
}

/// `sampler record OPTIONS -- FIXTURE ARGUMENTS`, read and checked.
pub fn record_fixture(
    options: &[&str],
    fixture: &'static str,
    arguments: &[&str],
) -> Verdict<(Finished, Recording)> {
    let program = super::fixture::fixture(fixture)?;
    let finished = Recorder::new(options)?.command(program, arguments).run()?;
    let recording = finished.recording()?;
    Ok((finished, recording))
}

/// `sampler record OPTIONS`, read and checked.
pub fn record(options: &[&str]) -> Verdict<(Finished, Recording)> {
    let finished = Recorder::new(options)?.run()?;
    let recording = finished.recording()?;
    Ok((finished, recording))
}
