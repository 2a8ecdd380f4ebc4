//! What the guest reports: named sections between marker lines.
//!
//! ```text
//! === begin NAME
//! ...
//! === end NAME EXIT_CODE
//! ```

use anyhow::{Context, Result};
use std::collections::BTreeMap;

const BEGIN: &str = "=== begin ";
const END: &str = "=== end ";

/// One command of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The command's exit code.
    pub exit_code: i32,
    /// What it printed, without the blank lines around it.
    pub text: String,
}

/// Everything the guest reported.
#[derive(Debug, Default)]
pub struct Sections(BTreeMap<String, Section>);

impl Sections {
    /// Reads the report. A section that does not end is not there: the guest
    /// died in it. What stands between sections is not ours and is left out.
    pub fn parse(report: &str) -> Self {
        let mut sections = BTreeMap::new();
        let mut open: Option<(&str, Vec<&str>)> = None;
        for line in report.lines() {
            if let Some(name) = line.strip_prefix(BEGIN) {
                open = Some((name, Vec::new()));
            } else if let Some((name, lines)) = &mut open {
                if let Some(exit_code) = exit_code(line, name) {
                    let text = lines.join("\n").trim().to_string();
                    sections.insert((*name).to_string(), Section { exit_code, text });
                    open = None;
                } else {
                    lines.push(line);
                }
            }
        }
        Self(sections)
    }

    /// The section of that name.
    pub fn get(&self, name: &str) -> Result<&Section> {
        self.0
            .get(name)
            .with_context(|| format!("the guest did not get to the end of {name:?}"))
    }
}

/// The exit code, if `line` ends the section `name`.
fn exit_code(line: &str, name: &str) -> Option<i32> {
    line.strip_prefix(END)?
        .strip_prefix(name)?
        .strip_prefix(' ')?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn section(exit_code: i32, text: &str) -> Section {
        Section {
            exit_code,
            text: text.into(),
        }
    }

    #[test]
    fn a_section_is_what_stands_between_its_markers() {
        let report =
            "noise\n=== begin a\none\ntwo\n\n=== end a 0\nnoise\n=== begin b\n=== end b 7\n";
        let sections = Sections::parse(report);
        assert_eq!(*sections.get("a").unwrap(), section(0, "one\ntwo"));
        assert_eq!(*sections.get("b").unwrap(), section(7, ""));
    }

    #[test]
    fn a_terminals_line_ends_change_nothing() {
        let sections = Sections::parse("=== begin a\r\n{\r\n}\r\n=== end a 3\r\n");
        assert_eq!(*sections.get("a").unwrap(), section(3, "{\n}"));
    }

    #[test]
    fn only_its_own_end_closes_a_section() {
        let report = "=== begin a\n=== end b 0\n=== end ab 0\n=== end a x\n=== end a 0\n";
        let sections = Sections::parse(report);
        let text = "=== end b 0\n=== end ab 0\n=== end a x";
        assert_eq!(*sections.get("a").unwrap(), section(0, text));
    }

    #[test]
    fn a_guest_that_died_is_told_by_the_section_it_died_in() {
        let sections = Sections::parse("=== begin host\n{ \"ticks\": ");
        let error = sections.get("host").unwrap_err().to_string();
        assert!(error.contains("\"host\""), "{error}");
    }
}
