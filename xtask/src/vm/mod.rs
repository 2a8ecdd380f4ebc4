//! `cargo xtask vm`: the profiler on another kernel than this machine's, in a
//! guest under software emulation.

mod checks;
mod debian;
mod folded;
mod index;
mod initramfs;
mod machine;
mod sections;
mod tools;

use crate::project;
use anyhow::{Context, Result, bail};
use initramfs::Programs;
use sections::Sections;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FIXTURE: &str = include_str!("fixture.c");
/// How deep the fixture recurses.
const DEPTH: usize = 40;

/// Which kernel, and what stays behind.
#[derive(clap::Args)]
pub struct Args {
    /// Boot this kernel image instead of the cloud kernel of this Debian
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Try this binary instead of the release build of the checkout
    #[arg(long, value_name = "FILE")]
    sampler: Option<PathBuf>,
    /// Leave the guest's files and what it wrote in target/vm/run also when all is well
    #[arg(long)]
    keep: bool,
}

/// Boots, records in the guest, and judges what came out.
pub fn run(args: &Args) -> Result<()> {
    tools::require()?;
    let cache = project::root().join("target/vm");
    fs::create_dir_all(&cache)?;
    let kernel = match &args.kernel {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => debian::kernel(&cache)?,
    };
    let busybox = debian::busybox(&cache)?;
    let sampler = match &args.sampler {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => project::release_sampler()?,
    };

    // A fixed name: what a failure leaves is replaced by the next run.
    let folder = cache.join("run");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    let result = try_on(&kernel, &busybox, &sampler, &folder);
    if args.keep || result.is_err() {
        eprintln!("what the guest wrote is in {}", folder.display());
    } else {
        fs::remove_dir_all(&folder)?;
    }
    result
}

fn try_on(kernel: &Path, busybox: &Path, sampler: &Path, folder: &Path) -> Result<()> {
    let programs = Programs {
        busybox,
        sampler: &stripped(sampler, folder)?,
        fixture: &build_fixture(folder)?,
    };
    let initrd = folder.join("initrd");
    initramfs::build(&programs, &folder.join("tree"), &initrd)?;
    let output = machine::boot(kernel, &initrd, folder)?;

    let console = format!(
        "the console ended with:\n{}",
        machine::tail(&output.console)
    );
    let checks = checks::judge(&Sections::parse(&output.report), DEPTH)
        .or_else(|error| bail!("{error:#}; {console}"))?;
    let mut failures = 0;
    for check in &checks {
        let verdict = if check.held { "ok    " } else { "FAILED" };
        println!("{verdict} {}", check.statement);
        failures += usize::from(!check.held);
    }
    if failures > 0 {
        bail!("{failures} of {} did not hold; {}", checks.len(), console);
    }
    println!(
        "{} checks held; the guest ran for {} s",
        checks.len(),
        output.elapsed.as_secs()
    );
    Ok(())
}

/// Without debug information, which an emulated machine would take long to read.
fn stripped(sampler: &Path, folder: &Path) -> Result<PathBuf> {
    let file = folder.join("sampler");
    project::run(
        Command::new("strip")
            .args(["--strip-debug", "-o"])
            .args([&file, sampler]),
    )?;
    Ok(file)
}

fn build_fixture(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("fixture.c");
    let program = folder.join("fixture");
    fs::write(&source, FIXTURE)?;
    project::run(
        Command::new("cc")
            .args(["-O1", "-static", "-nostdlib", "-ffreestanding"])
            .args(["-fno-omit-frame-pointer"])
            .args([
                "-fno-optimize-sibling-calls",
                "-fno-stack-protector",
                "-fcf-protection=none",
            ])
            .args([&format!("-DDEPTH={DEPTH}"), "-o"])
            .args([&program, &source]),
    )?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn the_fixture_runs_without_a_library_and_exits_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let fixture = build_fixture(folder.path()).unwrap();
        let exit_code = |arguments: &[&str]| {
            let status = Command::new(&fixture).args(arguments).status().unwrap();
            status.code()
        };
        assert_eq!(exit_code(&["recurse", "1"]), Some(0));
        assert_eq!(exit_code(&["fork", "1"]), Some(7));
        assert_eq!(exit_code(&["brief", "3"]), Some(0));
        assert_eq!(exit_code(&[]), Some(2));
    }
}
