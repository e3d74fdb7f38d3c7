//! Tidegate: MQTT in, sandboxed WebAssembly decoders, InfluxDB out. Modules in reading order.

pub mod domain;
pub mod source;
