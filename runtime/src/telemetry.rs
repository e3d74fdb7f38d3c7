//! What the gateway says of itself: logs, metrics, the statistics line, health.

pub(crate) mod write_metrics;
pub mod logs;
pub mod metrics;
pub mod stats;
pub mod health;
pub(crate) mod gauges;
