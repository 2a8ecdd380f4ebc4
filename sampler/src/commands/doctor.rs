//! `sampler doctor`: what this host allows, what it does not, and the fix.

use std::io::{self, Write};

use serde::Serialize;

use crate::probe::host::HostFacts;
use crate::probe::host::diagnosis::{Finding, Report, State, diagnose};

/// Exit code where recording works.
const ABLE: i32 = 0;
/// Exit code where it does not.
const UNABLE: i32 = 3;

/// What `sampler doctor` may be told.
#[derive(Debug, Clone, clap::Args)]
pub struct DoctorArgs {
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Looks at the host and prints what it found; returns the exit code. A reader
/// that goes away is no error.
pub fn run(args: &DoctorArgs, out: &mut impl Write) -> anyhow::Result<i32> {
    let facts = HostFacts::gather();
    let report = diagnose(&facts);
    let printed = if args.json {
        print_json(&facts.kernel_release, &report, out)
    } else {
        print_table(&report, out)
    };
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit_code(&report)),
    }
}

fn exit_code(report: &Report) -> i32 {
    if report.blocker().is_none() {
        ABLE
    } else {
        UNABLE
    }
}

/// The shape of `--json`: stable; later versions add fields and items only.
#[derive(Serialize)]
struct Json<'a> {
    sampler: &'static str,
    kernel: &'a str,
    record_works: bool,
    findings: &'a [Finding],
}

fn print_json(kernel: &str, report: &Report, out: &mut impl Write) -> io::Result<()> {
    let json = Json {
        sampler: env!("CARGO_PKG_VERSION"),
        kernel,
        record_works: report.blocker().is_none(),
        findings: &report.findings,
    };
    serde_json::to_writer_pretty(&mut *out, &json)?;
    writeln!(out)
}

fn print_table(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let width = |text: &str| text.chars().count();
    let items = report.findings.iter().map(|finding| width(finding.item));
    let items = items.max().unwrap_or_default();
    let states = width(State::Warning.name());
    for finding in &report.findings {
        let state = finding.state.name();
        let found = printable(&finding.found);
        writeln!(out, "{state:states$}  {:items$}  {found}", finding.item)?;
        for (label, text) in [("costs", &finding.cost), ("fix", &finding.fix)] {
            if let Some(text) = text {
                let label = format!("{label}:");
                writeln!(
                    out,
                    "{:states$}  {:>items$}  {}",
                    "",
                    label,
                    printable(text)
                )?;
            }
        }
    }
    writeln!(out, "\n{}", verdict(report))
}

fn verdict(report: &Report) -> String {
    let count = |state| {
        let of_state = |finding: &&Finding| finding.state == state;
        report.findings.iter().filter(of_state).count()
    };
    match (count(State::Missing), count(State::Warning)) {
        (0, 0) => "`sampler record` works here.".to_owned(),
        (0, losses) => format!("`sampler record` works here, with losses: {losses} (see above)."),
        (missing, _) => {
            format!("`sampler record` does not work here: missing: {missing} (see above).")
        }
    }
}

/// A mount point may hold anything; a terminal gets no control characters.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;
    use crate::probe::host::invented::{able_host, nobody};

    fn table(facts: &HostFacts) -> String {
        let mut out = Vec::new();
        print_table(&diagnose(facts), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_exit_code_says_whether_record_works() {
        assert_eq!(exit_code(&diagnose(&able_host())), 0);
        assert_eq!(exit_code(&diagnose(&nobody(able_host()))), 3);
    }

    #[test]
    fn a_loss_is_followed_by_its_cost_and_its_fix() {
        let mut host = able_host();
        host.cgroups.version2.clear();
        let table = table(&host);
        let after: Vec<&str> = table
            .lines()
            .skip_while(|line| !line.contains("cgroup2"))
            .collect();
        assert!(after[0].starts_with("warning"), "{table}");
        assert!(after[1].trim().starts_with("costs:"), "{table}");
        assert!(after[2].trim().starts_with("fix:"), "{table}");
        assert!(
            table.ends_with("works here, with losses: 1 (see above).\n"),
            "{table}"
        );
    }

    #[test]
    fn a_host_that_cannot_record_says_so_last() {
        let table = table(&nobody(able_host()));
        let last = table.lines().last().unwrap();
        assert!(
            last.starts_with("`sampler record` does not work here"),
            "{last}"
        );
    }

    #[test]
    fn a_hostile_mount_point_reaches_no_terminal() {
        let mut host = able_host();
        host.cgroups.version2[0].point = "/x\x1b[2Jy\n".into();
        assert!(!table(&host).contains('\x1b'));
        assert!(table(&host).contains("/x\u{fffd}[2Jy\u{fffd}"));
    }

    #[test]
    fn json_is_one_object_with_every_finding() {
        let report = diagnose(&nobody(able_host()));
        let mut out = Vec::new();
        print_json("6.1", &report, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["record_works"], false);
        assert_eq!(json["kernel"], "6.1");
        let findings = json["findings"].as_array().unwrap();
        assert_eq!(findings.len(), report.findings.len());
        let privilege = findings.iter().find(|found| found["item"] == "privilege");
        assert_eq!(privilege.unwrap()["state"], "missing");
        assert!(privilege.unwrap()["fix"].is_string());
        let kernel = findings.iter().find(|found| found["item"] == "kernel");
        assert!(kernel.unwrap()["cost"].is_null());
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for json in [false, true] {
            assert!(run(&DoctorArgs { json }, &mut Gone).is_ok());
        }
    }
}
