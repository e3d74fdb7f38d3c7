//! The version that a put takes the place of, so that of two people who put at once the second is told.

use crate::limits::VERSION_NAME_BYTES_MAX;

/// The word for a place at which nothing serves.
const NONE: &str = "none";

/// The version that its author began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Nothing served.
    Nothing,
    Version(String),
}

impl ExpectedVersion {
    /// Reads `none`, or a version as listings name it.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_of_a_version = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        match text {
            NONE => Ok(Self::Nothing),
            _ if (1..=VERSION_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_a_version) => {
                Ok(Self::Version(text.to_owned()))
            }
            _ => Err(format!("{text:?} is no version: expected \"none\", or one as the listing names it")),
        }
    }

    /// The same as text.
    pub fn name(&self) -> &str {
        match self {
            Self::Nothing => NONE,
            Self::Version(version) => version,
        }
    }

    /// True if this is the version that serves.
    pub fn is(&self, serving: Option<&str>) -> bool {
        match self {
            Self::Nothing => serving.is_none(),
            Self::Version(version) => serving == Some(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_named_and_nothing_else_is() {
        for text in ["none", "0123456789abcdef", "0123abcd-0123456789ab-aabbccddeeff"] {
            assert_eq!(ExpectedVersion::parse(text).unwrap().name(), text);
        }
        for bad in ["", "None", "json@1.0.0", "ab cd", &"a".repeat(VERSION_NAME_BYTES_MAX + 1)] {
            assert!(ExpectedVersion::parse(bad).unwrap_err().contains("expected \"none\""), "{bad}");
        }
    }

    #[test]
    fn only_the_version_that_serves_is_expected() {
        let expected = |text: &str| ExpectedVersion::parse(text).unwrap();
        assert!(expected("none").is(None) && expected("abc").is(Some("abc")));
        assert!(!expected("none").is(Some("abc")) && !expected("abc").is(None));
        assert!(!expected("abc").is(Some("abc-d")));
    }
}
