//! The ways in which a device's owner learns of refusals: by a topic at the broker, and by
//! reasons with a sample each.

use std::time::Duration;

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Subscribe};
use serde_json::{Value, json};

use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const REFUSED: &str = "tenant/{tenant}/device/{device}/refused";

/// A client that subscribes to a filter.
fn hearing(broker: &Mosquitto, filter: &str) -> MqttClient {
    let mut client = MqttClient::to_broker(broker.port, "owner");
    let mut subscribe = Subscribe::new(filter, QoS::AtMostOnce);
    subscribe.pkid = 1;
    client.send(&Packet::Subscribe(subscribe)).unwrap();
    assert!(matches!(client.receive().unwrap(), Packet::SubAck(_)));
    client
}

/// The next message that it received: its topic and its JSON.
fn heard(client: &mut MqttClient) -> (String, Value) {
    match client.receive().unwrap() {
        Packet::Publish(publish) => (publish.topic, serde_json::from_slice(&publish.payload).unwrap()),
        other => panic!("no PUBLISH but {other:?}"),
    }
}

fn topic(device: &str, message_type: &str) -> String {
    format!("tenant/acme/device/{device}/{message_type}")
}

fn scene(broker: &Mosquitto, refused_topic: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    for device in ["dev-1", "dev-2"] {
        scene.device("acme", device, "lab-1");
    }
    let more = format!(
        "refused_topic = \"{refused_topic}\"\n[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n"
    );
    scene.configure_broker(&broker.url(), &more);
    scene
}

fn envelope(token: &str, more: &str) -> Vec<u8> {
    format!("{{\"site_id\":\"lab-1\",\"provision_token\":\"{token}\"{more}}}").into_bytes()
}

#[test]
fn a_devices_owner_is_told_at_the_broker_and_a_guesser_is_not() {
    let broker = Mosquitto::start();
    let scene = scene(&broker, REFUSED);
    let gateway = scene.start();
    let mut owner = hearing(&broker, "tenant/+/device/+/refused");
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    // What helps a guesser first: had it been answered, it would be heard first.
    publisher.publish_all([
        (topic("dev-1", "telemetry"), envelope("guess", "")),
        (topic("dev-1", "telemetry"), b"{\"site_id\":\"lab-1\"}".to_vec()),
        (topic("dev-9", "telemetry"), envelope("guess", "")),
        (topic("dev-1", "telemetry"), b"no JSON".to_vec()),
        (topic("dev-2", "telemetry"), envelope("tok-dev-2", ",\"seq\":\"x\"")),
    ]);
    let mut said = [heard(&mut owner), heard(&mut owner)];
    said.sort_by(|a, b| a.0.cmp(&b.0));
    let [(first, bad_payload), (second, by_guest)] = said;
    assert_eq!((first, second), (topic("dev-1", "refused"), topic("dev-2", "refused")));
    assert_eq!(
        (&bad_payload["reason"], &bad_payload["topic"]),
        (&json!("BAD_PAYLOAD"), &json!(topic("dev-1", "telemetry")))
    );
    assert!(bad_payload["detail"].as_str().unwrap().contains("JSON"), "{bad_payload}");
    assert!(bad_payload["received_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(by_guest["reason"], "GUEST_REFUSED");
    assert!(!by_guest.to_string().contains("tok-dev-2"), "a secret was told: {by_guest}");
    // The id leads to the entry.
    for answer in [&bad_payload, &by_guest] {
        let entry = gateway.json(&format!("/api/v1/quarantine/entries/{}", answer["id"].as_str().unwrap()));
        assert_eq!(entry["reason"], answer["reason"]);
    }
    // What comes on the topic of answers is no message: neither our own answers nor anybody's else.
    publisher.publish_all([(topic("dev-1", "refused"), b"no JSON either".to_vec())]);
    assert_eq!(heard_raw(&mut owner), b"no JSON either");
    gateway.wait("dropped", |gateway| gateway.book("acme", "messages", "dropped") == 1);
    owner.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(owner.receive().is_err(), "an answer was answered");
    assert_eq!(gateway.book("acme", "messages", "received"), 6);
    assert_eq!(gateway.metric("tidegate_refusal_answers_total{outcome=\"sent\"}"), Some(2.0));
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

fn heard_raw(client: &mut MqttClient) -> Vec<u8> {
    match client.receive().unwrap() {
        Packet::Publish(publish) => publish.payload.to_vec(),
        other => panic!("no PUBLISH but {other:?}"),
    }
}

#[test]
fn a_device_that_is_always_wrong_is_told_a_few_times_and_its_neighbour_too() {
    let broker = Mosquitto::start();
    let scene = scene(&broker, "refused/{tenant}/{device}");
    let gateway = scene.start();
    let mut owner = hearing(&broker, "refused/#");
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all(
        (0..200).map(|n| (topic("dev-1", "telemetry"), envelope("tok-dev-1", &format!(",\"seq\":\"{n}\"")))),
    );
    publisher.publish_all([(topic("dev-2", "telemetry"), envelope("tok-dev-2", ",\"seq\":\"x\""))]);
    gateway.wait("kept", |gateway| gateway.book("acme", "messages", "quarantined") == 201);
    let mut told = 0;
    loop {
        let (topic, _) = heard(&mut owner);
        if topic == "refused/acme/dev-2" {
            break;
        }
        told += 1;
    }
    // Five at once, and one in ten seconds.
    assert!((5..20).contains(&told), "{told}");
    let dropped = gateway.metric("tidegate_refusal_answers_total{outcome=\"dropped\"}").unwrap();
    assert_eq!(dropped, 200.0 - f64::from(told));
    gateway.assert_balanced();
}

#[test]
fn nobody_is_told_by_default_and_a_topic_that_would_come_back_is_refused_at_start() {
    let broker = Mosquitto::start();
    let scene = scene(&broker, "");
    let gateway = scene.start();
    let mut everything = hearing(&broker, "#");
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all([(topic("dev-1", "telemetry"), b"no JSON".to_vec())]);
    assert_eq!(heard_raw(&mut everything), b"no JSON");
    gateway.wait("kept", |gateway| gateway.book("acme", "messages", "quarantined") == 1);
    everything.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(everything.receive().is_err());
    drop(gateway);
    for wrong in ["refused", "tenant/{device}/device/{tenant}/refused", "x/{tenant}/{device}/#"] {
        scene.configure_broker(&broker.url(), &format!("refused_topic = \"{wrong}\"\n"));
        let (status, _, errors) = scene.verb(&["validate"], "");
        assert_eq!(status.code(), Some(2), "{wrong}");
        assert!(errors.contains("mqtt.refused_topic"), "{errors}");
    }
}

#[test]
fn quarantine_is_listed_by_reason_with_a_sample_of_each() {
    let broker = Mosquitto::start();
    let scene = scene(&broker, "");
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    // One after the other: devices are decoded on threads of their own.
    publisher.publish_all([(topic("dev-1", "telemetry"), envelope("tok-dev-1", ",\"seq\":\"1\""))]);
    gateway.wait("kept", |gateway| gateway.book("acme", "messages", "quarantined") == 1);
    publisher.publish_all([
        (topic("dev-2", "telemetry"), envelope("tok-dev-2", ",\"seq\":\"2\"")),
        (topic("dev-1", "nothing"), envelope("tok-dev-1", "")),
        ("tenant/globex/device/d/telemetry".into(), b"no JSON".to_vec()),
    ]);
    gateway.wait("kept", |gateway| gateway.book("acme", "messages", "quarantined") == 3);
    let list = |more: &[&str]| {
        let (status, out, errors) = scene.verb(&[&["quarantine", "list"], more].concat(), "");
        assert!(status.success(), "{errors}");
        out
    };
    let groups: Value = serde_json::from_str(&list(&["--tenant", "acme", "--by-reason", "--json"])).unwrap();
    let reasons: Vec<_> =
        groups.as_array().unwrap().iter().map(|group| (&group["reason"], &group["entries"])).collect();
    assert_eq!(reasons, [(&json!("GUEST_REFUSED"), &json!(2)), (&json!("NO_GUEST"), &json!(1))]);
    let sample = &groups[0]["sample"];
    assert_eq!((&sample["device"], &sample["topic"]), (&json!("dev-2"), &json!(topic("dev-2", "telemetry"))));
    assert!(sample["id"].is_string() && !sample["detail"].as_str().unwrap().is_empty());
    assert!(groups[0]["first"].as_str() <= groups[0]["last"].as_str());
    assert!(!groups.to_string().contains("tok-dev"), "a secret was shown");
    // One device's, and all tenants'.
    let one = list(&["--tenant", "acme", "--device", "dev-1", "--by-reason"]);
    assert!(one.contains("NO_GUEST") && one.contains("GUEST_REFUSED") && !one.contains("dev-2"), "{one}");
    assert!(list(&["--by-reason"]).contains("BAD_PAYLOAD"));
    // What was there before: a tenant alone is grouped, its JSON is entries.
    assert!(list(&["--tenant", "acme"]).starts_with("reason "));
    let entries: Value = serde_json::from_str(&list(&["--tenant", "acme", "--json"])).unwrap();
    assert_eq!(entries.as_array().unwrap().len(), 3);
}
