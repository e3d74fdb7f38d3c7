//! Tidegate: MQTT in, sandboxed WebAssembly decoders, InfluxDB out. Modules in reading order.

pub mod core;
pub mod app;
pub mod source;
pub mod admission;
pub mod decode;
pub mod rollout;
pub mod spool;
pub mod writer;
pub mod quarantine;
pub mod data_dir;
pub mod config;
pub mod telemetry;
pub mod admin;
pub mod cli;
pub mod limits;
pub mod explain;
pub mod pipeline;
