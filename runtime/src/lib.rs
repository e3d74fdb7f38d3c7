//! Tidegate: MQTT in, sandboxed WebAssembly decoders, InfluxDB out. Modules in reading order.

pub use tidegate_core as core;
pub mod app;
pub use tidegate_admission as admission;
pub use tidegate_decode as decode;
pub use tidegate_quarantine as quarantine;
pub use tidegate_rollout as rollout;
pub use tidegate_source as source;
pub use tidegate_spool as spool;
pub use tidegate_writer as writer;
pub mod data_dir;
pub mod config;
pub mod telemetry;
pub mod admin;
pub mod cli;
pub mod limits;
pub mod explain;
pub mod pipeline;
