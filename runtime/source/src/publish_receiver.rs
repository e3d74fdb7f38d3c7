//! The step from a PUBLISH to a `Received`: its time, its token, and the messages that are dropped here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rumqttc::QoS;

use crate::mqtt::publish::Publish;
use crate::mqtt::reader::text;
use crate::sink::MessageSink;
use tidegate_core::ack::tracker::AckTracker;
use tidegate_core::message::{Received, Via};
use tidegate_core::reason::Reason;

/// Receives the messages of one connection.
pub struct PublishReceiver<I> {
    pub sink: Arc<I>,
    pub tracker: Arc<AckTracker>,
    pub via: Via,
    /// Drop messages that the broker had kept from before our subscription.
    pub drops_retained: bool,
    /// QoS 1 messages that came with DUP set.
    pub redelivered: Arc<AtomicU64>,
}

/// Nanoseconds since the Unix epoch; 0 for a clock that stands before it.
pub fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl<I: MessageSink> PublishReceiver<I> {
    /// Adds a message of QoS 0 or 1 to `group`, or drops it and has that counted.
    pub fn receive(&self, publish: &Publish<'_>, received_ns: i64, group: &mut Vec<Received>) {
        self.receive_on(publish, topic_of(publish), received_ns, group);
    }

    /// The same for a topic that was read already.
    pub fn receive_on(
        &self,
        publish: &Publish<'_>,
        topic: String,
        received_ns: i64,
        group: &mut Vec<Received>,
    ) {
        let overloaded = publish.qos == QoS::AtMostOnce && self.tracker.window().is_full();
        let message = self.message_on(publish, topic, received_ns);
        if publish.retain && self.drops_retained {
            self.sink.discard(message, Reason::Retained);
        } else if overloaded {
            self.sink.discard(message, Reason::Overload);
        } else {
            group.push(message);
        }
    }

    /// The message that a PUBLISH of QoS 0 or 1 brings.
    pub fn message(&self, publish: &Publish<'_>, received_ns: i64) -> Received {
        self.message_on(publish, topic_of(publish), received_ns)
    }

    fn message_on(&self, publish: &Publish<'_>, topic: String, received_ns: i64) -> Received {
        let bytes = publish.topic.len() + publish.payload.len();
        let token = if publish.qos == QoS::AtMostOnce {
            self.tracker.receive_unacknowledged(bytes)
        } else {
            if publish.dup {
                self.redelivered.fetch_add(1, Ordering::Relaxed);
            }
            self.tracker.receive_publish(publish.packet_id, publish.dup, bytes)
        };
        Received {
            topic,
            payload: Bytes::copy_from_slice(publish.payload),
            received_ns,
            via: self.via,
            token,
            payload_bytes: publish.payload_bytes,
        }
    }
}

/// The topic of a PUBLISH as text.
fn topic_of(publish: &Publish<'_>) -> String {
    match text(publish.topic) {
        Some(topic) => topic.to_owned(),
        // It comes from a broker that does not check, and must not end the session: with the replacement
        // character in it, it names nobody's device.
        None => String::from_utf8_lossy(publish.topic).replace('\0', "\u{fffd}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::publish::Publish;
    use crate::sink::{Backpressure, MessageSink};
    use parking_lot::Mutex;
    use rumqttc::QoS;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use tidegate_core::ack::tracker::AckTracker;
    use tidegate_core::ack::window::ReceiveWindow;
    use tidegate_core::books::{Account, Outcome};
    use tidegate_core::detail::Detail;
    use tidegate_core::identity::{AcceptedProof, AuthError, Claim, Identity, RegistryChange};
    use tidegate_core::message::{Received, Via};
    use tidegate_core::reason::Reason;

    struct Drops(Mutex<Vec<Reason>>, Account);

    const DENIED: AuthError = AuthError::Credentials("nobody is known here");

    impl MessageSink for Drops {
        async fn accept(&self, _: Vec<Received>) -> Option<Backpressure> {
            None
        }

        fn discard(&self, message: Received, reason: Reason) {
            self.0.lock().push(reason);
            self.1.receive(1);
            message.token.settle(Outcome::Dropped, &self.1);
        }

        fn refuse(&self, _: Received, _: &Identity, _: Reason, _: Detail) {}

        async fn authenticate(&self, _: Claim) -> Result<AcceptedProof, AuthError> {
            Err(DENIED)
        }

        async fn recheck(&self, _: &Identity, _: &AcceptedProof) -> Result<(), AuthError> {
            Err(DENIED)
        }

        fn registry_changes(&self) -> tokio::sync::broadcast::Receiver<RegistryChange> {
            tokio::sync::broadcast::channel(1).1
        }
    }

    fn receiver(drops_retained: bool) -> PublishReceiver<Drops> {
        PublishReceiver {
            sink: Arc::new(Drops(Mutex::default(), Account::new("test".into()))),
            tracker: AckTracker::new(Arc::new(ReceiveWindow::new(2, 1000))),
            via: Via::Broker,
            drops_retained,
            redelivered: Arc::default(),
        }
    }

    const PUBLISH: Publish<'_> = Publish {
        topic: b"a/b",
        payload: b"xyz",
        payload_bytes: 3,
        packet_id: 7,
        qos: QoS::AtLeastOnce,
        dup: false,
        retain: false,
    };

    #[test]
    fn a_retained_message_that_is_dropped_is_acknowledged_in_its_turn() {
        let receiver = receiver(true);
        let mut group = Vec::new();
        receiver.receive(&PUBLISH, 1, &mut group);
        receiver.receive(&Publish { retain: true, packet_id: 8, ..PUBLISH }, 1, &mut group);
        assert_eq!((group.len(), &receiver.sink.0.lock()[..]), (1, &[Reason::Retained][..]));
        let mut ready = Vec::new();
        receiver.tracker.take_ready(&mut ready);
        assert!(ready.is_empty(), "it overtook the one before it");
        receiver.sink.1.receive(1);
        group.pop().unwrap().token.settle(Outcome::Lines, &receiver.sink.1);
        receiver.tracker.take_ready(&mut ready);
        assert_eq!(ready, [7, 8]);
    }

    #[test]
    fn a_full_window_drops_qos_0_and_keeps_qos_1() {
        let receiver = receiver(false);
        let mut group = Vec::new();
        let unacknowledged = Publish { qos: QoS::AtMostOnce, packet_id: 0, ..PUBLISH };
        for publish in [unacknowledged, unacknowledged, unacknowledged, PUBLISH] {
            receiver.receive(&publish, 1, &mut group);
        }
        assert_eq!((group.len(), &receiver.sink.0.lock()[..]), (3, &[Reason::Overload][..]));
        assert_eq!(receiver.tracker.outstanding(), 1);
    }

    #[test]
    fn a_topic_that_is_no_text_names_nobody_and_a_cut_payload_keeps_its_size() {
        let receiver = receiver(false);
        let mut group = Vec::new();
        receiver.receive(
            &Publish { topic: b"a/\xff/\0", payload_bytes: 9000, dup: true, ..PUBLISH },
            5,
            &mut group,
        );
        let message = &group[0];
        assert_eq!(message.topic, "a/\u{fffd}/\u{fffd}");
        assert_eq!((message.payload.len(), message.payload_bytes, message.received_ns), (3, 9000, 5));
        assert_eq!(receiver.redelivered.load(Ordering::Relaxed), 1);
    }
}
