//! Decoders that were built against earlier versions of the interface, as they were checked in: none of
//! our changes may break them. What a version's decoder makes of these messages never changes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_simulator::Device;

use crate::harness::gateway::{Gateway, GatewayDir};

fn frozen(version: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/wit_compat").join(version).join(file)
}

/// A gateway whose route acme/frozen is decoded by a checked-in component.
fn scene(version: &str, name: &str) -> GatewayDir {
    let component = fs::read(frozen(version, &format!("{name}.wasm"))).unwrap();
    let digest: String = Sha256::digest(&component).iter().map(|byte| format!("{byte:02x}")).collect();
    let known = fs::read_to_string(frozen(version, &format!("{name}.wasm.sha256"))).unwrap();
    assert_eq!(known.split_whitespace().next(), Some(digest.as_str()), "it is not what was checked in");
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    fs::create_dir_all(scene.path("guests/acme")).unwrap();
    fs::write(scene.path("guests/acme/frozen.toml"), "[options]\nmeasurement = \"m\"\n").unwrap();
    fs::write(scene.path("guests/acme/frozen.wasm"), component).unwrap();
    scene.configure("[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n");
    scene
}

fn payload(more: &str) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1",{more}}}"#)
}

const TOPIC: &str = "tenant/acme/device/dev-1/frozen";

/// The verdict of `explain` on each message, in order.
fn verdicts(scene: &GatewayDir, messages: &[&str]) -> Vec<Value> {
    let questions = messages.iter().map(|message| {
        json!({"id": 1, "topic": TOPIC, "payload": payload(message), "received_at": "2026-01-01T00:00:00Z"})
            .to_string()
            + "\n"
    });
    let (_, out, err) = scene.verb(&["explain", "--jsonl"], &questions.collect::<String>());
    let verdicts: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(verdicts.len(), messages.len(), "{out}{err}");
    verdicts
}

/// State, interface and the use of state of the guest, as `guest list --json` gives them.
fn built_for(gateway: &Gateway<'_>) -> (Value, Value, Value) {
    let guest = gateway.json("/api/v1/guests/acme")["guests"][0].clone();
    (guest["state"].clone(), guest["interface"].clone(), guest["keeps_state"].clone())
}

#[test]
fn a_decoder_of_0_1_0_decodes_as_ever() {
    let scene = scene("0.1.0", "witness");
    let verdicts = verdicts(&scene, &["\"x\":1", "\"nothing\":1", "\"refuse\":1"]);
    let line = "m_acme_frozen,device_id=dev-1,site_id=lab-1 bytes=55i,device=\"dev-1\",site=\"lab-1\",\
                topic=\"tenant/acme/device/dev-1/frozen\",attribute=false 1767225600000000000";
    assert_eq!(verdicts[0]["lines"], json!([line]));
    assert_eq!((&verdicts[1]["outcome"], &verdicts[1]["lines"]), (&json!("empty"), &json!([])));
    assert_eq!(verdicts[2]["reason"], "GUEST_REFUSED");
    assert_eq!(verdicts[2]["detail"], "REFUSED_SO: 60 bytes from dev-1");

    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for message in ["\"x\":1", "\"nothing\":1", "\"refuse\":1"] {
        device.publish(TOPIC, payload(message).as_bytes()).unwrap();
    }
    let lines = scene.lines("telemetry_acme");
    let (fixed, _time) = line.rsplit_once(' ').unwrap();
    assert!(lines.len() == 1 && lines[0].starts_with(fixed), "{lines:?}");
    assert_eq!(built_for(&gateway), ("serving".into(), "0.1.0".into(), false.into()));
    gateway.assert_balanced();
}

#[test]
fn a_decoder_of_1_0_0_decodes_and_keeps_as_ever() {
    let scene = scene("1.0.0", "keeper");
    let messages = ["\"n\":5", "\"n\":100,\"refuse\":1", "\"n\":7,\"faults\":1", "\"forget\":1", "\"n\":2"];
    let line = |sum: u64, faults: &str| {
        format!(
            "m_acme_frozen,device_id=dev-1,site_id=lab-1 sum={sum}i,faults=\"{faults}\",device=\"dev-1\",\
             site=\"lab-1\",topic=\"tenant/acme/device/dev-1/frozen\",attribute=false 1767225600000000000"
        )
    };
    let faults = "bad-key bad-key value-too-large too-many-keys";
    let expected =
        [json!([line(5, "")]), json!([]), json!([line(12, faults)]), json!([]), json!([line(2, "")])];
    let asked = verdicts(&scene, &messages);
    for (verdict, lines) in asked.iter().zip(&expected) {
        assert_eq!(verdict["lines"], *lines, "{verdict}");
    }
    assert_eq!(asked[1]["detail"], "REFUSED_SO: 68 bytes from dev-1");

    let sums = |lines: &[String]| -> Vec<String> {
        let fields = lines.iter().map(|line| line.split(' ').nth(1).unwrap().split(',').next().unwrap());
        fields.map(str::to_owned).collect()
    };
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for message in &messages[..2] {
        device.publish(TOPIC, payload(message).as_bytes()).unwrap();
    }
    gateway.kill();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for message in &messages[2..] {
        device.publish(TOPIC, payload(message).as_bytes()).unwrap();
    }
    // What was written in the last moment before the kill may be written again.
    let mut lines = scene.lines("telemetry_acme");
    lines.dedup();
    assert_eq!(sums(&lines), ["sum=5i", "sum=12i", "sum=2i"]);
    assert_eq!(built_for(&gateway), ("serving".into(), "1.0.0".into(), true.into()));
    gateway.assert_balanced();
}

#[test]
fn a_decoder_of_1_1_0_reads_tapes_as_ever() {
    let scene = scene("1.1.0", "reader");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let many = format!("\"a\":[{}]", vec!["1"; 300].join(","));
    let messages =
        ["\"a\":[1,-2.5,{\"b\\n\":\"x\"}],\"c\":true", &many, "\"d\":null,\"e\":false,\"f\":\"\\t\""];
    for message in messages {
        device.publish(TOPIC, payload(message).as_bytes()).unwrap();
    }
    let line = |count: u64, shape: &str| {
        format!(
            "m_acme_frozen,device_id=dev-1,site_id=lab-1 count={count}i,shape=\"0 site_id2 provision_token2 {shape}\",\
             again=0i,site=\"lab-1\",topic=\"tenant/acme/device/dev-1/frozen\",attribute=false"
        )
    };
    // What was refused for want of a tape has not counted.
    let expected = [line(1, "a1 4 4 0 b\\n2 c5"), line(2, "d7 e6 f3")];
    let lines = scene.lines("telemetry_acme");
    let without_time: Vec<&str> = lines.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(without_time, expected);
    assert_eq!(built_for(&gateway), ("serving".into(), "1.1.0".into(), true.into()));
    gateway.assert_balanced();
}

#[test]
fn every_version_has_a_folder_that_is_served_and_a_decoder_that_is_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut versions: Vec<String> = fs::read_dir(root.join("wit"))
        .unwrap()
        .filter_map(|folder| {
            let name = folder.unwrap().file_name().into_string().unwrap();
            Some(name.strip_prefix("tidegate-ingest-")?.to_owned())
        })
        .collect();
    versions.sort();
    assert_eq!(versions, ["0.1.0", "1.0.0", "1.1.0"]);
    for (version, name) in versions.iter().zip(["witness", "keeper", "reader"]) {
        let offered = |interface: &str| {
            let import = format!("tidegate:ingest/{interface}@{version}");
            tidegate::decode::sandbox::interface::OFFERED.contains(&import.as_str())
        };
        assert!(offered("types") && offered("context") && offered("log"), "{version}");
        assert!(
            frozen(version, &format!("{name}.wasm")).exists()
                && frozen(version, &format!("{name}.rs")).exists()
        );
        // A released version never changes.
        let text = fs::read(root.join(format!("wit/tidegate-ingest-{version}/decoder.wit"))).unwrap();
        let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        let known = fs::read_to_string(frozen(version, "decoder.wit.sha256")).unwrap();
        assert_eq!(known.split_whitespace().next(), Some(digest.as_str()), "{version}");
    }
}
