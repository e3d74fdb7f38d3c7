//! The formats of the field, from a broker to lines in a file, by the decoders that come with Tidegate.

use serde_json::Value;

use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const OUTPUT: &str = "[output]\nkind = \"file\"\n[admission]\ncredentials = \"broker\"\nrate_per_s = 0\n";

/// The lines of one message of a type, without a time that the gateway has given.
fn decoded(guest: &str, payload: &[u8]) -> Vec<String> {
    let broker = Mosquitto::start_in_memory();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("_default", guest, guest);
    scene.configure_broker(&broker.url(), OUTPUT);
    let gateway = scene.start();
    let topic = format!("tenant/acme/device/dev-1/{guest}");
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    // The second is cut off, so that its decoder refuses it.
    publisher
        .publish_all([(topic.clone(), payload.to_vec()), (topic, payload[..payload.len() - 1].to_vec())]);
    gateway.wait("the refused one", |gateway| gateway.book("acme", "messages", "quarantined") == 1);
    assert_eq!(gateway.json("/api/v1/quarantine")["reasons"]["GUEST_REFUSED"], 1);
    gateway.wait("the lines", |gateway| gateway.book("acme", "lines", "pending") == 0);
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
    scene.lines("telemetry_acme")
}

#[test]
fn a_payload_of_cayenne_lpp_is_a_line_with_a_field_for_each_value() {
    let lines = decoded("lpp", &[3, 103, 1, 16, 5, 0, 1]);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let expected = "lpp,device_id=dev-1,site_id=lab-1 temperature_3=27.2,digital_in_5=1i ";
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn a_pack_of_senml_in_cbor_is_a_line_for_each_record() {
    let payload = b"\x82\xa4\x21\x62d:\x22\x1a\x65\x53\xf1\x64\x00\x61a\x02\x01\xa2\x00\x61b\x04\xf5";
    assert_eq!(
        decoded("senml", payload),
        [
            "senml,device_id=dev-1,site_id=lab-1,name=d:a value=1.0 1700000100000000000",
            "senml,device_id=dev-1,site_id=lab-1,name=d:b value_bool=true 1700000100000000000",
        ]
    );
}

/// The messages of a case, topic and payload.
pub(crate) fn sparkplug_case(id: &str) -> Vec<(String, Vec<u8>)> {
    let cases = include_str!("cases/sparkplug-public.jsonl").lines();
    let cases = cases.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let case = cases.into_iter().find(|case| case["id"] == id).unwrap();
    let bytes = |hex: &str| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let messages = case["input"]["messages"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    messages.map(|message| (text(&message["topic"]), bytes(&text(&message["payload_hex"])))).collect()
}

#[test]
fn an_alias_of_sparkplug_is_known_after_a_restart_of_the_gateway() {
    let broker = Mosquitto::start_in_memory();
    let mut scene = GatewayDir::new();
    scene.device("plant", "edge1", "hall");
    scene.guest("_default", "spBv1.0", "sparkplug");
    // The namespace is the type, the group the tenant, and the edge node the device.
    let topic = "topic = \"{type}/{tenant}/+/{device}/#\"\n";
    scene.configure_broker(&broker.url(), &format!("{topic}{OUTPUT}"));
    let mut messages = sparkplug_case("spb-060");
    let data = messages.split_off(1);

    let gateway = scene.start();
    MqttClient::to_broker(broker.port, "node").publish_all(messages);
    gateway.wait("the birth", |gateway| gateway.book("plant", "messages", "lines") == 1);
    assert_eq!(gateway.stop().code(), Some(0));

    let gateway = scene.start();
    MqttClient::to_broker(broker.port, "node").publish_all(data);
    gateway.wait("the data", |gateway| gateway.book("plant", "messages", "lines") == 1);
    gateway.wait("the lines", |gateway| gateway.book("plant", "lines", "pending") == 0);
    assert_eq!(gateway.stop().code(), Some(0));
    assert_eq!(
        scene.lines("telemetry_plant"),
        [
            "sparkplug,device_id=edge1,site_id=hall,group=plant,edge=edge1 x=127i 1700000000000000000",
            "sparkplug,device_id=edge1,site_id=hall,group=plant,edge=edge1 x=-128i 1700000000100000000",
        ]
    );
}
