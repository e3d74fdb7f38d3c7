//! The gateway seen from outside: its handles, metrics, health, the statistics line, logs.

pub(crate) mod handles;
pub(crate) mod sample;
pub(crate) mod readiness;
pub(crate) mod tenant_sums;
pub(crate) mod budgets;
pub(crate) mod families;
pub mod metrics;
pub(crate) mod write_metrics;
pub mod health;
pub mod history;
pub mod stats;
pub mod expiry;
pub(crate) mod progress;
mod log_queue;
pub mod logs;
pub(crate) mod start_event;
