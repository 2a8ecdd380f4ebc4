//! Programs of musl. It describes none of its code, and the function in it that
//! calls `main` goes on to call `exit`, so that it never returns itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;
use sampler_common::unwind::Stop as End;
use tempfile::TempDir;

use crate::stopped::{DEEP, Running};
use crate::tool::{Outcome, fail, run, trial};
use crate::walker::walk;

/// From `deep.c`'s leaf to its `main`, what called that, and the entry.
const FRAMES: usize = 59;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a program of musl is walked to its entry", || {
            to_its_entry(&[])
        }),
        trial("a static program of musl is walked to its entry", || {
            to_its_entry(&["-static"])
        }),
    ]
}

fn to_its_entry(linking: &[&str]) -> Outcome {
    let directory = TempDir::new()?;
    let [source, program] = ["deep.c", "program"].map(|name| directory.path().join(name));
    fs::write(&source, DEEP)?;
    let mut arguments = ["-O2", "-fomit-frame-pointer", "-o"]
        .map(PathBuf::from)
        .to_vec();
    arguments.extend([program.clone(), source]);
    arguments.extend(linking.iter().map(PathBuf::from));
    run("musl-gcc", arguments)?;
    let running = Running::start(&mut Command::new(program), Some(directory))?;
    sleep(Duration::from_millis(300));
    running.signal(libc::SIGSTOP);
    sleep(Duration::from_millis(20));
    let walk = walk(running.pid())?;
    if walk.end == Some(End::EndOfStack) && walk.frames.len() >= FRAMES {
        return Ok(());
    }
    let outermost = walk.rules.len().saturating_sub(4);
    fail(format!(
        "{} frames, ended by {:?}, the outermost by\n{}",
        walk.frames.len(),
        walk.end,
        walk.rules[outermost..].join("\n")
    ))
}
