//! The pause between two tries at the registry.

use std::time::Duration;

use crate::limits::PROBE;

/// The pause after `pause`: twice as long, up to that of a probe.
pub(crate) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PROBE)
}
