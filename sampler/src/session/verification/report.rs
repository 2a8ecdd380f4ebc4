//! What the checks have found.

use std::collections::BTreeMap;
use std::fmt;

use sampler_common::Ending;

use super::Checked;
use super::compare::Verdict;

/// Disagreements that are kept to be shown.
const MAX_SHOWN: usize = 5;

/// Walks by what their check came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The same frames to the same end.
    pub agreed: u64,
    /// A frame differs.
    pub disagreed: u64,
    /// The same frames up to code that framehop cannot walk.
    pub framehop_failed: u64,
    /// The same frames up to the end of the copy.
    pub copy_too_short: u64,
    /// The same frames up to where the kernel's side gave up.
    pub truncated: u64,
    /// Not checked, for want of room or time.
    pub dropped: u64,
    /// Callers that both walks found, in all walks.
    pub callers_agreed: u64,
    /// Of `framehop_failed`, the reasons.
    pub failures: BTreeMap<&'static str, u64>,
    /// The first disagreements.
    pub shown: Vec<Disagreement>,
}

/// One walk on which the two do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// Whose.
    pub pid: u32,
    /// The first frame that differs, 0 being the interrupted one.
    pub frame: usize,
    /// Its address by the kernel's side; none after its end.
    pub ours: Option<u64>,
    /// How the walk of the kernel's side ended.
    pub ending: Ending,
    /// By framehop.
    pub theirs: Option<u64>,
    /// The frames that were left before, some eight at most, the last one last.
    pub visited: Vec<VisitedFrame>,
}

/// A frame on which the two agree, and how each leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitedFrame {
    /// Its number; that of the interrupted one is 0.
    pub number: usize,
    /// Its address in the process.
    pub address: u64,
    /// The file, and the virtual address in it.
    pub place: String,
    /// The rule of the kernel's side.
    pub rule: String,
    /// The row of the file's call frame information.
    pub row: String,
}

impl Verified {
    /// All that were checked.
    pub fn checked(&self) -> u64 {
        self.agreed + self.disagreed + self.framehop_failed + self.copy_too_short + self.truncated
    }

    /// Percentage of agreement among those that both walked to the end.
    pub fn agreement_percent(&self) -> Option<f64> {
        let compared = self.agreed + self.disagreed;
        (compared > 0).then(|| self.agreed as f64 * 100.0 / compared as f64)
    }

    /// Whether the circumstances of another disagreement are kept.
    pub(super) fn has_room_to_show(&self) -> bool {
        self.shown.len() < MAX_SHOWN
    }

    /// Counts one.
    pub(super) fn add(&mut self, checked: Checked) {
        self.callers_agreed += checked.callers;
        match checked.verdict {
            Verdict::Agrees => self.agreed += 1,
            Verdict::Disagrees { .. } => self.disagreed += 1,
            Verdict::CopyTooShort => self.copy_too_short += 1,
            Verdict::Truncated => self.truncated += 1,
            Verdict::FramehopFailed(why) => {
                self.framehop_failed += 1;
                *self.failures.entry(why.name()).or_default() += 1;
            }
        }
        if self.has_room_to_show() {
            self.shown.extend(checked.disagreement);
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verify-unwind: {} walks checked: ", self.checked())?;
        match self.agreement_percent() {
            Some(percent) => write!(
                f,
                "{percent:.2} % of the {} that framehop walked to their end agree",
                self.agreed + self.disagreed
            )?,
            None => write!(f, "framehop walked none to its end")?,
        }
        write!(
            f,
            ", {} disagree; {} callers are the same",
            self.disagreed, self.callers_agreed
        )?;
        if self.framehop_failed > 0 {
            let reasons: Vec<_> = self
                .failures
                .iter()
                .map(|(reason, walks)| format!("{reason} {walks}"))
                .collect();
            write!(
                f,
                "; {} framehop could not do ({})",
                self.framehop_failed,
                reasons.join(", ")
            )?;
        }
        for (walks, what) in [
            (self.copy_too_short, "outgrew their copy"),
            (self.truncated, "were truncated in the kernel"),
            (self.dropped, "were dropped unchecked"),
        ] {
            if walks > 0 {
                write!(f, "; {walks} {what}")?;
            }
        }
        writeln!(f)?;
        self.shown
            .iter()
            .try_for_each(|disagreement| write!(f, "{disagreement}"))
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |address: Option<u64>| {
            address.map_or_else(|| "none".to_owned(), |address| format!("{address:#x}"))
        };
        writeln!(
            f,
            "  process {}: frame {} is {} (the walk ended as {}), by framehop {}",
            self.pid,
            self.frame,
            address(self.ours),
            self.ending.name(),
            address(self.theirs),
        )?;
        for frame in &self.visited {
            writeln!(
                f,
                "    {:>3} {:#x} {}\n        rule {}\n        row  {}",
                frame.number,
                frame.address,
                crate::format::safe::terminal(&frame.place),
                frame.rule,
                frame.row,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Incapable;
    use super::*;

    fn checked(verdict: Verdict, disagreement: Option<Disagreement>) -> Checked {
        Checked {
            verdict,
            callers: 1,
            disagreement,
        }
    }

    #[test]
    fn every_walk_counts_once_and_the_first_disagreements_are_kept() {
        let disagrees = Verdict::Disagrees {
            frame: 1,
            ours: None,
            theirs: Some(0x20),
        };
        let disagreement = Disagreement {
            pid: 7,
            frame: 1,
            ours: None,
            ending: Ending::Complete,
            theirs: Some(0x20),
            visited: vec![VisitedFrame {
                number: 0,
                address: 0x10,
                place: "libc.so.6+0x10".to_owned(),
                rule: "EndOfStack".to_owned(),
                row: "rsp+8".to_owned(),
            }],
        };
        let mut found = Verified::default();
        for _ in 0..9 {
            found.add(checked(disagrees, Some(disagreement.clone())));
        }
        found.add(checked(Verdict::FramehopFailed(Incapable::Memory), None));
        for verdict in [Verdict::Agrees, Verdict::CopyTooShort, Verdict::Truncated] {
            found.add(checked(verdict, None));
        }
        assert_eq!((found.checked(), found.disagreed), (13, 9));
        assert_eq!(found.callers_agreed, 13);
        assert_eq!(found.agreement_percent(), Some(10.0));
        assert_eq!(found.shown.len(), MAX_SHOWN);
        let text = found.to_string();
        assert!(
            text.contains("10.00 %") && text.contains("libc.so.6+0x10"),
            "{text}"
        );
    }

    #[test]
    fn nothing_compared_is_no_agreement() {
        assert_eq!(Verified::default().agreement_percent(), None);
    }
}
