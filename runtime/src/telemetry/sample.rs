//! One value of a scrape with its labels.

/// The labels whose values are words of this program.
const PUBLIC_LABELS: [&str; 8] = ["source", "reason", "result", "outcome", "state", "key", "kind", "version"];

/// One time series of a family that is not a tenant's books.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

impl Sample {
    pub fn new(labels: Vec<(&'static str, String)>, value: f64) -> Self {
        Self { labels, value }
    }

    /// True if its labels name nothing that the operator has named: no tenant, database or file.
    pub fn is_public(&self) -> bool {
        self.labels.iter().all(|(name, _)| PUBLIC_LABELS.contains(name))
    }

    /// The one series of a family without labels.
    pub fn bare(value: f64) -> Vec<Self> {
        vec![Self { labels: Vec::new(), value }]
    }
}
