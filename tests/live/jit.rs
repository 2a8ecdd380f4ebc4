//! Code that is compiled while it runs bears the names that its runtime wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::need;
use crate::support::perf_map::PerfMap;
use crate::support::pprof::Profile;
use crate::support::run::{Finished, Recorder, record_fixture};
use crate::support::verdict::{Stop, Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("jit::node_by_its_perf_map", node_by_its_perf_map),
        trial("jit::node_by_its_jitdump", node_by_its_jitdump),
        trial("jit::java_by_jcmd", java_by_jcmd),
        trial("jit::python_by_its_perf_map", python_by_its_perf_map),
        trial("jit::silent_runtimes_are_told_of", silent_runtimes),
        trial("jit::a_map_written_at_exit_counts", a_map_written_at_exit),
        trial(
            "jit::a_map_written_again_counts",
            a_map_written_again_counts,
        ),
        trial(
            "jit::code_at_one_address_is_of_its_process",
            code_at_one_address,
        ),
        trial("jit::a_container_has_its_own_map", a_container),
    ]
}

/// A program beside the fixtures that some runtime runs.
fn source(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    path.join(name).to_string_lossy().into_owned()
}

/// At least eight in ten samples are in a function whose name holds `part`.
fn mostly_in(profile: &Profile, part: &str) -> Verdict {
    let named = profile.count(|sample| sample.frames().any(|line| line.name.contains(part)));
    ensure!(
        named * 10 >= profile.total() * 8,
        "{named} of {} samples are in {part}",
        profile.total()
    );
    Ok(())
}

/// Every frame that `map` knows has the name that it has there, and there are
/// such frames in at least eight of ten samples.
fn agrees(profile: &Profile, map: &PerfMap) -> Verdict {
    let mut found = 0;
    for sample in &profile.samples {
        let mut any = false;
        for location in &sample.stack {
            if location.mapping.file != "//anon" {
                continue;
            }
            let expected = map.name(location.address);
            let names: Vec<&str> = location
                .lines
                .iter()
                .map(|line| line.name.as_str())
                .collect();
            ensure!(
                names == expected.as_slice(),
                "{:#x} is {names:?}, the map says {expected:?}",
                location.address
            );
            any |= expected.is_some();
        }
        found += if any { sample.count() } else { 0 };
    }
    ensure!(
        found * 10 >= profile.total() * 8,
        "{found} of {} samples are in code of the map",
        profile.total()
    );
    Ok(())
}

/// Records node with an option; what it leaves in its current folder goes.
fn record_node(option: &str) -> Verdict<Finished> {
    let node = need::tool("node")?;
    let folder = scratch()?;
    let script = format!(
        "cd {} && exec {} {option} {} 1000",
        folder.path().display(),
        node.display(),
        source("fib.js")
    );
    Recorder::new(&["-F", "499"])?
        .command("sh", &["-c", &script])
        .run()
}

fn node_by_its_perf_map() -> Verdict {
    need::root()?;
    let run = record_node("--perf-basic-prof")?;
    let recording = run.recording()?;
    let (file, profile) = recording.only("node")?;
    let map = PerfMap::left_by(file.pid.ok_or("a file without a pid")?);
    mostly_in(profile, "fib ")?;
    agrees(profile, &map.read()?)?;
    let jit = &recording.index.jit;
    ensure!(
        (jit.programs_with_files, jit.files, jit.bad_lines) == (1, 1, 0),
        "{jit:?}"
    );
    Ok(())
}

fn node_by_its_jitdump() -> Verdict {
    need::root()?;
    let recording = record_node("--perf-prof")?.recording()?;
    let (_, profile) = recording.only("node")?;
    mostly_in(profile, "fib ")
}

fn java_by_jcmd() -> Verdict {
    need::root()?;
    let (java, jcmd) = (need::tool("java")?, need::tool("jcmd")?);
    let fib = source("Fib.java");
    let arguments = ["-XX:+PreserveFramePointer", "-Xmx256m", &fib, "600000"];
    let program = Background::start(java, &arguments)?;
    let pid = program.pid().to_string();
    // The source is compiled first.
    let mut ready = false;
    for _ in 0..200 {
        sleep(Duration::from_millis(100));
        let map = PerfMap::left_by(program.pid());
        let said = Command::new(&jcmd)
            .args([&pid, "Compiler.perfmap"])
            .output()?;
        ready = said.status.success() && map.read().is_ok_and(|map| map.knows("Fib.fib"));
        if ready {
            break;
        }
    }
    ensure!(ready, "java did not come to compile its program");
    let mut run = Recorder::new(&["-F", "499", "-d", "3s", "-p", &pid])?.start()?;
    run.wait_until_sampling()?;
    sleep(Duration::from_secs(1));
    let said = Command::new(jcmd)
        .args([&pid, "Compiler.perfmap"])
        .output()?;
    ensure!(said.status.success(), "jcmd failed: {said:?}");
    let recording = run.finish()?.recording()?;
    let map = PerfMap::left_by(program.pid());
    let (_, profile) = recording.only("java")?;
    mostly_in(profile, "Fib.fib(int)")?;
    agrees(profile, &map.read()?)
}

/// A Python that writes perf maps.
fn python() -> Verdict<PathBuf> {
    let named = ["python3.14", "python3.13", "python3.12", "python3"];
    let mut candidates: Vec<PathBuf> = named.into_iter().flat_map(need::tool).collect();
    let versions = std::env::var_os("PYENV_ROOT").map(|root| Path::new(&root).join("versions"));
    for version in versions
        .and_then(|path| fs::read_dir(path).ok())
        .into_iter()
        .flatten()
    {
        candidates.push(version?.path().join("bin/python3"));
    }
    let is_able =
        "import os, sys; print(os.getpid()); sys.exit(not sys.is_stack_trampoline_active())";
    candidates
        .into_iter()
        .find(|python| {
            let tried = Command::new(python)
                .args(["-X", "perf", "-c", is_able])
                .output();
            let Ok(tried) = tried else {
                return false;
            };
            let pid = String::from_utf8_lossy(&tried.stdout).trim().parse();
            let _map = pid.map(PerfMap::left_by);
            tried.status.success()
        })
        .ok_or_else(|| Stop::Skipped("needs a Python that knows `-X perf`".into()))
}

fn python_by_its_perf_map() -> Verdict {
    need::root()?;
    let run = Recorder::new(&["-F", "499"])?
        .command(python()?, &["-X", "perf", &source("fib.py"), "1500"])
        .run()?;
    let recording = run.recording()?;
    let (file, profile) = recording.files().next().ok_or("nothing was recorded")?;
    let map = PerfMap::left_by(file.pid.ok_or("a file without a pid")?);
    mostly_in(profile, "py::fib:")?;
    agrees(profile, &map.read()?)
}

fn silent_runtimes() -> Verdict {
    need::root()?;
    let node = need::tool("node")?;
    let fib = source("fib.js");
    let _other = Background::start(&node, &[&fib, "60000"])?;
    let run = Recorder::new(&["-F", "499", "-d", "2s", "--comm", "node"])?;
    let _one = Background::start(&node, &[&fib, "60000"])?;
    sleep(Duration::from_secs(1));
    let run = run.run()?;
    run.recording()?;
    let talk = run.talk();
    let hints: Vec<&str> = talk
        .lines()
        .filter(|line| line.contains("--perf-basic-prof"))
        .collect();
    ensure!(hints.len() == 1, "one line is to tell of node:\n{talk}");
    for part in ["node (pid ", "1 more like it", "have no names"] {
        ensure!(hints[0].contains(part), "{part:?} is not in {}", hints[0]);
    }
    Ok(())
}

/// The name of the code that the fixture made, in most samples.
fn is_named(run: &Finished, comm: &str, name: &str) -> Verdict {
    let recording = run.recording()?;
    let (_, profile) = recording.only(comm)?;
    let named = profile.count(|sample| {
        let names: Vec<&str> = sample.frames().map(|line| line.name.as_str()).collect();
        names.windows(2).any(|pair| pair == [name, "jit_work"])
    });
    ensure!(
        named * 10 >= profile.total() * 9,
        "{named} of {} samples are in {name}",
        profile.total()
    );
    Ok(())
}

fn a_map_written_at_exit() -> Verdict {
    need::root()?;
    let (run, recording) = record_fixture(&["-F", "499"], "jit", &["800", "exit", "late"])?;
    let (file, _) = recording.only("jit")?;
    let _map = PerfMap::left_by(file.pid.ok_or("a file without a pid")?);
    is_named(&run, "jit", "late")
}

fn a_map_written_again_counts() -> Verdict {
    need::root()?;
    let program = Background::fixture("jit", &["60000", "start", "early"])?;
    let map = PerfMap::left_by(program.pid());
    let pid = program.pid().to_string();
    let mut run = Recorder::new(&["-F", "499", "-d", "2s", "-p", &pid])?.start()?;
    run.wait_until_sampling()?;
    sleep(Duration::from_secs(1));
    // As a file of its own, where the other one is held open already.
    let beside = map.path.with_extension("new");
    fs::write(&beside, "6a0000000000 e late\n")?;
    fs::rename(&beside, &map.path)?;
    is_named(&run.finish()?, "jit", "late")
}

fn code_at_one_address() -> Verdict {
    need::root()?;
    let names = ["first", "second"];
    let mut programs = Vec::new();
    let mut maps = Vec::new();
    let mut run = Recorder::new(&["-F", "499", "-d", "1500ms"])?;
    for name in names {
        let program = Background::fixture("jit", &["60000", "start", name])?;
        maps.push(PerfMap::left_by(program.pid()));
        run = run.option("-p", program.pid().to_string());
        programs.push(program);
    }
    let recording = run.run()?.recording()?;
    for (program, name) in programs.iter().zip(names) {
        let mut files = recording.files();
        let file = files.find(|(file, _)| file.pid == Some(program.pid()));
        let (_, profile) = file.ok_or("a process has no file")?;
        mostly_in(profile, name)?;
        let other = names.into_iter().find(|other| *other != name).unwrap_or("");
        ensure!(
            profile.count(|sample| sample.holds(other)) == 0,
            "{name} has frames of {other}"
        );
    }
    Ok(())
}

fn a_container() -> Verdict {
    need::root()?;
    need::tool("unshare")?;
    let folder = scratch()?;
    // What the process would have found outside.
    let outside = PerfMap::left_by(1);
    fs::write(&outside.path, "6a0000000000 e outside\n")?;
    let script = format!(
        "mount -t tmpfs tmpfs {folder} && cp {program} {folder}/jit && \
         mount --bind {folder} /tmp && exec /tmp/jit 800 start inside",
        folder = folder.path().display(),
        program = fixture("jit")?.display(),
    );
    let run = Recorder::new(&["-F", "499"])?
        .command(
            "unshare",
            &["--pid", "--fork", "--mount", "sh", "-c", &script],
        )
        .run()?;
    is_named(&run, "jit", "inside")
}
