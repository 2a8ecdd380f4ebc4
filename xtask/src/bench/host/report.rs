//! What recording a crowd has cost.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Processes that ran.
    pub processes: usize,
    /// Different files that they ran.
    pub files: usize,
    /// Seconds that were recorded.
    pub seconds: u64,
    /// CPU time of the profiler from start to exit, by the kernel's account.
    pub own_cpu_s: f64,
    /// Its highest memory as seen from outside, looking fifty times a second.
    pub seen_peak_rss_bytes: u64,
    /// Its own account.
    #[serde(flatten)]
    pub index: Index,
}

/// What is of interest of `index.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Index {
    /// What it cost.
    pub cost: Cost,
    /// What became of the unwind tables.
    pub unwind_tables: Tables,
    /// What became of the stacks.
    pub stacks: Stacks,
    /// Where the ticks went.
    pub ledger: Ledger,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Cost {
    pub bpf_ns: u64,
    pub peak_rss_bytes: u64,
    pub file_backed_rss_bytes: u64,
    pub bpf_map_bytes: u64,
    pub memory_budget_bytes: u64,
    pub finish_ns: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Tables {
    pub built: u64,
    pub rows: u64,
    pub bytes: u64,
    pub refused: u64,
    pub not_loaded: u64,
    pub evicted: u64,
    pub dropped: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Stacks {
    pub complete: u64,
    pub truncated: BTreeMap<String, u64>,
    pub kernel_only: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ledger {
    pub ticks: u64,
    pub counted: u64,
    pub lost: BTreeMap<String, u64>,
}

impl Report {
    /// What counts against the budget: the higher of both looks, and the maps.
    pub fn sum_bytes(&self) -> u64 {
        let cost = &self.index.cost;
        cost.peak_rss_bytes.max(self.seen_peak_rss_bytes) + cost.bpf_map_bytes
    }

    /// For people.
    pub fn text(&self) -> String {
        let Index {
            cost,
            unwind_tables: tables,
            stacks,
            ledger,
        } = &self.index;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let cut: u64 = stacks.truncated.values().sum();
        let walked = (stacks.complete + cut).max(1);
        let reasons: Vec<String> = stacks
            .truncated
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<22} {value}");
        };
        line(
            "crowd",
            format!(
                "{} processes, {} files, {} s, Linux {}",
                self.processes, self.files, self.seconds, self.kernel
            ),
        );
        line(
            "samples",
            format!(
                "{} of {} ticks, {} lost",
                ledger.counted,
                ledger.ticks,
                ledger.lost.values().sum::<u64>()
            ),
        );
        line(
            "complete stacks",
            format!(
                "{:.1} % of {walked} with a user half; cut: {}",
                stacks.complete as f64 * 100.0 / walked as f64,
                if reasons.is_empty() {
                    "none".into()
                } else {
                    reasons.join(", ")
                }
            ),
        );
        line(
            "own CPU",
            format!(
                "{:.2} s + {:.3} s in the kernel",
                self.own_cpu_s,
                cost.bpf_ns as f64 * 1e-9
            ),
        );
        line(
            "peak RSS",
            format!(
                "{:.1} MiB by its own account, {:.1} MiB seen from outside",
                mib(cost.peak_rss_bytes),
                mib(self.seen_peak_rss_bytes)
            ),
        );
        line("BPF maps", format!("{:.1} MiB", mib(cost.bpf_map_bytes)));
        line(
            "sum of both",
            format!(
                "{:.1} MiB of a budget of {:.1} MiB",
                mib(self.sum_bytes()),
                mib(cost.memory_budget_bytes)
            ),
        );
        line(
            "file-backed",
            format!("{:.1} MiB besides", mib(cost.file_backed_rss_bytes)),
        );
        line(
            "unwind tables",
            format!(
                "{} built ({} rows, {:.1} MiB), {} evicted, {} times no room in the kernel, {} dropped, {} refused",
                tables.built,
                tables.rows,
                mib(tables.bytes),
                tables.evicted,
                tables.not_loaded,
                tables.dropped,
                tables.refused
            ),
        );
        line(
            "from stop to files",
            format!("{:.2} s", cost.finish_ns as f64 * 1e-9),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn the_higher_of_both_looks_counts_with_the_maps() {
        let index = r#"{
            "cost": {"bpf_ns": 1, "peak_rss_bytes": 3145728, "file_backed_rss_bytes": 0,
                     "bpf_map_bytes": 1048576, "memory_budget_bytes": 8388608, "finish_ns": 5},
            "unwind_tables": {"built": 7, "rows": 1, "bytes": 4, "refused": 0,
                              "not_loaded": 0, "evicted": 2, "dropped": 0},
            "stacks": {"complete": 3, "truncated": {"table_missing": 1, "x": 0}, "kernel_only": 9},
            "ledger": {"ticks": 20, "counted": 13, "lost": {"stacks_full": 1}}
        }"#;
        let report = Report {
            kernel: "6.18".into(),
            processes: 2,
            files: 1,
            seconds: 3,
            own_cpu_s: 0.5,
            seen_peak_rss_bytes: 4 << 20,
            index: serde_json::from_str(index).unwrap(),
        };
        assert_eq!(report.sum_bytes(), 5 << 20);
        let text = report.text();
        assert!(text.contains("5.0 MiB of a budget of 8.0 MiB"), "{text}");
        assert!(text.contains("75.0 % of 4"), "{text}");
        assert!(text.contains("cut: table_missing 1\n"), "{text}");
        assert!(
            text.contains("7 built (1 rows, 0.0 MiB), 2 evicted"),
            "{text}"
        );
    }
}
