//! The parts that the admin side's handlers call, and the tokens.

use std::sync::Arc;

use crate::admin::access::{AdminTokens, Failures};
use crate::telemetry::handles::Handles;
use crate::telemetry::metrics::Metrics;

/// Shared by all handlers but those of guests.
#[derive(Debug)]
pub struct AdminContext {
    pub(crate) handles: Arc<Handles>,
    pub(crate) metrics: Metrics,
    /// Without an operator's token: loopback only, and nothing that holds a payload.
    pub(crate) tokens: AdminTokens,
    pub(crate) failures: Failures,
}

impl AdminContext {
    pub fn new(handles: Arc<Handles>, tokens: AdminTokens) -> Self {
        let failures = Failures::default();
        Self { metrics: Metrics::new(handles.clone()), handles, tokens, failures }
    }
}
