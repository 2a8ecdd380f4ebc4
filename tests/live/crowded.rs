//! Programs that strain the profiler by what they have much of: mappings, changes
//! of mappings, children. `SAMPLER_TEST_CHILDREN=5000` makes the last of these long.

use std::fs;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::fixture::fixture;
use crate::support::guard::Background;
use crate::support::index::Stacks;
use crate::support::need;
use crate::support::pprof::Location;
use crate::support::recording::Recording;
use crate::support::run::{Recorder, record, record_fixture};
use crate::support::verdict::{Stop, Verdict, ensure, trial};

/// The profiler may take this much memory.
const MOST_RSS_MIB: u64 = 256;
/// And this much in a longer recording: a compiler that starts elsewhere on the host
/// meanwhile has it read a large library.
const MOST_RSS_MIB_AT_LENGTH: u64 = 384;
/// Linux gives a process 65,530 mappings, unless told otherwise.
const MAPPINGS: usize = 60_000;
/// What a recording may take beside the time that it records: to start, and to end.
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
        let reason = format!("this host gives a process {limit} mappings");
        return Err(Stop::Skipped(reason));
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
    bounded("60,000 mappings", &recording, start, MOST_RSS_MIB)?;
    let (file, profile) = recording.only("mappings")?;
    let leaf = profile.count(|sample| sample.holds("mappings_leaf"));
    ensure!(leaf >= 100, "{leaf} samples of two seconds at 499 Hz");
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
    bounded("remapping", &recording, start, MOST_RSS_MIB_AT_LENGTH)?;
    let rounds: u64 = run.result().trim().parse()?;
    ensure!(rounds > 1_000, "the fixture remapped {rounds} times only");
    let (file, profile) = recording.only("remapper")?;
    let leaf = profile.count(|sample| sample.holds("steady_leaf"));
    let whole = profile.count(|sample| {
        sample.holds("steady_leaf") && sample.holds("main") && sample.holds("_start")
    });
    let named = profile
        .count(|sample| sample.holds("steady_leaf") && sample.stack.iter().any(Location::is_note));
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
    let recording = run.recording()?;
    bounded("children", &recording, start, MOST_RSS_MIB)?;
    ensure!(
        run.result().trim() == children.to_string(),
        "{} of {children} children lived",
        run.result().trim()
    );
    let burnt = recording.count(|sample| sample.holds("crowd_work"));
    let lost = recording.index.ledger.lost_total();
    let expected = children * 4 * 499 / 1_000;
    eprintln!(
        "{children} children: {} files, {burnt} samples of their work, {expected} expected, {lost} \
         lost; {}",
        recording.index.files.len(),
        classes(&recording.index.stacks)
    );
    // Ticks meet each stretch of CPU time by chance.
    let least = expected as f64 - 3.0 * (expected as f64).sqrt();
    let accounted = recording.index.ledger.counted + lost;
    ensure!(
        accounted as f64 >= least && (lost > 0 || burnt as f64 >= least),
        "{burnt} samples of {children} children that burn 4 ms each, {accounted} counted or lost, \
         {expected} are expected"
    );
    // A table has room for thousands of threads between two looks.
    ensure!(lost == 0 || children > 1_000, "{lost} samples are lost");
    Ok(())
}

/// What the recording that was begun at `start` took, of time and of memory.
fn bounded(what: &str, recording: &Recording, start: Instant, most_rss_mib: u64) -> Verdict {
    let cost = &recording.index.cost;
    let recorded = Duration::from_nanos(recording.index.duration_ns);
    let extra = start.elapsed().saturating_sub(recorded);
    eprintln!(
        "{what}: {:.1} s and {:.1} s more, {:.2} s CPU of the profiler's own, {} MiB, in place \
         after {:.2} s, lost: {:?}",
        recorded.as_secs_f64(),
        extra.as_secs_f64(),
        cost.cpu_ns as f64 / 1e9,
        cost.peak_rss_bytes >> 20,
        cost.finish_ns as f64 / 1e9,
        recording.index.ledger.lost
    );
    ensure!(extra < EXTRA, "{what} took {extra:?} more than it recorded");
    ensure!(
        cost.peak_rss_bytes < most_rss_mib << 20,
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
