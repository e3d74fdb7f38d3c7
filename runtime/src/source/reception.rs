//! A PUBLISH becomes a `Received`: the clock, the slot, and what is dropped at the door.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::intake::Intake;
use super::packet::{Publish, QoS};
use crate::domain::message::{Received, Via};
use crate::domain::reason::Reason;
use crate::domain::slot::Connection;

/// How the messages of one connection are received.
pub struct Reception<I> {
    pub intake: Arc<I>,
    pub connection: Arc<Connection>,
    pub via: Via,
    /// Drop what the broker had kept from before our subscription.
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

impl<I: Intake> Reception<I> {
    /// Adds a message of QoS 0 or 1 to `group`, or drops it and has that counted.
    pub fn receive(&self, publish: &Publish<'_>, received_ns: i64, group: &mut Vec<Received>) {
        let bytes = publish.topic.len() + publish.payload.len();
        let overloaded = publish.qos == QoS::AtMostOnce && self.connection.window().is_full();
        let slot = if publish.qos == QoS::AtMostOnce {
            self.connection.receive_unacknowledged(bytes)
        } else {
            if publish.dup {
                self.redelivered.fetch_add(1, Ordering::Relaxed);
            }
            self.connection.receive(publish.packet_id, bytes)
        };
        let message = Received {
            // A topic that is no text comes from a broker that does not check, and must not end
            // the session: with the replacement character in it, it names nobody's device.
            topic: match super::packet::text(publish.topic) {
                Some(topic) => topic.to_owned(),
                None => String::from_utf8_lossy(publish.topic).replace('\0', "\u{fffd}"),
            },
            payload: Bytes::copy_from_slice(publish.payload),
            received_ns,
            via: self.via,
            slot,
            payload_bytes: publish.payload_bytes,
        };
        if publish.retain && self.drops_retained {
            self.intake.drop_message(message, Reason::Retained);
        } else if overloaded {
            self.intake.drop_message(message, Reason::Overload);
        } else {
            group.push(message);
        }
    }
}
