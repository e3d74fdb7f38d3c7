//! One value of a scrape with its labels.

/// The labels whose values are words of this program.
const PUBLIC_LABELS: [&str; 9] =
    ["source", "reason", "result", "outcome", "state", "key", "kind", "version", "part"];

/// One time series of a family that is not a tenant's books.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
    /// It would help a stranger to guess.
    is_confidential: bool,
}

impl Sample {
    pub fn new(labels: Vec<(&'static str, String)>, value: f64) -> Self {
        Self { labels, value, is_confidential: false }
    }

    /// Keeps it from callers without a token, whatever its labels are.
    pub fn confidential(self) -> Self {
        Self { is_confidential: true, ..self }
    }

    /// True if it helps nobody to guess, and its labels name nothing that the operator has named: no tenant,
    /// database or file.
    pub fn is_public(&self) -> bool {
        !self.is_confidential && self.labels.iter().all(|(name, _)| PUBLIC_LABELS.contains(name))
    }

    /// The one series of a family without labels.
    pub fn bare(value: f64) -> Vec<Self> {
        vec![Self::new(Vec::new(), value)]
    }
}
