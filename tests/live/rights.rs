//! What a recording may still do once it runs, and what its children may.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::fixture::scratch;
use crate::support::guard::Background;
use crate::support::need;
use crate::support::run::{Recorder, Running};
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "rights::those_of_the_start_are_given_up",
            those_of_the_start_are_given_up,
        ),
        trial("rights::children_have_none", children_have_none),
        trial(
            "rights::children_that_are_killed_are_replaced",
            children_that_are_killed_are_replaced,
        ),
        trial(
            "rights::root_writes_to_a_directory_of_another_user",
            foreign_directory,
        ),
    ]
}

/// Numbers of capabilities.
const DAC_OVERRIDE: u32 = 1;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

fn status(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.strip_prefix(':').map(str::trim)
}

fn capabilities(status: &str, set: &str) -> Verdict<u64> {
    let hex = field(status, set).ok_or_else(|| format!("no {set}: {status}"))?;
    Ok(u64::from_str_radix(hex, 16)?)
}

/// The statuses of the children that parse.
fn children(recorder: &Running) -> Verdict<Vec<(i32, String)>> {
    let parent = recorder.pid().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let status = status(&name);
        let is_ours = field(&status, "PPid") == Some(parent.as_str())
            && field(&status, "Name") == Some("sampler-parser");
        if is_ours {
            found.push((name.parse()?, status));
        }
    }
    Ok(found)
}

/// One for names, two for tables.
fn all_children(recorder: &Running) -> Verdict<Vec<(i32, String)>> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let found = children(recorder)?;
        let is_confined = |(_, status): &(i32, String)| field(status, "Seccomp") == Some("2");
        if found.len() == 3 && found.iter().all(is_confined) {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{found:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn host() -> Verdict<Running> {
    let mut recorder = Recorder::new(&["-F", "199"])?.start()?;
    recorder.wait_until_sampling()?;
    Ok(recorder)
}

fn those_of_the_start_are_given_up() -> Verdict {
    need::root()?;
    let recorder = host()?;
    all_children(&recorder)?;
    let tasks = fs::read_dir(format!("/proc/{}/task", recorder.pid()))?;
    for task in tasks {
        let task = task?.file_name().to_string_lossy().into_owned();
        let status = status(&format!("{}/task/{task}", recorder.pid()));
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let held = capabilities(&status, set)?;
            let name = field(&status, "Name").unwrap_or_default();
            for given_up in [DAC_OVERRIDE, SYS_ADMIN] {
                ensure!(held >> given_up & 1 == 0, "{name}: {set} {held:x}");
            }
            ensure!(held.count_ones() <= 6, "{name}: {set} {held:x}");
        }
    }
    let held = capabilities(&status(&recorder.pid().to_string()), "CapEff")?;
    ensure!(held >> BPF & held >> PERFMON & 1 == 1, "CapEff {held:x}");
    recorder.signal(libc::SIGINT);
    recorder.finish()?.exits(0)?;
    Ok(())
}

fn children_have_none() -> Verdict {
    need::root()?;
    let recorder = host()?;
    for (pid, status) in all_children(&recorder)? {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            ensure!(capabilities(&status, set)? == 0, "{pid}: {status}");
        }
        ensure!(field(&status, "NoNewPrivs") == Some("1"), "{pid}: {status}");
        ensure!(field(&status, "Threads") == Some("1"), "{pid}: {status}");
    }
    let pids: Vec<i32> = children(&recorder)?.iter().map(|(pid, _)| *pid).collect();
    recorder.signal(libc::SIGINT);
    recorder.finish()?.exits(0)?;
    for pid in pids {
        let left = status(&pid.to_string());
        ensure!(field(&left, "Name") != Some("sampler-parser"), "{left}");
    }
    Ok(())
}

fn children_that_are_killed_are_replaced() -> Verdict {
    need::root()?;
    let recorder = host()?;
    for (pid, _) in all_children(&recorder)? {
        // SAFETY: kill only takes numbers; they were a moment ago those of
        // children of the profiler, which it waits for in its own time.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    // It starts now, so that there is something new to build and to name.
    let busy = Background::fixture("burn", &["60000"])?;
    std::thread::sleep(Duration::from_secs(2));
    recorder.signal(libc::SIGINT);
    let run = recorder.finish()?;
    run.exits(0)?;
    let recording = run.recording()?;
    let index = &recording.index;
    ensure!(index.parsers.deaths >= 1, "{:?}", index.parsers);
    let spared = (index.parsers.timed_out_files, index.parsers.given_up_files);
    ensure!(spared == (0, 0), "{:?}", index.parsers);
    let file = index
        .files
        .iter()
        .find(|file| file.pid == Some(busy.pid()))
        .ok_or("no file of the program that came later")?;
    ensure!(
        file.frames.named > 9 * file.frames.unnamed,
        "{} named, {} not",
        file.frames.named,
        file.frames.unnamed
    );
    Ok(())
}

fn foreign_directory() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let out = folder.path().join("theirs");
    fs::create_dir(&out)?;
    fs::set_permissions(&out, fs::Permissions::from_mode(0o700))?;
    chown(&out, Some(65534), Some(65534))?;
    let run = Recorder::new(&["-d", "500ms"])?.into(&out).run()?;
    run.exits(0)?;
    run.recording()?;
    Ok(())
}
