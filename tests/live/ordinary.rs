//! An ordinary user with the documented capabilities sees what root sees.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::index::File;
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};

/// What `docs/doctor.md` says that samples and names need.
const CAPABILITIES: &str = "+bpf,+perfmon,+sys_ptrace,+dac_read_search,+checkpoint_restore,+syslog";
/// Nobody's numbers.
const PROFILER: u32 = 60_001;
const OTHER: u32 = 60_002;
/// Processes with so many samples in one recording have to be in the other.
const ENOUGH_SAMPLES: u64 = 30;

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "ordinary::with_capabilities_as_root_without",
        as_root_does,
    )]
}

fn options() -> Verdict<Recorder> {
    Recorder::new(&["-F", "499", "-d", "3s"])
}

fn as_root_does() -> Verdict {
    need::root()?;
    let setpriv = need::tool("setpriv")?;
    let setpriv = setpriv.to_string_lossy();
    let folder = scratch()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;

    // A program of somebody else's, which nobody else may read.
    let private = folder.path().join("private");
    fs::copy(fixture("nofp")?, &private)?;
    chown(&private, Some(OTHER), Some(OTHER))?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700))?;
    let as_other = [format!("--reuid={OTHER}"), format!("--regid={OTHER}")];
    let private = private.to_string_lossy();
    // Each has a CPU to itself, so that the scheduler has nothing to share out.
    let taskset = need::tool("taskset")?;
    let taskset = taskset.to_string_lossy();
    let mut cpus = need::online_cpus()?.into_iter();
    let first = cpus.next().unwrap_or_default().to_string();
    let theirs = Background::start(
        &*setpriv,
        &[
            &as_other[0],
            &as_other[1],
            "--clear-groups",
            &*taskset,
            "-c",
            &first,
            &*private,
            "600000",
        ],
    )?;
    let burners = cpus.map(Background::burn_on).collect::<Verdict<Vec<_>>>()?;
    let mut load: Vec<u32> = burners.iter().map(Background::pid).collect();
    load.push(theirs.pid());

    let run = options()?.run()?;
    let by_root = run.exits(0)?.recording()?;

    let own = folder.path().join("own");
    fs::create_dir(&own)?;
    chown(&own, Some(PROFILER), Some(PROFILER))?;
    let words = [
        format!("--reuid={PROFILER}"),
        format!("--regid={PROFILER}"),
        format!("--inh-caps=-all,{CAPABILITIES}"),
        format!("--ambient-caps=-all,{CAPABILITIES}"),
        format!("--bounding-set=-all,{CAPABILITIES}"),
    ];
    let mut wrapper = vec![&*setpriv, "--clear-groups"];
    wrapper.extend(words.iter().map(String::as_str));
    let run = options()?
        .into(own.join("profiles"))
        .start_under(&wrapper)?
        .finish()?;
    let by_user = run.exits(0)?.recording()?;

    for pid in load {
        compare(pid, &by_root, &by_user)?;
    }
    Ok(())
}

fn of(recording: &Recording, pid: u32) -> Option<&File> {
    recording
        .files()
        .map(|(file, _)| file)
        .find(|file| file.pid == Some(pid))
}

fn compare(pid: u32, by_root: &Recording, by_user: &Recording) -> Verdict {
    let [Some(root), Some(user)] = [of(by_root, pid), of(by_user, pid)] else {
        return Err(format!("{pid} is missing in a recording").into());
    };
    ensure!(
        root.samples.min(user.samples) >= ENOUGH_SAMPLES,
        "{pid}: {} and {} samples",
        root.samples,
        user.samples
    );
    let all = |recording: &Recording| recording.files().map(|(file, _)| file.samples).sum();
    same_share(
        &format!("{pid}: its share"),
        (root.samples, all(by_root)),
        (user.samples, all(by_user)),
    )?;
    same_share(
        &format!("{pid}: complete stacks"),
        (root.stacks.complete, root.samples),
        (user.stacks.complete, user.samples),
    )?;
    same_share(
        &format!("{pid}: named frames"),
        (root.frames.named, root.frames.named + root.frames.unnamed),
        (user.frames.named, user.frames.named + user.frames.unnamed),
    )
}

/// Whether two shares differ by no more than three standard deviations of their
/// difference. One more or less is no difference.
fn same_share(what: &str, one: (u64, u64), other: (u64, u64)) -> Verdict {
    let share = |(part, all): (u64, u64)| part as f64 / all as f64;
    let pooled = share((one.0 + other.0, one.1 + other.1));
    let per_sample = 1.0 / one.1 as f64 + 1.0 / other.1 as f64;
    let sigma = (pooled * (1.0 - pooled) * per_sample).sqrt();
    ensure!(
        (share(one) - share(other)).abs() <= 3.0 * sigma + per_sample,
        "{what}: {one:?} for root, {other:?} for the user"
    );
    Ok(())
}
