//! The gateway as a host of Sparkplug, on a real Mosquitto with edge nodes that are played here: it requests births where
//! the operator allows it, and tells edge nodes whether it is online.

use std::time::{Duration, Instant};

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Subscribe};
use serde_json::Value;

use crate::formats::sparkplug_case;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const NODES: &str = "\n[[topics]]\ntemplate = \"spBv1.0/{group}/{kind}/{edge}/#\"\ntenant = \"plant\"\n\
                     device = \"{group}/{edge}\"\ntype = \"sparkplug\"\nenvelope = \"none\"\n";

const REST: &str = "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n";

/// A command is waited for so long before there is none.
const QUIET: Duration = Duration::from_millis(700);

/// A gateway for edge nodes of the group `plant`.
fn scene(broker: &Mosquitto, mqtt: &str, interval_s: u32) -> GatewayDir {
    let mut scene = GatewayDir::new();
    for node in ["plant/edge1", "plant/edge2"] {
        scene.device("plant", node, "hall");
    }
    std::fs::remove_file(scene.path("guests/_default/telemetry.wasm")).unwrap();
    std::fs::remove_file(scene.path("guests/_default/heartbeat.wasm")).unwrap();
    std::fs::write(scene.path("guests/_default/sparkplug.toml"), "decoder = \"sparkplug\"\n").unwrap();
    let interval = format!("rebirth_interval_s = {interval_s}\n");
    scene.configure_broker(&broker.url(), &format!("{mqtt}{NODES}{interval}{REST}"));
    scene
}

/// A client that gets what is published to a filter.
struct Subscriber(MqttClient);

impl Subscriber {
    fn new(broker: &Mosquitto, name: &str, filter: &str) -> Self {
        let mut client = MqttClient::to_broker(broker.port, name);
        let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        subscribe.pkid = 1;
        client.send(&Packet::Subscribe(subscribe)).unwrap();
        assert!(matches!(client.receive().unwrap(), Packet::SubAck(_)));
        Self(client)
    }

    /// The next message: topic, payload, QoS and the retained flag. None: none comes within the time.
    fn next(&mut self, within: Duration) -> Option<(String, Vec<u8>, QoS, bool)> {
        self.0.stream.set_read_timeout(Some(within)).unwrap();
        match self.0.receive() {
            Ok(Packet::Publish(publish)) => {
                if publish.qos == QoS::AtLeastOnce {
                    let ack = rumqttc::mqttbytes::v4::PubAck::new(publish.pkid);
                    self.0.send(&Packet::PubAck(ack)).unwrap();
                }
                Some((publish.topic, publish.payload.to_vec(), publish.qos, publish.retain))
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    /// The topics of all messages until there are none for a while.
    fn topics(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next(QUIET)).map(|(topic, ..)| topic).collect()
    }
}

/// The messages of a node, which has the births of a public case, under its own name.
struct Node {
    client: MqttClient,
    birth: (String, Vec<u8>),
    data: (String, Vec<u8>),
}

impl Node {
    fn new(broker: &Mosquitto, edge: &str) -> Self {
        let mut messages = sparkplug_case("spb-060").into_iter();
        let mut named = || {
            let (topic, payload) = messages.next().unwrap();
            (topic.replace("edge1", edge), payload)
        };
        let (birth, data) = (named(), named());
        Self { client: MqttClient::to_broker(broker.port, edge), birth, data }
    }

    fn publish_birth(&mut self) {
        self.client.publish_all([self.birth.clone()]);
    }

    fn publish_data(&mut self, times: usize) {
        self.client.publish_all(vec![self.data.clone(); times]);
    }
}

fn requests(gateway: &Gateway<'_>, outcome: &str) -> f64 {
    let name = format!("tidegate_sparkplug_birth_requests_total{{outcome=\"{outcome}\"}}");
    gateway.metric(&name).unwrap_or(-1.0)
}

#[test]
fn a_node_whose_birth_the_gateway_does_not_know_is_asked_once_and_its_data_flow_again() {
    let broker = Mosquitto::start_in_memory();
    let scene = scene(&broker, "", 3600);
    let mut commands = Subscriber::new(&broker, "watcher", "spBv1.0/plant/NCMD/+");
    let (mut node, mut other) = (Node::new(&broker, "edge1"), Node::new(&broker, "edge2"));

    // The node was born before the gateway was there: the gateway has its data alone.
    let gateway = scene.start();
    node.publish_data(50);
    let (topic, payload, qos, retained) = commands.next(Duration::from_secs(20)).expect("a request");
    assert_eq!((&*topic, qos, retained), ("spBv1.0/plant/NCMD/edge1", QoS::AtMostOnce, false));
    assert!(payload.windows(20).any(|bytes| bytes == b"Node Control/Rebirth"), "{payload:?}");
    assert_eq!(commands.topics(), <[String; 0]>::default(), "it was asked once for fifty messages");
    gateway.wait("the refused ones", |gateway| gateway.book("plant", "messages", "quarantined") == 50);
    assert_eq!((requests(&gateway, "sent"), requests(&gateway, "repeated")), (1.0, 49.0));

    // It is born, as it was asked to.
    node.publish_birth();
    node.publish_data(1);
    gateway.wait("its lines", |gateway| gateway.book("plant", "messages", "lines") == 2);
    // A gap of the sequence numbers is within the same hour.
    node.publish_data(1);
    gateway.wait("the line", |gateway| gateway.book("plant", "messages", "lines") == 3);
    // Another node has an hour of its own.
    other.publish_data(1);
    assert_eq!(commands.topics(), ["spBv1.0/plant/NCMD/edge2"]);
    // The commands come to the gateway too, and are no data.
    gateway.wait("the commands", |gateway| gateway.book("plant", "messages", "empty") == 2);
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
    let lines = scene.lines("telemetry_plant");
    assert_eq!(lines.len(), 3, "{lines:?}");
}

#[test]
fn a_gap_asks_again_after_each_interval_until_the_node_is_born() {
    let broker = Mosquitto::start_in_memory();
    let scene = scene(&broker, "", 1);
    let mut commands = Subscriber::new(&broker, "watcher", "spBv1.0/plant/NCMD/+");
    let mut node = Node::new(&broker, "edge1");
    let gateway = scene.start();
    node.publish_birth();
    node.publish_data(1);
    assert_eq!(commands.topics(), <[String; 0]>::default(), "nothing is missing");
    // The same sequence number again: a gap.
    node.publish_data(1);
    assert!(commands.next(Duration::from_secs(20)).is_some());
    // After a restart the reason is still in the state.
    assert_eq!(gateway.stop().code(), Some(0));
    let gateway = scene.start();
    node.publish_data(1);
    assert!(commands.next(Duration::from_secs(20)).is_some());
    std::thread::sleep(Duration::from_millis(1_100));
    node.publish_data(1);
    assert!(commands.next(Duration::from_secs(20)).is_some(), "it was not born");
    node.publish_birth();
    std::thread::sleep(Duration::from_millis(1_100));
    node.publish_data(1);
    assert_eq!(commands.topics(), <[String; 0]>::default());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn nothing_is_asked_where_the_operator_does_not_allow_it_or_a_message_is_replayed() {
    let broker = Mosquitto::start_in_memory();
    let mut first = scene(&broker, "", 0);
    first.set_token("operator");
    let mut commands = Subscriber::new(&broker, "watcher", "spBv1.0/plant/NCMD/+");
    let mut node = Node::new(&broker, "edge1");
    let gateway = first.start();
    node.publish_data(3);
    gateway.wait("the refused ones", |gateway| gateway.book("plant", "messages", "quarantined") == 3);
    assert_eq!(requests(&gateway, "sent"), -1.0);
    assert_eq!(gateway.stop().code(), Some(0));

    // The same messages out of quarantine, where it is allowed.
    let text = std::fs::read_to_string(first.path("tidegate.toml")).unwrap();
    let text = text.replace("rebirth_interval_s = 0", "rebirth_interval_s = 1");
    std::fs::write(first.path("tidegate.toml"), text).unwrap();
    let gateway = first.start();
    let (_, report, errors) = first.verb(&["quarantine", "replay", "--tenant", "plant", "--json"], "");
    assert!(report.contains("\"quarantined_again\": 3"), "{report}{errors}");
    // A trial asks for nothing either.
    std::fs::write(first.path("data.bin"), &node.data.1).unwrap();
    let arguments = ["explain", "--topic", "spBv1.0/plant/NDATA/edge1", "--payload-file", "data.bin"];
    let (_, shown, errors) = first.verb(&arguments, "");
    assert!(shown.contains("NO_BIRTH"), "{shown}{errors}");
    assert_eq!(commands.topics(), <[String; 0]>::default());
    assert_eq!(requests(&gateway, "sent"), 0.0);
    assert_eq!(gateway.stop().code(), Some(0));
}

/// The state of the host, and its time.
fn state(message: Option<(String, Vec<u8>, QoS, bool)>) -> (bool, u64) {
    let (topic, payload, ..) = message.expect("a state");
    assert_eq!(topic, "spBv1.0/STATE/gw-1");
    let state: Value = serde_json::from_slice(&payload).unwrap();
    (state["online"].as_bool().unwrap(), state["timestamp"].as_u64().unwrap())
}

#[test]
fn edge_nodes_see_whether_their_primary_host_is_online_whatever_becomes_of_it() {
    for protocol in ["5", "3.1.1"] {
        let broker = Mosquitto::start_in_memory();
        let scene = scene(&broker, &format!("protocol = \"{protocol}\"\nsparkplug_host_id = \"gw-1\"\n"), 0);
        let mut watcher = Subscriber::new(&broker, "watcher", "spBv1.0/STATE/+");
        let patience = Duration::from_secs(30);
        let gateway = scene.start();
        let (online, born_ms) = state(watcher.next(patience));
        assert!(online);
        // An edge node that comes later sees it retained.
        let mut late = Subscriber::new(&broker, "late", "spBv1.0/STATE/gw-1");
        let message = late.next(patience);
        assert!(message.as_ref().is_some_and(|(.., retained)| *retained));
        assert_eq!(state(message), (true, born_ms));

        // Somebody else says that it is offline: it is contradicted.
        let lie = r#"{"online":false,"timestamp":1}"#;
        watcher.0.publish("spBv1.0/STATE/gw-1", QoS::AtMostOnce, true, lie);
        assert_eq!(state(watcher.next(patience)), (false, 1));
        assert_eq!(state(watcher.next(patience)), (true, born_ms));

        // It leaves on purpose, and says so itself.
        assert_eq!(gateway.stop().code(), Some(0));
        let (online, died_ms) = state(watcher.next(patience));
        assert!(!online && died_ms > born_ms, "{died_ms} {born_ms}");

        // It comes back and is killed: the broker says so, with the time of the connection.
        let gateway = scene.start();
        let (online, born_ms) = state(watcher.next(patience));
        assert!(online && born_ms >= died_ms);
        gateway.kill();
        assert_eq!(state(watcher.next(patience)), (false, born_ms));
        // One that comes back at once is online.
        let gateway = scene.start();
        let (online, born_again_ms) = state(watcher.next(patience));
        assert!(online && born_again_ms >= born_ms);
        assert_eq!(watcher.next(QUIET), None, "nothing was said twice");
        assert_eq!(gateway.book("_none", "messages", "received"), 0, "the state is no message");
        assert_eq!(gateway.stop().code(), Some(0));
    }
}

#[test]
fn a_storm_of_nodes_without_births_is_answered_by_few_requests() {
    let broker = Mosquitto::start_in_memory();
    let mut scene = scene(&broker, "", 3600);
    for node in 0..300 {
        scene.device("plant", &format!("plant/n{node}"), "hall");
    }
    let mut commands = Subscriber::new(&broker, "watcher", "spBv1.0/plant/NCMD/+");
    let payload = sparkplug_case("spb-060").remove(1).1;
    let gateway = scene.start();
    let mut client = MqttClient::to_broker(broker.port, "nodes");
    let began = Instant::now();
    client.publish_all((0..300).map(|node| (format!("spBv1.0/plant/NDATA/n{node}"), payload.clone())));
    gateway.wait("the refused ones", |gateway| gateway.book("plant", "messages", "quarantined") == 300);
    let bound = 50.0 + 10.0 * began.elapsed().as_secs_f64();
    let (sent, dropped) = (requests(&gateway, "sent"), requests(&gateway, "dropped"));
    assert!(sent >= 50.0 && sent <= bound + 1.0, "{sent} of at most {bound}");
    assert_eq!(sent + dropped, 300.0);
    let mut topics = commands.topics();
    topics.sort();
    let count = topics.len();
    topics.dedup();
    assert!(count == topics.len() && count as f64 == sent, "{count} {sent}");
    assert_eq!(gateway.stop().code(), Some(0));
}
