//! Stopped programs: our walk and gdb's, frame by frame.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::tool::{Outcome, Stop, fail, run, trial};
use crate::walker::{Walk, walk};

pub const DEEP: &str = include_str!("programs/deep.c");
const SIGNAL: &str = include_str!("programs/signal.c");
const GAP: &str = include_str!("programs/gap.c");
const GAP_UNDESCRIBED: &str = include_str!("programs/gap_undescribed.c");
const CLOCKS: &str = include_str!("programs/clocks.c");
const CHOSEN: &str = include_str!("programs/chosen.c");
const CHOOSER: &str = include_str!("programs/chooser.c");

const PYTHON: &str = "
def f(n):
    return sum(i * i for i in range(n)) if n < 40 else f(n - 1) + f(n - 2)
while True: f(48)
";
const PERL: &str = "sub f { my $n = shift; $n < 2 ? 1 : f($n-1) + f($n-2) } f(25) while 1";
const SHELL: &str = "f() { case $1 in 0) i=0; while [ $i -lt 99 ]; do i=$((i+1)); done;; \
                     *) f $(($1-1));; esac; }; while :; do f 9; done";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("gdb agrees: frames of many shapes", || {
            compare(&mut compiled(&[("deep.c", DEEP, &[])], &[])?, 3, 55)
        }),
        trial("gdb agrees: a signal on an alternate stack", || {
            compare(&mut compiled(&[("signal.c", SIGNAL, &[])], &[])?, 3, 8)
        }),
        trial(
            "gdb agrees: functions without rows that keep a frame pointer",
            gaps,
        ),
        trial(
            "gdb agrees: a symbol being looked up for a first call",
            resolver,
        ),
        trial("gdb agrees: python3", || {
            compare(&mut program("python3", &["-c", PYTHON])?, 5, 8)
        }),
        trial("gdb agrees: perl", || {
            compare(&mut program("perl", &["-e", PERL])?, 10, 4)
        }),
        trial("gdb agrees: bash", || {
            compare(&mut program("bash", &["-c", SHELL])?, 10, 4)
        }),
        trial("gdb agrees: dash", || {
            compare(&mut program("dash", &["-c", SHELL])?, 10, 4)
        }),
        trial("gdb agrees: openssl's assembly", openssl),
        trial("gdb agrees: clocks in the vDSO", || {
            compare(&mut compiled(&[("clocks.c", CLOCKS, &[])], &[])?, 6, 6)
        }),
    ]
}

/// A running program, killed when it is no longer looked at.
pub struct Running {
    child: Child,
    _directory: Option<TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn start(command: &mut Command, directory: Option<TempDir>) -> Result<Self, Stop> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Stop::Missing(error.to_string()))?;
        Ok(Self {
            child,
            _directory: directory,
        })
    }

    pub fn pid(&self) -> libc::pid_t {
        self.child.id() as libc::pid_t
    }

    pub fn signal(&self, number: libc::c_int) {
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(self.pid(), number) };
    }
}

fn program(name: &str, arguments: &[&str]) -> Result<Running, Stop> {
    Running::start(Command::new(name).args(arguments), None)
}

/// A C program of these files, each with arguments of its own.
fn compiled(files: &[(&str, &str, &[&str])], linking: &[&str]) -> Result<Running, Stop> {
    let directory = TempDir::new()?;
    let program = link(&directory, "program", files, linking)?;
    Running::start(&mut Command::new(program), Some(directory))
}

/// Compiles each file and links them.
fn link(
    directory: &TempDir,
    name: &str,
    files: &[(&str, &str, &[&str])],
    linking: &[&str],
) -> Result<PathBuf, Stop> {
    let linked = directory.path().join(name);
    let mut link = vec!["-o".into(), linked.clone()];
    for (name, source, arguments) in files {
        let path = directory.path().join(name);
        let object = path.with_extension("o");
        std::fs::write(&path, source)?;
        let mut compile: Vec<PathBuf> = ["-O2", "-fomit-frame-pointer", "-c", "-o"]
            .map(PathBuf::from)
            .into();
        compile.extend([object.clone(), path]);
        compile.extend(arguments.iter().map(PathBuf::from));
        run("gcc", compile)?;
        link.push(object);
    }
    link.extend(linking.iter().map(PathBuf::from));
    run("gcc", link)?;
    Ok(linked)
}

fn resolver() -> Outcome {
    let directory = TempDir::new()?;
    let library = link(
        &directory,
        "libchosen.so",
        &[("chosen.c", CHOSEN, &["-fPIC"])],
        &["-shared"],
    )?;
    let here = format!("-Wl,-rpath,{}", directory.path().display());
    let library = library.display().to_string();
    let program = link(
        &directory,
        "program",
        &[("chooser.c", CHOOSER, &[])],
        &[&library, &here, "-Wl,-z,lazy"],
    )?;
    let mut running = Running::start(&mut Command::new(program), Some(directory))?;
    compare(&mut running, 2, 8)
}

fn gaps() -> Outcome {
    let without_rows: &[&str] = &[
        "-fno-omit-frame-pointer",
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
    ];
    let files = [
        ("gap.c", GAP, &[][..]),
        ("gap_undescribed.c", GAP_UNDESCRIBED, without_rows),
    ];
    compare(&mut compiled(&files, &[])?, 3, 6)
}

fn openssl() -> Outcome {
    for what in ["rsa2048", "sha256", "aes-256-cbc", "ecdsap256", "sha512"] {
        let arguments = ["speed", "-seconds", "60", what];
        compare(&mut program("openssl", &arguments)?, 6, 6)?;
    }
    Ok(())
}

/// Stops the program at `stops` moments: each time our walk must be gdb's, and
/// once at least have `frames` frames.
fn compare(running: &mut Running, stops: usize, frames: usize) -> Outcome {
    run("gdb", ["--version"])?;
    sleep(Duration::from_millis(300));
    let mut deepest = 0;
    for stop in 0..stops {
        running.signal(libc::SIGSTOP);
        sleep(Duration::from_millis(20));
        if let Some(status) = running.child.try_wait()? {
            return fail(format!("the program has ended: {status}"));
        }
        let theirs = gdb(running.pid())?;
        let ours = walk(running.pid())?;
        running.signal(libc::SIGCONT);
        agree(stop, &ours, &theirs)?;
        deepest = deepest.max(ours.frames.len());
        sleep(Duration::from_millis(7 + 13 * stop as u64));
    }
    if deepest < frames {
        return fail(format!("no stack of {frames} frames, at most {deepest}"));
    }
    Ok(())
}

/// What gdb prints of each frame that is on the stack: no inlined call, and no
/// frame that it deduces from a jump.
const FRAMES: &str = r#"python
frame = gdb.newest_frame()
while frame:
    if frame.type() == gdb.SIGTRAMP_FRAME:
        print("frame: signal")
    elif frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
        print("frame: %x" % frame.pc())
    if frame.unwind_stop_reason() > gdb.FRAME_UNWIND_OUTERMOST:
        break
    frame = frame.older()
"#;

/// The addresses of gdb's frames; none for the one between a signal's handler
/// and what it interrupted.
fn gdb(pid: libc::pid_t) -> Result<Vec<Option<u64>>, Stop> {
    let script = tempfile::Builder::new().suffix(".gdb").tempfile()?;
    std::fs::write(script.path(), FRAMES)?;
    let (script, attach) = (script.path().display().to_string(), pid.to_string());
    let settings = ["set debuginfod enabled off", "set backtrace past-main on"];
    let mut arguments = vec!["-nx", "-batch"];
    for setting in settings {
        arguments.extend(["-ex", setting]);
    }
    arguments.extend(["-p", &attach, "-x", &script]);
    let text = run("gdb", arguments)?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("frame: "))
        .map(|address| u64::from_str_radix(address, 16).ok())
        .collect())
}

fn agree(stop: usize, ours: &Walk, theirs: &[Option<u64>]) -> Outcome {
    let same = ours.frames.len() == theirs.len()
        && ours
            .frames
            .iter()
            .zip(theirs)
            .all(|(ours, theirs)| theirs.is_none_or(|theirs| *ours == theirs));
    if same {
        return Ok(());
    }
    let mut table = format!(
        "stop {stop}: the walks differ; ours ended by {:?}\n",
        ours.end
    );
    for at in 0..ours.frames.len().max(theirs.len()) {
        let ours_here = ours.frames.get(at).copied().unwrap_or_default();
        let theirs_here = theirs.get(at).copied().flatten().unwrap_or_default();
        let rule = ours.rules.get(at).map_or("", String::as_str);
        let _ = writeln!(table, "{at:4} {ours_here:16x} {theirs_here:16x} {rule}");
    }
    fail(table)
}
