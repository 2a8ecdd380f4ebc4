//! `cargo xtask bench`: measurements of the profiler itself.

mod bpf_stats;
mod completeness;
mod completeness_report;
mod host;
mod naming;
mod overhead;
mod profiler;
mod ready;
mod report;
mod short_lived;
mod slowdown;
mod stats;
mod tree;
mod walk;
mod worker;

use anyhow::Result;

/// Which measurement.
#[derive(clap::Subcommand)]
pub enum Bench {
    /// How much slower a fixed piece of work gets, and what the profiler uses
    Overhead(overhead::Args),
    /// How much slower a fixed piece of work gets beside the profiler, and beside
    /// `perf record -g`, sharply
    Slowdown(slowdown::Args),
    /// How many stacks of the corpus' programs are whole
    Completeness(completeness::Args),
    /// What is seen of processes that live for some milliseconds
    ShortLived(short_lived::Args),
    /// What recording a host with thousands of processes takes, and whether that
    /// stays within the memory budget
    Host(host::Args),
    /// What a complete user stack costs in the kernel, beside other profilers
    Walk(walk::Args),
    /// What naming costs, beside `perf script` and other profilers, and how much is named
    Naming(naming::Args),
}

/// Runs the measurement.
pub fn run(bench: &Bench) -> Result<()> {
    heed_interrupts();
    match bench {
        Bench::Overhead(args) => overhead::run(args),
        Bench::Slowdown(args) => slowdown::run(args),
        Bench::Completeness(args) => completeness::run(args),
        Bench::ShortLived(args) => short_lived::run(args),
        Bench::Host(args) => host::run(args),
        Bench::Walk(args) => walk::run(args),
        Bench::Naming(args) => naming::run(args),
    }
}

/// Profilers are ended by SIGINT. A shell has what it starts in the background
/// ignore it, and whoever is started with it ignored leaves it so.
fn heed_interrupts() {
    // SAFETY: the default action is no code of ours.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}
