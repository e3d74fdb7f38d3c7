use std::fmt;

use serde_json::Value;

use crate::admin::quarantine::Desk;
use crate::telemetry::health::Readiness;

/// What the admin side may show, answered by the pipeline.
pub trait View: Desk + Send + Sync + fmt::Debug + 'static {
    fn readiness(&self) -> Readiness;
    fn metrics(&self) -> String;
    fn books(&self) -> Value;
    fn guests(&self) -> Value;
    fn spool(&self) -> Value;
    /// Reasons and counts; with `payloads`, the latest entries with their payloads, secrets masked.
    fn quarantine(&self, payloads: bool) -> Value;
}

#[derive(Debug)]
pub(crate) struct AdminContext<V> {
    pub(crate) view: V,
    /// The operator's token; empty: loopback only, and nothing that holds a payload.
    pub(crate) token: String,
}
