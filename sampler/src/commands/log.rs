//! What the program has to say to people, on stderr.

use tracing_subscriber::filter::LevelFilter;

/// Starts the log: no time, no module. `verbose` is how often `-v` was given.
///
/// A stderr that is closed or full loses lines, never the recording: a write
/// that fails must not be reported to the stderr that just failed.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(level)
        .without_time()
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use std::fs::File;
    use std::process::Command;

    /// Set in the copy of this test that has the full stderr.
    const LOGGING: &str = "SAMPLER_TEST_LOGGING";

    #[test]
    fn a_full_stderr_ends_nothing() {
        if std::env::var_os(LOGGING).is_some() {
            super::start(0);
            tracing::error!("nobody will read this");
            return;
        }
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "commands::log::tests::a_full_stderr_ends_nothing",
            ])
            .arg("--nocapture")
            .env(LOGGING, "1")
            .stderr(full)
            .output();
        let said = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(said.contains("1 passed"), "{said}");
    }
}
