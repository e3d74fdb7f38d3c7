//! Hostile guests: each attack costs its own message, and nothing else.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_simulator::{Device, packet};

use crate::harness::gateway::{Gateway, GatewayDir, built_guest};

fn payload(attack: &str, seq: u64) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","do":"{attack}","seq":{seq}}}"#)
}

const TOPIC: &str = "tenant/acme/device/dev-1/hostile";

fn scene() -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.device("globex", "dev-2", "lab-1");
    scene.guest("acme", "hostile", "hostile");
    scene.configure("[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n");
    scene
}

/// Sends a batch in one write with the attack in its middle, and waits for every PUBACK in order.
pub fn attack_in_a_batch(device: &mut Device, topic: &str, attack: &str, neighbours: u64) {
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

pub fn reasons(gateway: &Gateway<'_>) -> Value {
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
        ("million-measurements", "BAD_LINE"),
        ("newline-in-measurement", "BAD_LINE"),
        ("newline-in-tag-key", "BAD_LINE"),
        ("newline-in-field-key", "BAD_LINE"),
        ("newline-in-value", "BAD_LINE"),
        ("newline-in-time", "BAD_LINE"),
        ("escaped-newline", "BAD_LINE"),
        ("nul", "BAD_LINE"),
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
    // By the count of its calls, or where the machine is slow by its time.
    let reasons = reasons(&gateway);
    let ended = ["GUEST_TRAP", "GUEST_DEADLINE"].map(|reason| reasons[reason].as_u64().unwrap_or(0));
    assert_eq!(ended.iter().sum::<u64>(), 1, "{reasons}");
    device.publish(TOPIC, payload("ok", 2).as_bytes()).unwrap();
    gateway.assert_balanced();
}

#[test]
fn a_newline_in_a_string_and_a_million_empty_lines_make_no_line_of_their_own() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for attack in ["newline-in-string", "million-lines"] {
        device.publish(TOPIC, payload(attack, 1).as_bytes()).unwrap();
    }
    device.publish(TOPIC, payload("ok", 2).as_bytes()).unwrap();
    let lines = scene.lines("telemetry_acme");
    assert!(!lines.iter().any(|line| line.starts_with("forged")) || lines[0].contains("f=\"a"), "{lines:?}");
    // Whoever reads the file reads one line with the host's identity, its string in quotes.
    assert!(lines[0].starts_with("m,device_id=dev-1,site_id=lab-1 f=\"a"), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("ok,"), "{lines:?}");
    gateway.assert_balanced();
}

#[test]
fn a_guest_that_says_much_is_cut_off_and_writes_no_line_of_its_own() {
    let scene = scene();
    fs::write(scene.path("operator"), "t").unwrap();
    scene.configure_admin(
        "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n",
        "token_file = \"operator\"\n",
    );
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    device.publish(TOPIC, payload("say", 1).as_bytes()).unwrap();
    for seq in 0..20 {
        device.publish(TOPIC, payload("say-much", seq).as_bytes()).unwrap();
    }
    let (status, log) = gateway.get_with_token("/api/v1/guests/acme/hostile/log", Some("t"));
    assert_eq!(status, 200, "{log}");
    let log: Value = serde_json::from_str(&log).unwrap();
    let lines = log["lines"].as_array().unwrap();
    assert!(lines.len() <= 100 && log["dropped"].as_u64().unwrap() > 10_000, "{}", log["dropped"]);
    assert!(lines.iter().all(|line| line["text"].as_str().unwrap().len() <= 1_024));
    assert!(lines.iter().all(|line| !line["text"].as_str().unwrap().contains(char::is_control)));
    let said = scene.log();
    assert!(said.len() < 200_000 && said.contains("guest"), "{}", said.len());
    assert!(!said.lines().any(|line| line.contains("forged") && !line.contains("acme/hostile")));
}

#[test]
fn what_starts_with_a_misdeed_is_refused_when_it_is_loaded() {
    use crate::harness::compile_bombs::{Misdeed, decoder_with, importing};
    let scene = scene();
    let folder = scene.path("guests/acme");
    let misdeeds = [
        (Misdeed::LoopInStart, "GUEST_DEADLINE"),
        (Misdeed::LoopInRealloc, "GUEST_DEADLINE"),
        (Misdeed::ReallocOutside, "GUEST_OUTPUT"),
        (Misdeed::RecursionInStart, "GUEST_TRAP"),
        (Misdeed::TableInStart, "table elements"),
        (Misdeed::MemoryInStart, "bytes of memory"),
        (Misdeed::HugeTable, "table"),
        (Misdeed::ManyTables, "tables"),
    ];
    for (misdeed, _) in misdeeds {
        fs::write(folder.join(format!("{misdeed:?}.wasm")), decoder_with(misdeed)).unwrap();
    }
    let imports =
        ["wasi:clocks/monotonic-clock@0.3.0", "wasi:sockets/tcp@1.2.0", "acme:files/preopens@0.2.0"];
    for (index, import) in imports.into_iter().enumerate() {
        fs::write(folder.join(format!("wasi-{index}.wasm")), importing(import)).unwrap();
    }
    let gateway = scene.start();
    let guests = gateway.json("/api/v1/guests")["guests"].clone();
    let error = |name: &str| {
        let guest = guests.as_array().unwrap().iter().find(|guest| guest["type"] == name).unwrap().clone();
        assert_eq!(guest["state"], "refused", "{guest}");
        guest["error"].as_str().unwrap().to_owned()
    };
    for (misdeed, named) in misdeeds {
        let error = error(&format!("{misdeed:?}"));
        assert!(error.contains(named), "{misdeed:?}: {error}");
    }
    for (index, import) in imports.into_iter().enumerate() {
        let error = error(&format!("wasi-{index}"));
        assert!(error.contains(import), "{error}");
    }
}

#[test]
fn a_slow_route_moves_to_threads_of_its_own_and_back_and_keeps_its_order() {
    let scene = scene();
    let gateway = scene.start();
    let lane = |gateway: &Gateway<'_>| {
        let guests = gateway.json("/api/v1/guests")["guests"].clone();
        let guest =
            guests.as_array().unwrap().iter().find(|guest| guest["type"] == "hostile").unwrap().clone();
        guest["lane"].as_str().unwrap().to_owned()
    };
    assert_eq!(lane(&gateway), "fast");
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    const MESSAGES: u64 = 1_200;
    let payloads: Vec<String> = (0..MESSAGES)
        .map(|seq| payload(if (100..300).contains(&seq) { "burn" } else { "ok" }, seq))
        .collect();
    let mut was_slow = false;
    for part in payloads.chunks(100) {
        let messages = part.iter().map(|payload| (TOPIC, payload.as_bytes()));
        assert_eq!(device.publish_all(messages, 100).unwrap(), part.len() as u64);
        was_slow |= lane(&gateway) == "slow";
    }
    assert!(was_slow, "it went to the slow lane");
    assert_eq!(lane(&gateway), "fast", "and came back");
    let lines = scene.lines("telemetry_acme");
    let seqs: Vec<u64> = lines
        .iter()
        .map(|line| line.split("seq=").nth(1).unwrap().split('i').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(seqs, (0..MESSAGES).collect::<Vec<_>>(), "in order, each once");
    gateway.assert_balanced();
}

#[test]
fn a_guest_that_burns_its_time_in_starting_over_is_slow_too() {
    let scene = scene();
    fs::write(scene.path("guests/acme/hostile.toml"), "[options]\nconfigure = \"burn\"\n").unwrap();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 0..5 {
        device.publish(TOPIC, payload("trap", seq).as_bytes()).unwrap();
    }
    let guests = gateway.json("/api/v1/guests")["guests"].clone();
    let guest = guests.as_array().unwrap().iter().find(|guest| guest["type"] == "hostile").unwrap();
    assert_eq!(guest["lane"], "slow", "{guest}");
}

#[test]
fn another_tenant_is_served_while_one_tenants_guest_loops() {
    let scene = scene();
    let gateway = scene.start();
    let listener = scene.listener.clone();
    let attacker = std::thread::spawn(move || {
        let mut device = Device::connect(&listener, "attacker").unwrap();
        for seq in 0..300 {
            device.send(TOPIC, payload("loop", seq).as_bytes()).unwrap();
        }
        for _ in 0..300 {
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
    // The loops, three seconds of CPU in all, stand in a neighbour's way until the route is known to be
    // slow, and not for longer.
    assert!(slowest < Duration::from_millis(2_000), "the slowest took {slowest:?}");
    assert_eq!(reasons(&gateway)["GUEST_DEADLINE"], 300);
    gateway.assert_balanced();
}

/// It holds one decode thread of two: no more than an equal share of the CPU for its tenant.
#[test]
fn a_device_that_keeps_a_decode_thread_busy_holds_up_no_devices_of_others_there() {
    const FLOOD: u64 = 30_000;
    let mut scene = scene();
    let names: Vec<String> = (0..8).map(|n| format!("of-globex-{n}")).collect();
    names.iter().for_each(|name| scene.device("globex", name, "lab-1"));
    scene.configure(
        "[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n[guests]\nthreads = 2\n",
    );
    let gateway = scene.start();
    let mut flood = Device::connect(&scene.listener, "attacker").unwrap();
    let mut stream = flood.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for first in (0..FLOOD).step_by(1_000) {
            let mut batch = Vec::new();
            for seq in first..first + 1_000 {
                packet::publish_into(
                    &mut batch,
                    TOPIC,
                    payload("work", seq).as_bytes(),
                    Some(seq as u16 + 1),
                );
            }
            stream.write_all(&batch).unwrap();
        }
    });
    let acknowledged = Arc::new(AtomicU64::new(0));
    let counted = acknowledged.clone();
    let reader = std::thread::spawn(move || {
        for _ in 0..FLOOD {
            flood.puback().unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    gateway.wait("the flood is under way", |_| acknowledged.load(Ordering::Relaxed) > 0);
    for round in 0..20 {
        for name in &names {
            let topic = crate::end_to_end::topic("globex", name, "telemetry");
            let mut device = Device::connect(&scene.listener, name).unwrap();
            device.publish(&topic, crate::end_to_end::envelope(name, round).as_bytes()).unwrap();
        }
    }
    // Behind the flood each of them would wait for thousands of its messages.
    let done = acknowledged.load(Ordering::Relaxed);
    assert!(done < FLOOD, "the others were served only after all of the flood");
    sender.join().unwrap();
    reader.join().unwrap();
    assert_eq!(scene.lines("telemetry_globex").len(), 160);
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
        ("linked", "outside of the guests folder"),
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
