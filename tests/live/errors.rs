//! What cannot be recorded says so with its own exit code, before it starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Tmpfs;
use crate::support::run::{Finished, Recorder, sampler};
use crate::support::verdict::{Verdict, ensure, trial};
use crate::support::{need, verdict::Stop};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("errors::a_pid_that_is_gone_is_4", a_pid_that_is_gone_is_4),
        trial("errors::nonsense_on_the_command_line_is_2", nonsense_is_2),
        trial(
            "errors::more_hz_than_the_kernel_allows_is_3",
            too_many_hz_is_3,
        ),
        trial("errors::without_privilege_is_3", without_privilege_is_3),
        trial("errors::a_directory_in_use_is_5", a_directory_in_use_is_5),
        trial(
            "errors::a_sealed_file_system_is_5",
            a_sealed_file_system_is_5,
        ),
        trial(
            "errors::a_full_disk_is_5_and_leaves_whole_files",
            a_full_disk_is_5,
        ),
        trial(
            "errors::a_full_disk_spoils_a_command_that_succeeded",
            a_full_disk_after_success,
        ),
        trial(
            "errors::a_command_that_cannot_start_is_126_or_127",
            cannot_start,
        ),
    ]
}

/// The recorder with a command that leaves a mark if it ever starts.
fn with_marked_command(options: &[&str]) -> Verdict<(Finished, bool)> {
    let folder = scratch()?;
    let mark = folder.path().join("it-ran");
    let run = Recorder::new(options)?
        .command("touch", &[&mark.to_string_lossy()])
        .run()?;
    Ok((run, mark.exists()))
}

fn a_pid_that_is_gone_is_4() -> Verdict {
    need::root()?;
    let mut child = Command::new("true").spawn()?;
    let pid = child.id().to_string();
    child.wait()?;
    let run = Recorder::new(&["-p", &pid, "-d", "1s"])?.run()?;
    run.exits(4)?.names(&pid)?;
    ensure!(
        !run.out.join("index.json").exists(),
        "it recorded all the same"
    );
    Ok(())
}

fn nonsense_is_2() -> Verdict {
    for options in [
        &["-F", "0"][..],
        &["-F", "often"],
        &["-F", "-5"],
        &["-d", "0s"],
        &["-d", "-1s"],
        &["-d", "soon"],
        &["-d", ""],
        &["--format", "bitmap"],
        &["--group", "colour"],
        &["-p", "first"],
        &["--no-such-option"],
    ] {
        let (run, ran) = with_marked_command(options)?;
        run.exits(2).map_err(|stop| match stop {
            Stop::Failed(message) => Stop::Failed(format!("{options:?}: {message}")),
            skipped @ Stop::Skipped(_) => skipped,
        })?;
        ensure!(!ran, "{options:?}: the command was started");
        ensure!(
            !run.talk().trim().is_empty(),
            "{options:?}: it does not say why"
        );
        ensure!(run.stdout.is_empty(), "{options:?}: talk on stdout");
    }
    Ok(())
}

fn too_many_hz_is_3() -> Verdict {
    need::root()?;
    let limit = need::kernel_number("/proc/sys/kernel/perf_event_max_sample_rate")?;
    let (run, ran) = with_marked_command(&["-F", &(limit + 1).to_string()])?;
    run.exits(3)?.names("perf_event_max_sample_rate")?;
    ensure!(!ran, "the command was started");
    Ok(())
}

fn without_privilege_is_3() -> Verdict {
    need::root()?;
    need::tool("setpriv")?;
    let folder = scratch()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    // The build folder may be out of that user's reach.
    let program = folder.path().join("sampler");
    fs::copy(sampler(), &program)?;
    let out = folder.path().join("out");
    let run = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(&program)
        .args(["record", "-d", "1s", "-o"])
        .arg(&out)
        .output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.code() == Some(3), "{}:\n{said}", run.status);
    ensure!(
        said.contains("CAP_") || said.contains("root"),
        "it does not say which privilege is missing:\n{said}"
    );
    ensure!(!out.exists(), "it left a directory behind");
    Ok(())
}

fn a_directory_in_use_is_5() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let out = folder.path().join("in-use");
    fs::create_dir(&out)?;
    fs::write(out.join("letter.txt"), "dear reader")?;
    let mark = folder.path().join("it-ran");
    let run = Recorder::new(&["-d", "1s"])?
        .into(&out)
        .command("touch", &[&mark.to_string_lossy()])
        .run()?;
    run.exits(5)?.names("in-use")?;
    ensure!(!mark.exists(), "the command was started");
    let left = fs::read_dir(&out)?.count();
    ensure!(left == 1, "{left} entries in a directory that was refused");

    let under_a_file = out.join("letter.txt").join("deeper");
    let run = Recorder::new(&["-d", "1s"])?.into(under_a_file).run()?;
    run.exits(5)?;
    Ok(())
}

fn a_sealed_file_system_is_5() -> Verdict {
    need::root()?;
    let sealed = Tmpfs::mount("size=64k")?;
    sealed.seal()?;
    let mark = scratch()?;
    let mark = mark.path().join("it-ran");
    let run = Recorder::new(&["-d", "1s"])?
        .into(sealed.path().join("out"))
        .command("touch", &[&mark.to_string_lossy()])
        .run()?;
    run.exits(5)?;
    ensure!(!mark.exists(), "the command was started");
    Ok(())
}

/// What a recording leaves on a file system that holds a few small files.
fn fill(tmpfs: &Tmpfs) -> Verdict<Finished> {
    let forker = fixture("forker")?;
    Recorder::new(&["-F", "499"])?
        .into(tmpfs.path().join("out"))
        .command(forker, &["24", "60"])
        .run()
}

fn a_full_disk_is_5() -> Verdict {
    need::root()?;
    // Two dozen profiles of a page each do not fit into ten pages.
    let tmpfs = Tmpfs::mount("size=40k")?;
    let run = fill(&tmpfs)?;
    run.exits(5)?;
    let said = run.talk();
    for entry in fs::read_dir(&run.out)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(
            name.ends_with(".pb.gz") || name == "index.json",
            "{name} was left behind"
        );
        if name.ends_with(".pb.gz") {
            crate::support::pprof::Profile::open(&run.out.join(&name))?;
            ensure!(said.contains(&name), "stderr does not list {name}:\n{said}");
        }
    }
    Ok(())
}

fn a_full_disk_after_success() -> Verdict {
    need::root()?;
    let tmpfs = Tmpfs::mount("size=8k")?;
    fill(&tmpfs)?.exits(5)?;
    // A command that failed keeps its own code.
    let tmpfs = Tmpfs::mount("size=8k")?;
    let forker = fixture("forker")?;
    let script = format!("{} 24 60; exit 9", forker.display());
    Recorder::new(&["-F", "499"])?
        .into(tmpfs.path().join("out"))
        .command("sh", &["-c", &script])
        .run()?
        .exits(9)?;
    Ok(())
}

fn cannot_start() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let plain = folder.path().join("not-a-program");
    fs::write(&plain, "text\n")?;
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644))?;
    Recorder::new(&[])?.command(&plain, &[]).run()?.exits(126)?;
    Recorder::new(&[])?
        .command("no-such-program-anywhere", &[])
        .run()?
        .exits(127)?
        .names("no-such-program-anywhere")?;
    Recorder::new(&[])?
        .command(folder.path().join("missing"), &[])
        .run()?
        .exits(127)?;
    Ok(())
}
