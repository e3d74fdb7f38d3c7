//! The listener's counters, for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::listener::close::CloseReason;

/// Counters since the start of the process, and gauges.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Connections that are open now.
    pub connections: AtomicUsize,
    pub accepted: AtomicU64,
    /// QoS 1 messages that came with DUP set.
    pub redelivered: Arc<AtomicU64>,
    /// PUBLISHes to another device's topic.
    pub foreign_publishes: AtomicU64,
    /// Connections that hold a read buffer now; one that is idle holds none.
    pub buffers: AtomicUsize,
    /// Bytes that unfinished packets hold beyond the first small buffer of their connections.
    pub buffer_bytes: AtomicUsize,
    ended: [AtomicU64; CloseReason::ALL.len()],
}

impl ListenerCounters {
    /// Connections that ended so.
    pub fn ended(&self, reason: CloseReason) -> u64 {
        self.ended[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts a connection that ended so.
    pub(super) fn record_close(&self, reason: CloseReason) {
        self.ended[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}
