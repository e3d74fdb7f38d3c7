//! The receive window: a bound on what the whole gateway has received and not settled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::histogram::Histogram;

/// Bits of the bytes: a tebibyte, where the configuration allows 16 GiB. The rest holds 16 million messages,
/// where it allows 10.
const BYTES_BITS: u32 = 40;

/// Unsettled messages and bytes of the whole gateway. Sources stop reading at its bounds and resume
/// below them.
#[derive(Debug)]
pub struct ReceiveWindow {
    /// Both in one number, so that one atomic operation charges a message: the bytes in the lower
    /// `BYTES_BITS`, the messages above.
    charged: AtomicU64,
    messages_max: u64,
    bytes_max: u64,
    not_full: Notify,
    opened: Instant,
    /// The gateway stops: a token that is dropped unsettled ends no connection.
    pub(super) stopping: AtomicBool,
    /// Time from receipt to settlement. A group that is settled together counts with its oldest message.
    pub ack_latency: Histogram,
}

impl ReceiveWindow {
    pub fn new(messages_max: u64, bytes_max: u64) -> Self {
        Self {
            charged: AtomicU64::new(0),
            messages_max,
            bytes_max,
            not_full: Notify::new(),
            opened: Instant::now(),
            stopping: AtomicBool::new(false),
            ack_latency: Histogram::default(),
        }
    }

    /// Messages received and not yet settled.
    #[inline]
    pub fn messages(&self) -> u64 {
        self.charged.load(Ordering::Acquire) >> BYTES_BITS
    }

    /// Payload and topic bytes received and not yet settled, and large lines that were made of them.
    #[inline]
    pub fn bytes(&self) -> u64 {
        bytes_of(self.charged.load(Ordering::Acquire))
    }

    pub fn messages_max(&self) -> u64 {
        self.messages_max
    }

    #[inline]
    pub fn is_full(&self) -> bool {
        self.is_full_at(self.charged.load(Ordering::Acquire))
    }

    #[inline]
    fn is_full_at(&self, charged: u64) -> bool {
        charged >> BYTES_BITS >= self.messages_max || bytes_of(charged) >= self.bytes_max
    }

    /// True from half of a bound on: sources will stop soon.
    #[inline]
    pub fn is_half_full(&self) -> bool {
        self.messages() * 2 >= self.messages_max || self.bytes() * 2 >= self.bytes_max
    }

    /// Waits until the window is no longer full.
    pub async fn until_not_full(&self) {
        loop {
            let notified = self.not_full.notified();
            if !self.is_full() {
                return;
            }
            notified.await;
        }
    }

    /// Marks that the gateway stops. A token that is dropped unsettled ends no connection any more, so
    /// the messages in front of it still get their PUBACKs.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn now_us(&self) -> u64 {
        self.opened.elapsed().as_micros() as u64
    }

    #[inline]
    pub(super) fn observe_latency(&self, received_us: u64, messages: u64) {
        let latency = Duration::from_micros(self.now_us().saturating_sub(received_us));
        self.ack_latency.observe(latency, messages);
    }

    /// Charges one message of `bytes`.
    #[inline]
    pub(super) fn charge(&self, bytes: u64) {
        self.charged.fetch_add((1 << BYTES_BITS) + bytes, Ordering::AcqRel);
    }

    /// Charges `bytes` more of a message that it has.
    pub(super) fn grow(&self, bytes: u64) {
        self.charged.fetch_add(bytes, Ordering::AcqRel);
    }

    #[inline]
    pub(super) fn release(&self, messages: u64, bytes: u64) {
        let charge = (messages << BYTES_BITS) + bytes;
        let before = self.charged.fetch_sub(charge, Ordering::AcqRel);
        if self.is_full_at(before) && !self.is_full_at(before - charge) {
            self.not_full.notify_waiters();
        }
    }
}

#[inline]
fn bytes_of(charged: u64) -> u64 {
    charged & ((1 << BYTES_BITS) - 1)
}
