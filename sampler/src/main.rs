//! The command line of `sampler`.

use std::process::ExitCode;

use clap::Parser as _;
use sampler::commands::cli::{Cli, Command};
use sampler::commands::{Failure, doctor, record};
use sampler::format::safe;

/// The exit code of a defect in the profiler itself.
const INTERNAL_ERROR: u8 = 70;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.verbose);
    match std::panic::catch_unwind(|| run(&cli.command)) {
        Ok(Ok(code)) => ExitCode::from(code as u8),
        Ok(Err(failure)) => {
            report(&failure);
            ExitCode::from(failure.exit_code() as u8)
        }
        Err(_) => ExitCode::from(INTERNAL_ERROR),
    }
}

fn run(command: &Command) -> Result<i32, Failure> {
    match command {
        Command::Record(args) => record::run(args),
        Command::Doctor(args) => {
            doctor::run(args, &mut std::io::stdout().lock()).map_err(Failure::Host)
        }
    }
}

fn report(failure: &Failure) {
    tracing::error!("{}", safe::terminal(failure.to_string()));
}

/// Logs go to stderr, for people: no time, no module.
fn start_log(verbose: u8) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(level)
        .without_time()
        .with_target(false)
        .init();
}
