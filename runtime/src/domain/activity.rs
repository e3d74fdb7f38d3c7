//! What is on its way between a source and its end, so that a stop knows when nothing is.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the messages that were received and have neither been made durable nor ended.
#[derive(Debug, Default)]
pub struct Activity {
    undecoded: AtomicU64,
}

impl Activity {
    /// `messages` were received; they are on their way until `passed` is told.
    pub fn receive(&self, messages: u64) {
        self.undecoded.fetch_add(messages, Ordering::AcqRel);
    }

    /// `messages` reached the spool, quarantine or their end.
    pub fn passed(&self, messages: u64) {
        let before = self.undecoded.fetch_sub(messages, Ordering::AcqRel);
        debug_assert!(before >= messages, "more messages passed than were received");
    }

    /// Messages between a source and the spool.
    pub fn undecoded(&self) -> u64 {
        self.undecoded.load(Ordering::Acquire)
    }
}
