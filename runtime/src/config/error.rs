//! The errors of a configuration.

use std::path::PathBuf;

/// A fault of a configuration: the key, its value, and the allowed values.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("there is no configuration: {place}: {why}")]
    Remote { place: String, why: String },
    #[error("invalid value for the variable `{variable}`: {value:?} ({expected})")]
    Variable { variable: String, value: String, expected: String },
    #[error("invalid value for `{key}`: {value} ({expected})")]
    Value { key: String, value: String, expected: String },
}

impl ConfigError {
    /// An invalid value of a key. `expected` is a noun phrase that names the allowed values.
    pub fn value(key: &str, value: impl std::fmt::Debug, expected: impl Into<String>) -> Self {
        let expected: String = expected.into();
        let value = without_credentials(&format!("{value:?}"));
        Self::Value { key: key.into(), value, expected: format!("expected {expected}") }
    }
}

/// A text with the credentials of URLs in it taken out: those between `://` and `@`.
pub(crate) fn without_credentials(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find(['/', '"', ' ', '?', '#']).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                shown.push_str("(hidden)");
                &after[at..]
            }
            None => after,
        };
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credentials_of_a_url_are_not_quoted() {
        let error = ConfigError::value("mqtt.url", "mqtt://u:pa@ss@broker:1883", "a URL").to_string();
        assert!(error.contains("mqtt://(hidden)@broker:1883") && !error.contains("pa"), "{error}");
        assert_eq!(without_credentials("\"http://a/b@c\""), "\"http://a/b@c\"");
        assert_eq!(without_credentials("http://a:1 and http://u:p@b"), "http://a:1 and http://(hidden)@b");
    }
}
