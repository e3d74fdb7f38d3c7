//! `tidegate doctor` on real brokers and databases: each check with a case that finds, and one that does not.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

/// The findings of one check: level and text of each.
fn findings(scene: &GatewayDir, check: &str, more: &[&str]) -> Vec<(String, String)> {
    let (status, output, errors) = scene.verb(&[&["doctor", "--json"], more].concat(), "");
    let all: Value =
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}{errors}"));
    let list = all["findings"].as_array().unwrap();
    let bad = list.iter().any(|finding| matches!(finding["level"].as_str().unwrap(), "warning" | "error"));
    assert_eq!(status.code(), Some(i32::from(bad)), "{output}");
    assert_eq!(all["good"], !bad);
    for finding in list {
        assert!(finding["state"].as_str().unwrap().ends_with('.'), "{finding}");
        assert_eq!(finding["level"] == "ok", finding["advice"].is_null(), "{finding}");
    }
    list.iter()
        .filter(|finding| finding["check"] == check)
        .map(|finding| {
            let text = format!("{} {}", finding["state"], finding["advice"]);
            (finding["level"].as_str().unwrap().to_owned(), text)
        })
        .collect()
}

fn worst(scene: &GatewayDir, check: &str, more: &[&str]) -> (String, String) {
    let weight =
        |level: &str| ["ok", "note", "warning", "error"].iter().position(|name| *name == level).unwrap();
    let found = findings(scene, check, more);
    found.into_iter().max_by_key(|(level, _)| weight(level)).unwrap_or_else(|| panic!("no {check}"))
}

fn level(scene: &GatewayDir, check: &str) -> String {
    worst(scene, check, &[]).0
}

const FILES: &str = "[output]\nkind = \"file\"\n";

#[test]
fn a_gateway_in_order_is_found_to_be_so() {
    let scene = GatewayDir::new();
    let gateway = scene.start();
    for check in ["spool", "secrets", "open files"] {
        assert_eq!(level(&scene, check), "ok", "{check}");
    }
    // The disk of the machine may be slow; it was measured all the same.
    assert!(worst(&scene, "fsync", &[]).1.contains("p99 of 50"));
    assert!(!findings(&scene, "clock", &[]).is_empty() && !findings(&scene, "disk space", &[]).is_empty());
    let (_, text, _) = scene.verb(&["doctor"], "");
    assert!(text.lines().any(|line| line.starts_with("ok ") && line.contains("spool")), "{text}");
    assert_eq!(
        fs::read_dir(scene.path("data"))
            .unwrap()
            .flatten()
            .filter(|entry| { entry.file_name().to_string_lossy().starts_with(".doctor") })
            .count(),
        0
    );
    drop(gateway);
}

#[test]
fn more_connections_than_open_files_are_found() {
    let scene = GatewayDir::new();
    scene.configure(&format!("connections_max = 1000000\n{FILES}"));
    let (level, text) = worst(&scene, "open files", &[]);
    assert!(
        level == "warning" && text.contains("LimitNOFILE=1000256") || text.contains("are enough"),
        "{text}"
    );
}

#[test]
fn a_full_disk_by_its_ceilings_and_a_full_spool_are_found() {
    let scene = GatewayDir::new();
    scene.configure(&format!("{FILES}[spool]\nbytes_max = 4000000000000000000\n"));
    assert_ne!(level(&scene, "disk space"), "ok");
    scene.configure(&format!("{FILES}[spool]\nbytes_max = 262144\n[quarantine]\nbytes_max = 1048576\n"));
    assert_eq!(level(&scene, "disk space"), "ok");
}

#[test]
fn a_secret_that_everybody_reads_is_found() {
    let mut scene = GatewayDir::new();
    scene.set_token("operator-token");
    assert_eq!(level(&scene, "secrets"), "ok");
    fs::set_permissions(scene.path("admin.token"), fs::Permissions::from_mode(0o644)).unwrap();
    let (level, text) = worst(&scene, "secrets", &[]);
    assert!(level == "warning" && text.contains("admin.token"), "{text}");
}

#[test]
fn a_certificate_past_its_end_is_found() {
    let scene = GatewayDir::new();
    let write = |year: i32| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        fs::write(scene.path("cert.pem"), parameters.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(scene.path("key.pem"), key.serialize_pem()).unwrap();
        fs::set_permissions(scene.path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    };
    scene.configure(&format!("tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n{FILES}"));
    write(2099);
    assert_eq!(level(&scene, "certificate"), "ok");
    write(2020);
    let (level, text) = worst(&scene, "certificate", &[]);
    assert!(level == "error" && text.contains("expired"), "{text}");
}

#[test]
fn a_broker_that_does_not_answer_and_one_that_does_are_told_apart() {
    let scene = GatewayDir::new();
    scene.configure_broker("mqtt://127.0.0.1:1", FILES);
    let (level, text) = worst(&scene, "broker", &[]);
    assert!(level == "error" && text.contains("127.0.0.1:1"), "{text}");
    let broker = Mosquitto::start();
    scene.configure_broker(&broker.url(), FILES);
    let (level, text) = worst(&scene, "broker", &[]);
    assert!(level == "ok" && text.contains("mosquitto version"), "{text}");
    // The gateway has never run, and no check leaves a session behind.
    for protocol in ["5", "3.1.1"] {
        scene.configure_broker(&broker.url(), &format!("protocol = \"{protocol}\"\n{FILES}"));
        for _ in 0..2 {
            let (level, text) = worst(&scene, "broker session", &[]);
            assert!(level == "note" && text.contains("no session yet"), "{protocol}: {text}");
        }
    }
}

#[test]
fn a_broker_that_drops_messages_is_found() {
    let broker = Mosquitto::start_with(|_| {
        "allow_anonymous true\nmax_queued_messages 1\nmax_inflight_messages 1\nsys_interval 1\n".into()
    });
    let scene = GatewayDir::new();
    scene.configure_broker(&broker.url(), FILES);
    scene.start().stop();
    let mut device = MqttClient::to_broker(broker.port, "device");
    let topic = "tenant/acme/device/d/telemetry";
    device.publish_all((0..50).map(|number| (topic.to_owned(), format!("{number}").into_bytes())));
    // The broker counts once a second.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let (level, text) = worst(&scene, "broker", &[]);
        if level == "warning" && text.contains("has dropped") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{text}\n{}", broker.log());
    }
}

#[test]
fn a_session_that_the_broker_kept_or_lost_is_found() {
    let mut broker = Mosquitto::start_in_memory();
    let scene = GatewayDir::new();
    scene.configure_broker(&broker.url(), FILES);
    let gateway: Gateway = scene.start();
    assert_eq!(level(&scene, "broker session"), "ok", "of the running gateway");
    gateway.stop();
    assert_eq!(level(&scene, "broker session"), "ok", "of the stopped one");
    broker.kill();
    broker.restart();
    let (level, text) = worst(&scene, "broker session", &[]);
    assert!(level == "warning" && text.contains("lost the session"), "{text}");
}

#[test]
fn a_second_gateway_with_the_same_client_id_is_found() {
    let broker = Mosquitto::start();
    let (first, second) = (GatewayDir::new(), GatewayDir::new());
    let same_name = format!("client_id = \"gate\"\n{FILES}");
    first.configure_broker(&broker.url(), &same_name);
    second.configure_broker(&broker.url(), &same_name);
    let running = first.start();
    // The second has never run here. Its check takes the session, and the running gateway takes it back.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(90);
    loop {
        let (level, text) = worst(&second, "broker session", &[]);
        if level == "error" && text.contains("Another client uses the client_id") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{text}\n{}", first.log());
    }
    running.wait("back at its session", |gateway| gateway.get("/readyz").0 == 200);
}

#[test]
fn settings_of_mosquitto_that_lose_messages_are_found_in_its_file() {
    let scene = GatewayDir::new();
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/mosquitto");
    fs::write(scene.path("bad.conf"), "listener 1883\nallow_anonymous true\n").unwrap();
    let (level, text) = worst(&scene, "mosquitto file", &["--mosquitto", "bad.conf"]);
    assert!(level == "warning", "{text}");
    assert_eq!(findings(&scene, "mosquitto file", &["--mosquitto", "bad.conf"]).len(), 3);
    let debian = fs::read_to_string(deploy.join("debian.conf")).unwrap();
    // Debian's own file, which includes this one, turns it on.
    fs::write(scene.path("good.conf"), format!("persistence true\n{debian}")).unwrap();
    assert_eq!(worst(&scene, "mosquitto file", &["--mosquitto", "good.conf"]).0, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_a_real_influxdb_is_told_and_a_wrong_kind_is_found() {
    let influxdb = Influxdb::start().await;
    let scene = GatewayDir::new();
    let output = |kind: &str, url: &str| format!("[output]\nkind = \"{kind}\"\nurl = \"{url}\"\n");
    scene.configure(&output("influxdb1", &influxdb.url()));
    let (level, text) = worst(&scene, "database", &[]);
    assert!(level == "ok" && text.contains("InfluxDB 1."), "{text}");
    scene.configure(&output("influxdb3", &influxdb.url()));
    let (level, text) = worst(&scene, "database", &[]);
    assert!(level == "error" && text.contains("output.kind"), "{text}");
    scene.configure(&output("influxdb1", "http://u:s3cret@127.0.0.1:1"));
    let (level, text) = worst(&scene, "database", &[]);
    assert!(level == "error" && text.contains("does not answer") && !text.contains("s3cret"), "{text}");
}

/// A server that gives the same answer to each request.
fn server(answer: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn faults_of_a_version_of_influxdb_3_core_and_wrong_credentials_are_found() {
    let scene = GatewayDir::new();
    let output = |url: &str| format!("[output]\nkind = \"influxdb3\"\nurl = \"{url}\"\n");
    for (answer, found) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"version\":\"3.10.1\"}",
            "warning",
        ),
        (
            "HTTP/1.1 200 OK\r\nx-influxdb-version: 3.12.0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "ok",
        ),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "error"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "error"),
    ] {
        scene.configure(&output(&server(answer)));
        let findings = findings(&scene, "database", &[]);
        assert!(findings.iter().all(|(level, _)| level == found), "{answer}: {findings:?}");
        assert_eq!(findings.len(), if found == "warning" { 3 } else { 1 }, "{findings:?}");
    }
}
