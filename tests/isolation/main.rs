//! Children without rights: what they cannot do, and what their loss costs.
//!
//! Trials run one at a time: some of them stop and kill the children that they
//! find.

mod confined;
#[path = "../symbolize/fixture.rs"]
#[expect(dead_code, reason = "another suite needs more of it")]
mod fixture;
mod limits;
mod lost;
mod tables;
#[path = "../symbolize/tool.rs"]
mod tool;

use libtest_mimic::Arguments;
use sampler::isolation::serve_if_child;
use sampler::symbolize;

fn main() -> std::process::ExitCode {
    let services = [symbolize::SERVICE, confined::SERVICE, tables::SERVICE];
    serve_if_child(&[&services[..], &limits::SERVICES].concat());
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut trials = confined::trials();
    trials.extend(limits::trials());
    trials.extend(lost::trials());
    trials.extend(tables::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
