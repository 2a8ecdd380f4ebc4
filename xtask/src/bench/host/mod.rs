//! `cargo xtask bench host`: the whole of a busy host, and whether the recording
//! of it stays within its memory budget.

mod crowd;
mod report;

use self::crowd::{Crowd, Size};
use self::report::{Index, Report};
use super::walk::running::Running;
use crate::project;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// Processes to start
    #[arg(long, default_value_t = 2_000, conflicts_with = "quick")]
    processes: usize,
    /// Different files that they run
    #[arg(long, default_value_t = 200, conflicts_with = "quick")]
    files: usize,
    /// Seconds to record
    #[arg(long, default_value_t = 20, conflicts_with = "quick")]
    seconds: u64,
    /// Samples a second and CPU
    #[arg(long, value_name = "HZ", default_value_t = 99)]
    rate: u32,
    /// The memory budget of the recording, as `sampler record` takes it
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A small crowd for three seconds: shows that everything works
    #[arg(long)]
    quick: bool,
    /// Measure this binary instead of the release build of the checkout
    #[arg(long, value_name = "FILE")]
    sampler: Option<PathBuf>,
}

impl Args {
    fn size(&self) -> Size {
        if self.quick {
            Size {
                processes: 100,
                files: 20,
                period_s: 0.2,
            }
        } else {
            Size {
                processes: self.processes,
                files: self.files,
                period_s: 1.0,
            }
        }
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(if self.quick { 3 } else { self.seconds.max(1) })
    }
}

/// Measures and prints; fails if the budget was not kept.
pub fn run(args: &Args) -> Result<()> {
    let sampler = match &args.sampler {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => project::release_sampler()?,
    };
    let folder = tempfile::Builder::new()
        .prefix("sampler-bench-")
        .tempdir()?;
    let size = args.size();
    let mut crowd = Crowd::start(size, folder.path())?;
    eprintln!("{} processes over {} files run", crowd.len(), crowd.files);
    for name in &crowd.missing {
        eprintln!("{name} is not installed and not among them");
    }
    let output = folder.path().join("profiles");
    let mut command = Command::new(sampler);
    command
        .args(["record", "--no-cache", "-F", &args.rate.to_string(), "-d"])
        .arg(format!("{}s", args.duration().as_secs()))
        .arg("-o")
        .arg(&output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.path().join("said"))?);
    if let Some(memory) = &args.memory {
        command.args(["--memory", memory]);
    }
    // It ends by itself, and then takes its time to write.
    let used = Running::start(command, folder.path())?.wait_for_end()?;
    crowd.check()?;
    let file = output.join("index.json");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let index: Index = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    let report = Report {
        kernel: project::output(Command::new("uname").arg("-r"))?
            .trim_end()
            .to_string(),
        processes: crowd.len(),
        files: crowd.files,
        seconds: args.duration().as_secs(),
        own_cpu_s: used.cpu_s,
        seen_peak_rss_bytes: used.peak_rss_bytes,
        index,
    };
    drop(crowd);
    print!("{}", report.text());
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
    }
    ensure!(
        report.sum_bytes() <= report.index.cost.memory_budget_bytes,
        "the recording took more memory than its budget"
    );
    Ok(())
}
