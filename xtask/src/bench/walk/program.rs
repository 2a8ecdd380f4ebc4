//! The program whose stack is walked: 44 frames deep, on every CPU all the time.

use crate::project;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Frames of a stack: the links, `main`, two of libc and `_start`.
pub const FRAMES: u32 = LINKS + 4;
const LINKS: u32 = 40;
/// Functions that are never called between one link and the next in `big`.
const FILLERS: u32 = 500;
const FRAME: &str = include_str!("deep.c");
/// The beginning of the names of all its functions but `main`.
pub const LINK_PREFIX: &str = "link_";

/// Whether a build keeps frame pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramePointers {
    /// As the kernel's own walk needs them.
    Kept,
    /// As distributions build.
    Omitted,
}

/// What is walked, and beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// In tables and on the command line.
    pub name: &'static str,
    /// Whether the links lie among 20,000 other functions: 180,000 rows of
    /// unwind table in place of a few hundred.
    big: bool,
    /// Whether the innermost function writes at random through 64 MiB.
    thrash: bool,
    /// Processes for each CPU.
    processes_per_cpu: u32,
}

/// All of them.
pub const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "deep44",
        big: false,
        thrash: false,
        processes_per_cpu: 1,
    },
    Workload {
        name: "deepbig",
        big: true,
        thrash: false,
        processes_per_cpu: 1,
    },
    Workload {
        name: "deepbig-thrash",
        big: true,
        thrash: true,
        processes_per_cpu: 1,
    },
    Workload {
        name: "deep44-turns",
        big: false,
        thrash: false,
        processes_per_cpu: 25,
    },
];

/// The built programs.
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Builds all that are needed in `folder`.
    pub fn build(folder: &Path, workloads: &[Workload]) -> Result<Self> {
        let programs = Self {
            folder: folder.to_path_buf(),
        };
        for big in [false, true] {
            if workloads.iter().any(|workload| workload.big == big) {
                let source = folder.join(if big { "deepbig.c" } else { "deep44.c" });
                fs::write(&source, source_text(if big { FILLERS } else { 0 }))?;
                for kept in [FramePointers::Kept, FramePointers::Omitted] {
                    let mut compile = Command::new("cc");
                    compile
                        .args(["-O2", "-fno-toplevel-reorder", "-o"])
                        .arg(programs.file(big, kept))
                        .arg(match kept {
                            FramePointers::Kept => "-fno-omit-frame-pointer",
                            FramePointers::Omitted => "-fomit-frame-pointer",
                        })
                        .arg(&source);
                    project::run(&mut compile).context("the program needs a C compiler")?;
                }
            }
        }
        Ok(programs)
    }

    fn file(&self, big: bool, frame_pointers: FramePointers) -> PathBuf {
        self.folder.join(comm(big, frame_pointers))
    }

    /// Starts a workload on all CPUs.
    pub fn start(
        &self,
        workload: Workload,
        frame_pointers: FramePointers,
        cpus: usize,
    ) -> Result<Busy> {
        let child = Command::new(self.file(workload.big, frame_pointers))
            .arg((cpus as u32 * workload.processes_per_cpu).to_string())
            .arg(cpus.to_string())
            .arg(u32::from(workload.thrash).to_string())
            .stdin(Stdio::null())
            .spawn()
            .context(workload.name)?;
        Ok(Busy {
            child,
            comm: comm(workload.big, frame_pointers),
        })
    }
}

/// The file's name and so the process's.
const fn comm(big: bool, frame_pointers: FramePointers) -> &'static str {
    match (big, frame_pointers) {
        (false, FramePointers::Kept) => "deep44-fp",
        (false, FramePointers::Omitted) => "deep44",
        (true, FramePointers::Kept) => "deepbig-fp",
        (true, FramePointers::Omitted) => "deepbig",
    }
}

/// A workload that runs, until it is dropped.
pub struct Busy {
    child: Child,
    /// The name of its processes.
    pub comm: &'static str,
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It ends its processes and waits for them. Should it have ended by
        // itself, they have too, and there is nothing to signal.
        // SAFETY: no memory is passed. The child is ours and not waited for,
        // so its pid cannot belong to another process.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

/// The C source: the links, each calling the one before, with `fillers`
/// functions between two of them.
fn source_text(fillers: u32) -> String {
    let mut text = FRAME.to_owned();
    for link in 1..LINKS {
        // Frames of different sizes that keep different numbers of registers.
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n__attribute__((noinline)) static uint64_t link_{link}(uint64_t state) {{\n    \
             LINK(link_{}, {}, {});\n}}\n",
            link - 1,
            1 + link % 9 * 2,
            link
        );
        if fillers > 0 {
            let _ = writeln!(text, "FILLERS({fillers})");
        }
    }
    let _ = write!(
        text,
        "\nint main(int argc, char **argv) {{\n    start(argc, argv);\n    \
         for (uint64_t state = 1;;) {{\n        state = link_{}(state);\n        \
         KEEP(state);\n    }}\n}}\n",
        LINKS - 1
    );
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn every_program_builds_and_keeps_running() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs::build(folder.path(), &WORKLOADS).unwrap();
        for workload in WORKLOADS {
            for kept in [FramePointers::Kept, FramePointers::Omitted] {
                let mut busy = programs.start(workload, kept, 1).unwrap();
                assert!(
                    busy.child.try_wait().unwrap().is_none(),
                    "{}",
                    workload.name
                );
            }
        }
    }
}
