//! The time that POSTs to databases took. Their outcomes are in the tenants' accounts.

use std::time::Duration;

use crate::core::histogram::Histogram;
use crate::writer::WriteObserver;

/// Times of POSTs.
#[derive(Debug, Default)]
pub struct WriteMetrics {
    pub duration: Histogram,
}

impl WriteObserver for WriteMetrics {
    fn write(&self, _outcome: &'static str, _lines: u64, duration: Duration) {
        self.duration.observe(duration, 1);
    }
}
