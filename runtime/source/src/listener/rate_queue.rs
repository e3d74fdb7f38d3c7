//! The queue of one device's messages that came faster than its rate.
//!
//! - They keep their order, and wait outside of the receive window, so that they delay no other device.
//! - Their bytes count in the memory of unfinished packets, with its shares.
//! - While there is room the socket is read on, so that a PINGREQ or DISCONNECT behind them is seen. Else
//!   it is not read: TCP slows the device down.

use tokio::time::Instant;

use crate::limits;
use crate::sink::{Backpressure, MessageSink};
use tidegate_core::message::Received;
use tidegate_core::reason::Reason;

/// Messages that wait for a token of their rate.
#[derive(Debug)]
pub struct RateQueue {
    messages: Vec<Received>,
    bytes: usize,
    /// The time of the next offer.
    due: Instant,
}

impl RateQueue {
    pub fn new() -> Self {
        Self { messages: Vec::new(), bytes: 0, due: Instant::now() }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Topic and payload bytes of all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if the socket is not to be read on.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= limits::RATE_QUEUE_MESSAGES
    }

    /// Waits until the next offer is due; for ever if there is nothing to offer.
    pub async fn until_due(&self) {
        match self.is_empty() {
            true => std::future::pending().await,
            false => tokio::time::sleep_until(self.due).await,
        }
    }

    /// Offers what waits, and `group` behind it, as far as the rate allows.
    pub async fn offer(&mut self, group: Vec<Received>, sink: &impl MessageSink) {
        let offered = if self.is_empty() {
            group
        } else {
            self.put(group);
            if Instant::now() < self.due {
                return;
            }
            self.bytes = 0;
            let mut waited = std::mem::take(&mut self.messages);
            waited.iter_mut().for_each(|message| message.token.resume());
            waited
        };
        if offered.is_empty() {
            return;
        }
        if let Some(Backpressure { messages, wait }) = sink.accept(offered).await {
            self.due = Instant::now() + wait;
            self.put(messages);
        }
    }

    fn put(&mut self, messages: Vec<Received>) {
        for mut message in messages {
            message.token.defer(false);
            self.bytes += message.topic.len() + message.payload.len();
            self.messages.push(message);
        }
    }

    /// Drops what waits: the connection ends. Its device sends it again, but for messages at QoS 0, which
    /// are counted as dropped.
    pub fn clear(&mut self, sink: &impl MessageSink) {
        self.bytes = 0;
        for message in self.messages.drain(..) {
            if !message.token.is_redelivered() {
                sink.discard(message, Reason::RateLimited);
            }
        }
    }
}
