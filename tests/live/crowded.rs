//! Programs that strain the profiler by what they have much of: mappings, changes
//! of mappings, children. `SAMPLER_TEST_CHILDREN=5000` makes the last of these long.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::fixture::fixture;
use crate::support::guard::Background;
use crate::support::index::Stacks;
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::{Recorder, record, record_fixture};
use crate::support::verdict::{Verdict, ensure, trial};

/// The profiler may take this much memory, whatever is thrown at it.
const MOST_RSS_BYTES: u64 = 256 << 20;
/// Linux gives a process 65,530 mappings, unless told otherwise.
const MAPPINGS: usize = 60_000;
/// What a recording may take longer than it was asked for.
const EXTRA: Duration = Duration::from_secs(20);
/// Of the stacks that a trial is about, this many in a hundred at least.
const MOST: u64 = 98;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "crowded::a_process_of_sixty_thousand_mappings",
            many_mappings,
        ),
        trial("crowded::mappings_that_change_all_the_time", remapping),
        trial("crowded::children_that_all_live_at_once", children),
    ]
}

fn many_mappings() -> Verdict {
    need::root()?;
    let limit = need::kernel_number("/proc/sys/vm/max_map_count")?;
    if limit < MAPPINGS as u64 + 100 {
        return Err(crate::support::verdict::Stop::Skipped(format!(
            "this host gives a process {limit} mappings"
        )));
    }
    let target = Background::fixture("mappings", &[&MAPPINGS.to_string(), "600000"])?;
    let maps = format!("/proc/{}/maps", target.pid());
    let end = Instant::now() + Duration::from_secs(30);
    while fs::read_to_string(&maps)?.lines().count() < MAPPINGS {
        ensure!(Instant::now() < end, "the fixture maps nothing");
        std::thread::sleep(Duration::from_millis(100));
    }
    let start = Instant::now();
    let (_, recording) = record(&["-p", &target.pid().to_string(), "-d", "2s", "-F", "499"])?;
    bounded("60,000 mappings", &recording, start.elapsed(), 2)?;
    let (file, profile) = recording.only("mappings")?;
    ensure!(
        file.samples >= 250,
        "{} samples of two seconds at 499 Hz",
        file.samples
    );
    let leaf = profile.count(|sample| sample.holds("mappings_leaf"));
    let whole = profile.count(|sample| {
        sample.holds("mappings_leaf") && sample.holds("main") && sample.holds("_start")
    });
    ensure!(
        whole * 100 >= leaf * MOST,
        "{whole} of {leaf} samples lead to the program's entry: {}",
        classes(&file.stacks)
    );
    Ok(())
}

fn remapping() -> Verdict {
    need::root()?;
    let start = Instant::now();
    let (run, recording) = record_fixture(&["-F", "499"], "remapper", &["3000"])?;
    bounded("remapping", &recording, start.elapsed(), 6)?;
    let rounds: u64 = run.result().trim().parse()?;
    ensure!(rounds > 1_000, "the fixture remapped {rounds} times only");
    let (file, profile) = recording.only("remapper")?;
    let leaf = profile.count(|sample| sample.holds("steady_leaf"));
    let whole = profile.count(|sample| {
        sample.holds("steady_leaf") && sample.holds("main") && sample.holds("_start")
    });
    let named = profile.count(|sample| {
        sample.holds("steady_leaf") && sample.stack.iter().any(|location| location.is_note())
    });
    let lost = recording.index.lifecycle.lost_records;
    eprintln!(
        "{rounds} rounds: {whole} of {leaf} stacks of the other thread lead to the entry, {named} \
         say why not; {lost} of {} records lost; {}",
        recording.index.lifecycle.records,
        classes(&file.stacks)
    );
    ensure!(leaf >= 750, "{leaf} samples of three seconds at 499 Hz");
    ensure!(
        whole + named == leaf,
        "{} of {leaf} stacks end somewhere and do not say so",
        leaf - whole - named
    );
    ensure!(
        whole * 100 >= leaf * MOST,
        "{whole} of {leaf} samples lead to the program's entry"
    );
    Ok(())
}

fn children() -> Verdict {
    need::root()?;
    let children: u64 = match std::env::var("SAMPLER_TEST_CHILDREN") {
        Ok(number) => number.parse()?,
        Err(_) => 500,
    };
    let start = Instant::now();
    let run = Recorder::new(&["-F", "499"])?
        .command(fixture("crowd")?, &[&children.to_string(), "4"])
        .run()?;
    let elapsed = start.elapsed();
    let recording = run.recording()?;
    // Each child burns 4 ms, and as much again for its start and its end.
    bounded("children", &recording, elapsed, children * 8 / 1_000)?;
    ensure!(
        run.result().trim() == children.to_string(),
        "{} of {children} children lived",
        run.result().trim()
    );
    let burnt = recording.count(|sample| sample.holds("crowd_work"));
    let expected = children * 4 * 499 / 1_000;
    ensure!(
        // Ticks meet each stretch of CPU time by chance.
        burnt as f64 >= expected as f64 - 3.0 * (expected as f64).sqrt(),
        "{burnt} samples of {children} children that burn 4 ms each, {expected} are expected"
    );
    eprintln!(
        "{children} children: {} files, {burnt} samples of their work, {expected} expected; {}",
        recording.index.files.len(),
        classes(&recording.index.stacks)
    );
    Ok(())
}

/// What the recording took, of time and of memory.
fn bounded(what: &str, recording: &Recording, elapsed: Duration, wanted_s: u64) -> Verdict {
    let cost = &recording.index.cost;
    eprintln!(
        "{what}: {:.1} s, {:.2} s CPU of the profiler's own, {} MiB, in place after {:.2} s, lost: \
         {:?}",
        elapsed.as_secs_f64(),
        cost.cpu_ns as f64 / 1e9,
        cost.peak_rss_bytes >> 20,
        cost.finish_ns as f64 / 1e9,
        recording.index.ledger.lost
    );
    let limit = Duration::from_secs(wanted_s) + EXTRA;
    ensure!(elapsed < limit, "{what} took {elapsed:?}");
    ensure!(
        cost.peak_rss_bytes < MOST_RSS_BYTES,
        "{what}: {} bytes of memory",
        cost.peak_rss_bytes
    );
    Ok(())
}

fn classes(stacks: &Stacks) -> String {
    let cut: Vec<String> = stacks
        .truncated
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    format!(
        "{} complete, {} kernel only, cut: {}",
        stacks.complete,
        stacks.kernel_only,
        cut.join(", ")
    )
}
