//! Fuzz targets: the readers of bytes that strangers send, or that a disk gives back, under arbitrary
//! bytes.
//!
//! A target is a function of bytes that panics where a promise is broken. `cargo test` replays the
//! inputs in `corpus/TARGET` and `regressions/TARGET` through it; `cargo xtask fuzz` lets libFuzzer search
//! for others. An input that broke a promise once stays in `regressions/`.

pub mod target;
pub mod targets;
pub mod memory;
pub mod choices;
pub mod folder;
