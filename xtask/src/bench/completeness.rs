//! `cargo xtask bench completeness`: the share of whole stacks in each program of
//! the corpus, by the corpus' own judge.

use super::completeness_report::{Report, Row};
use crate::project;
use anyhow::{Context, Result};
use corpus::{PROGRAMS, Program, Tally, Unmeasured};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const QUICK_SAMPLES: u32 = 300;
/// Rows of `--roots` for each program.
const MOST_ROOTS: usize = 12;

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    /// Measure this binary instead of the release build of the checkout
    #[arg(long, value_name = "FILE")]
    sampler: Option<PathBuf>,
    /// Only these programs
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Samples a second and CPU; all programs are measured at each
    #[arg(long, value_name = "HZ,..", value_delimiter = ',', default_values_t = [99, 999])]
    rates: Vec<u32>,
    /// How many samples the CPU time of each program should make
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2_000,
        conflicts_with = "quick"
    )]
    expected_samples: u32,
    /// A few hundred samples only
    #[arg(long)]
    quick: bool,
    /// Let each run take the unwind tables that earlier ones kept; the first finds none
    #[arg(long)]
    keep_tables: bool,
    /// Also print where the stacks of each program end, and the verdicts
    #[arg(long)]
    roots: bool,
    /// Also write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let programs = chosen(&args.only)?;
    let sampler = match &args.sampler {
        Some(file) => file.clone(),
        None => project::release_sampler()?,
    };
    let wanted = if args.quick {
        QUICK_SAMPLES
    } else {
        args.expected_samples.max(1)
    };
    let mut bench = corpus::Bench::new(&sampler).map_err(explained)?;
    if args.keep_tables {
        bench.keep_tables();
    }
    let mut report = Report::new(
        project::output(Command::new("uname").arg("-r"))?.trim_end(),
        wanted,
    );
    for rate_hz in &args.rates {
        for program in &programs {
            match bench.measure(program, *rate_hz, wanted) {
                Ok(measured) => {
                    let row = Row::new(program, &measured);
                    eprintln!("{}", row.line());
                    if args.roots {
                        print_roots(&measured.tally);
                    }
                    report.rows.push(row);
                }
                Err(why) => {
                    let why = format!("{:#}", explained(why));
                    eprintln!("{}: {why}", program.name);
                    report.unmeasured.insert(program.name, why);
                }
            }
        }
    }
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(file, json + "\n").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Program>> {
    if names.is_empty() {
        return Ok(PROGRAMS.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            let found = PROGRAMS.iter().find(|program| program.name == name);
            found.with_context(|| {
                let all: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
                format!("no program {name:?}; there are {}", all.join(", "))
            })
        })
        .collect()
}

fn explained(why: Unmeasured) -> anyhow::Error {
    match why {
        Unmeasured::Missing(what) | Unmeasured::Impossible(what) => anyhow::anyhow!(what),
        Unmeasured::Failed(error) => error,
    }
}

fn print_roots(tally: &Tally) {
    let roots = tally.roots();
    for (root, count) in roots.iter().take(MOST_ROOTS) {
        let mark = if root.is_complete { "whole" } else { "cut" };
        println!(
            "  {count:>6}  {mark:<5}  {:<32}  {}",
            root.verdict, root.place
        );
    }
    if let Some(more) = roots.len().checked_sub(MOST_ROOTS).filter(|more| *more > 0) {
        println!("          … and {more} more ends");
    }
}
