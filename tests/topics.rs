//! Several topic templates: network servers and Sparkplug beside devices of our own, at a broker and at the listener.

use std::path::Path;

use rumqttc::QoS;
use serde_json::json;

use crate::formats::sparkplug_case;
use crate::harness::gateway::{Gateway, GatewayDir, tidegate};
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::harness::victoria::Victoria;

/// Messages in the shape of the servers, with values of our own.
const THINGS_STACK: &str = include_str!("cases/things-stack-uplink.json");
const CHIRPSTACK: &str = include_str!("cases/chirpstack-uplink.json");

const APPLICATION: &str = "2b6dd3c2-5d1e-4c0f-9d9a-000000000001";

/// A gateway with a configuration of `deploy`.
fn deployed(name: &str) -> GatewayDir {
    let scene = GatewayDir::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy").join(name);
    std::fs::copy(folder.join("tidegate.toml"), scene.path("tidegate.toml")).unwrap();
    std::fs::create_dir_all(scene.path("guests/acme")).unwrap();
    for file in std::fs::read_dir(folder.join("guests/acme")).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), scene.path("guests/acme").join(file.file_name())).unwrap();
    }
    scene
}

/// Starts it with the test's broker and database in place of those of its configuration.
fn start<'a>(scene: &'a GatewayDir, broker: &Mosquitto, database: &str) -> Gateway<'a> {
    let variables = [
        ("TIDEGATE_MQTT__URL", broker.url()),
        ("TIDEGATE_MQTT__USERNAME", String::new()),
        ("TIDEGATE_MQTT__PASSWORD_FILE", String::new()),
        ("TIDEGATE_OUTPUT__KIND", "influxdb1".into()),
        ("TIDEGATE_OUTPUT__URL", database.to_owned()),
        ("TIDEGATE_OUTPUT__TOKEN_FILE", String::new()),
        ("TIDEGATE_ADMIN__LISTEN", scene.admin.clone()),
    ];
    let mut command = tidegate();
    command.arg("run").envs(variables);
    let gateway = scene.start_unready_by(command);
    gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
    gateway
}

/// A message without the members at these places.
fn without(message: &str, places: &[(&str, &str)]) -> String {
    let mut message: serde_json::Value = serde_json::from_str(message).unwrap();
    for (object, member) in places {
        message.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(*member).unwrap();
    }
    message.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn uplinks_of_the_things_stack_are_rows_by_the_deployed_configuration() {
    let (broker, influxdb) = (Mosquitto::start_in_memory(), Influxdb::start().await);
    influxdb.create("telemetry_acme").await;
    let scene = deployed("things-stack");
    let gateway = start(&scene, &broker, &influxdb.url());
    let mut server = MqttClient::to_broker(broker.port, "the-things-stack");
    let topic = "v3/meters@ttn/devices/meter-1/up";
    let no_payload =
        without(THINGS_STACK, &[("/uplink_message", "frm_payload"), ("/uplink_message", "f_port")]);
    for payload in [THINGS_STACK, &no_payload, "{\"end_device_ids\": {}}"] {
        server.publish(topic, QoS::AtMostOnce, false, payload);
    }
    server.publish("v3/meters@ttn/devices/meter-1/join", QoS::AtMostOnce, false, "{}");
    server.publish("v3/other@ttn/devices/d/up", QoS::AtMostOnce, false, THINGS_STACK);
    gateway.wait("all", |gateway| gateway.book("acme", "messages", "quarantined") == 2);
    let messages = |key| gateway.book("acme", "messages", key);
    assert_eq!((messages("received"), messages("lines"), messages("empty")), (4, 1, 1));
    let reasons = gateway.json("/api/v1/quarantine")["reasons"].clone();
    assert_eq!(reasons, json!({"BAD_ENVELOPE": 1, "NO_GUEST": 1}));
    gateway.wait_written("acme", 1);
    let answer =
        influxdb.ask("telemetry_acme", "SELECT device_id, temperature_3, digital_in_5 FROM lpp").await;
    let row = &answer["results"][0]["series"][0]["values"][0];
    assert_eq!((&row[1], &row[2], &row[3]), (&json!("meter-1"), &json!(27.2), &json!(1)), "{answer}");
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_chirpstack_are_series_by_the_deployed_configuration() {
    let (broker, victoria) = (Mosquitto::start_in_memory(), Victoria::start().await);
    let scene = deployed("chirpstack");
    let gateway = start(&scene, &broker, &victoria.url());
    let mut server = MqttClient::to_broker(broker.port, "chirpstack");
    let topic = format!("application/{APPLICATION}/device/70b3d57ed0051234/event/up");
    let (no_object, nothing) =
        (without(CHIRPSTACK, &[("", "object")]), without(CHIRPSTACK, &[("", "object"), ("", "data")]));
    for payload in [CHIRPSTACK, &no_object, &nothing] {
        server.publish(&topic, QoS::AtLeastOnce, false, payload);
    }
    server.publish("application/other/device/d/event/up", QoS::AtLeastOnce, false, CHIRPSTACK);
    gateway.wait("all", |gateway| {
        gateway.book("acme", "messages", "received") == 3
            && gateway.book("_none", "messages", "received") == 1
    });
    let messages = |key| gateway.book("acme", "messages", key);
    gateway.wait("the outcomes", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    assert_eq!((messages("lines"), messages("empty"), messages("quarantined")), (1, 1, 1));
    let reasons = gateway.json("/api/v1/quarantine")["reasons"].clone();
    assert_eq!(reasons, json!({"NO_OBJECT": 1, "BAD_TOPIC_FORMAT": 1}));
    gateway.wait_written("acme", 1);
    let samples = victoria.samples("uplink_temperatureSensor_3{device_id=\"70b3d57ed0051234\"}").await;
    assert_eq!(samples.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [27.2]);
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

const SEVERAL: &str = r#"
[[topics]]
template = "tenant/{tenant}/device/{device}/{type}"

[[topics]]
template = "spBv1.0/{group}/{kind}/{edge}/#"
tenant = "plant"
device = "{group}/{edge}"
type = "sparkplug"
envelope = "none"

[[topics]]
template = "v3/{application}@{org}/devices/{device}/up"
tenant = "plant"
type = "uplink"
envelope = "things_stack"
qos = 0

[[topics]]
template = "raw/{site}/{device}/{kind}"
tenant = "plant"
type = "raw"
envelope = "none"

[output]
kind = "file"
[admission]
rate_per_s = 0
"#;

/// A gateway with several templates, and a device for each.
fn several(broker: &Mosquitto) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    for device in ["plant/edge1", "meter-1", "r1"] {
        scene.device("plant", device, "hall");
    }
    scene.guest("_default", "sparkplug", "sparkplug");
    scene.configure_broker(&broker.url(), SEVERAL);
    scene.set_token("operator");
    scene
}

#[test]
fn messages_of_a_sparkplug_group_meet_one_route_beside_others() {
    let broker = Mosquitto::start_in_memory();
    let scene = several(&broker);
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    let envelope = r#"{"site_id":"lab-1","provision_token":"tok-dev-1","seq":1,"ts":"2026-01-01T00:00:00Z","metrics":{"t":1.5}}"#;
    publisher.publish_all(sparkplug_case("spb-205"));
    publisher.publish_all([
        ("tenant/acme/device/dev-1/telemetry".into(), envelope.into()),
        ("tenant/acme/device/dev-1/telemetry".into(), b"{}".into()),
        ("spBv1.0/plant/NCMD/edge1".into(), b"".into()),
        ("spBv1.0/STATE/host".into(), b"{}".into()),
    ]);
    gateway.wait("the node's", |gateway| gateway.book("plant", "messages", "received") == 6);
    gateway.wait("the device's", |gateway| gateway.book("acme", "messages", "received") == 2);
    gateway.wait("the outcomes", |gateway| gateway.book("plant", "messages", "in_flight") == 0);
    let messages = |tenant, key| gateway.book(tenant, "messages", key);
    assert_eq!((messages("plant", "lines"), messages("plant", "empty")), (4, 2), "a command makes no line");
    assert_eq!((messages("acme", "lines"), messages("acme", "quarantined")), (1, 1));
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
    let lines = scene.lines("telemetry_plant");
    let count =
        |device: &str| lines.iter().filter(|line| line.contains(&format!(",device={device} "))).count();
    let identity = "sparkplug,device_id=plant/edge1,site_id=hall,group=plant,edge=edge1";
    assert_eq!((count("a"), count("b")), (1, 2), "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with(identity)), "{lines:?}");
}

#[test]
fn a_decoder_gets_the_attributes_also_when_its_message_comes_back_from_quarantine() {
    let broker = Mosquitto::start_in_memory();
    let scene = several(&broker);
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all([
        ("v3/meters@ttn/devices/meter-1/up".into(), THINGS_STACK.into()),
        ("raw/hall/r1/vibration".into(), vec![0xff, 0]),
        ("raw/yard/r1/vibration".into(), vec![0xff, 0]),
    ]);
    gateway.wait("no decoder", |gateway| gateway.book("plant", "messages", "quarantined") == 3);
    let folder = scene.path("guests/plant");
    std::fs::create_dir_all(&folder).unwrap();
    let options =
        "[options]\nnames = \"f_port,f_cnt,received_at,rssi,snr,dev_eui,gateways,topic.org,topic.kind\"\n";
    for message_type in ["uplink", "raw"] {
        std::fs::write(folder.join(format!("{message_type}.toml")), options).unwrap();
        scene.guest("plant", message_type, "facts");
    }
    gateway.wait("the decoders", |gateway| gateway.get("/api/v1/guests").1.matches("\"facts@").count() == 2);
    let (_, report, errors) = scene.verb(&["quarantine", "replay", "--tenant", "plant", "--json"], "");
    // The one of another site is refused again.
    let replayed = report.contains("\"lines\": 2") && report.contains("\"quarantined_again\": 1");
    assert!(replayed, "{report}{errors}");
    gateway.wait("the lines", |gateway| gateway.book("plant", "lines", "pending") == 0);
    gateway.assert_balanced();
    // The same by explain, which sends nothing.
    std::fs::write(scene.path("uplink.json"), THINGS_STACK).unwrap();
    let arguments =
        ["explain", "--topic", "v3/meters@ttn/devices/meter-1/up", "--payload-file", "uplink.json"];
    let (status, shown, errors) = scene.verb(&arguments, "");
    assert!(status.success() && shown.contains("f_port=\"2\""), "{shown}{errors}");
    assert_eq!(gateway.stop().code(), Some(0));
    let mut lines = scene.lines("telemetry_plant");
    lines.sort_by_key(String::len);
    let [raw, uplink] = &lines[..] else { panic!("{lines:?}") };
    let expected = "facts,device_id=r1,site_id=hall payload=\"ff00\",topic=\"raw/hall/r1/vibration\",topic.kind=\"vibration\" ";
    assert!(raw.starts_with(expected), "{raw}");
    let expected = "facts,device_id=meter-1,site_id=hall payload=\"03670110050001\",\
        topic=\"v3/meters@ttn/devices/meter-1/up\",f_port=\"2\",f_cnt=\"1043\",\
        received_at=\"2026-03-01T12:00:00.012345678Z\",rssi=\"-61\",snr=\"0\",dev_eui=\"70B3D57ED0051234\",\
        gateways=\"2\",topic.org=\"ttn\" ";
    assert!(uplink.starts_with(expected), "{uplink}");
}

#[test]
fn several_filters_are_one_shared_subscription_each_and_old_ones_are_given_up() {
    let broker = Mosquitto::start();
    let scene = several(&broker);
    scene.configure_broker(&broker.url(), "[output]\nkind = \"file\"\n");
    let gateway = scene.start();
    assert_eq!(gateway.stop().code(), Some(0));
    scene.configure_broker(&broker.url(), &format!("share = \"gateways\"\n{SEVERAL}"));
    let gateway = scene.start();
    let record = || std::fs::read_to_string(scene.path("data/mqtt-session.json")).unwrap();
    let filters =
        |record: &str| serde_json::from_str::<serde_json::Value>(record).unwrap()["filters"].clone();
    let wanted = json!([
        "$share/gateways/tenant/+/device/+/+",
        "$share/gateways/spBv1.0/+/+/+/#",
        "$share/gateways/v3/+/devices/+/up",
        "$share/gateways/raw/+/+/+",
    ]);
    gateway.wait("the old filter is gone", |_| filters(&record()) == wanted);
    assert!(record().contains("\"unacknowledged\":[\"$share/gateways/v3/+/devices/+/up\"]"), "{}", record());
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all(sparkplug_case("spb-205"));
    gateway.wait("the node's", |gateway| gateway.book("plant", "messages", "lines") == 4);
    assert_eq!(gateway.book("plant", "messages", "received"), 5, "each comes once");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn templates_that_cannot_be_meant_are_refused_with_their_key() {
    let scene = GatewayDir::new();
    // No decoder: nothing is to be compiled.
    std::fs::remove_dir_all(scene.path("guests/_default")).unwrap();
    let validate = |more: &str| {
        scene.configure(&format!("{more}\n[output]\nkind = \"file\"\n"));
        scene.verb(&["validate"], "")
    };
    let twice = "[[topics]]\ntemplate = \"a/{tenant}/{device}/{type}\"\n\
                 [[topics]]\ntemplate = \"+/b/{device}/{kind}\"\ntenant = \"t\"\ntype = \"k\"\n";
    let (status, _, errors) = validate(twice);
    assert_eq!(status.code(), Some(2), "{errors}");
    let words = "the topic \"a/b/x/x\" matches \"a/{tenant}/{device}/{type}\" too";
    assert!(errors.contains("`topics[1].template`") && errors.contains(words), "{errors}");
    let (status, shown, errors) =
        validate("[[topics]]\ntemplate = \"a/{tenant}/{device}/{type}\"\nenvelope = \"none\"\n");
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(shown.contains("template = \"a/{tenant}/{device}/{type}\""), "{shown}");
}
