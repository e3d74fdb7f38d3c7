//! The built program between a real Mosquitto and a real InfluxDB 1.6.7: by the 1.x interface, and
//! by that of version 3 through the front. Messages carry their own time, so one that comes twice
//! is the same point, and a lost one is missing from the answer to a query.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use serde_json::json;
use tidegate_simulator::Device;

use crate::end_to_end::topic;
use crate::harness::fake_influxdb3::{FakeInfluxdb3, Fault};
use crate::harness::faults::Faults;
use crate::harness::gateway::GatewayDir;
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::harness::mqtt_proxy::MqttProxy;

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

fn telemetry(device: &str, seqs: impl IntoIterator<Item = u64>) -> Vec<(String, Vec<u8>)> {
    seqs.into_iter().map(|seq| (topic("acme", device, "telemetry"), message(device, seq))).collect()
}

fn to_v3(front: &FakeInfluxdb3, more: &str) -> String {
    format!("[output]\nkind = \"influxdb3\"\nurl = \"{}\"\n{more}\n{NO_RATE}", front.url())
}

/// Every `seq` of acme's telemetry that can be queried.
async fn stored(influxdb: &Influxdb) -> BTreeSet<u64> {
    let answer = influxdb.ask("telemetry_acme", "SELECT seq FROM telemetry").await;
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row[1].as_u64().unwrap()).collect()
}

/// The acknowledged messages that are missing in the database.
async fn lost(influxdb: &Influxdb, acknowledged: &BTreeSet<u64>) -> BTreeSet<u64> {
    acknowledged.difference(&stored(influxdb).await).copied().collect()
}

/// Waits until all of it can be queried: nothing may be in flight while the broker has more to send.
async fn assert_all_stored(influxdb: &Influxdb, acknowledged: &BTreeSet<u64>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut missing = lost(influxdb, acknowledged).await;
    while !missing.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
        missing = lost(influxdb, acknowledged).await;
    }
    println!("lost: {} of {}", missing.len(), acknowledged.len());
    assert!(missing.is_empty(), "lost: {missing:?}");
}

/// Publishes one by one at QoS 1, and reconnects whenever the broker is gone, until each message
/// is acknowledged; gives the acknowledged ones.
fn publish_through_outages(port: u16, count: u64) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    let mut client: Option<MqttClient> = None;
    let deadline = Instant::now() + Duration::from_secs(60);
    for (seq, (topic, payload)) in (0..count).zip(telemetry("dev-1", 0..count)) {
        while !acknowledged.contains(&seq) {
            assert!(Instant::now() < deadline, "the broker stays away");
            let Some(connection) = &mut client else {
                std::thread::sleep(Duration::from_millis(20));
                client = std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(MqttClient::on);
                if client.as_mut().is_some_and(|client| client.greet("publisher", true, 60, None).is_err()) {
                    client = None;
                }
                continue;
            };
            let mut publish = Publish::new(&topic, QoS::AtLeastOnce, payload.clone());
            publish.pkid = 1;
            let answer = connection.send(&Packet::Publish(publish)).and_then(|()| connection.receive());
            match answer {
                Ok(Packet::PubAck(_)) => _ = acknowledged.insert(seq),
                _ => client = None,
            }
            // Slow enough that the broker's faults fall into the stream.
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    acknowledged
}

async fn one_message_is_a_point(influxdb: &Influxdb, output: &str) {
    let broker = Mosquitto::start();
    let mut scene = GatewayDir::new();
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
    let front = FakeInfluxdb3::start(&influxdb.url(), Some("the-token")).await;
    one_message_is_a_point(&influxdb, &to_v3(&front, "token = \"the-token\"")).await;
    let seen = front.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].query.contains("precision=ns"), "{}", seen[0].query);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_pulse_message_from_mosquitto_is_a_point_in_influxdb_by_the_interface_of_version_1() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    one_message_is_a_point(
        &influxdb,
        &format!("[output]\nkind = \"influxdb1\"\nurl = \"{}\"\n", influxdb.url()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_broker_that_is_killed_amid_the_stream_costs_no_message_that_crossed_the_wire() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let mut broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure_broker(&tap.url(), &to_v3(&front, "flush_interval_ms = 50"));
    let faults = Faults::on(&scene);
    let gateway = scene.start_with(&faults);
    let port = broker.port;
    let publishing = std::thread::spawn(move || publish_through_outages(port, 4000));
    gateway.wait("amid the stream", |gateway| gateway.book("acme", "lines", "written") > 300);
    // What is unacknowledged at the kill settles after it: its PUBACKs must go nowhere.
    faults.set("fdatasync EIO");
    gateway.wait("held up", |gateway| gateway.book("acme", "messages", "in_flight") > 100);
    assert!(!publishing.is_finished());
    broker.kill();
    gateway.wait("not ready", |gateway| gateway.get("/readyz").1.contains("not connected"));
    faults.set("");
    gateway.wait("settled", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    broker.restart();
    gateway.wait("ready again", |gateway| gateway.get("/readyz").0 == 200);
    let acknowledged = publishing.join().unwrap();
    gateway.wait("all that came written", |gateway| gateway.book("acme", "lines", "pending") == 0);
    // Until the kill each message was published once, so the first so many crossed the wire. What
    // the broker had acknowledged in its last second it may not have saved yet, and takes along;
    // whatever has crossed the wire is stored.
    let crossed = tap.records()[0].published.len() as u64;
    let mut missing = lost(&influxdb, &acknowledged).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    // It may have more to send.
    while missing.len() > 50 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
        missing = lost(&influxdb, &acknowledged).await;
    }
    println!("lost by the broker: {missing:?}");
    assert!(missing.iter().all(|seq| *seq >= crossed), "{missing:?} of {crossed} that crossed the wire");
    assert!(missing.len() <= 50, "the broker had a second: {missing:?}");
    gateway.wait("idle", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    gateway.assert_balanced();
    let records = tap.records();
    assert!(records.len() >= 2, "it has connected again");
    records.iter().for_each(|record| record.assert_ordered());
    assert!(records[0].acknowledged.len() < records[0].published.len(), "nothing was held at the kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_database_that_answers_503_for_ten_seconds_has_every_line_in_the_end() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let broker = Mosquitto::start();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure_broker(&broker.url(), &to_v3(&front, ""));
    let gateway = scene.start();
    let port = broker.port;
    front.fail_database(
        "telemetry_acme",
        Some(Fault::Status { status: 503, retry_after: None, body: "busy" }),
    );
    let publishing = std::thread::spawn(move || {
        let mut publisher = MqttClient::to_broker(port, "publisher");
        for part in 0..60 {
            publisher.publish_all(telemetry("dev-1", part * 50..(part + 1) * 50));
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let (began, mut most_pending) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(10) {
        gateway.assert_balanced();
        most_pending = most_pending.max(gateway.book("acme", "lines", "pending"));
        assert_eq!(gateway.book("acme", "lines", "written"), 0);
        assert_eq!(gateway.get("/readyz").0, 200, "it takes messages in: {}", gateway.get("/readyz").1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Taken in and acknowledged all the while.
    assert!(most_pending > 1000, "{most_pending}");
    front.fail_database("telemetry_acme", None);
    while !publishing.is_finished() {
        gateway.assert_balanced();
    }
    publishing.join().unwrap();
    assert_all_stored(&influxdb, &(0..3000).collect()).await;
    gateway.wait("idle", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    assert_eq!(gateway.book("acme", "lines", "pending"), 0);
    gateway.assert_balanced();
}

#[test]
fn a_mebibyte_from_a_stranger_is_quarantined_cut_and_the_next_message_is_written() {
    let broker = Mosquitto::start();
    for by_broker in [true, false] {
        let mut scene = GatewayDir::new();
        scene.device("acme", "dev-1", "lab-1");
        if by_broker {
            scene.configure_broker(&broker.url(), "[output]\nkind = \"file\"\n");
        }
        let gateway = scene.start();
        let giant = ("tenant/evil/device/x/telemetry".to_owned(), vec![b'x'; 1 << 20]);
        let good = (topic("acme", "dev-1", "telemetry"), message("dev-1", 5));
        if by_broker {
            MqttClient::to_broker(broker.port, "stranger").publish_all([giant, good]);
        } else {
            let mut device = Device::connect(&scene.listener, "stranger").unwrap();
            device.publish(&giant.0, &giant.1).unwrap();
            device.publish(&good.0, &good.1).unwrap();
        }
        gateway.wait("written", |gateway| gateway.book("acme", "lines", "written") == 1);
        assert_eq!(scene.lines("telemetry_acme").len(), 1);
        let quarantine = gateway.json("/api/v1/quarantine");
        assert_eq!(quarantine["reasons"], json!({"PAYLOAD_TOO_LARGE": 1}));
        assert_eq!(quarantine["latest"][0]["payload_bytes"], 1 << 20, "{quarantine:#}");
        assert!(quarantine["bytes"].as_u64().unwrap() < 8192, "kept whole: {}", quarantine["bytes"]);
        gateway.assert_balanced();
    }
}

#[test]
fn a_retained_message_is_dropped_and_counted_and_a_burst_at_qos_0_is_written() {
    let broker = Mosquitto::start();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish(&topic("acme", "dev-1", "telemetry"), QoS::AtLeastOnce, true, message("dev-1", 9999));
    publisher.puback();
    scene.configure_broker(&broker.url(), &format!("[output]\nkind = \"file\"\n{NO_RATE}"));
    let gateway = scene.start();
    gateway.wait("dropped", |gateway| gateway.book("acme", "messages", "dropped") == 1);
    for (topic, payload) in telemetry("dev-1", 0..1000) {
        publisher.publish(&topic, QoS::AtMostOnce, false, payload);
    }
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "written") == 1000);
    assert!(!scene.lines("telemetry_acme").iter().any(|line| line.contains("seq=9999i")));
    gateway.assert_balanced();
}

#[test]
fn a_message_over_the_burst_is_limited_and_a_backlog_is_no_burst() {
    let broker = Mosquitto::start();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let output = "[output]\nkind = \"file\"\n[admission]\nburst = 20\nrate_per_s =";
    scene.configure_broker(&broker.url(), &format!("{output} 0.01\n"));
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all(telemetry("dev-1", 0..21));
    gateway.wait("21", |gateway| gateway.book("acme", "messages", "received") == 21);
    gateway.wait("settled", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    assert_eq!(gateway.book("acme", "lines", "spooled"), 20);
    assert_eq!(gateway.json("/api/v1/quarantine")["reasons"], json!({"RATE_LIMITED": 1}));
    scene.configure_broker(&broker.url(), &format!("{output} 50\n"));
    assert_eq!(gateway.stop().code(), Some(0));
    // As fast as the rate allows, so that none is at fault; three times the burst.
    for message in telemetry("dev-1", 100..160) {
        publisher.publish_all([message]);
        std::thread::sleep(Duration::from_millis(30));
    }
    let gateway = scene.start();
    gateway.wait("the backlog", |gateway| gateway.book("acme", "messages", "received") == 60);
    gateway.wait("settled", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    assert_eq!(gateway.book("acme", "messages", "lines"), 60);
}

#[test]
fn devices_that_are_revoked_or_added_are_known_within_two_seconds() {
    let broker = Mosquitto::start();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let first = std::fs::read(scene.path("devices.csv")).unwrap();
    scene.device("acme", "dev-2", "lab-1");
    let table = std::fs::read_to_string(scene.path("devices.csv")).unwrap();
    std::fs::write(scene.path("devices.csv"), first).unwrap();
    scene.configure_broker(&broker.url(), &format!("[output]\nkind = \"file\"\n{NO_RATE}"));
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all(telemetry("dev-1", [1]).into_iter().chain(telemetry("dev-2", [1])));
    gateway.wait("one each way", |gateway| {
        gateway.book("acme", "messages", "lines") == 1 && gateway.book("acme", "messages", "quarantined") == 1
    });
    let revoked = table.replacen("dev-1,lab-1,ACTIVE", "dev-1,lab-1,REVOKED", 1);
    std::fs::write(scene.path("devices.csv"), revoked).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    publisher.publish_all(telemetry("dev-1", [2]).into_iter().chain(telemetry("dev-2", [2])));
    gateway.wait("all four", |gateway| {
        gateway.book("acme", "messages", "lines") + gateway.book("acme", "messages", "quarantined") == 4
    });
    let reasons = &gateway.json("/api/v1/quarantine")["reasons"];
    assert_eq!(*reasons, json!({"DEVICE_REVOKED": 1, "UNREGISTERED_DEVICE": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn sigterm_under_load_ends_well_and_what_could_not_be_written_stays_in_the_spool() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let broker = Mosquitto::start();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure_broker(&broker.url(), &to_v3(&front, "\n[shutdown]\ndeadline_s = 2"));
    let gateway = scene.start();
    front.fail_database("telemetry_acme", Some(Fault::Status { status: 503, retry_after: None, body: "" }));
    MqttClient::to_broker(broker.port, "publisher").publish_all(telemetry("dev-1", 0..2000));
    gateway.wait("held up", |gateway| gateway.book("acme", "lines", "pending") > 0);
    let began = Instant::now();
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
    front.fail_database("telemetry_acme", None);
    assert!(stored(&influxdb).await.is_empty());
    let gateway = scene.start();
    assert_all_stored(&influxdb, &(0..2000).collect()).await;
    gateway.wait("idle", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_burst_goes_out_in_batches_and_no_acknowledgement_waits_for_the_interval() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let output = "batch_lines = 100\nbatch_lines_max = 100\nflush_interval_ms = 10000";
    scene.configure_broker(&tap.url(), &to_v3(&front, output));
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    let began = Instant::now();
    publisher.publish_all(telemetry("dev-1", [5000]));
    gateway.wait("acknowledged", |_| tap.records()[0].acknowledged.len() == 1);
    assert!(began.elapsed() < Duration::from_secs(9), "a trickle took {:?}", began.elapsed());
    // Queued while the gateway is away, so that all come at once.
    assert_eq!(gateway.stop().code(), Some(0));
    publisher.publish_all(telemetry("dev-1", 0..1000));
    let gateway = scene.start();
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "written") == 1001);
    let posts: Vec<usize> = front.seen().iter().skip(1).map(|seen| seen.lines).collect();
    println!("{} POSTs: {posts:?}", posts.len());
    assert!(posts.iter().all(|&lines| lines <= 100), "{posts:?}");
    assert!(posts.len() <= 25, "{} POSTs for 1,000 lines: {posts:?}", posts.len());
}

#[test]
fn the_api_asks_for_the_token_and_the_metrics_have_the_names_that_dashboards_rely_on() {
    const NAMES: [&str; 19] = [
        "tidegate_guest_swaps_total{tenant=\"_default\",type=\"telemetry\",outcome=\"new\"}",
        "tidegate_messages_received_total{tenant=\"acme\"}",
        "tidegate_messages_settled_total{tenant=\"acme\",outcome=\"lines\"}",
        "tidegate_messages_in_flight{tenant=\"acme\"}",
        "tidegate_messages_redelivered_total",
        "tidegate_lines_spooled_total{tenant=\"acme\"}",
        "tidegate_lines_written_total{tenant=\"acme\"}",
        "tidegate_lines_refused_total{tenant=\"acme\"}",
        "tidegate_lines_pending{tenant=\"acme\"}",
        "tidegate_writes_total{tenant=\"acme\",outcome=",
        "tidegate_write_duration_seconds_bucket{le=\"+Inf\"}",
        "tidegate_ack_latency_seconds_bucket{le=\"+Inf\"}",
        "tidegate_guest_cpu_seconds_total{tenant=\"_default\",type=\"telemetry\"}",
        "tidegate_guest_failures_total{tenant=\"_default\",type=\"telemetry\",kind=",
        "tidegate_auth_cache_lookups_total{result=\"hit\"}",
        "tidegate_auth_cache_entries",
        "tidegate_spool_bytes",
        "tidegate_quarantine_bytes",
        "tidegate_build_info",
    ];
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    std::fs::write(scene.path("token"), "the-operator\n").unwrap();
    let plain = std::fs::read_to_string(scene.path("tidegate.toml")).unwrap();
    std::fs::write(scene.path("tidegate.toml"), format!("{plain}token_file = \"token\"\n")).unwrap();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for (topic, payload) in telemetry("dev-1", 0..5) {
        device.publish(&topic, &payload).unwrap();
    }
    let mut broken = message("dev-1", 6);
    let at = String::from_utf8_lossy(&broken).find("\"seq\":6").unwrap();
    broken.splice(at..at + 7, *b"\"seq\":\"x\"");
    device.publish(&topic("acme", "dev-1", "telemetry"), &broken).unwrap();
    gateway.wait("written", |gateway| {
        gateway.metric("tidegate_lines_written_total{tenant=\"acme\"}") == Some(5.0)
    });
    for path in ["books", "guests", "spool", "quarantine"] {
        let path = format!("/api/v1/{path}");
        assert_eq!(gateway.get(&path).0, 401);
        assert_eq!(gateway.get_with_token(&path, Some("the-operato")).0, 401);
        assert_eq!(gateway.get_with_token(&path, Some("the-operator")).0, 200);
    }
    let (status, text) = gateway.get("/metrics");
    assert_eq!(status, 200);
    let missing: Vec<&str> =
        NAMES.into_iter().filter(|name| !text.lines().any(|line| line.starts_with(name))).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in\n{text}");

    // SIGHUP: read again, and alive.
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(gateway.pid() as i32, libc::SIGHUP) };
    gateway.wait("read again", |_| scene.log().contains("reading configuration, registry and guests again"));
    assert_eq!(gateway.get("/readyz").0, 200);
    assert_eq!(gateway.stop().code(), Some(0));

    std::fs::write(scene.path("tidegate.toml"), plain.replace(&scene.admin, "0.0.0.0:0")).unwrap();
    let (status, _, errors) = scene.verb(&["run"], "");
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.contains("admin.listen"), "{errors}");
}
