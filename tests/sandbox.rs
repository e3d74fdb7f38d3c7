//! Hostile guests: each attack costs its own message, and nothing else.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_fleet::{Device, packet};

use crate::rig::gateway::{Gateway, Scene, built_guest};

fn payload(attack: &str, seq: u64) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","do":"{attack}","seq":{seq}}}"#)
}

const TOPIC: &str = "tenant/acme/device/dev-1/hostile";

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.device("globex", "dev-2", "lab-1");
    scene.guest("acme", "hostile", "hostile");
    scene.configure("[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n");
    scene
}

/// Sends a batch in one write with the attack in its middle, and waits for every PUBACK in order.
fn attack_in_a_batch(device: &mut Device, topic: &str, attack: &str, neighbours: u64) {
    let mut batch = Vec::new();
    for seq in 0..=neighbours {
        let what = if seq == neighbours / 2 { attack } else { "ok" };
        packet::publish_into(&mut batch, topic, payload(what, seq).as_bytes(), Some(seq as u16 + 1));
    }
    device.stream.write_all(&batch).unwrap();
    for seq in 0..=neighbours {
        assert_eq!(device.puback().unwrap(), seq as u16 + 1, "{attack}");
    }
}

fn reasons(gateway: &Gateway<'_>) -> Value {
    gateway.json("/api/v1/quarantine")["reasons"].clone()
}

#[test]
fn each_attack_costs_its_own_message_and_none_of_its_neighbours() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let attacks = [
        ("loop", "GUEST_DEADLINE"),
        ("recurse", "GUEST_TRAP"),
        ("trap", "GUEST_TRAP"),
        ("grow", "GUEST_MEMORY"),
        ("big", "GUEST_MEMORY"),
        ("many-lines", "GUEST_OUTPUT"),
        ("too-many-lines", "BAD_LINE"),
        ("forge-tag", "IDENTITY_IN_LINE"),
        ("forge-field", "IDENTITY_IN_LINE"),
        ("open-quote", "BAD_LINE"),
        ("backslash", "BAD_LINE"),
        ("newline-in-tag", "BAD_LINE"),
        ("duplicate-tag", "BAD_LINE"),
        ("not-utf8", "BAD_LINE"),
        ("far-time", "BAD_LINE"),
        ("refuse", "GUEST_REFUSED"),
    ];
    const NEIGHBOURS: u64 = 40;
    for (index, (attack, reason)) in attacks.into_iter().enumerate() {
        let before = reasons(&gateway)[reason].as_u64().unwrap_or(0);
        attack_in_a_batch(&mut device, TOPIC, attack, NEIGHBOURS);
        let after = reasons(&gateway);
        assert_eq!(after[reason].as_u64().unwrap_or(0), before + 1, "{attack}: {after}");
        // Its neighbours are there.
        gateway.wait_written("acme", NEIGHBOURS * (index as u64 + 1));
        gateway.assert_balanced();
    }
    // In their order, and with nobody's identity but the device's own.
    let lines = scene.lines("telemetry_acme");
    let expected: Vec<u64> = (0..=NEIGHBOURS).filter(|seq| *seq != NEIGHBOURS / 2).collect();
    for batch in lines.chunks(NEIGHBOURS as usize) {
        for (line, seq) in batch.iter().zip(&expected) {
            assert!(line.starts_with(&format!("ok,device_id=dev-1,site_id=lab-1 seq={seq}i ")), "{line}");
        }
    }
    let latest = gateway.json("/api/v1/quarantine")["latest"].to_string();
    assert!(
        latest.contains("NOT_A_CODE: xxx") && latest.len() < 60_000,
        "a refusal is cut: {}",
        latest.len()
    );
}

#[test]
fn answers_that_are_not_as_the_interface_says_are_refused_one_by_one() {
    let scene = scene();
    scene.guest("acme", "hostile", "wrong-answer");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for (index, attack) in ["too-few", "too-many", "fall", "beyond", "left"].into_iter().enumerate() {
        attack_in_a_batch(&mut device, TOPIC, attack, 20);
        assert_eq!(reasons(&gateway)["GUEST_OUTPUT"], index + 1, "{attack}");
        gateway.wait_written("acme", 20 * (index as u64 + 1));
    }
    gateway.assert_balanced();
}

#[test]
fn a_guest_that_asks_the_host_without_end_harms_nobody() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let began = Instant::now();
    device.publish(TOPIC, payload("log-flood", 1).as_bytes()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    device.publish(TOPIC, payload("ok", 2).as_bytes()).unwrap();
    gateway.assert_balanced();
}

#[test]
fn another_tenant_is_served_while_one_tenants_guest_loops() {
    let scene = scene();
    let gateway = scene.start();
    let listener = scene.listener.clone();
    let attacker = std::thread::spawn(move || {
        let mut device = Device::connect(&listener, "attacker").unwrap();
        for seq in 0..100 {
            device.send(TOPIC, payload("loop", seq).as_bytes()).unwrap();
        }
        for _ in 0..100 {
            device.puback().unwrap();
        }
    });
    let mut device = Device::connect(&scene.listener, "dev-2").unwrap();
    let topic = crate::end_to_end::topic("globex", "dev-2", "telemetry");
    let mut slowest = Duration::ZERO;
    for seq in 0..50 {
        let began = Instant::now();
        device.publish(&topic, crate::end_to_end::envelope("dev-2", seq).as_bytes()).unwrap();
        slowest = slowest.max(began.elapsed());
    }
    attacker.join().unwrap();
    assert_eq!(scene.lines("telemetry_globex").len(), 50);
    // A hundred loops of 10 ms stand in one thread's way at worst; a neighbour never waits for ever.
    assert!(slowest < Duration::from_secs(8), "the slowest took {slowest:?}");
    assert_eq!(reasons(&gateway)["GUEST_DEADLINE"], 100);
    gateway.assert_balanced();
}

#[test]
fn what_may_not_serve_is_refused_when_it_is_loaded_and_says_why() {
    let scene = scene();
    let folder = scene.path("guests/acme");
    fs::copy(built_guest("foreign"), folder.join("foreign.wasm")).unwrap();
    fs::copy(built_guest("greedy"), folder.join("greedy.wasm")).unwrap();
    fs::write(folder.join("garbage.wasm"), b"not wasm at all").unwrap();
    fs::write(folder.join("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
    fs::write(folder.join("torn.wasm"), &fs::read(built_guest("pulse")).unwrap()[..5_000]).unwrap();
    fs::write(folder.join("huge.wasm"), vec![0; 11 << 20]).unwrap();
    for (name, option) in [("looping", "loop"), ("trapping", "trap"), ("unwilling", "refuse")] {
        fs::copy(built_guest("hostile"), folder.join(format!("{name}.wasm"))).unwrap();
        fs::write(folder.join(format!("{name}.toml")), format!("[options]\nconfigure = \"{option}\"\n"))
            .unwrap();
    }
    fs::copy(built_guest("pulse"), folder.join("raised.wasm")).unwrap();
    fs::write(folder.join("raised.toml"), "deadline_ms = 1000\n").unwrap();
    let outside = scene.path("outside.wasm");
    fs::copy(built_guest("pulse"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("linked.wasm")).unwrap();

    let gateway = scene.start();
    let guests = gateway.json("/api/v1/guests")["guests"].clone();
    let error = |name: &str| {
        let guest = guests.as_array().unwrap().iter().find(|guest| guest["type"] == name).unwrap().clone();
        assert_eq!(guest["state"], "refused", "{guest}");
        guest["error"].as_str().unwrap().to_owned()
    };
    for (name, named) in [
        ("foreign", "test:foreign/clock"),
        ("greedy", "memory"),
        ("garbage", "no WebAssembly"),
        ("module", "core module"),
        ("torn", "does not compile"),
        ("huge", "at most 10485760"),
        ("looping", "GUEST_DEADLINE"),
        ("trapping", "GUEST_TRAP"),
        ("unwilling", "it serves nobody"),
        ("raised", "deadline_ms = 1000"),
        ("linked", "leads out"),
    ] {
        let error = error(name);
        assert!(error.contains(named), "{name}: {error}");
    }
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("acme/foreign") && errors.contains("test:foreign/clock"), "{errors}");
}

#[test]
fn a_bad_new_version_leaves_the_old_one_serving() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(TOPIC, payload("ok", 1).as_bytes()).unwrap();
    let place = scene.path("guests/acme/hostile.wasm");
    fs::write(scene.path("guests/acme/.new"), b"half a component").unwrap();
    fs::rename(scene.path("guests/acme/.new"), &place).unwrap();
    let route = |gateway: &Gateway<'_>| {
        let guests = gateway.json("/api/v1/guests")["guests"].clone();
        guests.as_array().unwrap().iter().find(|guest| guest["type"] == "hostile").unwrap().clone()
    };
    gateway.wait("told of the bad version", |gateway| route(gateway)["state"] == "refused");
    assert!(route(&gateway)["guest"].as_str().unwrap().starts_with("hostile@"), "the old one serves");
    device.publish(TOPIC, payload("ok", 2).as_bytes()).unwrap();
    gateway.wait_written("acme", 2);
}

#[test]
fn no_topic_reaches_another_tenants_guests_or_a_reserved_name() {
    let mut scene = scene();
    for tenant in ["_default", "..", "acme%2E"] {
        scene.device(tenant, "dev-1", "lab-1");
    }
    scene.guest("_default", "secret", "hostile");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for (topic, served) in [
        ("tenant/acme/device/dev-1/_any", false),
        ("tenant/acme/device/dev-1/..", false),
        ("tenant/_default/device/dev-1/hostile", false),
        ("tenant/../device/dev-1/hostile", false),
        // Defaults are for everybody, whatever they are called.
        ("tenant/_default/device/dev-1/secret", true),
        ("tenant/acme/device/dev-1/hostile", true),
    ] {
        let before = reasons(&gateway)["NO_GUEST"].as_u64().unwrap_or(0)
            + reasons(&gateway)["BAD_DATABASE_NAME"].as_u64().unwrap_or(0);
        device.publish(topic, payload("ok", 1).as_bytes()).unwrap();
        let after = reasons(&gateway)["NO_GUEST"].as_u64().unwrap_or(0)
            + reasons(&gateway)["BAD_DATABASE_NAME"].as_u64().unwrap_or(0);
        assert_eq!(after - before, u64::from(!served), "{topic}: {}", reasons(&gateway));
    }
}
