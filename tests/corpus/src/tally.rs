//! The samples of a run, by what the judge finds at their outermost ends.

use crate::judge::{Base, Ending, Judge};
use crate::profile;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Samples by where they end.
#[derive(Debug, Default)]
pub struct Tally {
    roots: BTreeMap<Root, u64>,
}

/// An outermost end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// What the judge found.
    pub verdict: String,
    /// Whether stacks that end so are complete.
    pub is_complete: bool,
    /// The function and the file of the outermost frame.
    pub place: String,
}

impl Tally {
    /// Judges every sample of `profiles`, of a run of `program`.
    pub(crate) fn of(
        profiles: &[PathBuf],
        judge: &mut Judge,
        program: &Path,
        base: Base,
    ) -> Result<Self> {
        let mut tally = Self::default();
        for file in profiles {
            for sample in profile::read(file)? {
                let ending = judge.ending(&sample.stack, program, base);
                let outermost = sample.stack.iter().rfind(|frame| frame.remark.is_none());
                let root = Root {
                    is_complete: ending.is_complete(),
                    place: outermost.map_or("-".into(), |frame| judge.describe(frame)),
                    verdict: match ending {
                        Ending::Marked(mark) => mark,
                        other => format!("{other:?}"),
                    },
                };
                *tally.roots.entry(root).or_default() += sample.count;
            }
        }
        Ok(tally)
    }

    /// All samples.
    pub fn samples(&self) -> u64 {
        self.roots.values().sum()
    }

    /// Those that are complete.
    pub fn complete(&self) -> u64 {
        let complete = self.roots.iter().filter(|(root, _)| root.is_complete);
        complete.map(|(_, count)| count).sum()
    }

    /// Every outermost end with its samples, the most frequent first.
    pub fn roots(&self) -> Vec<(&Root, u64)> {
        let mut roots: Vec<_> = self
            .roots
            .iter()
            .map(|(root, count)| (root, *count))
            .collect();
        roots.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        roots
    }
}
