//! What the writer must know of the upstream to tell whether anything more is coming.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that sources and the pipeline keep: when nothing new comes in and nothing is on its
/// way, the lines that wait are what the sources wait for.
#[derive(Debug, Default)]
pub struct Activity {
    received: AtomicU64,
    undecoded: AtomicU64,
}

impl Activity {
    /// `messages` were received; they are on their way until `passed` is told.
    pub fn receive(&self, messages: u64) {
        self.undecoded.fetch_add(messages, Ordering::AcqRel);
        self.received.fetch_add(messages, Ordering::AcqRel);
    }

    /// `messages` reached the writer, quarantine or their end.
    pub fn passed(&self, messages: u64) {
        let before = self.undecoded.fetch_sub(messages, Ordering::AcqRel);
        debug_assert!(before >= messages, "more messages passed than were received");
    }

    /// Messages received since the start; it only grows.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// Messages between a source and the writer.
    pub fn undecoded(&self) -> u64 {
        self.undecoded.load(Ordering::Acquire)
    }
}
