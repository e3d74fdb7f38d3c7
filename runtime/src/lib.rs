//! Tidegate: MQTT in, sandboxed WebAssembly decoders, InfluxDB out. Modules in reading order.

pub mod domain;
pub mod config;
pub mod admission;
pub mod decode;
pub mod writer;
pub mod quarantine;
pub mod telemetry;
pub mod admin;
