//! Whether the kernel protects itself from root.

use super::small_file;

/// The state of the lockdown security module: see `kernel_lockdown(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockdown {
    /// The kernel has none, or does not show it.
    Absent,
    /// Off.
    Off,
    /// The kernel cannot be changed; reading it is allowed.
    Integrity,
    /// The kernel's memory cannot be read either, so not by BPF or perf.
    Confidentiality,
}

impl Lockdown {
    /// Reads `/sys/kernel/security/lockdown`.
    pub fn read() -> Self {
        small_file::read_text("/sys/kernel/security/lockdown")
            .map_or(Self::Absent, |text| Self::parse(&text))
    }

    /// The state in brackets, as in `none [integrity] confidentiality`.
    fn parse(text: &str) -> Self {
        let chosen = text
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'));
        match chosen.map(|(state, _)| state) {
            Some("none") => Self::Off,
            Some("integrity") => Self::Integrity,
            Some("confidentiality") => Self::Confidentiality,
            _ => Self::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_in_brackets_holds() {
        let parse = Lockdown::parse;
        assert_eq!(parse("[none] integrity confidentiality\n"), Lockdown::Off);
        assert_eq!(
            parse("none [integrity] confidentiality\n"),
            Lockdown::Integrity
        );
        assert_eq!(
            parse("none integrity [confidentiality]\n"),
            Lockdown::Confidentiality
        );
        assert_eq!(parse("none integrity]["), Lockdown::Absent);
    }
}
