//! The families of metrics: one file for each part that they are about. A scrape reads the values from the
//! parts themselves.

mod books;
mod sources;
mod admission;
mod decode;
mod spool;
mod writer;
mod gateway;
mod process;

use crate::core::histogram::HistogramSnapshot;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

/// One metric with all its series.
pub(crate) struct Family {
    pub kind: FamilyKind,
    /// Without `_total` for a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub samples: Vec<Sample>,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FamilyKind {
    Counter,
    Gauge,
}

impl Family {
    fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        Self { kind: FamilyKind::Counter, name, help, samples }
    }

    fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        Self { kind: FamilyKind::Gauge, name, help, samples }
    }
}

/// All families, in the order of the flow.
pub(crate) fn all(handles: &Handles) -> Vec<Family> {
    [
        books::families(handles),
        sources::families(handles),
        admission::families(handles),
        decode::families(handles),
        spool::families(handles),
        writer::families(handles),
        gateway::families(handles),
        process::families(handles),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All histograms: name, help, and values.
pub(crate) fn histograms(handles: &Handles) -> [(&'static str, &'static str, HistogramSnapshot); 2] {
    [
        (
            "tidegate_write_duration_seconds",
            "Duration of POSTs to databases in seconds",
            handles.writes.duration.snapshot(),
        ),
        (
            "tidegate_ack_latency_seconds",
            "Time from receipt of a message to its result in seconds",
            handles.window.ack_latency.snapshot(),
        ),
    ]
}
