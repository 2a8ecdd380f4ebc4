//! The stacks of a profiler's result: how many are the workload's, and how many
//! of these reach `main` or `_start`.

use super::program::LINK_PREFIX;

const ROOTS: [&str; 2] = ["main", "_start"];

/// The workload's stacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stacks {
    /// All of them.
    pub samples: u64,
    /// Those that reach their root.
    pub complete: u64,
}

impl Stacks {
    fn add<'a>(&mut self, count: u64, frames: impl Iterator<Item = &'a str> + Clone) {
        if frames.clone().any(|name| name.starts_with(LINK_PREFIX)) {
            self.samples += count;
            if frames.into_iter().any(|name| ROOTS.contains(&name)) {
                self.complete += count;
            }
        }
    }
}

/// Of `A;B;C 12` a line: all samples, and the workload's.
pub fn of_folded(text: &str) -> (u64, Stacks) {
    let mut all = 0;
    let mut own = Stacks::default();
    for line in text.lines() {
        let Some((frames, count)) = line.rsplit_once(' ') else {
            continue;
        };
        let count = count.parse().unwrap_or(0);
        all += count;
        own.add(count, frames.split(';'));
    }
    (all, own)
}

/// Of bpftrace's print of a map: `@[`, a frame on each line as `name+12`, `]: 12`.
pub fn of_bpftrace(text: &str) -> (u64, Stacks) {
    let mut all = 0;
    let mut own = Stacks::default();
    let mut frames: Vec<&str> = Vec::new();
    for line in text.lines() {
        if line.starts_with("@[") {
            frames.clear();
        }
        // An empty stack stands on one line: `@[]: 12`.
        if let Some((_, count)) = line.rsplit_once("]: ") {
            let count = count.trim().parse().unwrap_or(0);
            all += count;
            own.add(count, frames.iter().copied());
        } else {
            let frame = line.trim();
            frames.push(frame.split_once('+').map_or(frame, |(name, _)| name));
        }
    }
    (all, own)
}

/// Of a flame graph: `<title>name (1,234 samples, 5.67%)</title>` for each
/// frame. What passes through a root and, where the chain of links begins, is
/// the workload's, is complete; the workload's own are the samples of its
/// innermost function.
pub fn of_svg(text: &str) -> (u64, Stacks) {
    let titles = || {
        text.split("<title>").skip(1).filter_map(|rest| {
            let (title, _) = rest.split_once("</title>")?;
            let (name, samples) = title.rsplit_once(" (")?;
            let (samples, _) = samples.split_once(" samples")?;
            Some((name, samples.replace(',', "").parse::<u64>().ok()?))
        })
    };
    let sum = |wanted: &str| {
        titles()
            .filter(|(name, _)| *name == wanted)
            .map(|(_, samples)| samples)
            .sum::<u64>()
    };
    let samples = sum("link_0");
    let complete = sum("main").min(samples);
    (sum("all"), Stacks { samples, complete })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_stacks_are_complete_if_they_reach_main() {
        let text = "deep44;_start;main;link_1;link_0 7\n\
                    deep44;link_1;link_0 2\n\
                    other;main;f 4\n";
        let own = Stacks {
            samples: 9,
            complete: 7,
        };
        assert_eq!(of_folded(text), (13, own));
    }

    #[test]
    fn a_map_of_bpftrace_is_read_with_its_empty_stacks() {
        let text = "Attaching 1 probe...\n\n\n@[]: 3\n@[\n    link_0+11\n    0x7f01\n]: 2\n\
                    @[\n    link_0+11\n    main+5\n]: 40\n";
        let own = Stacks {
            samples: 42,
            complete: 40,
        };
        assert_eq!(of_bpftrace(text), (45, own));
    }

    #[test]
    fn a_flame_graph_is_read_by_its_titles() {
        let text = "<g><title>all (1,010 samples, 100%)</title></g>\
                    <g><title>main (990 samples, 98%)</title></g>\
                    <g><title>link_0 (1,000 samples, 99%)</title></g>";
        let own = Stacks {
            samples: 1_000,
            complete: 990,
        };
        assert_eq!(of_svg(text), (1_010, own));
    }
}
