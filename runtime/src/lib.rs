//! Tidegate: MQTT in, sandboxed WebAssembly decoders, InfluxDB out. Modules in reading order.

pub mod domain;
pub mod pipeline;
pub mod source;
pub mod admission;
pub mod decode;
pub mod rollout;
pub mod spool;
pub mod writer;
pub mod quarantine;
pub mod data_dir;
pub mod dry_run;
pub mod cases;
pub mod config;
pub mod telemetry;
pub mod admin;
pub mod shutdown;
pub mod cli;
