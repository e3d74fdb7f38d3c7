//! Requests that an edge node of Sparkplug sends its births again: `Node Control/Rebirth`, by NCMD at the broker.
//!
//! Only where `rebirth_interval_s` of the topic template allows it, only to the node whose message a decoder could not
//! resolve, and only once in that interval for each node. All nodes together get a bounded number a second: after a
//! loss of the state all would be born at once. What is over is counted; the node's next message asks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::core::keyed_buckets::KeyedTokenBuckets;
use crate::core::token_bucket::{Rate, TokenBucket};
use crate::core::topic::{SPARKPLUG_NAMESPACE, TopicTemplates};
use crate::decode::BirthRequests;
use crate::limits;
use crate::source::broker::OutgoingPublish;

/// The nodes of one topic template.
#[derive(Debug)]
struct TemplateNodes {
    namespace_level: usize,
    rates: Mutex<KeyedTokenBuckets<u64>>,
}

/// Makes requests and queues them for the broker's session.
#[derive(Debug)]
pub struct BirthRequester {
    topics: Arc<TopicTemplates>,
    /// By template; None: its nodes get no requests.
    nodes: Vec<Option<TemplateNodes>>,
    rate: Mutex<TokenBucket>,
    outgoing: mpsc::Sender<OutgoingPublish>,
    started: Instant,
    hasher: foldhash::fast::RandomState,
    pub sent: AtomicU64,
    /// The node was asked a short while ago.
    pub repeated: AtomicU64,
    /// Over the rate of all nodes, or no room to wait for the session.
    pub dropped: AtomicU64,
}

impl BirthRequester {
    /// A requester for the templates, by their `rebirth_interval_s`. None: no template allows requests.
    pub fn new(
        topics: Arc<TopicTemplates>,
        intervals_s: impl IntoIterator<Item = u32>,
        outgoing: mpsc::Sender<OutgoingPublish>,
    ) -> Option<Self> {
        let nodes = topics.iter().zip(intervals_s).map(|(template, interval_s)| {
            let namespace_level = template.sparkplug_level().filter(|_| interval_s > 0)?;
            let rate = Rate { per_s: 1.0 / f64::from(interval_s), burst: 1.0 };
            let rates = Mutex::new(KeyedTokenBuckets::new(rate, limits::BIRTH_REQUEST_NODES_MAX));
            Some(TemplateNodes { namespace_level, rates })
        });
        let nodes: Vec<_> = nodes.collect();
        nodes.iter().any(Option::is_some).then(|| Self {
            topics,
            nodes,
            rate: Mutex::new(TokenBucket::full(limits::BIRTH_REQUESTS_RATE, 0.0)),
            outgoing,
            started: Instant::now(),
            hasher: foldhash::fast::RandomState::default(),
            sent: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    fn request_at(&self, topic: &str, now_s: f64) {
        use std::hash::BuildHasher;
        let nodes = self
            .topics
            .matches(topic)
            .and_then(|fields| self.nodes.get(usize::from(fields.template))?.as_ref());
        let Some(nodes) = nodes else { return };
        let Some(command_topic) = command_topic(topic, nodes.namespace_level) else { return };
        let key = self.hasher.hash_one(&command_topic);
        let mut rates = nodes.rates.lock();
        let counter = if !rates.take(key, now_s) {
            &self.repeated
        } else if self.rate.lock().take(limits::BIRTH_REQUESTS_RATE, now_s) && self.send(command_topic) {
            &self.sent
        } else {
            // It was not asked: its next message may.
            rates.release(&key);
            &self.dropped
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn send(&self, topic: String) -> bool {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        tracing::info!(topic, "an edge node is asked for its births");
        self.outgoing.try_send(OutgoingPublish { topic, payload: rebirth_command(now_ms) }).is_ok()
    }
}

impl BirthRequests for BirthRequester {
    fn request(&self, topic: &str) {
        self.request_at(topic, self.started.elapsed().as_secs_f64());
    }
}

/// The topic for commands to the edge node that published to a topic. None: the topic is none of an edge node's
/// births, data and deaths.
fn command_topic(topic: &str, namespace_level: usize) -> Option<String> {
    let levels: Vec<&str> = topic.split('/').take(namespace_level + 4).collect();
    let &[.., namespace, group, kind, edge] = &levels[..] else { return None };
    let is_of_a_node = matches!(kind, "NBIRTH" | "NDATA" | "NDEATH" | "DBIRTH" | "DDATA" | "DDEATH");
    let is_name = |name: &str| !name.is_empty() && !name.contains(['+', '#', '\0']);
    (levels.len() == namespace_level + 4
        && namespace == SPARKPLUG_NAMESPACE
        && is_of_a_node
        && is_name(group)
        && is_name(edge))
    .then(|| {
        let before = &levels[..namespace_level];
        [before, &[namespace, group, "NCMD", edge]].concat().join("/")
    })
}

/// The payload of the command, in Protocol Buffers: a time, and one metric `Node Control/Rebirth` that is true. A
/// command has no sequence number.
fn rebirth_command(now_ms: u64) -> Vec<u8> {
    const NAME: &[u8] = b"Node Control/Rebirth";
    const BOOLEAN: u8 = 11;
    let mut metric = vec![0x0a, NAME.len() as u8];
    metric.extend_from_slice(NAME);
    metric.push(0x18);
    push_varint(now_ms, &mut metric);
    metric.extend_from_slice(&[0x20, BOOLEAN, 0x70, 1]);
    let mut payload = vec![0x08];
    push_varint(now_ms, &mut payload);
    payload.extend_from_slice(&[0x12, metric.len() as u8]);
    payload.extend_from_slice(&metric);
    payload
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::topic::{EnvelopeKind, TopicRules, TopicTemplate, TopicTemplates};
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use tokio::sync::mpsc;

    fn template(template: &str) -> TopicTemplate {
        let rules = TopicRules {
            template,
            tenant: "plant",
            device: "{edge}",
            message_type: "sparkplug",
            site: "",
            tenants: &BTreeMap::new(),
            envelope: EnvelopeKind::None,
            qos: 1,
        };
        TopicTemplate::new(&rules).unwrap()
    }

    fn requester(room: usize) -> (BirthRequester, mpsc::Receiver<OutgoingPublish>) {
        let templates =
            vec![template("spBv1.0/{group}/{kind}/{edge}/#"), template("b/spBv1.0/{group}/+/{edge}/#")];
        let topics = Arc::new(TopicTemplates::new(templates).unwrap());
        let (sender, receiver) = mpsc::channel(room);
        (BirthRequester::new(topics, [60, 10], sender).unwrap(), receiver)
    }

    fn counts(requester: &BirthRequester) -> [u64; 3] {
        [&requester.sent, &requester.repeated, &requester.dropped].map(|count| count.load(Ordering::Relaxed))
    }

    #[test]
    fn a_node_is_asked_once_in_its_interval_whatever_its_messages_are() {
        let (requester, mut outgoing) = requester(10);
        for topic in ["spBv1.0/G/NDATA/e", "spBv1.0/G/DDATA/e/d1", "spBv1.0/G/DDATA/e/d2"] {
            requester.request_at(topic, 1.0);
        }
        requester.request_at("spBv1.0/G/NDATA/f", 1.0);
        requester.request_at("b/spBv1.0/G/NDATA/e", 1.0);
        requester.request_at("spBv1.0/G/NDATA/e", 60.9);
        let topics: Vec<String> =
            std::iter::from_fn(|| outgoing.try_recv().ok()).map(|sent| sent.topic).collect();
        assert_eq!(topics, ["spBv1.0/G/NCMD/e", "spBv1.0/G/NCMD/f", "b/spBv1.0/G/NCMD/e"]);
        assert_eq!(counts(&requester), [3, 3, 0]);
        requester.request_at("spBv1.0/G/NDATA/e", 61.1);
        assert_eq!(outgoing.try_recv().unwrap().topic, "spBv1.0/G/NCMD/e");
    }

    #[test]
    fn nothing_is_asked_of_what_is_no_edge_node_or_not_allowed() {
        let (requester, mut outgoing) = requester(10);
        for topic in [
            "spBv1.0/G/NCMD/e",
            "spBv1.0/G/DCMD/e/d",
            "spBv1.0/G/STATE/e",
            "spBv1.0/G/NDATA/",
            "spBv1.0//NDATA/e",
            "spBv1.0/G/NDATA/e+",
            "spBv1.0/G/NDATA",
            "x/y/z",
        ] {
            requester.request_at(topic, 1.0);
        }
        assert!(outgoing.try_recv().is_err());
        let topics = Arc::new(TopicTemplates::from(template("spBv1.0/{group}/{kind}/{edge}/#")));
        assert!(BirthRequester::new(topics, [0], mpsc::channel(1).0).is_none());
    }

    #[test]
    fn a_storm_of_nodes_is_bounded_and_those_that_were_not_asked_may_be_later() {
        let (requester, mut outgoing) = requester(100_000);
        for node in 0..50_000 {
            requester.request_at(&format!("spBv1.0/G/NDATA/e{node}"), 1.0);
        }
        let most = limits::BIRTH_REQUESTS_RATE.burst as u64;
        assert_eq!(counts(&requester), [most, 0, 50_000 - most]);
        while outgoing.try_recv().is_ok() {}
        requester.request_at("spBv1.0/G/NDATA/e49999", 3.0);
        assert_eq!(outgoing.try_recv().unwrap().topic, "spBv1.0/G/NCMD/e49999");
        let nodes = requester.nodes[0].as_ref().unwrap().rates.lock().len();
        assert!(nodes <= limits::BIRTH_REQUEST_NODES_MAX, "{nodes}");
    }

    #[test]
    fn without_a_session_the_queue_is_full_and_the_node_is_asked_later() {
        let (requester, mut outgoing) = requester(1);
        for node in ["e", "f", "f"] {
            requester.request_at(&format!("spBv1.0/G/NDATA/{node}"), 1.0);
        }
        assert_eq!(counts(&requester), [1, 0, 2]);
        outgoing.try_recv().unwrap();
        requester.request_at("spBv1.0/G/NDATA/f", 1.1);
        assert_eq!(counts(&requester), [2, 0, 2]);
    }

    #[test]
    fn the_command_is_the_payload_that_the_schema_of_tahu_gives() {
        // Of Google's protobuf for Python 7, by the fields of sparkplug_b.proto.
        let wanted = "08fbd095ffbc3112210a144e6f646520436f6e74726f6c2f5265626972746818\
                      fbd095ffbc31200b7001";
        let hex: String =
            rebirth_command(1_700_000_000_123).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, wanted);
    }
}
