//! One budget for all memory: what is too small is refused, and what finds no
//! room costs detail, but no sample.

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::need;
use crate::support::run::{Recorder, record_fixture};
use crate::support::verdict::{Verdict, ensure, trial};

const MIB: u64 = 1 << 20;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("memory::too_small_is_2_and_names_what_works", too_small),
        trial("memory::a_recording_stays_within_its_budget", within),
        trial(
            "memory::large_tables_without_room_cost_no_sample",
            large_tables,
        ),
        trial("memory::shares_are_logged", shares_are_logged),
    ]
}

/// The smallest budget for a command, as the refusal of a smaller one names it.
fn smallest() -> Verdict<String> {
    let run = Recorder::new(&["--memory", "1M"])?
        .command("true", &[])
        .run()?;
    run.exits(2)?.names("--memory")?;
    let talk = run.talk();
    let (_, rest) = talk
        .split_once("needs ")
        .ok_or_else(|| format!("no size is named: {talk}"))?;
    let size = rest.split(' ').next().unwrap_or_default().to_owned();
    ensure!(
        size.ends_with('M') && size.len() > 1,
        "no size in {talk:?}: {size:?}"
    );
    Ok(size)
}

fn too_small() -> Verdict {
    need::root()?;
    let smallest = smallest()?;
    let mib: u64 = smallest.trim_end_matches('M').parse()?;
    let less = format!("{}M", mib - 1);
    let run = Recorder::new(&["--memory", &less])?
        .command("true", &[])
        .run()?;
    run.exits(2)?.names(&smallest)?;
    ensure!(!run.out.exists(), "a refused recording left a directory");
    let run = Recorder::new(&["--memory", &smallest])?
        .command("true", &[])
        .run()?;
    let recording = run.recording()?;
    ensure!(
        recording.index.cost.memory_budget_bytes == mib * MIB,
        "the budget is {} bytes instead of {smallest}",
        recording.index.cost.memory_budget_bytes
    );
    let run = Recorder::new(&["--memory", "a lot"])?
        .command("true", &[])
        .run()?;
    run.exits(2)?.names("256M")?;
    Ok(())
}

fn within() -> Verdict {
    need::root()?;
    for options in [&["-F", "499"][..], &["-F", "499", "--memory", "96M"]] {
        let (_, recording) = record_fixture(options, "nofp", &["1000"])?;
        let cost = &recording.index.cost;
        let sum = cost.peak_rss_bytes + cost.bpf_map_bytes;
        ensure!(
            sum <= cost.memory_budget_bytes,
            "{options:?}: {sum} bytes of {}",
            cost.memory_budget_bytes
        );
        ensure!(
            cost.file_backed_rss_bytes > 0,
            "no program is without pages of its file"
        );
        let tables = &recording.index.unwind_tables;
        // Its own, libc's and ld.so's or the vDSO's.
        ensure!(
            tables.built >= 2 && tables.rows > 0,
            "{} tables of {} rows",
            tables.built,
            tables.rows
        );
    }
    Ok(())
}

/// Compilers beside a small program, with so little memory that their tables
/// have no room: their stacks are cut by that name or walked from copies, and
/// the small program's are as complete as ever.
fn large_tables() -> Verdict {
    need::root()?;
    need::tool("gcc")?;
    need::tool("rustc")?;
    let nofp = fixture("nofp")?;
    let folder = scratch()?;
    let script = format!(
        "cd {}; {} 5000 & \
         for i in $(seq 300); do echo \"int f$i(int x) {{ return x / $i + x % 7; }}\"; done > work.c; \
         echo 'pub fn f(x: &[u64]) -> String {{ format!(\"{{:?}}\", x) }}' > work.rs; \
         for i in 1 2; do gcc -O2 -c work.c; rustc --crate-type lib -O work.rs; done; wait",
        folder.path().display(),
        nofp.display()
    );
    let smallest = smallest()?;
    let run = Recorder::new(&["-F", "499", "--group", "comm", "--memory", &smallest])?
        .command("sh", &["-c", &script])
        .run()?;
    let recording = run.recording()?;
    // That every stack is in one class is checked wherever a recording is read.
    let tables = &recording.index.unwind_tables;
    ensure!(
        tables.refused + tables.not_loaded + tables.evicted + tables.dropped > 0,
        "{smallest} was enough for all tables"
    );
    run.names("--memory")?.names("tables   ")?;
    let (file, _) = recording.only("rustc")?;
    let missing = file.stacks.truncated("table_missing");
    ensure!(
        missing > 0,
        "the compiler's stacks were all walked: {:?}",
        file.stacks.truncated
    );
    let (file, _) = recording.only("nofp")?;
    ensure!(
        file.stacks.complete * 100 >= file.samples * 95,
        "{} of {} stacks of the small program are complete: {:?}",
        file.stacks.complete,
        file.samples,
        file.stacks.truncated
    );
    Ok(())
}

fn shares_are_logged() -> Verdict {
    need::root()?;
    let run = Recorder::new(&["-v", "--memory", "200M"])?
        .command("true", &[])
        .run()?;
    run.exits(0)?.names("memory 200.0 MiB: ")?;
    Ok(())
}
