//! The list of targets.

use crate::targets;

/// A target: a reader, and the promises that it keeps whatever the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// Bytes of an input that the fuzzer tries at most.
    pub bytes_max: usize,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
}

pub const TARGETS: &[Target] = &[
    Target { name: "mqtt", bytes_max: 4096, run: targets::mqtt::run },
    Target { name: "json", bytes_max: 2048, run: targets::json::run },
    Target { name: "lines", bytes_max: 2048, run: targets::lines::run },
    Target { name: "redact", bytes_max: 2048, run: targets::redact::run },
    Target { name: "envelope", bytes_max: 2048, run: targets::envelope::run },
    Target { name: "route_file", bytes_max: 1024, run: targets::route_file::run },
    Target { name: "config", bytes_max: 2048, run: targets::config::run },
    Target { name: "registry_csv", bytes_max: 1024, run: targets::registry_csv::run },
    Target { name: "quarantine", bytes_max: 4096, run: targets::quarantine::run },
    Target { name: "spool", bytes_max: 8192, run: targets::spool::run },
];

/// The target of a name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
