//! Processes begin, become others and end, and CPUs go and come.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::need;
use crate::support::run::{Recorder, record, record_fixture};
use crate::support::verdict::{Stop, Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("lifecycle::exec_keeps_the_file", exec_keeps_the_file),
        trial(
            "lifecycle::every_child_has_its_file",
            every_child_has_its_file,
        ),
        trial(
            "lifecycle::short_lives_keep_their_names",
            short_lives_keep_their_names,
        ),
        trial(
            "lifecycle::a_deleted_program_keeps_its_names",
            a_deleted_program,
        ),
        trial(
            "lifecycle::a_pid_used_twice_has_two_files",
            a_pid_used_twice,
        ),
        trial(
            "lifecycle::a_cpu_goes_and_comes_back",
            a_cpu_goes_and_comes_back,
        ),
    ]
}

fn exec_keeps_the_file() -> Verdict {
    need::root()?;
    let burn = fixture("burn")?.to_string_lossy().into_owned();
    let (_, recording) = record_fixture(&["-F", "499"], "execer", &["500", &burn, "500"])?;
    // After exec the comm is the new program's, and so is the file's.
    let (file, profile) = recording.only("burn")?;
    ensure!(
        recording.profiles.len() == 1,
        "one process, {} files",
        recording.profiles.len()
    );
    ensure!(
        file.exe
            .as_deref()
            .is_some_and(|exe| exe.ends_with("/burn")),
        "the program is {:?}",
        file.exe
    );
    ensure!(
        recording.index.lifecycle.records > 0,
        "an exec without a record"
    );
    let before = profile.count(|sample| sample.holds("before_exec"));
    let after = profile.count(|sample| sample.holds("burn_leaf"));
    ensure!(
        before > 100 && after > 100,
        "{}: {before} samples before exec, {after} after",
        file.name
    );
    for image in ["execer", "burn"] {
        ensure!(
            profile
                .mappings
                .iter()
                .any(|m| m.file.ends_with(&format!("/{image}"))),
            "no mapping of {image}"
        );
    }
    Ok(())
}

fn every_child_has_its_file() -> Verdict {
    need::root()?;
    let (run, recording) = record_fixture(&["-F", "499"], "forker", &["6", "100"])?;
    let children: Vec<u32> = serde_json::from_str(&run.result())?;
    for child in children {
        let found = recording.files().find(|(file, _)| file.pid == Some(child));
        let (file, profile) = found.ok_or_else(|| format!("no file of the child {child}"))?;
        ensure!(
            profile.count(|sample| sample.holds("child_work")) > 10,
            "{}: {} samples of 100 ms at 499 Hz",
            file.name,
            file.samples
        );
    }
    Ok(())
}

fn short_lives_keep_their_names() -> Verdict {
    need::root()?;
    let burn = fixture("burn")?;
    let script = format!("for n in $(seq 60); do {} 15; done", burn.display());
    let run = Recorder::new(&["-F", "999"])?
        .command("sh", &["-c", &script])
        .run()?;
    let recording = run.recording()?;
    let lives = recording.of_comm("burn").count();
    ensure!(lives >= 58, "{lives} of 60 short lives have a file");
    let (mut all, mut named) = (0, 0);
    for (_, profile) in recording.of_comm("burn") {
        all += profile.total();
        named += profile.count(|sample| sample.holds("burn_work"));
    }
    // The rest is the kernel's and the loader's work of starting and ending.
    ensure!(
        named * 100 >= all * 75,
        "{named} of {all} samples of short lives name what they did"
    );
    Ok(())
}

fn a_deleted_program() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let program = folder.path().join("gone");
    fs::copy(fixture("burn")?, &program)?;
    let target = Background::start(&program, &["60000"])?;
    // Not before it runs, or there is nothing to run.
    sleep(Duration::from_millis(200));
    fs::remove_file(&program)?;
    let (_, recording) = record(&["-p", &target.pid().to_string(), "-d", "1s", "-F", "199"])?;
    let unpinned = recording.index.lifecycle.unpinned_files;
    ensure!(unpinned == 0, "{unpinned} files were not kept hold of");
    let (_, profile) = recording.only("gone")?;
    let named = profile.count(|sample| sample.holds("burn_leaf"));
    ensure!(
        named * 10 >= profile.total() * 9,
        "{named} of {} samples of a deleted program are named",
        profile.total()
    );
    Ok(())
}

/// Burns twice under one pid: in a pid namespace of its own, where nobody else
/// takes the next number.
const TWICE: &str = "$BURN 300 & first=$!; wait; \
    echo $((first - 1)) > /proc/sys/kernel/ns_last_pid; $BURN 300 & echo $first $!; wait";

fn a_pid_used_twice() -> Verdict {
    need::root()?;
    need::tool("unshare")?;
    if !Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        return Err(Stop::Skipped(
            "this kernel lets nobody choose the next pid".into(),
        ));
    }
    let script = TWICE.replace("$BURN", &fixture("burn")?.to_string_lossy());
    let run = Recorder::new(&["-F", "499"])?
        .command("sh", &["-c", &script])
        .start_under(&["unshare", "-pf", "--mount-proc", "--"])?
        .finish()?;
    let recording = run.recording()?;
    let said = run.result();
    let (first, second) = said.trim().split_once(' ').ok_or("no two pids")?;
    if first != second {
        return Err(Stop::Skipped(format!(
            "the kernel gave {second} after {first}"
        )));
    }
    let mut names: Vec<_> = recording
        .of_comm("burn")
        .map(|(file, _)| file.name.clone())
        .collect();
    names.sort();
    ensure!(
        names
            == [
                format!("cpu-burn-{first}-2.pb.gz"),
                format!("cpu-burn-{first}.pb.gz")
            ],
        "two processes of one pid have {names:?}"
    );
    for (file, profile) in recording.of_comm("burn") {
        let samples = profile.count(|sample| sample.holds("burn_leaf"));
        ensure!(
            samples > 75,
            "{}: {samples} samples of 300 ms at 499 Hz",
            file.name
        );
    }
    Ok(())
}

/// Puts a CPU back online whatever happens.
struct Offline(String);

impl Offline {
    fn take(cpu: usize) -> Verdict<Self> {
        let switch = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        fs::write(&switch, "0")
            .map_err(|error| Stop::Skipped(format!("cannot take CPU {cpu} offline: {error}")))?;
        Ok(Self(switch))
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        // Nothing else can be done about it; the next trial would notice.
        let _ = fs::write(&self.0, "1");
    }
}

fn a_cpu_goes_and_comes_back() -> Verdict {
    need::root()?;
    need::tool("taskset")?;
    let cpu = *need::cpus(2)?.last().ok_or("no CPU")?;
    let mut running = Recorder::new(&["-F", "499"])?.start()?;
    running.wait_until_sampling()?;
    let offline = Offline::take(cpu)?;
    sleep(Duration::from_millis(500));
    drop(offline);
    // The profiler looks about it once a second, and has to see an event stand
    // still before it knows that the CPU was away.
    sleep(Duration::from_millis(2500));
    // From here on the CPU that returned is busy, and its samples are wanted; so
    // is the news of what starts there.
    let program = fixture("burn")?.to_string_lossy().into_owned();
    let burner = Background::start("taskset", &["-c", &cpu.to_string(), &program, "2000"])?;
    burner.finish(Duration::from_secs(60))?;
    running.signal(libc::SIGINT);
    let recording = running.finish()?.recording()?;
    let (_, profile) = recording.only("burn")?;
    let samples = profile.count(|sample| sample.holds("burn_leaf"));
    ensure!(
        samples > 499 * 2 * 9 / 10,
        "{samples} samples of two seconds on a CPU that came back"
    );
    Ok(())
}
