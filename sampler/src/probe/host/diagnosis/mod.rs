//! What the facts of a host mean for a recording: what is lost, and the fix.

mod finding;
mod kernel;
mod rights;
mod settings;

pub use finding::{Finding, State};

use super::facts::HostFacts;

/// Every finding about a host, in the order in which they are to be fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One for each thing that was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The first finding that makes recording impossible.
    pub fn blocker(&self) -> Option<&Finding> {
        self.findings
            .iter()
            .find(|finding| finding.state == State::Missing)
    }
}

/// Judges a host. Pure, so that hosts nobody has at hand can be judged too.
pub fn diagnose(facts: &HostFacts) -> Report {
    let mut findings = vec![kernel::version(facts), settings::lockdown(facts)];
    findings.extend(rights::rights(facts));
    findings.extend([
        rights::proc(facts),
        rights::pid_namespace(facts),
        kernel::types(facts),
        kernel::cpu_clock(facts),
        kernel::side_band(facts),
        kernel::cycles(facts),
        kernel::programs(facts),
        kernel::task_programs(facts),
        kernel::helpers(facts),
        settings::paranoid(facts),
        settings::sample_rate(facts),
        settings::stack_depth(facts),
        settings::kernel_addresses(facts),
        settings::pinned_memory(facts),
        settings::cgroup(facts),
    ]);
    Report { findings }
}

#[cfg(test)]
mod tests;
