//! One value of a scrape with its labels.

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

    /// The one series of a family without labels.
    pub fn bare(value: f64) -> Vec<Self> {
        vec![Self { labels: Vec::new(), value }]
    }
}
