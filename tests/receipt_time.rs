//! Readings that give no time of their own, counted in a real InfluxDB: each is a row of its own,
//! however many come in one go, through the listener in both protocols and behind a broker.

use std::io::Write as _;

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use rumqttc::v5::mqttbytes::QoS as QoS5;

use crate::end_to_end::topic;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::harness::mqtt5_client::Mqtt5Client;

/// Payloads without an envelope, whose senders are vouched for by the connection or by the broker.
fn output(influxdb: &Influxdb, credentials: &str) -> String {
    format!(
        "[admission]\ncredentials = \"{credentials}\"\nrate_per_s = 0\n\
         [output]\nkind = \"influxdb1\"\nurl = \"{}\"\n",
        influxdb.url()
    )
}

/// The device's connection by MQTT 3.1.1.
fn connect(scene: &GatewayDir) -> MqttClient {
    let mut device = MqttClient::open(scene.listener.parse().unwrap());
    let login = rumqttc::mqttbytes::v4::Login::new("acme/dev-1", "tok-dev-1");
    device.greet("dev-1", true, 60, Some(login)).unwrap();
    device
}

fn scene() -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("acme", "reading", "json");
    scene.guest("acme", "lines", "passthrough");
    scene
}

/// The bytes of a PUBLISH at QoS 1.
fn packet(message_type: &str, packet_id: u16, payload: &str) -> Vec<u8> {
    let mut publish = Publish::new(topic("acme", "dev-1", message_type), QoS::AtLeastOnce, payload);
    publish.pkid = packet_id;
    let mut out = bytes::BytesMut::new();
    Packet::Publish(publish).write(&mut out, usize::MAX).unwrap();
    out.to_vec()
}

/// Values of `v` in the order of their times.
async fn values(influxdb: &Influxdb, measurement: &str) -> Vec<u64> {
    let answer = influxdb.ask("telemetry_acme", &format!("SELECT v FROM \"{measurement}\"")).await;
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row[1].as_f64().unwrap() as u64).collect()
}

fn wait_written(gateway: &Gateway<'_>, lines: u64) {
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "written") == lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_of_one_device_in_one_go_are_a_row_each_over_connections_and_restarts() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let scene = scene();
    scene.configure(&output(&influxdb, "listener"));
    let gateway = scene.start();

    let mut device = connect(&scene);
    let readings: Vec<u8> = (1..=20).flat_map(|n| packet("reading", n, &format!("{{\"v\":{n}}}"))).collect();
    device.stream.write_all(&readings).unwrap();
    assert_eq!(device.pubacks(20), (1..=20).collect::<Vec<_>>());
    wait_written(&gateway, 20);
    assert_eq!(values(&influxdb, "reading").await, (1..=20).collect::<Vec<_>>());

    let mut other = Mqtt5Client::open(scene.listener.parse().unwrap())
        .connected("dev-1", Some(("acme/dev-1", "tok-dev-1")));
    for n in 21..=40 {
        other.publish(&topic("acme", "dev-1", "reading"), QoS5::AtLeastOnce, format!("{{\"v\":{n}}}"));
    }
    for _ in 21..=40 {
        other.puback();
    }
    wait_written(&gateway, 40);
    gateway.kill();

    let gateway = scene.start();
    let mut device = connect(&scene);
    device.stream.write_all(&readings).unwrap();
    device.pubacks(20);
    // Lines written a moment before the kill are written again, to the same points.
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "pending") == 0);
    assert!(gateway.stop().success());
    let expected: Vec<u64> = (1..=40).chain(1..=20).collect();
    assert_eq!(values(&influxdb, "reading").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_one_series_in_one_message_are_a_row_each() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let scene = scene();
    scene.configure(&output(&influxdb, "listener"));
    let gateway = scene.start();
    let mut device = connect(&scene);
    let payload = "lines,a=1,b=2 v=1\nlines,b=2,a=1 v=2\nlines,a=1,b=2 v=3\n";
    device.publish(&topic("acme", "dev-1", "lines"), QoS::AtLeastOnce, false, payload);
    device.puback();
    wait_written(&gateway, 3);
    assert_eq!(values(&influxdb, "lines").await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_kept_for_a_stopped_gateway_is_a_row_each() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let broker = Mosquitto::start();
    let scene = scene();
    scene.configure_broker(&broker.url(), &output(&influxdb, "broker"));
    // So that there is a session to queue for.
    assert!(scene.start().stop().success());
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    let readings =
        (1..=60).map(|n| (topic("acme", "dev-1", "reading"), format!("{{\"v\":{n}}}").into_bytes()));
    publisher.publish_all(readings);
    let gateway = scene.start();
    wait_written(&gateway, 60);
    assert_eq!(values(&influxdb, "reading").await, (1..=60).collect::<Vec<_>>());
}
