//! The settings of a broker session, and the messages that it publishes.

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::broker::transport::BrokerUrl;
use tidegate_core::refused_topic::RefusedTopic;

/// The settings of a broker session.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    pub url: BrokerUrl,
    /// The version to speak. A broker that does not speak MQTT 5 is spoken to in MQTT 3.1.1.
    pub protocol: Protocol,
    /// The subscriptions, at least one.
    pub filters: Vec<TopicFilter>,
    /// The group whose members share the subscription; None: it is ours alone. It needs MQTT 5.
    pub share: Option<String>,
    /// Names the persistent session: it must stay the same, and be nobody else's.
    pub client_id: String,
    /// Empty: none.
    pub username: String,
    pub password: Option<String>,
    /// Roots to trust in PEM form; None: the machine's own.
    pub ca_file: Option<PathBuf>,
    /// Take retained messages as if they had just been published.
    pub accepts_retained: bool,
    /// Payloads over it are passed on with their first KiB and their true size.
    pub payload_bytes_max: usize,
    /// Seconds, at least 2; `limits::BROKER_KEEP_ALIVE_S` unless a test says otherwise.
    pub keep_alive_s: u16,
    /// The folder of `mqtt-session.json`; it exists.
    pub data_dir: PathBuf,
    /// The topic on which refusals are published; None: they are not.
    pub answer_topic: Option<RefusedTopic>,
    /// The primary host of Sparkplug that the session is; None: it is none.
    pub sparkplug_host_id: Option<String>,
}

/// A topic filter to subscribe to (MQTT 3.1.1 section 4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFilter {
    pub filter: String,
    /// At most so much is asked for: 0 or 1.
    pub qos: u8,
}

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    V5,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// A message that goes to the broker, at QoS 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingPublish {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// The messages that the session publishes; None if it publishes none.
pub(crate) type Outbox = Option<mpsc::Receiver<OutgoingPublish>>;
