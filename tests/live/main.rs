//! Real recordings, as root, of programs that know what they do.
//!
//! Trials run one at a time: most of them measure, and a second one would be
//! part of what the first one sees. `SAMPLER_TEST_RUNS=20` makes the long
//! series of the trials that compare shares; `SAMPLER_TEST_CHILDREN=5000` makes a larger
//! crowd of the trial that has one.

mod cache;
mod crowded;
mod debugger;
mod errors;
mod formats;
mod hostile;
mod hostile_maps;
mod jit;
mod kernel;
mod ledger;
mod lifecycle;
mod memory;
mod names;
mod ordinary;
mod outcomes;
mod outputs;
mod rights;
mod scope;
#[path = "../symbolize/server.rs"]
mod server;
mod signals;
mod split;
mod support;
mod symbolize;
mod tables;
mod verification;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = [
        errors::trials(),
        outputs::trials(),
        rights::trials(),
        signals::trials(),
        scope::trials(),
        lifecycle::trials(),
        names::trials(),
        kernel::trials(),
        hostile::trials(),
        jit::trials(),
        hostile_maps::trials(),
        ordinary::trials(),
        outcomes::trials(),
        tables::trials(),
        cache::trials(),
        crowded::trials(),
        debugger::trials(),
        memory::trials(),
        verification::trials(),
        formats::trials(),
        split::trials(),
        ledger::trials(),
        symbolize::trials(),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    support::fixture::clear();
    conclusion.exit_code()
}
