//! The command line of `sampler`.

use std::process::ExitCode;

use sampler::commands::cli::{Cli, Command};
use sampler::commands::{Failure, doctor, log, record, symbolize};
use sampler::format::safe;

/// The exit code of a defect in the profiler itself.
const INTERNAL_ERROR: u8 = 70;

/// Blocks from this size on are given back to the system when they are freed.
const MAPPED_BLOCK_BYTES: libc::c_int = 128 << 10;

fn main() -> ExitCode {
    give_back_large_blocks();
    sampler::serve_if_child();
    let cli = Cli::from_arguments(std::env::args_os()).unwrap_or_else(|error| error.exit());
    log::start(cli.verbose);
    match std::panic::catch_unwind(|| run(&cli.command)) {
        Ok(Ok(code)) => ExitCode::from(code as u8),
        Ok(Err(failure)) => {
            report(&failure);
            ExitCode::from(failure.exit_code() as u8)
        }
        Err(_) => ExitCode::from(INTERNAL_ERROR),
    }
}

/// glibc raises that size to that of the largest block freed so far, up to 32
/// MiB: after one large table, smaller ones would stay in memory for good.
fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BLOCK_BYTES);
    }
}

fn run(command: &Command) -> Result<i32, Failure> {
    match command {
        Command::Record(args) => record::run(args),
        Command::Symbolize(args) => symbolize::run(args),
        Command::Doctor(args) => {
            doctor::run(args, &mut std::io::stdout().lock()).map_err(Failure::Host)
        }
    }
}

fn report(failure: &Failure) {
    tracing::error!("{}", safe::terminal(failure.to_string()));
}
