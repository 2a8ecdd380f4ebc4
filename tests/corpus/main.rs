//! Stacks of all kinds of programs reach their roots: the corpus, briefly.
//!
//! One trial for each program of the list in `src/programs.rs`; `cargo xtask
//! bench completeness` measures the same at length. As root, one at a time.

use std::path::Path;
use std::process::ExitCode;

use corpus::{Bench, Measurement, PROGRAMS, Program, Unmeasured};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

const RATE_HZ: u32 = 499;
const SAMPLES: u32 = 300;
/// Of a program's stacks so many must be complete, but for chance.
const SHARE: f64 = 0.98;
/// How far chance may lead away from what is expected, in standard deviations.
const DEVIATIONS: f64 = 3.0;

/// Programs that fall short in so few samples, and why; at length they are
/// measured like all others.
const SLOW_TO_START: &[(&str, &str)] = &[(
    "rustc",
    "stacks longer than a copy, until the table of a library of 150 MB is there",
)];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = PROGRAMS
        .iter()
        .map(|program| {
            Trial::ignorable_test(format!("corpus::{}", program.name), move || trial(program))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(program: &Program) -> Result<Completion, Failed> {
    // SAFETY: geteuid takes nothing, touches nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(Completion::ignored_with("needs root"));
    }
    let measured = Bench::new(Path::new(env!("CARGO_BIN_EXE_sampler")))
        .and_then(|mut bench| bench.measure(program, RATE_HZ, SAMPLES));
    match measured {
        Ok(measured) => check(program, &measured),
        Err(Unmeasured::Missing(what)) if !in_ci() => Ok(Completion::ignored_with(what)),
        Err(Unmeasured::Missing(what)) => Err(what.into()),
        Err(Unmeasured::Impossible(why)) => Ok(Completion::ignored_with(why)),
        Err(Unmeasured::Failed(error)) => Err(format!("{error:#}").into()),
    }
}

/// Where a machine must not go green by lacking a tool.
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

fn check(program: &Program, measured: &Measurement) -> Result<Completion, Failed> {
    let (samples, complete) = (measured.tally.samples(), measured.tally.complete());
    // Ticks meet each stretch of CPU time by chance: at worst as Poisson has it.
    let delivered = measured.expected() * (1.0 - measured.disturbance.undelivered);
    let least_samples = delivered - DEVIATIONS * delivered.sqrt();
    if (samples as f64) < least_samples {
        return Err(format!(
            "{samples} samples of {:.2} s CPU, at least {least_samples:.0} are expected",
            measured.cpu_s
        )
        .into());
    }
    let slow = SLOW_TO_START.iter().find(|(name, _)| *name == program.name);
    if let Some(why) = program.excepted.or(slow.map(|(_, why)| *why)) {
        return Ok(Completion::ignored_with(format!(
            "{complete} of {samples} stacks are complete: {why}"
        )));
    }
    let all = samples as f64;
    let least = all * SHARE - DEVIATIONS * (all * SHARE * (1.0 - SHARE)).sqrt();
    if (complete as f64) < least {
        return Err(format!(
            "{complete} of {samples} stacks are complete, at least {least:.0} are asked for; \
             the others end in:\n{}",
            others(measured)
        )
        .into());
    }
    Ok(Completion::Completed)
}

fn others(measured: &Measurement) -> String {
    let roots = measured.tally.roots();
    let cut = roots.iter().filter(|(root, _)| !root.is_complete);
    let lines: Vec<String> = cut
        .take(8)
        .map(|(root, count)| format!("{count:>6}  {}  {}", root.verdict, root.place))
        .collect();
    lines.join("\n")
}
