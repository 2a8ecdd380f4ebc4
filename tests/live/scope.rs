//! Which ticks belong to a recording, and which are only counted as others'.

use std::collections::BTreeSet;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::{Background, Cgroup};
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::{Recorder, record};
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "scope::one_process_and_nobody_else",
            one_process_and_nobody_else,
        ),
        trial("scope::two_processes", two_processes),
        trial(
            "scope::threads_that_start_later_belong",
            later_threads_belong,
        ),
        trial(
            "scope::children_only_when_asked_for",
            children_only_when_asked_for,
        ),
        trial("scope::descendants_of_a_command_belong", descendants_belong),
        trial(
            "scope::a_comm_that_appears_later",
            a_comm_that_appears_later,
        ),
        trial("scope::a_comm_is_the_leaders", a_comm_is_the_leaders),
        trial(
            "scope::a_cgroup_with_everything_below",
            a_cgroup_with_everything_below,
        ),
        trial("scope::a_v1_cgroup_is_2_and_a_missing_one_4", wrong_cgroups),
        trial("scope::groups_are_one_file_each", groups_are_one_file_each),
        trial("scope::inside_a_pid_namespace", inside_a_pid_namespace),
        trial(
            "scope::a_command_inside_a_pid_namespace",
            a_command_inside_a_pid_namespace,
        ),
    ]
}

fn only_pids(recording: &Recording, pids: &[u32]) -> Verdict {
    for (file, _) in recording.files() {
        ensure!(
            file.pid.is_some_and(|pid| pids.contains(&pid)),
            "{} is not of {pids:?}",
            file.name
        );
    }
    Ok(())
}

fn one_process_and_nobody_else() -> Verdict {
    need::root()?;
    let _load = Background::load_every_cpu()?;
    let target = Background::fixture("burn", &["60000"])?;
    let pid = target.pid();
    let (_, recording) = record(&["-p", &pid.to_string(), "-d", "1s", "-F", "499"])?;
    only_pids(&recording, &[pid])?;
    let ledger = &recording.index.ledger;
    ensure!(
        ledger.counted > 50,
        "{} samples of a burner",
        ledger.counted
    );
    ensure!(
        ledger.out_of_scope > 200,
        "{} ticks out of scope beside burners on every CPU",
        ledger.out_of_scope
    );
    Ok(())
}

fn two_processes() -> Verdict {
    need::root()?;
    let targets = [
        Background::fixture("burn", &["60000"])?,
        Background::fixture("burn", &["60000"])?,
    ];
    let pids = [targets[0].pid(), targets[1].pid()];
    let (_, recording) = record(&[
        "-p",
        &pids[0].to_string(),
        "-p",
        &pids[1].to_string(),
        "-d",
        "1s",
        "-F",
        "199",
    ])?;
    only_pids(&recording, &pids)?;
    ensure!(
        recording.profiles.len() == 2,
        "{} files of two",
        recording.profiles.len()
    );
    Ok(())
}

fn later_threads_belong() -> Verdict {
    need::root()?;
    let target = Background::fixture("threads", &["30", "1500"])?;
    let running = Recorder::new(&["-p", &target.pid().to_string(), "-F", "499"])?.start()?;
    target.finish(Duration::from_secs(30))?;
    let recording = running.finish()?.recording()?;
    let (_, profile) = recording.only("threads")?;
    for number in 1..=8 {
        let name = format!("share-{number}");
        let samples = profile.count(|s| s.strings.get("thread_name") == Some(&name));
        ensure!(samples > 0, "no samples of {name}");
    }
    let tids: BTreeSet<i64> = profile
        .samples
        .iter()
        .filter_map(|sample| Some(sample.numbers.get("tid")?.0))
        .collect();
    ensure!(
        tids.len() >= 8,
        "eight threads have {} thread ids",
        tids.len()
    );
    Ok(())
}

fn children_only_when_asked_for() -> Verdict {
    need::root()?;
    for (wanted, options) in [(true, &["--children"][..]), (false, &[])] {
        let target = Background::fixture("forker", &["3", "300", "2000"])?;
        let pid = target.pid();
        let mut running = Recorder::new(&["-p", &pid.to_string(), "-F", "499"])?;
        for option in options {
            running = running.flag(option);
        }
        let running = running.start()?;
        let children: Vec<u32> = serde_json::from_str(&target.finish(Duration::from_secs(30))?)?;
        let recording = running.finish()?.recording()?;
        let of_children = recording.count(|sample| sample.holds("child_work"));
        if wanted {
            let mut family = children.clone();
            family.push(pid);
            only_pids(&recording, &family)?;
            for child in children {
                ensure!(
                    recording.files().any(|(file, _)| file.pid == Some(child)),
                    "no file of the child {child}"
                );
            }
        } else {
            ensure!(
                of_children == 0,
                "{of_children} samples of children nobody asked for"
            );
        }
    }
    Ok(())
}

fn descendants_belong() -> Verdict {
    need::root()?;
    let _load = Background::load_every_cpu()?;
    let forker = fixture("forker")?;
    let script = format!("(sh -c '{} 2 200; :'); :", forker.display());
    let run = Recorder::new(&["-F", "499"])?
        .command("sh", &["-c", &script])
        .run()?;
    let recording = run.recording()?;
    let children: Vec<u32> = serde_json::from_str(&run.result())?;
    for child in &children {
        ensure!(
            recording.files().any(|(file, _)| file.pid == Some(*child)),
            "no file of the grandchild {child}"
        );
    }
    ensure!(
        recording.count(|sample| sample.holds("burn_leaf")) == 0,
        "the load is in the command's recording"
    );
    Ok(())
}

fn a_comm_that_appears_later() -> Verdict {
    need::root()?;
    let mut running = Recorder::new(&["--comm", "late-riser", "-d", "3s", "-F", "499"])?.start()?;
    running.wait_until_sampling()?;
    // It gets its name from prctl; the other's only begins like it.
    let _riser = Background::fixture("burn", &["60000", "-1", "late-riser"])?;
    let _other = Background::fixture("burn", &["60000", "-1", "late-riser-not"])?;
    let recording = running.finish()?.recording()?;
    let (file, profile) = recording.only("late-riser")?;
    ensure!(
        profile.count(|sample| sample.holds("burn_leaf")) > 50,
        "{} samples of a comm that came while we waited",
        file.samples
    );
    ensure!(recording.profiles.len() == 1, "others were recorded too");
    Ok(())
}

fn a_comm_is_the_leaders() -> Verdict {
    need::root()?;
    let target = Background::fixture("threads", &["40", "1500"])?;
    let leaders = Recorder::new(&["--comm", "threads", "-d", "3s", "-F", "199"])?.start()?;
    let threads = Recorder::new(&["--comm", "share-8", "-d", "3s", "-F", "199"])?.start()?;
    let leaders = leaders.finish()?.recording()?;
    let threads = threads.finish()?.recording()?;
    drop(target);
    let (_, profile) = leaders.only("threads")?;
    ensure!(
        profile.count(|s| s.strings.get("thread_name").is_some_and(|n| n == "share-8")) > 10,
        "the threads of a process found by its comm are missing"
    );
    ensure!(
        threads.index.files.is_empty(),
        "a thread's name was taken for a comm"
    );
    Ok(())
}

fn a_cgroup_with_everything_below() -> Verdict {
    need::root()?;
    let mount = need::cgroup_mount("cgroup2")?;
    let group = Cgroup::create(&mount, "sampler-test")?;
    let below = Cgroup::create(group.path(), "below")?;
    let inside = Background::fixture("burn", &["60000"])?;
    let deeper = Background::fixture("burn", &["60000"])?;
    let _outside = Background::fixture("burn", &["60000"])?;
    group.adopt(inside.pid())?;
    below.adopt(deeper.pid())?;
    let run = Recorder::new(&["-d", "1500ms", "-F", "499"])?
        .option("--cgroup", group.path())
        .run()?;
    let recording = run.recording()?;
    only_pids(&recording, &[inside.pid(), deeper.pid()])?;
    ensure!(
        recording.profiles.len() == 2,
        "{} files of one process in the group and one below",
        recording.profiles.len()
    );
    ensure!(
        recording.index.ledger.out_of_scope > 50,
        "the process outside is not counted as out of scope"
    );
    // The burners end before their groups are removed.
    drop((inside, deeper));
    drop(below);
    drop(group);
    Ok(())
}

fn wrong_cgroups() -> Verdict {
    need::root()?;
    Recorder::new(&["-d", "1s", "--cgroup", "/sys/fs/cgroup/no-such-group"])?
        .run()?
        .exits(4)?;
    let old = need::cgroup_mount("cgroup")?;
    Recorder::new(&["-d", "1s"])?
        .option("--cgroup", &old)
        .run()?
        .exits(2)?
        .names("version 1")?;
    Ok(())
}

fn groups_are_one_file_each() -> Verdict {
    need::root()?;
    let forker = fixture("forker")?;
    for kind in ["exe", "comm", "cgroup", "host"] {
        let run = Recorder::new(&["-F", "499", "--group", kind])?
            .command(&forker, &["3", "100"])
            .run()?;
        let recording = run.recording()?;
        for (file, _) in recording.files() {
            ensure!(
                file.name.starts_with(&format!("cpu-{kind}-")),
                "--group {kind} wrote {}",
                file.name
            );
            ensure!(
                file.pid.is_none() && file.start_time.is_none(),
                "a group of processes with one pid: {}",
                file.name
            );
        }
        if kind == "comm" || kind == "host" {
            // Four processes share the file; their pids are in the labels.
            let most = recording
                .profiles
                .iter()
                .map(|profile| {
                    let pids: BTreeSet<i64> = profile
                        .samples
                        .iter()
                        .filter_map(|sample| Some(sample.numbers.get("pid")?.0))
                        .collect();
                    pids.len()
                })
                .max();
            ensure!(
                most >= Some(3),
                "--group {kind}: at most {most:?} processes in a file"
            );
        }
        if kind == "host" {
            ensure!(
                recording.profiles.len() == 1,
                "more than one file of a host"
            );
        }
    }
    Ok(())
}

fn inside_a_pid_namespace() -> Verdict {
    need::root()?;
    need::tool("unshare")?;
    let burn = fixture("burn")?;
    let folder = scratch()?;
    let seen = folder.path().join("pid");
    let script = format!(
        "{} 60000 >/dev/null & echo $! > {}; \"$@\" -p $!; code=$?; kill $!; exit $code",
        burn.display(),
        seen.display()
    );
    let run = Recorder::new(&["-d", "1s", "-F", "199"])?
        .start_under(&[
            "unshare",
            "-pf",
            "--mount-proc",
            "bash",
            "-c",
            &script,
            "bash",
        ])?
        .finish()?;
    let recording = run.recording()?;
    let pid: u32 = std::fs::read_to_string(&seen)?.trim().parse()?;
    only_pids(&recording, &[pid])?;
    let (file, profile) = recording.only("burn")?;
    ensure!(
        file.name == format!("cpu-burn-{pid}.pb.gz"),
        "{} is named by another namespace's pid than {pid}",
        file.name
    );
    ensure!(
        profile.count(|sample| sample.holds("burn_leaf")) > 50,
        "{} samples in the namespace",
        profile.total()
    );

    // The whole host from inside: what cannot be seen has no pid here.
    let _outside = Background::load_every_cpu()?;
    let run = Recorder::new(&["-d", "1s", "-F", "199"])?
        .start_under(&["unshare", "-pf", "--mount-proc", "--"])?
        .finish()?;
    run.recording()?;
    Ok(())
}

fn a_command_inside_a_pid_namespace() -> Verdict {
    need::root()?;
    need::tool("unshare")?;
    let burn = fixture("burn")?;
    let _outside = Background::load_every_cpu()?;
    let run = Recorder::new(&["-F", "499"])?
        .command(&burn, &["500"])
        .start_under(&["unshare", "-pf", "--mount-proc", "--"])?
        .finish()?;
    let recording = run.recording()?;
    let (file, profile) = recording.only("burn")?;
    ensure!(
        file.pid.is_some_and(|pid| pid < 100),
        "{:?} is no pid of a namespace that has just begun",
        file.pid
    );
    ensure!(
        profile.count(|sample| sample.holds("burn_leaf")) > 50,
        "{} samples",
        profile.total()
    );
    Ok(())
}
