//! The errors of a configuration.

use std::path::PathBuf;

/// A fault of a configuration: the key, its value, and the allowed values.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("invalid value for the variable `{variable}`: {value:?} ({expected})")]
    Variable { variable: String, value: String, expected: String },
    #[error("invalid value for `{key}`: {value} ({expected})")]
    Value { key: String, value: String, expected: String },
}

impl ConfigError {
    /// An invalid value of a key. `expected` is a noun phrase that names the allowed values.
    pub fn value(key: &str, value: impl std::fmt::Debug, expected: impl Into<String>) -> Self {
        let expected: String = expected.into();
        Self::Value { key: key.into(), value: format!("{value:?}"), expected: format!("expected {expected}") }
    }
}
