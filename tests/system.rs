//! The built program between a real Mosquitto and a real InfluxDB 1.6.7: by the 1.x interface, and
//! by that of version 3 through the front. Messages carry their own time, so one that comes twice
//! is the same point, and what is lost is missing from the answer to a query.

use std::collections::BTreeSet;

use serde_json::json;

use crate::end_to_end::topic;
use crate::rig::gateway::Scene;
use crate::rig::influxdb::Influxdb;
use crate::rig::mosquitto::Mosquitto;
use crate::rig::mqtt_client::MqttClient;
use crate::rig::v3_front::V3Front;

/// Devices may send as much as they like.
const NO_RATE: &str = "[admission]\nrate_per_s = 0\n";

/// An envelope with a time of its own: one millisecond for each `seq`.
fn message(device: &str, seq: u64) -> Vec<u8> {
    let (minute, second, milli) = (seq / 60_000, seq / 1000 % 60, seq % 1000);
    format!(
        r#"{{"version":"1","ts":"2026-11-23T08:{minute:02}:{second:02}.{milli:03}Z","site_id":"lab-1","seq":{seq},"provision_token":"tok-{device}","metrics":{{"v":{seq}}}}}"#
    )
    .into_bytes()
}

/// The nanoseconds of `message(_, seq)`.
fn time_of(seq: u64) -> i64 {
    1_795_420_800_000_000_000 + seq as i64 * 1_000_000
}

fn telemetry(device: &str, seqs: impl IntoIterator<Item = u64>) -> Vec<(String, Vec<u8>)> {
    seqs.into_iter().map(|seq| (topic("acme", device, "telemetry"), message(device, seq))).collect()
}

fn to_v3(front: &V3Front, more: &str) -> String {
    format!("[output]\nkind = \"influxdb3\"\nurl = \"{}\"\n{more}\n{NO_RATE}", front.url())
}

/// Every `seq` of acme's telemetry that can be queried.
async fn stored(influxdb: &Influxdb) -> BTreeSet<u64> {
    let answer = influxdb.ask("telemetry_acme", "SELECT seq FROM telemetry").await;
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row[1].as_u64().unwrap()).collect()
}

/// What is missing in the database of what must be there.
async fn lost(influxdb: &Influxdb, acknowledged: &BTreeSet<u64>) -> BTreeSet<u64> {
    acknowledged.difference(&stored(influxdb).await).copied().collect()
}

async fn one_message_is_a_point(influxdb: &Influxdb, output: &str) {
    let broker = Mosquitto::start();
    let mut scene = Scene::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure_broker(&broker.url(), output);
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    let payload = r#"{"version":"1","ts":"2026-11-23T08:59:58.123456789Z","site_id":"lab-1","tenant_id":"acme","seq":7,"provision_token":"tok-dev-1","metrics":{"temp":21.5,"open":true,"count":-3,"note":"left out"}}"#;
    publisher.publish_all([(topic("acme", "dev-1", "telemetry"), payload.into())]);
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "written") == 1);
    let answer = influxdb.ask("telemetry_acme", "SELECT * FROM telemetry").await;
    assert_eq!(
        answer["results"][0]["series"][0],
        json!({
            "name": "telemetry",
            "columns": ["time", "count", "device_id", "open", "seq", "site_id", "temp"],
            "values": [[1_795_424_398_123_456_789_i64, -3, "dev-1", true, 7, "lab-1", 21.5]],
        })
    );
    let tags = influxdb.ask("telemetry_acme", "SHOW TAG KEYS").await;
    assert_eq!(tags["results"][0]["series"][0]["values"], json!([["device_id"], ["site_id"]]));
    gateway.assert_balanced();
    assert_eq!(gateway.book("acme", "messages", "in_flight"), 0);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_pulse_message_from_mosquitto_is_a_point_in_influxdb_by_the_interface_of_version_3() {
    let influxdb = Influxdb::start().await;
    let front = V3Front::start(&influxdb.url(), Some("the-token")).await;
    one_message_is_a_point(&influxdb, &to_v3(&front, "token = \"the-token\"")).await;
    let seen = front.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].query.contains("precision=ns"), "{}", seen[0].query);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_pulse_message_from_mosquitto_is_a_point_in_influxdb_by_the_interface_of_version_1() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    one_message_is_a_point(&influxdb, &format!("[output]\nkind = \"influxdb1\"\nurl = \"{}\"\n", influxdb.url()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_gateway_that_is_killed_three_times_loses_no_message_that_the_broker_took() {
    let influxdb = Influxdb::start().await;
    let front = V3Front::start(&influxdb.url(), None).await;
    let broker = Mosquitto::start();
    let mut scene = Scene::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure_broker(&broker.url(), &to_v3(&front, "flush_interval_ms = 50\nbatch_lines = 100"));
    let mut gateway = scene.start();
    let port = broker.port;
    let publishing = std::thread::spawn(move || {
        let mut publisher = MqttClient::to_broker(port, "publisher");
        for part in 0..60 {
            publisher.publish_all(telemetry("dev-1", part * 100..(part + 1) * 100));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    for round in 1..=3 {
        // Somewhere in the stream: some are written, some under way, some not yet read.
        gateway.wait("amid the stream", |gateway| gateway.book("acme", "lines", "written") > 300);
        gateway.kill();
        assert!(round < 3 || !publishing.is_finished(), "the stream ended too early");
        gateway = scene.start();
    }
    publishing.join().unwrap();
    gateway.wait("idle", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    let everything: BTreeSet<u64> = (0..6000).collect();
    // In flight is nothing now, but the broker may have the last ones still to send.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut missing = lost(&influxdb, &everything).await;
    while !missing.is_empty() && std::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        missing = lost(&influxdb, &everything).await;
    }
    println!("lost: {} of {}", missing.len(), everything.len());
    assert!(missing.is_empty(), "lost: {missing:?}");
    let written: usize = front.seen().iter().map(|seen| seen.lines).sum();
    println!("lines posted: {written}");
    gateway.assert_balanced();
    assert_eq!(time_of(1000) - time_of(0), 1_000_000_000);
}
