//! Building a target so that libFuzzer sees where its inputs lead.

use crate::project;
use anyhow::{Context, Result};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a branch taken, and a comparison that nearly held, tell the fuzzer.
const FLAGS: &str = "--cfg fuzzing \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Where everything about fuzzing is that is not committed.
pub fn folder(root: &Path) -> PathBuf {
    root.join("target/fuzz")
}

/// Builds a target; its program.
pub fn target(root: &Path, name: &str) -> Result<PathBuf> {
    let host = host()?;
    // The host is named so that build scripts and macros are built without the
    // flags.
    project::run(
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--locked", "--bin", name])
            .args(["--target", &host, "--target-dir"])
            .arg(folder(root))
            .arg("--manifest-path")
            .arg(root.join("fuzz/Cargo.toml"))
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", FLAGS),
    )?;
    Ok(folder(root).join(host).join("release").join(name))
}

fn host() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = project::output(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(String::from)
        .context("rustc does not name its host")
}
