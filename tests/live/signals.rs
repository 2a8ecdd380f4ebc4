//! Who gets which signal, and whose exit code it is in the end.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::fixture::scratch;
use crate::support::guard::Background;
use crate::support::index::Index;
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "signals::the_commands_exit_code_is_ours",
            the_commands_exit_code_is_ours,
        ),
        trial(
            "signals::a_killed_command_is_128_and_the_signal",
            a_killed_command,
        ),
        trial("signals::stdout_is_the_commands", stdout_is_the_commands),
        trial(
            "signals::ctrl_c_ends_a_recording_of_the_host",
            ctrl_c_on_the_host,
        ),
        trial(
            "signals::sigterm_ends_a_recording_of_the_host",
            sigterm_on_the_host,
        ),
        trial(
            "signals::ctrl_c_reaches_the_command_and_we_wait",
            ctrl_c_with_a_command,
        ),
        trial("signals::sigterm_is_passed_on", sigterm_is_passed_on),
        trial(
            "signals::the_duration_ends_the_recording_only",
            duration_spares_the_command,
        ),
        trial("signals::the_target_exits", the_target_exits),
        trial(
            "signals::the_command_has_the_callers_surroundings",
            the_callers_surroundings,
        ),
        trial("signals::our_threads_go_before_the_command", threads),
    ]
}

fn the_commands_exit_code_is_ours() -> Verdict {
    need::root()?;
    let run = Recorder::new(&[])?.command("sh", &["-c", "exit 7"]).run()?;
    run.exits(7)?;
    Recording::open(&run.out)?;
    Ok(())
}

fn a_killed_command() -> Verdict {
    need::root()?;
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let script = format!("kill -{signal} $$");
        let run = Recorder::new(&[])?.command("sh", &["-c", &script]).run()?;
        run.exits(code)?;
        Recording::open(&run.out)?;
    }
    Ok(())
}

fn stdout_is_the_commands() -> Verdict {
    need::root()?;
    let run = Recorder::new(&["--json"])?.command("seq", &["3"]).run()?;
    run.exits(0)?;
    ensure!(run.result() == "1\n2\n3\n", "stdout is {:?}", run.result());
    let talk = run.talk();
    let json = &talk[talk.find('{').ok_or("no JSON on stderr")?..];
    Index::parse(json.as_bytes())?;

    let folder = scratch()?;
    let summary = folder.path().join("summary.json");
    let run = Recorder::new(&["--json"])?
        .option("--summary", &summary)
        .command("seq", &["3"])
        .run()?;
    run.exits(0)?;
    ensure!(run.result() == "1\n2\n3\n", "stdout is {:?}", run.result());
    ensure!(
        !run.talk().contains('{'),
        "the summary is on stderr too:\n{}",
        run.talk()
    );
    Index::parse(&fs::read(summary)?)?;
    Ok(())
}

/// A recording of the whole host that only a signal ends.
fn ended_by(signal: i32) -> Verdict {
    need::root()?;
    let _burner = Background::fixture("burn", &["60000"])?;
    let mut running = Recorder::new(&["-F", "199"])?.start()?;
    running.wait_until_sampling()?;
    running.signal_group(signal);
    let run = running.finish()?;
    let recording = run.recording()?;
    ensure!(
        recording.count(|sample| sample.holds("burn_leaf")) > 10,
        "the samples before the signal are gone"
    );
    Ok(())
}

fn ctrl_c_on_the_host() -> Verdict {
    ended_by(libc::SIGINT)
}

fn sigterm_on_the_host() -> Verdict {
    ended_by(libc::SIGTERM)
}

fn ctrl_c_with_a_command() -> Verdict {
    need::root()?;
    // One that dies of it, and one that takes its time and picks its own code.
    for (script, code) in [
        ("sleep 60", 130),
        (
            "trap 'sleep 0.5; exit 11' INT; while :; do sleep 0.1; done",
            11,
        ),
    ] {
        let mut running = Recorder::new(&["-F", "199"])?
            .command("sh", &["-c", &format!("{script}; :")])
            .start()?;
        running.wait_until_sampling()?;
        running.signal_group(libc::SIGINT);
        let run = running.finish()?;
        run.exits(code)?;
        Recording::open(&run.out)?;
    }
    Ok(())
}

fn sigterm_is_passed_on() -> Verdict {
    need::root()?;
    for (script, code) in [
        ("exec sleep 60", 143),
        ("trap 'exit 12' TERM; while :; do sleep 0.1; done", 12),
    ] {
        let mut running = Recorder::new(&["-F", "199"])?
            .command("sh", &["-c", script])
            .start()?;
        running.wait_until_sampling()?;
        running.signal(libc::SIGTERM);
        let run = running.finish()?;
        run.exits(code)?;
        Recording::open(&run.out)?;
    }
    Ok(())
}

fn duration_spares_the_command() -> Verdict {
    need::root()?;
    let before = Instant::now();
    let run = Recorder::new(&["-d", "300ms"])?
        .command("sh", &["-c", "sleep 2; exit 5"])
        .run()?;
    run.exits(5)?;
    ensure!(
        before.elapsed() >= Duration::from_secs(2),
        "the command was cut short"
    );
    let recording = Recording::open(&run.out)?;
    let recorded = Duration::from_nanos(recording.index.duration_ns);
    ensure!(
        recorded < Duration::from_millis(1200),
        "a recording of 300 ms took {recorded:?}"
    );
    Ok(())
}

fn the_target_exits() -> Verdict {
    need::root()?;
    let target = Background::fixture("burn", &["800"])?;
    let pid = target.pid().to_string();
    let run = Recorder::new(&["-p", &pid, "-F", "199"])?.start()?;
    // Somebody has to take the exit status, or the target stays as a zombie.
    target.finish(Duration::from_secs(20))?;
    let run = run.finish()?;
    let recording = run.recording()?;
    let (file, profile) = recording.only("burn")?;
    ensure!(file.pid.map(|p| p.to_string()) == Some(pid), "another pid");
    ensure!(
        profile.count(|sample| sample.holds("burn_leaf")) > 20,
        "{} samples of a target that burned for 800 ms",
        profile.total()
    );
    Ok(())
}

/// How eagerly each thread of the process that started it runs, as a command sees it.
const THREADS: &str = "sleep 0.5; for thread in /proc/$PPID/task/*; do \
    echo $(cat $thread/comm) $(cut -d' ' -f19 $thread/stat); done > \"$1\"";

fn threads() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let seen = folder.path().join("seen");
    let file = seen.to_string_lossy();
    let recording = Recorder::new(&[])?.command("sh", &["-c", THREADS, "sh", &file]);
    recording.run()?.exits(0)?;
    let seen = fs::read_to_string(&seen)?;
    let threads: BTreeSet<&str> = seen.lines().collect();
    for thread in [
        "sampler -10",
        "tables -10",
        "large-tables -10",
        "symbolize -5",
    ] {
        ensure!(threads.contains(thread), "no {thread:?} in {threads:?}");
    }
    Ok(())
}

/// What a command can see of the process that started it. Of the ignored signals
/// only the first 32: the next one is the C library's own.
const SURROUNDINGS: &str = "id; umask; pwd; env | grep -v '^_=' | sort; \
    grep -E 'Cap|SigBlk|NoNewPrivs|Seccomp:' /proc/self/status; \
    sed -n 's/^SigIgn:.*\\(.\\{8\\}\\)$/ignored \\1/p' /proc/self/status; \
    cat /proc/self/limits; ls /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; nice";

fn the_callers_surroundings() -> Verdict {
    need::root()?;
    // The caller has limits of its own, too low for a profiler at ease.
    let limited = "ulimit -n 200; ulimit -l 64; ulimit -c 0; exec \"$@\"";
    let direct = Command::new("bash")
        .args(["-c", limited, "bash", "sh", "-c", SURROUNDINGS])
        .stdin(Stdio::null())
        .process_group(0)
        .output()?;
    let recording = Recorder::new(&[])?.command("sh", &["-c", SURROUNDINGS]);
    let (words, _) = recording.words();
    let recorded = Command::new("bash")
        .args(["-c", limited, "bash"])
        .args(words)
        .stdin(Stdio::null())
        .process_group(0)
        .output()?;
    let lines = |bytes: &[u8]| -> BTreeSet<String> {
        String::from_utf8_lossy(bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let (direct, said) = (lines(&direct.stdout), recorded.stderr);
    let recorded = lines(&recorded.stdout);
    ensure!(
        direct == recorded && !direct.is_empty(),
        "the command sees {:?} instead of {:?}\n{}",
        recorded.difference(&direct).collect::<Vec<_>>(),
        direct.difference(&recorded).collect::<Vec<_>>(),
        String::from_utf8_lossy(&said)
    );
    Ok(())
}
