//! Every tick is accounted for, and so are those that never came.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::fixture::scratch;
use crate::support::guard::Background;
use crate::support::need;
use crate::support::recording::Recording;
use crate::support::run::{Recorder, record};
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("ledger::a_loaded_host_at_99_hz", loaded_at_99_hz),
        trial("ledger::a_loaded_host_at_4999_hz", loaded_at_4999_hz),
        trial("ledger::an_idle_host_at_99_hz", idle_at_99_hz),
        trial("ledger::an_idle_host_at_4999_hz", idle_at_4999_hz),
        trial(
            "ledger::map_updates_show_as_not_delivered",
            map_updates_show,
        ),
        trial(
            "ledger::a_minute_of_drains_loses_nothing",
            a_minute_of_drains,
        ),
    ]
}

/// Time stolen from all CPUs since boot, in nanoseconds.
fn stolen_ns() -> Verdict<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let all = text.lines().next().ok_or("/proc/stat is empty")?;
    let ticks: u64 = all
        .split_whitespace()
        .nth(8)
        .ok_or("no steal time")?
        .parse()?;
    // SAFETY: sysconf takes a number and touches nothing.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(ticks * 1_000_000_000 / u64::try_from(per_second)?)
}

fn nothing_lost(recording: &Recording) -> Verdict {
    ensure!(
        recording.index.ledger.lost_total() == 0,
        "lost: {:?}",
        recording.index.ledger.lost
    );
    ensure!(
        recording.index.lifecycle.lost_records == 0,
        "{} lifecycle records lost",
        recording.index.lifecycle.lost_records
    );
    Ok(())
}

/// Share of the expected ticks that never came although the CPUs were busy.
fn rest(recording: &Recording, stolen_ns: u64) -> Verdict<f64> {
    let ledger = &recording.index.ledger;
    let stolen = stolen_ns * recording.index.frequency_hz / 1_000_000_000;
    let rest = ledger.not_delivered_rest()?.saturating_sub(stolen);
    let expected = ledger.expected_ticks.ok_or("no expected ticks")?;
    Ok(rest as f64 / expected as f64)
}

fn loaded(hz: &str) -> Verdict {
    need::root()?;
    let _load = Background::load_every_cpu()?;
    std::thread::sleep(Duration::from_millis(300));
    let before = stolen_ns()?;
    let (_, recording) = record(&["-d", "10s", "-F", hz])?;
    let stolen = stolen_ns()?.saturating_sub(before);
    nothing_lost(&recording)?;
    let missing = rest(&recording, stolen)?;
    let ledger = &recording.index.ledger;
    eprintln!(
        "loaded, {hz} Hz: {:?} expected, {} ticks, {:?} idle and not delivered, rest {:.3} %",
        ledger.expected_ticks,
        ledger.ticks,
        ledger.not_delivered_idle,
        100.0 * missing
    );
    ensure!(
        missing < 0.02,
        "{:.2} % of a busy host's ticks never came",
        100.0 * missing
    );
    // Ten seconds on every CPU, give or take what starting and stopping costs.
    let cpus = need::online_cpus()?.len() as u64;
    let wanted = 10 * cpus * recording.index.frequency_hz;
    let expected = ledger.expected_ticks.unwrap_or(0);
    ensure!(
        expected.abs_diff(wanted) * 50 < wanted,
        "{expected} ticks expected in 10 s on {cpus} CPUs"
    );
    Ok(())
}

fn loaded_at_99_hz() -> Verdict {
    loaded("99")
}

fn loaded_at_4999_hz() -> Verdict {
    loaded("4999")
}

fn idle(hz: &str) -> Verdict {
    need::root()?;
    let (_, recording) = record(&["-d", "10s", "-F", hz])?;
    nothing_lost(&recording)?;
    let ledger = &recording.index.ledger;
    eprintln!(
        "idle, {hz} Hz: {:?} expected, {} ticks, {:?} not delivered, {:?} of it idle",
        ledger.expected_ticks, ledger.ticks, ledger.not_delivered, ledger.not_delivered_idle
    );
    Ok(())
}

fn idle_at_99_hz() -> Verdict {
    idle("99")
}

fn idle_at_4999_hz() -> Verdict {
    idle("4999")
}

fn map_updates_show() -> Verdict {
    need::root()?;
    let cpus = need::online_cpus()?;
    let cpu = cpus[0];
    let mut rests = Vec::new();
    for updates in [false, true] {
        let mut load: Vec<Background> = cpus[1..]
            .iter()
            .map(|cpu| Background::burn_on(*cpu))
            .collect::<Verdict<_>>()?;
        load.push(if updates {
            Background::fixture("mapupdate", &[&cpu.to_string(), "600000"])?
        } else {
            Background::burn_on(cpu)?
        });
        std::thread::sleep(Duration::from_millis(300));
        let before = stolen_ns()?;
        let (_, recording) = record(&["-d", "5s", "-F", "4999"])?;
        let stolen = stolen_ns()?.saturating_sub(before);
        nothing_lost(&recording)?;
        // One CPU's part, since the others' load is the same both times.
        rests.push(rest(&recording, stolen)? * cpus.len() as f64);
    }
    eprintln!(
        "not delivered on one CPU: {:.2} % without and {:.2} % with map updates",
        100.0 * rests[0],
        100.0 * rests[1]
    );
    ensure!(
        rests[1] - rests[0] >= 0.05,
        "map updates cost {:.2} points of a CPU's ticks",
        100.0 * (rests[1] - rests[0])
    );
    Ok(())
}

fn a_minute_of_drains() -> Verdict {
    need::root()?;
    let _load = Background::load_every_cpu()?;
    let _threads = Background::fixture("threads", &["1000"])?;
    let folder = scratch()?;
    let run = Recorder::new(&["-d", "60s", "-F", "4999", "--test-drain", "5ms"])?
        .into(folder.path().join("minute"))
        .run()?;
    // Opening it adds up the samples of all files against the ledger.
    let recording = run.recording()?;
    nothing_lost(&recording)?;
    let ledger = &recording.index.ledger;
    eprintln!(
        "a minute of drains: {} ticks, {} counted, {:?} not delivered",
        ledger.ticks, ledger.counted, ledger.not_delivered
    );
    let cpus = need::online_cpus()?.len() as u64;
    ensure!(
        ledger.counted * 10 >= 60 * 4999 * cpus * 8,
        "{} samples of a minute on {cpus} busy CPUs",
        ledger.counted
    );
    Ok(())
}
