//! What a person reads at the end of a recording.

use std::fmt::Write as _;

use crate::format::safe;
use crate::output::{FileIndex, Index, StackIndex};

/// Rows of the table; the others are in `index.json`.
const MAX_ROWS: usize = 25;

/// The table of processes, the ledger and the profiler's own cost.
pub fn text(index: &Index, directory: &str, columns: Option<usize>) -> String {
    let mut text = String::new();
    table(&mut text, index);
    let _infallible = writeln!(text, "{}", files_line(index, directory));
    for line in ledger_lines(index) {
        let _infallible = writeln!(text, "{line}");
    }
    if let Some(line) = tables_line(index) {
        let _infallible = writeln!(text, "{line}");
    }
    let _infallible = writeln!(text, "{}", cost_line(index));
    match columns {
        Some(columns) => cut(&text, columns),
        None => text,
    }
}

fn table(text: &mut String, index: &Index) {
    // With several formats there are several files a process: show the first.
    let mut rows: Vec<&FileIndex> = Vec::new();
    for file in &index.files {
        if rows
            .last()
            .is_none_or(|last| stem(&last.file) != stem(&file.file))
        {
            rows.push(file);
        }
    }
    if rows.is_empty() {
        return;
    }
    let cpu_time_ns = index.duration_ns as f64 * f64::from(index.host.cpus);
    let name_width = rows
        .iter()
        .take(MAX_ROWS)
        .map(|row| safe::terminal(&row.comm).chars().count())
        .max()
        .unwrap_or(0)
        .clamp(4, 30);
    let _infallible = writeln!(
        text,
        "{:>7}  {:name_width$}  {:>8}  {:>6}  {:>9}  FILE",
        "PID", "COMM", "SAMPLES", "CPU %", "COMPLETE%"
    );
    for row in rows.iter().take(MAX_ROWS) {
        let pid = row
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let complete = complete_percent(&row.stacks)
            .map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}"));
        let _infallible = writeln!(
            text,
            "{pid:>7}  {:name_width$}  {:>8}  {:>6.2}  {complete:>9}  {}",
            safe::terminal(&row.comm),
            row.samples,
            row.cpu_ns as f64 * 100.0 / cpu_time_ns.max(1.0),
            row.file,
        );
    }
    if rows.len() > MAX_ROWS {
        let _infallible = writeln!(text, "         … and {} more", rows.len() - MAX_ROWS);
    }
    text.push('\n');
}

/// A file's name without its ending.
fn stem(file: &str) -> &str {
    [".pb.gz", ".folded", ".svg"]
        .iter()
        .find_map(|ending| file.strip_suffix(ending))
        .unwrap_or(file)
}

/// Percentage of the stacks with a user half that are complete.
fn complete_percent(stacks: &StackIndex) -> Option<f64> {
    let cut: u64 = stacks.truncated.values().sum();
    let with_user = stacks.complete + cut;
    (with_user > 0).then(|| stacks.complete as f64 * 100.0 / with_user as f64)
}

fn files_line(index: &Index, directory: &str) -> String {
    format!(
        "{} file{} and index.json in {}",
        index.files.len(),
        if index.files.len() == 1 { "" } else { "s" },
        safe::terminal(directory),
    )
}

fn ledger_lines(index: &Index) -> Vec<String> {
    let ledger = &index.ledger;
    let mut line = format!(
        "ledger   {} ticks = {} counted + {} idle + {} out of scope",
        ledger.ticks, ledger.counted, ledger.idle, ledger.out_of_scope
    );
    let lost: u64 = ledger.lost.values().sum();
    let _infallible = write!(line, " + {lost} lost");
    if lost > 0 {
        let _infallible = write!(line, " ({})", reasons(&ledger.lost));
    }
    let mut lines = vec![line];
    if let (Some(expected), Some(missing), Some(idle)) = (
        ledger.expected_ticks,
        ledger.not_delivered,
        ledger.not_delivered_idle,
    ) {
        lines.push(format!(
            "         {missing} of {expected} expected ticks not delivered, {idle} of them to idle CPUs; {:.1} s stolen by the hypervisor",
            ledger.steal_ns as f64 / 1e9,
        ));
    }
    let stacks = &index.stacks;
    let cut: u64 = stacks.truncated.values().sum();
    let mut line = format!(
        "stacks   {} complete, {cut} truncated, {} kernel only",
        stacks.complete, stacks.kernel_only
    );
    if cut > 0 {
        let _infallible = write!(line, " (truncated: {})", reasons(&stacks.truncated));
    }
    lines.push(line);
    let frames = &index.frames;
    let all = frames.named + frames.unnamed;
    let named = if all == 0 {
        "none".to_owned()
    } else {
        format!(
            "{:.1} % of {all} named",
            frames.named as f64 * 100.0 / all as f64
        )
    };
    lines.push(format!(
        "frames   {named}; process events: {} heard, {} lost; {} files not pinned",
        index.lifecycle.records, index.lifecycle.lost_records, index.lifecycle.unpinned_files,
    ));
    lines
}

/// The reasons that occurred.
fn reasons(counts: &std::collections::BTreeMap<&'static str, u64>) -> String {
    let occurred: Vec<_> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    occurred.join(", ")
}

/// Only if there was too little room for unwind tables.
fn tables_line(index: &Index) -> Option<String> {
    let tables = &index.unwind_tables;
    let short = [
        (tables.not_loaded, "without room in the kernel"),
        (tables.evicted, "evicted there"),
        (tables.dropped, "dropped"),
        (tables.refused, "refused"),
    ];
    let short: Vec<String> = short
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{count} {how}"))
        .collect();
    (!short.is_empty()).then(|| {
        format!(
            "tables   {} built; {:.0} MiB of memory were too little for all: {}",
            tables.built,
            index.cost.memory_budget_bytes as f64 / f64::from(1 << 20),
            short.join(", ")
        )
    })
}

fn cost_line(index: &Index) -> String {
    let cost = &index.cost;
    let per_run_us = if cost.bpf_runs == 0 {
        0.0
    } else {
        cost.bpf_ns as f64 / 1e3 / cost.bpf_runs as f64
    };
    format!(
        "cost     {:.2} s CPU + {:.3} s in the kernel ({per_run_us:.1} us a tick), {:.1} MiB + {:.1} MiB of maps, files in place after {:.2} s",
        cost.cpu_ns as f64 / 1e9,
        cost.bpf_ns as f64 / 1e9,
        cost.peak_rss_bytes as f64 / f64::from(1 << 20),
        cost.bpf_map_bytes as f64 / f64::from(1 << 20),
        cost.finish_ns as f64 / 1e9,
    )
}

/// Cuts each line to the width of the terminal.
fn cut(text: &str, columns: usize) -> String {
    text.lines()
        .flat_map(|line| line.chars().take(columns.max(40)).chain(['\n']))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_process_share_a_stem() {
        assert_eq!(stem("cpu-a-1.pb.gz"), stem("cpu-a-1.svg"));
        assert_ne!(stem("cpu-a-1.pb.gz"), stem("cpu-a-1-2.pb.gz"));
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        let wide = format!("{}\nshort\n", "x".repeat(200));
        assert_eq!(cut(&wide, 80), format!("{}\nshort\n", "x".repeat(80)));
    }
}
