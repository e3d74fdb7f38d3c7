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

use crate::domain::answer_topic::AnswerTopic;
use crate::domain::buckets::KeyedBuckets;
use crate::domain::limits;
use crate::domain::message::Refused;
use crate::domain::rate::TokenBucket;
use crate::domain::slot::Tells;
use crate::quarantine::Kept;
use crate::source::broker::Outgoing;

#[derive(Debug)]
struct Rates {
    devices: KeyedBuckets<u64>,
    all: TokenBucket,
}

/// Makes answers, and hands them to the broker's session.
#[derive(Debug)]
pub struct Answers {
    topic: AnswerTopic,
    outgoing: mpsc::Sender<Outgoing>,
    started: Instant,
    hasher: foldhash::fast::RandomState,
    rates: Mutex<Rates>,
    pub sent: AtomicU64,
    /// Over a rate, or with no room to wait for the session.
    pub dropped: AtomicU64,
}

impl Answers {
    /// Also gives what the session is to publish.
    pub fn new(topic: AnswerTopic) -> (Self, mpsc::Receiver<Outgoing>) {
        let (outgoing, published) = mpsc::channel(limits::ANSWERS_WAITING_MAX);
        let rates = Rates {
            devices: KeyedBuckets::new(limits::ANSWERS_A_DEVICE_RATE, limits::ANSWER_DEVICES_MAX),
            all: TokenBucket::full(limits::ANSWERS_RATE, 0.0),
        };
        let answers = Self {
            topic,
            outgoing,
            started: Instant::now(),
            hasher: foldhash::fast::RandomState::default(),
            rates: Mutex::new(rates),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        (answers, published)
    }

    fn may_send(&self, topic: &str) -> bool {
        use std::hash::BuildHasher;
        let now_s = self.started.elapsed().as_secs_f64();
        let key = self.hasher.hash_one(topic);
        let rates = &mut *self.rates.lock();
        // A device that is over its own takes nothing of the others'.
        rates.devices.take(key, now_s) && rates.all.take(limits::ANSWERS_RATE, now_s)
    }
}

impl Kept for Answers {
    fn kept(&self, refused: &Refused, id: &str) {
        let (Some(tenant), Some(device)) = (&refused.tenant, &refused.device) else { return };
        if refused.slot.tells() != Tells::Topic || !refused.may_be_told() {
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
            && self.outgoing.try_send(Outgoing { topic, payload: payload.to_string().into_bytes() }).is_ok();
        let counter = if sent { &self.sent } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
