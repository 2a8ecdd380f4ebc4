//! Whether a recording can start at all, asked before anything is begun.

use super::diagnosis::diagnose;
use super::facts::HostFacts;

/// The first reason why this host, or this caller, cannot record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host cannot record: {found}: {cost}; to fix it: {fix}")]
pub struct PreflightError {
    /// The finding's item, as `doctor` lists it.
    pub item: &'static str,
    /// What was seen.
    pub found: String,
    /// Why that matters.
    pub cost: String,
    /// What to do about it.
    pub fix: String,
}

/// Gathers the facts; an error where [`diagnose`] finds a blocker.
pub fn preflight() -> Result<HostFacts, PreflightError> {
    check(HostFacts::gather())
}

fn check(facts: HostFacts) -> Result<HostFacts, PreflightError> {
    let report = diagnose(&facts);
    let Some(blocker) = report.blocker() else {
        return Ok(facts);
    };
    Err(PreflightError {
        item: blocker.item,
        found: match blocker.item {
            // These say the whole thing by themselves.
            "lockdown" | "privilege" => blocker.found.clone(),
            item => format!("{item}: {}", blocker.found),
        },
        cost: blocker.cost.clone().unwrap_or_default(),
        fix: blocker.fix.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::super::invented::{able_host, nobody};
    use super::*;

    #[test]
    fn an_able_host_is_let_through() {
        assert!(check(able_host()).is_ok());
    }

    #[test]
    fn the_refusal_is_one_line_that_names_the_fix() {
        let error = check(nobody(able_host())).unwrap_err();
        assert_eq!(error.item, "privilege");
        let line = error.to_string();
        assert!(line.contains("uid 65534 without CAP_BPF and CAP_PERFMON"));
        assert!(line.contains("run as root"));
        assert_eq!(line.lines().count(), 1);
    }
}
