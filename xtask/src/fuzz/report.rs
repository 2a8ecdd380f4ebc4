//! What libFuzzer says at its end, in fewer words.

use std::fmt;
use std::path::Path;

/// The figures of one process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    executions: Option<String>,
    per_second: Option<String>,
    peak_mb: Option<String>,
    /// Places in the code that some input reached.
    coverage: Option<String>,
    /// Those, told apart by how often they were reached, and comparisons.
    features: Option<String>,
    /// What it stopped for.
    said: Option<String>,
}

impl Report {
    /// Out of the log of a process.
    pub fn of(log: &str) -> Self {
        let mut report = Self::default();
        for line in log.lines() {
            let stat = |name| {
                let rest = line.strip_prefix("stat::")?.strip_prefix(name)?;
                Some(rest.trim_start_matches(':').trim().to_owned())
            };
            let after = |name| {
                let words = line.split_whitespace();
                words
                    .skip_while(|word| *word != name)
                    .nth(1)
                    .map(String::from)
            };
            let keep = |kept: &mut Option<String>, new: Option<String>| {
                if new.is_some() {
                    *kept = new;
                }
            };
            keep(&mut report.executions, stat("number_of_executed_units"));
            keep(&mut report.per_second, stat("average_exec_per_sec"));
            keep(&mut report.peak_mb, stat("peak_rss_mb"));
            if line.starts_with('#') {
                keep(&mut report.coverage, after("cov:"));
                keep(&mut report.features, after("ft:"));
            }
            let said = line.contains("panicked at") || line.contains("ERROR: libFuzzer");
            if said && report.said.is_none() {
                report.said = Some(line.to_owned());
            }
        }
        report
    }

    /// Why the process failed, and where it says more.
    pub fn finding(&self, log: &Path) -> String {
        let said = self.said.as_deref().unwrap_or("without a word");
        format!("{said} (see {})", log.display())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |figure: &Option<String>| figure.clone().unwrap_or_else(|| "?".into());
        write!(
            f,
            "executions {}, {} a second; coverage {}, features {}; at most {} MB",
            known(&self.executions),
            known(&self.per_second),
            known(&self.coverage),
            known(&self.features),
            known(&self.peak_mb),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    const LOG: &str = "\
INFO: seed corpus: files: 24
#25\tINITED cov: 900 ft: 1200 corp: 20/100Kb exec/s: 0 rss: 60Mb
#4096\tpulse  cov: 1000 ft: 3000 corp: 300/200Kb lim: 4096 exec/s: 500 rss: 90Mb
#5000\tDONE   cov: 1010 ft: 3100 corp: 301/200Kb lim: 4096 exec/s: 500 rss: 91Mb
stat::number_of_executed_units: 5000
stat::average_exec_per_sec:     500
stat::peak_rss_mb:              91
";

    #[test]
    fn the_last_figures_are_reported() {
        assert_eq!(
            Report::of(LOG).to_string(),
            "executions 5000, 500 a second; coverage 1010, features 3100; at most 91 MB"
        );
        assert_eq!(Report::of(LOG).said, None);
    }

    #[test]
    fn the_first_complaint_is_the_finding() {
        let log =
            "thread '<unnamed>' panicked at a.rs:1:2:\n==1== ERROR: libFuzzer: deadly signal\n";
        let said = Report::of(log).said;
        assert_eq!(
            said.as_deref(),
            Some("thread '<unnamed>' panicked at a.rs:1:2:")
        );
    }
}
