//! `cargo xtask fuzz`: a target of `fuzz/` under libFuzzer.
//!
//! What libFuzzer needs of the compiler, a stable one has: coverage is a pass
//! of LLVM's. Corpus and logs stay in `target/fuzz`, so that the next run goes
//! on where this one ended.

mod build;
mod report;
mod seeds;
mod target;

use crate::project;
use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use report::Report;
use target::Target;

/// The longest input, in bytes.
const MAX_INPUT_BYTES: usize = 256 << 10;

#[derive(ClapArgs)]
pub struct Args {
    /// How long to look for inputs that break something, in seconds
    #[arg(long, value_name = "N", default_value_t = 1800)]
    seconds: u64,
    /// What to break
    #[arg(long, value_enum, default_value_t = Target::Tables)]
    target: Target,
    /// Processes that share the corpus
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

/// Where a target's files are.
struct Folders {
    corpus: PathBuf,
    findings: PathBuf,
    logs: PathBuf,
}

/// Builds the target, seeds its corpus and runs it; fails with what it found.
pub fn run(args: &Args) -> Result<()> {
    let root = project::root();
    let name = args.target.name();
    let folders = Folders::of(&root, name)?;
    let program = build::target(&root, name)?;
    let seeds = args.target.seeds(&root)?;
    seeds::write(&seeds, &folders.corpus)?;
    println!(
        "{name}: {} seeds, {} s, {} at a time; {}",
        seeds.len(),
        args.seconds,
        args.jobs,
        folders.logs.display()
    );
    let mut running = Vec::new();
    for job in 0..args.jobs {
        let log = folders.logs.join(format!("{job}.log"));
        running.push((start(&program, args.seconds, &folders, &log)?, log));
    }
    let mut failed = Vec::new();
    for (mut child, log) in running {
        let status = child.wait()?;
        let text = fs::read(&log).with_context(|| log.display().to_string())?;
        let report = Report::of(&String::from_utf8_lossy(&text));
        println!("{report}");
        if !status.success() {
            failed.push(format!("{status}: {}", report.finding(&log)));
        }
    }
    println!("corpus    {}", fs::read_dir(&folders.corpus)?.count());
    println!("findings  {}", failed.len());
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("\n"))
}

impl Folders {
    fn of(root: &Path, target: &str) -> Result<Self> {
        let of_target = build::folder(root).join(target);
        let folders = Self {
            corpus: of_target.join("corpus"),
            findings: of_target.join("findings"),
            logs: of_target.join("logs"),
        };
        for folder in [&folders.corpus, &folders.findings, &folders.logs] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        Ok(folders)
    }
}

fn start(program: &Path, seconds: u64, folders: &Folders, log: &Path) -> Result<Child> {
    Command::new(program)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT_BYTES}"))
        .arg(format!("-artifact_prefix={}/", folders.findings.display()))
        .args(["-rss_limit_mb=2048", "-timeout=10"])
        .args(["-print_final_stats=1", "-reload=1"])
        .arg(&folders.corpus)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log).with_context(|| log.display().to_string())?)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}
