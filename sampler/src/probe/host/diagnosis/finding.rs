//! One thing that was looked at, and what was seen.

use serde::Serialize;

/// How good what was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth knowing; the default recording loses nothing.
    Info,
    /// Recording works and loses something.
    Warning,
    /// Recording does not work.
    Missing,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Missing => "missing",
        }
    }
}

/// What was found about one thing. Item names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub item: &'static str,
    /// How good that is.
    pub state: State,
    /// What was seen.
    pub found: String,
    /// What a recording loses by it.
    pub cost: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(item: &'static str, found: impl Into<String>) -> Self {
        Self {
            item,
            state: State::Ok,
            found: found.into(),
            cost: None,
            fix: None,
        }
    }

    pub(super) fn not_ok(
        item: &'static str,
        state: State,
        found: impl Into<String>,
        cost: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            item,
            state,
            found: found.into(),
            cost: Some(cost.into()),
            fix: Some(fix.into()),
        }
    }
}
