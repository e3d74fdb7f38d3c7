//! The parts that the admin side's handlers call, and the operator's token.

use std::sync::Arc;

use crate::telemetry::gauges::Handles;
use crate::telemetry::metrics::Metrics;

/// Shared by all handlers but those of guests.
#[derive(Debug)]
pub struct AdminContext {
    pub(crate) handles: Arc<Handles>,
    pub(crate) metrics: Metrics,
    /// The operator's token; empty: loopback only, and nothing that holds a payload.
    pub(crate) token: String,
}

impl AdminContext {
    pub fn new(handles: Arc<Handles>, token: String) -> Self {
        Self { metrics: Metrics::new(handles.clone()), handles, token }
    }

    /// True if a token is set: whoever has passed the check of it may see payloads.
    pub(crate) fn shows_payloads(&self) -> bool {
        !self.token.is_empty()
    }
}
