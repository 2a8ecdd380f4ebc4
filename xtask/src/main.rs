//! The project's own tasks, run as `cargo xtask TASK`.
#![allow(
    clippy::print_stdout,
    reason = "what a task prints is its result, read by people and by CI"
)]

mod bench;
mod ebpf;
mod fuzz;
mod licenses;
mod project;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF object that `sampler` embeds, or check the committed one
    Ebpf(ebpf::Args),
    /// Look for inputs that break a parser
    Fuzz(fuzz::Args),
    /// Check the licence of every dependency of `sampler` and of the eBPF object
    Licenses,
    /// Measure what the profiler costs
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Try the profiler on another kernel, in an emulated machine
    Vm(vm::Args),
}

fn main() -> ExitCode {
    if let Some(exit) = ebpf::rustc_wrapper::run_if_called_as_one() {
        return exit;
    }
    let result = match Cli::parse().task {
        Task::Ebpf(args) => ebpf::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Licenses => licenses::run(),
        Task::Bench(bench) => bench::run(&bench),
        Task::Vm(args) => vm::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
