//! Data folders that earlier versions left behind, as they were checked in: each later version starts
//! on them, loses nothing and has nothing to complain of.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Subscribe};
use serde_json::Value;

use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

/// The session of the gateway that left the folder behind.
const CLIENT_ID: &str = "gateway";

fn checked_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests").join(name)
}

/// Copies a folder with the modes that the gateway gives its files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// A broker that has the session of the old gateway, and the URL in its session file set to it.
fn broker_with_session(scene: &GatewayDir) -> Mosquitto {
    let broker = Mosquitto::start_in_memory();
    let mut client = MqttClient::open(([127, 0, 0, 1], broker.port).into());
    client.greet(CLIENT_ID, false, 60, None).unwrap();
    let mut subscribe = Subscribe::new("tenant/+/device/+/+", QoS::AtLeastOnce);
    subscribe.pkid = 1;
    client.send(&Packet::Subscribe(subscribe)).unwrap();
    assert!(matches!(client.receive().unwrap(), Packet::SubAck(_)));
    client.send(&Packet::Disconnect).unwrap();
    let path = scene.path("data/mqtt-session.json");
    let mut session: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    session["broker"] = broker.url().into();
    fs::write(path, session.to_string()).unwrap();
    broker
}

/// A gateway's folder with the data of `version` and what its configuration named.
fn scene(version: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    for tenant in ["acme", "globex"] {
        for device in ["dev-1", "dev-2"] {
            scene.device(tenant, device, "lab-1");
        }
        let folder = scene.path("guests").join(tenant);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("frozen.toml"), "[options]\nmeasurement = \"m\"\n").unwrap();
        fs::copy(checked_in("wit_compat/1.0.0/keeper.wasm"), folder.join("frozen.wasm")).unwrap();
    }
    copy(&checked_in("data_compat").join(version).join("data"), &scene.path("data"));
    scene
}

/// The sums in the lines of one device, in the order of the lines.
fn sums(lines: &[String], device: &str) -> Vec<u64> {
    let tag = format!(",device_id={device},");
    let of_device = lines.iter().filter(|line| line.contains(&tag));
    let sum = |line: &String| line.split(" sum=").nth(1)?.split('i').next()?.parse().ok();
    of_device.map(|line| sum(line).unwrap_or_else(|| panic!("a line without a sum: {line}"))).collect()
}

#[test]
fn a_data_folder_of_0_1_0_is_served_without_loss_or_complaint() {
    let mut scene = scene("0.1.0");
    let broker = broker_with_session(&scene);
    scene.configure_broker(
        &broker.url(),
        &format!(
            "client_id = \"{CLIENT_ID}\"\n[output]\nkind = \"file\"\nflush_interval_ms = 20\n\
             [admission]\nrate_per_s = 0\n[spool]\nbytes_max = 4194304\ntenant_bytes_max = 2097152\n\
             [quarantine]\ndays_max = 3650\n"
        ),
    );
    scene.set_token("token");
    let answers = fs::read(checked_in("data_compat/0.1.0/answers.json")).unwrap();
    let answers: Value = serde_json::from_slice(&answers).unwrap();

    let gateway = scene.start();
    for (tenant, spooled) in [("acme", 550), ("globex", 540)] {
        gateway.wait_written(tenant, spooled);
        assert_eq!(gateway.book(tenant, "lines", "spooled"), spooled);
        assert_eq!(gateway.book(tenant, "lines", "damaged") + gateway.book(tenant, "lines", "dropped"), 0);
    }
    for (tenant, device, last) in
        [("acme", "dev-1", 280), ("acme", "dev-2", 270), ("globex", "dev-1", 270), ("globex", "dev-2", 270)]
    {
        let lines = scene.lines(&format!("telemetry_{tenant}"));
        assert_eq!(sums(&lines, device), (171..=last).collect::<Vec<_>>(), "{tenant} {device}");
    }
    assert_eq!(gateway.json("/api/v1/quarantine/entries")["entries"], answers["quarantine"]);
    assert_eq!(gateway.json("/api/v1/guests/acme/frozen/history"), answers["acme_history"]);
    assert_eq!(gateway.json("/api/v1/guests/acme/frozen/state"), answers["acme_state"]);
    assert_eq!(gateway.json("/api/v1/guests/globex/frozen/state"), answers["globex_state"]);

    // The session and the state go on where they were.
    let payload = r#"{"site_id":"lab-1","provision_token":"tok-dev-1","n":1}"#;
    let mut device = MqttClient::to_broker(broker.port, "dev-1");
    device.publish("tenant/acme/device/dev-1/frozen", QoS::AtLeastOnce, false, payload);
    gateway.wait_written("acme", 551);
    assert_eq!(sums(&scene.lines("telemetry_acme"), "dev-1").last(), Some(&281));
    gateway.assert_balanced();
    let log = scene.log();
    let complaints: Vec<&str> =
        log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
