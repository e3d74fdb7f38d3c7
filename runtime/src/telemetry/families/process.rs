//! Families about the process, by the names that Prometheus' own client libraries use.

use std::fs;
use std::time::UNIX_EPOCH;

use rustix::time::{ClockId, clock_gettime};

use super::Family;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

pub fn families(handles: &Handles) -> Vec<Family> {
    let started = handles.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    vec![
        Family::gauge(
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970",
            Sample::bare(started.as_secs() as f64),
        ),
        Family::counter(
            "process_cpu_seconds",
            "CPU time of the process in seconds; compilers of decoders are processes of their own",
            Sample::bare(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9),
        ),
        Family::gauge(
            "process_resident_memory_bytes",
            "Resident memory of the process in bytes",
            resident_bytes().map_or_else(Vec::new, |bytes| Sample::bare(bytes as f64)),
        ),
    ]
}

/// `VmRSS` of proc_pid_status(5).
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
