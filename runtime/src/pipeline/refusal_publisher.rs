//! Answers on the refused topic: a device's owner learns at the broker why a message was refused.
//!
//! Only of what came by the broker, once it lies in quarantine, and only where the reason helps nobody
//! who guesses at devices or tokens. Each device gets few, and all together get a bounded number a
//! second; what is over, or finds no session, is counted as dropped: quarantine has it all the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use crate::core::ack::tracker::RefusalChannel;
use crate::core::keyed_buckets::KeyedTokenBuckets;
use crate::core::message::RefusedMessage;
use crate::core::refused_topic::RefusedTopic;
use crate::core::token_bucket::TokenBucket;
use crate::limits;
use crate::quarantine::StoredObserver;
use crate::source::broker::OutgoingPublish;

#[derive(Debug)]
struct PublishRates {
    devices: KeyedTokenBuckets<u64>,
    all: TokenBucket,
}

/// Makes answers and queues them for the broker's session.
#[derive(Debug)]
pub struct RefusalPublisher {
    topic: RefusedTopic,
    outgoing: mpsc::Sender<OutgoingPublish>,
    started: Instant,
    hasher: foldhash::fast::RandomState,
    rates: Mutex<PublishRates>,
    pub sent: AtomicU64,
    /// Over a rate, or with no room to wait for the session.
    pub dropped: AtomicU64,
}

impl RefusalPublisher {
    /// A publisher by way of the session that takes `outgoing`.
    pub fn new(topic: RefusedTopic, outgoing: mpsc::Sender<OutgoingPublish>) -> Self {
        let rates = PublishRates {
            devices: KeyedTokenBuckets::new(limits::REFUSALS_A_DEVICE_RATE, limits::REFUSAL_DEVICES_MAX),
            all: TokenBucket::full(limits::REFUSALS_RATE, 0.0),
        };
        Self {
            topic,
            outgoing,
            started: Instant::now(),
            hasher: foldhash::fast::RandomState::default(),
            rates: Mutex::new(rates),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn may_send(&self, topic: &str) -> bool {
        use std::hash::BuildHasher;
        let now_s = self.started.elapsed().as_secs_f64();
        let key = self.hasher.hash_one(topic);
        let rates = &mut *self.rates.lock();
        // A device that is over its own takes nothing of the others'.
        rates.devices.take(key, now_s) && rates.all.take(limits::REFUSALS_RATE, now_s)
    }
}

impl StoredObserver for RefusalPublisher {
    fn kept(&self, refused: &RefusedMessage, id: &str) {
        let (Some(tenant), Some(device)) = (&refused.tenant, &refused.device) else { return };
        if refused.token.refusal_channel() != RefusalChannel::Topic || !refused.may_reveal_reason() {
            return;
        }
        let Some(topic) = self.topic.of(tenant.as_str(), device.as_str()) else { return };
        let received = jiff::Timestamp::from_nanosecond(i128::from(refused.received_ns));
        let payload = json!({
            "reason": refused.reason.code(),
            "detail": refused.detail,
            "topic": refused.topic,
            "received_at": format!("{:.9}", received.unwrap_or(jiff::Timestamp::UNIX_EPOCH)),
            "id": id,
        });
        let sent = self.may_send(&topic)
            && self
                .outgoing
                .try_send(OutgoingPublish { topic, payload: payload.to_string().into_bytes() })
                .is_ok();
        let counter = if sent { &self.sent } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
