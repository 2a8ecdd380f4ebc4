//! Samples that land in the kernel.

use std::collections::BTreeSet;
use std::fs;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::need;
use crate::support::pprof::Sample;
use crate::support::run::{Recorder, record, record_fixture};
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "kernel::its_frames_stand_above_the_users",
            its_frames_stand_above,
        ),
        trial(
            "kernel::left_out_it_leaves_the_samples",
            left_out_it_leaves_the_samples,
        ),
        trial(
            "kernel::alone_it_leaves_the_samples",
            alone_it_leaves_the_samples,
        ),
        trial("kernel::its_own_threads_have_no_user_part", its_own_threads),
        trial("kernel::work_after_a_program_has_its_stack", departures),
        trial(
            "kernel::our_own_programs_are_called_as_it_calls_them",
            our_own_programs,
        ),
    ]
}

fn its_frames_stand_above() -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499"], "syscalls", &["1000"])?;
    let (file, profile) = recording.only("syscalls")?;
    let in_kernel = profile.count(|sample| sample.kernel_frames() > 0);
    ensure!(
        in_kernel * 10 >= profile.total() * 8,
        "{in_kernel} of {} samples of a program that reads /dev/zero are in the kernel",
        profile.total()
    );
    let whole = profile.count(|sample| {
        let kernel = sample.kernel_frames();
        let above = sample.stack[..kernel].iter().all(|l| l.mapping.is_kernel());
        let users: Vec<&str> = sample.stack[kernel..]
            .iter()
            .flat_map(|location| location.lines.iter().map(|line| line.name.as_str()))
            .collect();
        kernel > 0 && above && users.starts_with(&["drain_zero", "syscall_work", "chain_root"])
    });
    ensure!(
        whole * 10 >= in_kernel * 9,
        "{whole} of {in_kernel} samples have the whole user stack below the kernel's"
    );
    let read = profile.count(|sample| {
        sample
            .frames()
            .any(|line| line.name.contains("read_zero") || line.name.contains("read_iter_zero"))
    });
    ensure!(
        read * 10 >= in_kernel * 8,
        "{read} of {in_kernel} samples name the kernel's part of /dev/zero"
    );
    ensure!(
        file.stacks.complete * 10 >= file.samples * 8,
        "{} of {} stacks are complete",
        file.stacks.complete,
        file.samples
    );
    Ok(())
}

/// Freeing the memory of a program that exits, or starts another, takes place
/// when its stack is gone.
fn departures() -> Verdict {
    need::root()?;
    need::kernel(6, 16)?;
    for unwind in ["tables", "frame-pointers"] {
        let options = ["-F", "999", "--group", "comm", "--unwind", unwind];
        let (_, recording) = record_fixture(&options, "departs", &["40"])?;
        let (file, profile) = recording.only("departs")?;
        // The chain of frame pointers goes past the caller of libc's function.
        let ways: &[&str] = match unwind {
            "tables" => &["leave_by_exit", "leave_by_exec"],
            _ => &["main"],
        };
        for way in ways {
            let freeing = profile.count(|sample| sample.holds(way) && sample.holds("exit_mmap"));
            ensure!(freeing >= 20, "{freeing} samples free memory below {way}");
            let whole = profile.count(|sample| {
                sample.holds(way) && sample.holds("exit_mmap") && sample.holds("main")
            });
            ensure!(
                whole == freeing,
                "{whole} of {freeing} stacks below {way} lead to main"
            );
        }
        ensure!(
            file.stacks.kernel_only * 100 <= file.samples * 2,
            "{} of {} samples have no user half",
            file.stacks.kernel_only,
            file.samples
        );
    }
    Ok(())
}

fn our_own_programs() -> Verdict {
    need::root()?;
    // Nobody else's program is sampled here.
    let is_ours = |name: &str| name.starts_with("bpf_prog_");
    let names = ["_on_cpu", "_on_fork", "_on_free", "_on_departure"];
    let is_main = |name: &String| names.iter().any(|own| name.ends_with(own));
    // A sample has to meet one of them at work, and a function that it calls.
    for _ in 0..5 {
        let recorder = Recorder::new(&["-F", "4999", "--group", "host"])?;
        let mut running = recorder
            .command(fixture("departs")?, &["1500", "1"])
            .start()?;
        running.wait_until_sampling()?;
        let listing = fs::read_to_string("/proc/kallsyms")?;
        let recording = running.finish()?.exits(0)?.recording()?;
        let listed: BTreeSet<&str> = listing
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2).filter(|name| is_ours(name)))
            .collect();
        let mut met = BTreeSet::new();
        for (_, profile) in recording.files() {
            let frames = profile.samples.iter().flat_map(Sample::frames);
            let ours = frames.filter(|line| is_ours(&line.name));
            met.extend(ours.map(|line| line.name.clone()));
        }
        let mut met_names = met.iter().map(String::as_str);
        ensure!(
            met_names.all(|name| listed.contains(name)),
            "{met:?} are not all among {listed:?}"
        );
        if met.iter().any(is_main) && !met.iter().all(is_main) {
            return Ok(());
        }
    }
    Err("no sample met a program of ours".into())
}

fn left_out_it_leaves_the_samples() -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499", "--user-only"], "syscalls", &["600"])?;
    let (_, profile) = recording.only("syscalls")?;
    let kernel = recording.count(|sample| sample.kernel_frames() > 0);
    ensure!(kernel == 0, "{kernel} samples with kernel frames");
    let expected = 499 * 600 / 1000;
    ensure!(
        profile.total() * 10 >= expected * 7,
        "{} samples where the program used the CPU for {expected}",
        profile.total()
    );
    Ok(())
}

fn alone_it_leaves_the_samples() -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499", "--kernel-only"], "split", &["600"])?;
    let (_, profile) = recording.only("split")?;
    let user = recording.count(|sample| sample.user_frames() > 0);
    ensure!(user == 0, "{user} samples with user frames");
    let expected = 499 * 600 / 1000;
    ensure!(
        profile.total() * 10 >= expected * 7,
        "{} samples where the program used the CPU for {expected}",
        profile.total()
    );
    Ok(())
}

/// Writes and syncs as fast as it can, so that the kernel's own threads work.
const WRITER: &str = "while :; do \
    dd if=/dev/zero of=\"$0\" bs=1M count=32 conv=fsync 2>/dev/null; rm -f \"$0\"; done";

fn its_own_threads() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let written = folder.path().join("written");
    let writer = Background::start("sh", &["-c", WRITER, &written.to_string_lossy()])?;
    let (_, recording) = record(&["-d", "4s", "-F", "1999"])?;
    drop(writer);
    let kernel_only = recording.index.stacks.kernel_only;
    ensure!(
        kernel_only > 0,
        "no kernel thread worked while files were written"
    );
    for (file, profile) in recording.files() {
        let without_user = profile.count(|sample| sample.user_frames() == 0);
        ensure!(
            file.stacks.kernel_only <= without_user,
            "{}: {} stacks are the kernel's only, but {without_user} have no user frame",
            file.name,
            file.stacks.kernel_only
        );
    }
    Ok(())
}
