//! Messages between a source and the queue of the spool: a stop waits until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count of received messages that have not ended and are in no queue of the spool or of
/// quarantine. A message that waits for the registry is not counted.
#[derive(Debug, Default)]
pub struct InFlight {
    messages: AtomicU64,
}

impl InFlight {
    /// Counts one message until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlightGuard {
        self.messages.fetch_add(1, Ordering::AcqRel);
        InFlightGuard(self.clone())
    }

    /// Messages between a source and the spool.
    pub fn count(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }
}

/// One message that is counted in an `InFlight`.
#[derive(Debug)]
pub struct InFlightGuard(Arc<InFlight>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.messages.fetch_sub(1, Ordering::AcqRel);
    }
}
