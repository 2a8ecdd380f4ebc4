//! `cargo xtask bench slowdown`: how much slower a fixed piece of work gets
//! beside `sampler record`, and beside `perf record -g`.
//!
//! Work of units of 0.1 ms, on a stack of more than 40 frames, runs on every CPU
//! without a pause ([`worker`]). Beside it each arm of a round runs in turn: nothing, nothing
//! again, `sampler`, `perf`; each is given time to start and to settle, and then
//! a window of some seconds is looked at. All CPUs are busy, so whatever a
//! profiler takes, in interrupts or in processes of its own, is taken from the
//! work. Its start, and what it does after it was told to stop, lie outside the
//! window.
//!
//! Two figures are made of a window ([`window::Figures`]), each without the time
//! that the hypervisor took, by `/proc/stat`:
//!
//! - **whole**: wall time of a unit on average. It contains all that a profiler
//!   costs, and all that the machine does by itself: where neighbours share its
//!   cores it may become slower by some percent from one second to the next.
//! - **within**: the same as a multiple of the median unit, of each 256 units
//!   that follow each other. What makes all of these slower cancels out. So
//!   would a cost that reaches most units alike: it is assumed that a profiler
//!   costs what it costs in the units that it interrupts or pushes aside, and in
//!   few behind them. At 999 Hz nine of ten units hold no tick.
//!
//! The second is sharp under that assumption, the first needs none: they have to
//! agree within the interval of the first.
//!
//! The slowdown of an arm in a round is its figure over the mean of the two
//! windows with nothing beside them, less one. Differences are taken within a
//! round, the interval over rounds. The order of the arms is balanced over four rounds
//! ([`order`]). No window is left out for its result; a round is measured anew if
//! the hypervisor took more than 2 % of one of its windows, and that is counted.
//!
//! `--control` proves the figures: with nothing beside the work they must find
//! nothing, with 1 % more work 1 %, and beside a program that takes 1 % of each CPU
//! about that: what it took by its clock and the switches between the two.

mod arm;
mod order;
mod report;
mod window;
mod worker;

use self::arm::{Arm, Beside, Starting};
use self::order::{ARMS, Orders};
use self::report::{Part, Report, Round};
use self::window::Figures;
use self::worker::{Program, Worker};
use super::walk::machine;
use crate::project;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

const COMPARED: [Arm; ARMS] = [Arm::Alone, Arm::AloneAgain, Arm::Sampler, Arm::Perf];
const CONTROL: [Arm; ARMS] = [Arm::Alone, Arm::AloneAgain, Arm::Doubled, Arm::Burner];
/// A round of which more was stolen from one of its windows is measured anew.
const MOST_STOLEN: f64 = 0.02;

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// How often each arm is run; a multiple of four is balanced
    #[arg(long, default_value_t = 32, conflicts_with = "quick")]
    rounds: usize,
    /// Seconds that are looked at in each arm and round
    #[arg(long, default_value_t = 3.0, conflicts_with = "quick")]
    seconds: f64,
    /// Seconds that each arm gets before it is looked at, to settle
    #[arg(long, default_value_t = 4.0, conflicts_with = "quick")]
    settle: f64,
    /// Samples a second and CPU; all is measured at each
    #[arg(long, value_name = "HZ,..", value_delimiter = ',', default_values_t = [99, 999])]
    rates: Vec<u32>,
    /// Prove the figures instead: known slowdowns in the place of the profilers
    #[arg(long, conflicts_with = "rates")]
    control: bool,
    /// One short round: shows that everything works, measures little
    #[arg(long)]
    quick: bool,
    /// Measure this binary instead of the release build of the checkout
    #[arg(long, value_name = "FILE")]
    sampler: Option<PathBuf>,
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How much is run.
struct Plan {
    rounds: usize,
    window: Duration,
    /// What each arm gets, the work alone too.
    settle: Duration,
}

impl Plan {
    fn of(args: &Args) -> Self {
        if args.quick {
            Self {
                rounds: 1,
                window: Duration::from_secs(1),
                settle: Duration::from_secs(1),
            }
        } else {
            Self {
                rounds: args.rounds.max(1),
                window: Duration::from_secs_f64(args.seconds.clamp(0.1, 60.0)),
                settle: Duration::from_secs_f64(args.settle.clamp(0.1, 60.0)),
            }
        }
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let plan = Plan::of(args);
    let folder = tempfile::Builder::new()
        .prefix("sampler-bench-")
        .tempdir()?;
    let program = Program::build(folder.path())?;
    let load_before = machine::checked_load_average()?;
    let mut parts = Vec::new();
    if args.control {
        let none = Path::new("");
        parts.push(measure(
            &plan,
            CONTROL,
            &starting(&program, none, folder.path(), 0),
        )?);
    } else {
        project::output(Command::new("perf").arg("--version")).context("perf is compared with")?;
        let sampler = match &args.sampler {
            Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
            None => project::release_sampler()?,
        };
        for rate_hz in &args.rates {
            let starting = starting(&program, &sampler, folder.path(), *rate_hz);
            parts.push(measure(&plan, COMPARED, &starting)?);
        }
    }
    let report = Report {
        kernel: project::output(Command::new("uname").arg("-r"))?
            .trim_end()
            .to_string(),
        cpus: program.threads(),
        load_before,
        window_s: plan.window.as_secs_f64(),
        parts,
    };
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn starting<'a>(
    program: &'a Program,
    sampler: &'a Path,
    folder: &'a Path,
    rate_hz: u32,
) -> Starting<'a> {
    Starting {
        program,
        sampler,
        folder,
        rate_hz,
    }
}

/// All rounds of these arms.
fn measure(plan: &Plan, arms: [Arm; ARMS], starting: &Starting<'_>) -> Result<Part> {
    let mut worker = starting.program.work()?;
    let mut orders = Orders::new();
    let mut rounds = Vec::new();
    let mut repeats = 0;
    while rounds.len() < plan.rounds {
        let order = orders.next();
        let round = loop {
            let round = measure_round(plan, arms, order, &mut worker, starting)?;
            // Where it never gets better, it goes on all the same.
            if round.stolen() <= MOST_STOLEN || repeats >= plan.rounds {
                break round;
            }
            repeats += 1;
        };
        rounds.push(round);
        eprintln!("round {} of {} done", rounds.len(), plan.rounds);
    }
    Part::new(starting.rate_hz, arms, &rounds, repeats)
}

fn measure_round(
    plan: &Plan,
    arms: [Arm; ARMS],
    order: [usize; ARMS],
    worker: &mut Worker,
    starting: &Starting<'_>,
) -> Result<Round> {
    let mut looks = [None; ARMS];
    for at in order {
        looks[at] = Some(look(plan, arms[at], worker, starting)?);
    }
    ensure!(looks.iter().all(Option::is_some), "an order names each arm");
    let mut looks = looks.into_iter().flatten();
    let mut next = || looks.next().context("an order names each arm");
    Ok(Round([next()?, next()?, next()?, next()?]))
}

/// What was seen in one window.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    figures: Figures,
    /// CPU time of what runs beside the work, of all CPUs' time.
    beside: f64,
}

fn look(plan: &Plan, arm: Arm, worker: &mut Worker, starting: &Starting<'_>) -> Result<Look> {
    let beside = Beside::start(arm, starting)?;
    thread::sleep(plan.settle);
    let before_ns = beside.cpu_ns();
    let figures = worker.window(plan.window, arm.doubled())?;
    let used_ns = beside.cpu_ns().saturating_sub(before_ns);
    beside.end(plan.window)?;
    let all_ns = plan.window.as_nanos() as f64 * starting.program.threads() as f64;
    Ok(Look {
        figures,
        beside: used_ns as f64 / all_ns,
    })
}
