use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::histogram::Histogram;

/// How many messages and bytes the whole gateway holds unsettled; sources stop reading at the
/// ceilings and go on when there is room again.
#[derive(Debug)]
pub struct ReceiveWindow {
    messages: AtomicU64,
    bytes: AtomicU64,
    messages_max: u64,
    bytes_max: u64,
    room: Notify,
    opened: Instant,
    /// The gateway stops: what is let go unsettled now ends no connection.
    pub(crate) stopping: AtomicBool,
    /// From receipt to settlement; in a group that is settled together, that of its oldest message.
    pub ack_latency: Histogram,
}

impl ReceiveWindow {
    pub fn new(messages_max: u64, bytes_max: u64) -> Self {
        Self {
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            messages_max,
            bytes_max,
            room: Notify::new(),
            opened: Instant::now(),
            stopping: AtomicBool::new(false),
            ack_latency: Histogram::default(),
        }
    }

    /// Messages received and not yet settled.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }

    /// Payload and topic bytes received and not yet settled.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub fn messages_max(&self) -> u64 {
        self.messages_max
    }

    pub fn is_full(&self) -> bool {
        self.messages() >= self.messages_max || self.bytes() >= self.bytes_max
    }

    /// Whether so much is unsettled that sources are about to stop.
    pub fn is_half_full(&self) -> bool {
        self.messages() * 2 >= self.messages_max || self.bytes() * 2 >= self.bytes_max
    }

    /// Waits until the window is no longer full.
    pub async fn room(&self) {
        loop {
            let notified = self.room.notified();
            if !self.is_full() {
                return;
            }
            notified.await;
        }
    }

    /// The gateway stops. From now on a message that is let go unsettled ends no connection: those in
    /// front of it still get their PUBACKs.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.opened.elapsed().as_micros() as u64
    }

    pub(crate) fn observe_latency(&self, received_us: u64, messages: u64) {
        let waited = Duration::from_micros(self.now_us().saturating_sub(received_us));
        self.ack_latency.observe(waited, messages);
    }

    pub(crate) fn take(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn give_back(&self, messages: u64, bytes: u64) {
        let was_full = self.is_full();
        self.messages.fetch_sub(messages, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if was_full && !self.is_full() {
            self.room.notify_waiters();
        }
    }
}
