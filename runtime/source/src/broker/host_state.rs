//! `STATE` of a primary host of Sparkplug 3.0 (sections 5.13 and 6.4.12): retained at the broker, and the will of the
//! session. Edge nodes that wait for this host keep their data back while it is offline.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::mqtt::control::encode;
use crate::mqtt::control::encode::RetainedPublish;

/// The host says again that it is online at most this often: another program with the same id may say the contrary.
const REPEATED_EVERY: Duration = Duration::from_secs(1);

/// Packet ids of its messages, from the highest down: those of SUBSCRIBE count up from 1.
const PACKET_IDS: std::ops::RangeInclusive<u16> = 65_000..=65_535;

/// The topic of the state of a host.
pub fn topic(host_id: &str) -> String {
    format!("spBv1.0/STATE/{host_id}")
}

/// The state of a host over one connection.
#[derive(Debug)]
pub struct HostState {
    topic: String,
    /// Milliseconds since the epoch at CONNECT: will and birth have the same.
    since_ms: u64,
    packet_id: u16,
    /// The time of the last message; None: the host has not said that it is online.
    said: Option<Instant>,
}

#[derive(Deserialize)]
struct Said {
    online: bool,
}

fn payload(online: bool, at_ms: u64) -> Vec<u8> {
    format!("{{\"online\":{online},\"timestamp\":{at_ms}}}").into_bytes()
}

impl HostState {
    /// The state of a host that connects now.
    pub fn new(host_id: &str, now_ns: i64) -> Self {
        let since_ms = now_ns.unsigned_abs() / 1_000_000;
        Self { topic: topic(host_id), since_ms, packet_id: *PACKET_IDS.start(), said: None }
    }

    /// The will for the CONNECT.
    pub fn will(&self) -> encode::Will {
        encode::Will { topic: self.topic.clone(), payload: payload(false, self.since_ms) }
    }

    /// Appends that the host is online, once the session holds its filters.
    pub fn say_online(&mut self, out: &mut Vec<u8>, v5: bool) {
        if self.said.is_none() {
            self.say(true, self.since_ms, out, v5);
        }
    }

    /// Appends that the host is offline, before it leaves on purpose.
    pub fn say_offline(&mut self, now_ns: i64, out: &mut Vec<u8>, v5: bool) {
        if self.said.is_some() {
            // A clock that went back must not make this older than the birth.
            let now_ms = (now_ns.unsigned_abs() / 1_000_000).max(self.since_ms);
            self.say(false, now_ms, out, v5);
        }
    }

    /// True for a message about this host that says it is offline while it is not: the will of an earlier connection,
    /// or another program. A retained one is older than our own.
    pub fn is_contradicted(&self, payload: &[u8], is_retained: bool) -> bool {
        !is_retained
            && self.said.is_some()
            && serde_json::from_slice::<Said>(payload).is_ok_and(|said| !said.online)
    }

    /// True if the host may say again that it is online.
    pub fn may_repeat(&self) -> bool {
        self.said.is_some_and(|said| said.elapsed() >= REPEATED_EVERY)
    }

    /// Appends once more that the host is online.
    pub fn say_online_again(&mut self, out: &mut Vec<u8>, v5: bool) {
        self.say(true, self.since_ms, out, v5);
    }

    /// True for the topic of this host's state.
    pub fn is_topic(&self, topic: &[u8]) -> bool {
        topic == self.topic.as_bytes()
    }

    /// True for the packet id of a message of its own.
    pub fn sent(&self, packet_id: u16) -> bool {
        self.said.is_some() && PACKET_IDS.contains(&packet_id)
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    fn say(&mut self, online: bool, at_ms: u64, out: &mut Vec<u8>, v5: bool) {
        self.said = Some(Instant::now());
        self.packet_id =
            if self.packet_id == *PACKET_IDS.start() { *PACKET_IDS.end() } else { self.packet_id - 1 };
        let payload = payload(online, at_ms);
        let publish = RetainedPublish { packet_id: self.packet_id, topic: &self.topic, payload: &payload };
        encode::publish_retained(out, &publish, v5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::control::Frame;
    use crate::mqtt::framing::{FrameLimits, Framer};
    use crate::mqtt::publish::Peer;
    use rumqttc::QoS;

    /// Topic, payload and packet id of each message.
    fn said(out: &[u8], v5: bool) -> Vec<(String, String, u16)> {
        let frames = FrameLimits { payload_bytes_max: 1_000, payload_bytes_skipped_max: 1_000 };
        let mut framer = Framer::for_peer(frames, if v5 { Peer::BrokerV5 } else { Peer::V4 });
        framer.read_buffer(out.len()).extend_from_slice(out);
        let mut said = Vec::new();
        while let Some(frame) = framer.next_frame().unwrap() {
            let Frame::Publish(publish) = frame else { panic!("{frame:?}") };
            assert!(publish.retain && publish.qos == QoS::AtLeastOnce, "{publish:?}");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            said.push((text(publish.topic), text(publish.payload), publish.packet_id));
        }
        said
    }

    #[test]
    fn will_and_birth_have_the_time_of_the_connect_and_the_death_its_own() {
        for v5 in [false, true] {
            let mut state = HostState::new("gw-1", 1_700_000_000_123_456_789);
            assert_eq!(state.will().topic, "spBv1.0/STATE/gw-1");
            assert_eq!(state.will().payload, br#"{"online":false,"timestamp":1700000000123}"#);
            let mut out = Vec::new();
            state.say_offline(0, &mut out, v5);
            assert!(out.is_empty(), "a host that never was online");
            state.say_online(&mut out, v5);
            state.say_online(&mut out, v5);
            state.say_offline(1_700_000_009_000_000_000, &mut out, v5);
            let topic = || "spBv1.0/STATE/gw-1".to_owned();
            let birth = (topic(), r#"{"online":true,"timestamp":1700000000123}"#.into(), 65_535);
            let death = (topic(), r#"{"online":false,"timestamp":1700000009000}"#.into(), 65_534);
            assert_eq!(said(&out, v5), [birth, death]);
            assert!(state.sent(65_534) && !state.sent(1));
        }
    }

    #[test]
    fn a_death_in_its_name_is_contradicted_but_not_all_the_time() {
        let mut state = HostState::new("gw-1", 1);
        let offline = br#"{"online":false,"timestamp":5}"#;
        assert!(state.is_topic(b"spBv1.0/STATE/gw-1") && !state.is_topic(b"spBv1.0/STATE/gw-2"));
        assert!(!state.is_contradicted(offline, false), "it has said nothing yet");
        state.say_online(&mut Vec::new(), false);
        assert!(state.is_contradicted(offline, false) && !state.may_repeat(), "just now");
        state.said = Instant::now().checked_sub(REPEATED_EVERY);
        assert!(state.may_repeat());
        assert!(!state.is_contradicted(offline, true), "an old one");
        assert!(!state.is_contradicted(br#"{"online":true,"timestamp":5}"#, false), "its own");
        assert!(!state.is_contradicted(b"OFFLINE", false), "of version 2.2");
    }

    #[test]
    fn packet_ids_go_round_below_those_of_subscriptions() {
        let mut state = HostState::new("h", 1);
        for _ in 0..2_000 {
            state.say_online_again(&mut Vec::new(), true);
            assert!(PACKET_IDS.contains(&state.packet_id));
        }
    }
}
