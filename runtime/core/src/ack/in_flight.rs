//! Messages on their way between a source and the queue of the spool, so that a stop knows when there
//! are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the messages that were received and have neither reached the queue of the spool or of
/// quarantine nor ended. A message that waits for the registry is not among them.
#[derive(Debug, Default)]
pub struct InFlight {
    undecoded: AtomicU64,
}

impl InFlight {
    /// Counts one message until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlightGuard {
        self.undecoded.fetch_add(1, Ordering::AcqRel);
        InFlightGuard(self.clone())
    }

    /// Messages between a source and the spool.
    pub fn count(&self) -> u64 {
        self.undecoded.load(Ordering::Acquire)
    }
}

/// One message that is counted in an `InFlight`.
#[derive(Debug)]
pub struct InFlightGuard(Arc<InFlight>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.undecoded.fetch_sub(1, Ordering::AcqRel);
    }
}
