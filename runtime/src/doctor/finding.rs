//! The result of one check.

use serde::Serialize;

/// The weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Good to know; nothing must be done.
    Note,
    /// Something can go wrong, or messages can be lost later.
    Warning,
    /// Something is wrong now.
    Error,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One sentence that says how it is, and one that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    pub level: Level,
    pub state: String,
    /// Empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Finding {
    pub fn ok(check: &'static str, state: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, state: state.into(), advice: String::new() }
    }

    pub fn new(
        check: &'static str,
        level: Level,
        state: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check, level, state: state.into(), advice: advice.into() }
    }
}
