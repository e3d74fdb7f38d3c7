//! The refusal of a message by a decoder.

/// The reason for which a decoder refuses a message. The message goes to quarantine with this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code: upper-case ASCII letters, digits and `_`.
    pub code: String,
    /// The text for the owner of the device: the fault, its place, and the expected value.
    pub detail: String,
}

impl Refusal {
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: detail.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl From<tidegate_json::Error> for Refusal {
    fn from(error: tidegate_json::Error) -> Self {
        Self::new("BAD_JSON", error.to_string())
    }
}
