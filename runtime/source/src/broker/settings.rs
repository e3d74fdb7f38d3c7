use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::broker::Protocol;
use crate::broker::transport::BrokerUrl;
use tidegate_core::refused_topic::RefusedTopic;

/// What a broker session needs to know.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    pub url: BrokerUrl,
    /// The version to speak. A broker that does not speak MQTT 5 is spoken to in MQTT 3.1.1.
    pub protocol: Protocol,
    /// The topic filter to subscribe to.
    pub filter: String,
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
    /// Where `mqtt-session.json` is kept; it exists.
    pub data_dir: PathBuf,
    /// Where refusals are answered; None: nowhere.
    pub answer_topic: Option<RefusedTopic>,
}

/// A message that goes to the broker, at QoS 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingPublish {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// What the session publishes; there where something is.
pub(crate) type Outbox = Option<mpsc::Receiver<OutgoingPublish>>;
