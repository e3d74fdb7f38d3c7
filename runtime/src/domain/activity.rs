//! What the writer must know of the upstream to tell whether anything more is coming.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that sources and the pipeline keep: when nothing new comes in and nothing is on its
/// way, the lines that wait are what the sources wait for.
#[derive(Debug, Default)]
pub struct Activity {
    received: AtomicU64,
    undecoded: AtomicU64,
    set_aside: AtomicU64,
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

    /// `messages` on their way may take long: nobody waits for them before they are taken up.
    pub fn set_aside(&self, messages: u64) {
        self.set_aside.fetch_add(messages, Ordering::AcqRel);
    }

    /// `messages` that were set aside have passed.
    pub fn take_up(&self, messages: u64) {
        self.set_aside.fetch_sub(messages, Ordering::AcqRel);
    }

    /// Messages between a source and the writer that will be there in a moment.
    pub fn expected(&self) -> u64 {
        self.undecoded().saturating_sub(self.set_aside.load(Ordering::Acquire))
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
