//! Thousands of processes over hundreds of files, each of which wakes up now and
//! then and does little.

use crate::project;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const MEMBER: &str = include_str!("member.c");
/// Of so many files one is a copy of that program.
const OF_FILES: usize = 20;

/// What a process of the crowd is a copy of.
struct Kind {
    /// Its name, and that of its copies.
    name: &'static str,
    /// Where distributions have it.
    path: &'static str,
    /// Its arguments; `PERIOD` stands for the time between two wake-ups, in
    /// seconds, `FIFO` for a pipe that stays empty.
    arguments: &'static [&'static str],
    /// Copies of it in `OF_FILES` files.
    share: usize,
}

/// Programs that wait and work by themselves; what is missing here is made up
/// for by copies of our own.
const KINDS: &[Kind] = &[
    Kind {
        name: "bash",
        path: "/bin/bash",
        arguments: &[
            "-c",
            "exec 3<>FIFO; while :; do read -t PERIOD -u 3; for ((i = 0; i < 200; i++)); do :; done; done",
        ],
        share: 5,
    },
    Kind {
        name: "perl",
        path: "/usr/bin/perl",
        arguments: &[
            "-e",
            "for (;;) { my $x = 0; $x += $_ for 1 .. 2000; select undef, undef, undef, PERIOD }",
        ],
        share: 3,
    },
    Kind {
        name: "python3",
        path: "/usr/bin/python3",
        arguments: &[
            "-Sc",
            "import time\nwhile True:\n  sum(range(4000))\n  time.sleep(PERIOD)",
        ],
        share: 2,
    },
];

/// How many, of what.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Processes in all.
    pub processes: usize,
    /// Different files that they run.
    pub files: usize,
    /// Seconds between two wake-ups of each.
    pub period_s: f64,
}

/// The processes; ended when dropped.
pub struct Crowd {
    children: Vec<Child>,
    /// Different files that they run.
    pub files: usize,
    /// What could not be started for want of a program.
    pub missing: Vec<&'static str>,
}

impl Crowd {
    /// Copies the files into `folder` and starts a process for each place.
    pub fn start(size: Size, folder: &Path) -> Result<Self> {
        let mut crowd = Self {
            children: Vec::new(),
            files: 0,
            missing: Vec::new(),
        };
        let fifo = folder.join("fifo");
        project::run(Command::new("mkfifo").arg(&fifo))?;
        let sources = crowd.sources(size, folder, &fifo)?;
        let mut commands = Vec::new();
        for number in 0..size.files {
            let source = &sources[number % sources.len()];
            let copy = folder.join(format!("{}-{number}", source.name));
            fs::copy(&source.path, &copy).with_context(|| source.path.display().to_string())?;
            commands.push((copy, source));
        }
        crowd.files = commands.len();
        crowd.start_compilers(folder);
        for number in crowd.children.len()..size.processes {
            let (file, source) = &commands[number % commands.len()];
            let mut command = Command::new(file);
            command.args(&source.arguments);
            crowd.spawn(command).context(source.name)?;
        }
        Ok(crowd)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Fails if many have ended: then it was no crowd.
    pub fn check(&mut self) -> Result<()> {
        let ended = self
            .children
            .iter_mut()
            .filter_map(|child| child.try_wait().ok().flatten())
            .count();
        ensure!(
            ended * 50 <= self.len(),
            "{ended} of {} processes have ended",
            self.len()
        );
        Ok(())
    }

    /// What copies are made of, each as often as its share of `OF_FILES` says.
    fn sources(&mut self, size: Size, folder: &Path, fifo: &Path) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for kind in KINDS {
            let path = fs::canonicalize(kind.path).unwrap_or_default();
            if !is_elf(&path) {
                self.missing.push(kind.name);
                continue;
            }
            let fill = |argument: &&str| {
                argument
                    .replace("PERIOD", &size.period_s.to_string())
                    .replace("FIFO", &fifo.to_string_lossy())
            };
            for _ in 0..kind.share {
                sources.push(Source {
                    name: kind.name,
                    path: path.clone(),
                    arguments: kind.arguments.iter().map(fill).collect(),
                });
            }
        }
        let source = folder.join("member.c");
        let program = folder.join("member");
        fs::write(&source, MEMBER)?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"])
            .arg("-o")
            .args([&program, &source]);
        project::run(&mut compile).context("the crowd needs a C compiler")?;
        while sources.len() < OF_FILES {
            sources.push(Source {
                name: "member",
                path: program.clone(),
                arguments: vec![((size.period_s * 1e3) as u64).to_string()],
            });
        }
        Ok(sources)
    }

    /// One `node`, and one `rustc` after the other, with pauses: the largest
    /// files that a host usually runs.
    fn start_compilers(&mut self, folder: &Path) {
        let mut node = Command::new("node");
        node.args([
            "-e",
            "setInterval(() => { for (let i = 0; i < 20; i++) JSON.stringify({ list: [...Array(500).keys()] }) }, 100)",
        ]);
        let mut rustc = Command::new("sh");
        rustc
            .arg("-c")
            .arg("echo 'pub fn f(x: &[u64]) -> u64 { x.iter().map(|x| x * 3).sum() }' > work.rs; while :; do rustc --crate-type lib -O work.rs; sleep 1; done")
            .current_dir(folder);
        for (name, command) in [("node", node), ("rustc", rustc)] {
            let is_there = project::output(Command::new(name).arg("--version")).is_ok();
            if !is_there || self.spawn(command).is_err() {
                self.missing.push(name);
            }
        }
    }

    fn spawn(&mut self, mut command: Command) -> Result<()> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        // SAFETY: prctl is async-signal-safe and touches the child alone.
        unsafe {
            command.pre_exec(|| {
                // Whatever becomes of this task, nothing runs on without it.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        self.children.push(command.spawn()?);
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Ok(None) = child.try_wait() {
                // SAFETY: no memory is passed. The child leads a group of its own
                // and is not waited for, so the number cannot be another's.
                unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
            }
        }
        for child in &mut self.children {
            // Errors: it was waited for already.
            let _ = child.wait();
        }
    }
}

/// What is copied and how its copies are called.
struct Source {
    name: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
}

/// Whether a file is a program and not a script that starts one.
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok_and(|()| magic == *b"\x7fELF")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn kinds_leave_room_for_copies_of_our_own() {
        let shares: usize = KINDS.iter().map(|kind| kind.share).sum();
        assert!(shares < OF_FILES, "{shares}");
    }

    #[test]
    fn a_crowd_lives_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let size = Size {
            processes: 24,
            files: OF_FILES,
            period_s: 0.5,
        };
        let mut crowd = Crowd::start(size, folder.path()).unwrap();
        assert!(crowd.len() >= 24 && crowd.files == OF_FILES);
        std::thread::sleep(std::time::Duration::from_millis(300));
        crowd.check().unwrap();
        let pids: Vec<u32> = crowd.children.iter().map(Child::id).collect();
        drop(crowd);
        for pid in pids {
            // SAFETY: no memory is passed, and signal 0 does nothing.
            let gone = unsafe { libc::kill(pid.cast_signed(), 0) } != 0;
            assert!(gone, "{pid} lives");
        }
    }
}
