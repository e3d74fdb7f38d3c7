//! The last messages of a route, to try its next version on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::limits::{RECENT_BYTES_MAX, RECENT_MESSAGES, RECENT_RATE};
use tidegate_core::device::Device;
use tidegate_core::message::Admitted;
use tidegate_core::tenant::Tenant;
use tidegate_core::token_bucket::TokenBucket;

/// A message that is remembered: all of it but its claim on an outcome.
#[derive(Clone, Debug)]
pub struct RecentMessage {
    pub topic: String,
    pub message_type: std::ops::Range<usize>,
    /// A copy: the buffer that it was read into is not kept alive by it.
    pub payload: Bytes,
    pub received_ns: i64,
    pub tenant: Arc<Tenant>,
    pub device: Arc<Device>,
}

impl From<&Admitted> for RecentMessage {
    fn from(message: &Admitted) -> Self {
        Self {
            topic: message.topic.clone(),
            message_type: message.message_type.clone(),
            payload: Bytes::copy_from_slice(&message.payload),
            received_ns: message.received_ns,
            tenant: message.tenant.clone(),
            device: message.device.clone(),
        }
    }
}

/// The ring. Of a busy route not every message is remembered, so that remembering costs nothing that
/// can be measured.
#[derive(Debug)]
pub struct RecentMessages {
    messages: VecDeque<RecentMessage>,
    bytes: usize,
    began: Instant,
    bucket: TokenBucket,
}

impl Default for RecentMessages {
    fn default() -> Self {
        let bucket = TokenBucket::full(RECENT_RATE, 0.0);
        Self { messages: VecDeque::new(), bytes: 0, began: Instant::now(), bucket }
    }
}

impl RecentMessages {
    pub fn record(&mut self, batch: &[Admitted]) {
        let now_s = self.began.elapsed().as_secs_f64();
        for message in batch {
            if !self.bucket.take(RECENT_RATE, now_s) {
                return;
            }
            if message.payload.len() > RECENT_BYTES_MAX {
                continue;
            }
            self.bytes += message.payload.len();
            self.messages.push_back(message.into());
            while self.messages.len() > RECENT_MESSAGES || self.bytes > RECENT_BYTES_MAX {
                let oldest = self.messages.pop_front().expect("the newest alone fits");
                self.bytes -= oldest.payload.len();
            }
        }
    }

    /// Oldest first.
    pub fn messages(&self) -> Vec<RecentMessage> {
        self.messages.iter().cloned().collect()
    }
}
