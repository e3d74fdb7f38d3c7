//! Tidegate: MQTT in, sandboxed WebAssembly decoders, InfluxDB out. Modules in reading order: the program,
//! the parts of the stream, and the control plane beside it.

pub mod cli;
pub mod app;
pub mod pipeline;
pub use tidegate_admission as admission;
pub use tidegate_core as core;
pub use tidegate_decode as decode;
pub use tidegate_quarantine as quarantine;
pub use tidegate_rollout as rollout;
pub use tidegate_source as source;
pub use tidegate_spool as spool;
pub use tidegate_writer as writer;
pub mod fleet;
pub mod admin;
pub mod audit;
pub mod explain;
pub mod codecs;
pub mod doctor;
pub mod telemetry;
pub mod config;
pub mod data_dir;
pub mod limits;
