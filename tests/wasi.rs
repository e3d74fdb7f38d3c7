//! Decoders that bring WASI 0.2: what they see is the message's, and what they may not do costs their own message.

use std::fs;

use serde_json::Value;
use tidegate_simulator::Device;

use crate::harness::gateway::{Gateway, GatewayDir, built_guest};
use crate::sandbox::{attack_in_a_batch, reasons};

const TOPIC: &str = "tenant/acme/device/dev-1/wasi";

fn payload(action: &str, seq: u64) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","do":"{action}","seq":{seq}}}"#)
}

fn scene() -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("acme", "wasi", "hostile-wasi");
    scene.configure("[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n");
    scene.set_token("operator");
    scene
}

/// Texts of the guest's log, with their level.
fn texts(gateway: &Gateway<'_>) -> Vec<String> {
    let log = gateway.json("/api/v1/guests/acme/wasi/log");
    let text =
        |line: &Value| format!("{} {}", line["level"].as_str().unwrap(), line["text"].as_str().unwrap());
    log["lines"].as_array().unwrap().iter().map(text).collect()
}

/// The details of what was refused last.
fn details(gateway: &Gateway<'_>) -> String {
    gateway.json("/api/v1/quarantine")["latest"].to_string()
}

#[test]
fn each_attack_by_wasi_costs_its_own_message_and_none_of_its_neighbours() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let attacks = [
        ("write-without-end", "GUEST_DEADLINE", "CPU time"),
        ("write-large", "GUEST_TRAP", "writes 4097 bytes at once: at most 4096"),
        ("write-10-mb", "GUEST_OUTPUT", "fuel"),
        ("write-zeroes", "GUEST_TRAP", "#[method]output-stream.write-zeroes, which a decoder does not have"),
        ("random-4-gib", "GUEST_TRAP", "at most 65536"),
        ("random-without-end", "GUEST_DEADLINE", "CPU time"),
        ("poll-nothing", "GUEST_TRAP", "polls nothing"),
        ("clock-without-end", "GUEST_DEADLINE", "CPU time"),
        ("subscribe-without-end", "GUEST_DEADLINE", "CPU time"),
        ("leak", "GUEST_TRAP", "more than 64 handles"),
        ("leak-streams", "GUEST_TRAP", "more than 64 handles"),
        ("leak-networks", "GUEST_TRAP", "more than 64 handles"),
        ("socket", "GUEST_TRAP", "called wasi:sockets/tcp-create-socket@0.2.12#create-tcp-socket"),
        ("exit", "GUEST_TRAP", "exits with success"),
        ("exit-badly", "GUEST_TRAP", "exits with failure"),
        ("write-and-trap", "GUEST_TRAP", "it wrote: ValueError: no temp"),
    ];
    const NEIGHBOURS: u64 = 6;
    for (index, (attack, reason, detail)) in attacks.into_iter().enumerate() {
        let before = reasons(&gateway)[reason].as_u64().unwrap_or(0);
        attack_in_a_batch(&mut device, TOPIC, attack, NEIGHBOURS);
        let after = reasons(&gateway);
        assert_eq!(
            after[reason].as_u64().unwrap_or(0),
            before + 1,
            "{attack}: {after} {}",
            details(&gateway)
        );
        assert!(details(&gateway).contains(detail), "{attack}: {}", details(&gateway));
        gateway.wait_written("acme", NEIGHBOURS * (index as u64 + 1));
    }
    gateway.assert_balanced();
}

#[test]
fn what_waits_or_asks_for_much_is_answered_at_once() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let actions = ["wait-for-ever", "sleep", "empty", "write-much", "poll-many"];
    for (seq, action) in actions.into_iter().enumerate() {
        device.publish(TOPIC, payload(action, seq as u64).as_bytes()).unwrap();
    }
    gateway.wait_written("acme", 4);
    let lines = scene.lines("telemetry_acme");
    let did = |line: &str| line.split_once("did=\"").unwrap().1.rsplit_once('"').unwrap().0.to_owned();
    let did: Vec<String> = lines.iter().map(|line| did(line)).collect();
    assert_eq!(did[..4], ["wait-for-ever", "3000001000", "[] [] None 0 true", "write-much"]);
    // 100,000 handles lent at once are a list of 400 kB: more than a message may pass, or an answer.
    assert!(did.len() == 4 || did[4] == "100000", "{did:?}");
    let texts = texts(&gateway);
    let dropped = 50 * 4_096 - 4_096;
    let said = format!("warn {dropped} more bytes of output were dropped");
    assert!(texts.contains(&said), "{texts:?}");
    gateway.assert_balanced();
}

#[test]
fn times_and_random_numbers_are_the_messages() {
    let scene = scene();
    let case = |name: &str, received_at: &str, seq: u64| {
        let payload = payload("world", seq).replace('"', "\\\"");
        format!(
            "{{\"name\":\"{name}\",\"topic\":\"{TOPIC}\",\"payload\":\"{payload}\",\"received_at\":\"{received_at}\",\
             \"site\":\"lab-1\",\"expect\":{{\"lines\":[]}}}}\n"
        )
    };
    let (one, two) = ("2026-05-01T00:00:00.000000007Z", "2026-05-01T00:00:01Z");
    let cases = case("a", one, 1) + &case("b", one, 1) + &case("c", one, 2) + &case("d", two, 1);
    fs::create_dir(scene.path("elsewhere")).unwrap();
    let mut wasm = fs::read(built_guest("hostile-wasi")).unwrap();
    let mut seen = Vec::new();
    for version in ["0.2.12", "0.2.99"] {
        // The same component for another 0.2.
        for start in 0..wasm.len() - 6 {
            if &wasm[start..start + 6] == b"0.2.12" {
                wasm[start..start + 6].copy_from_slice(version.as_bytes());
            }
        }
        fs::write(scene.path("elsewhere/wasi.wasm"), &wasm).unwrap();
        fs::write(scene.path("elsewhere/wasi.cases.jsonl"), &cases).unwrap();
        // Each case fails, and the output says what came in place of nothing.
        let (_, output, errors) = scene.verb(&["test", "elsewhere"], "");
        let did: Vec<String> = (output.clone() + &errors)
            .split("did=\"")
            .skip(1)
            .map(|text| text.split('"').next().unwrap().to_owned())
            .collect();
        assert_eq!(did.len(), 4, "{output}{errors}");
        assert!(did[0].starts_with("1777593600.000000007 1000 2000 "), "{did:?}");
        assert!(did[3].starts_with("1777593601.000000000 1000 2000 "), "{did:?}");
        assert_eq!(did[0], did[1], "the same message");
        let random = |text: &str| text.split(' ').nth(3).unwrap().to_owned();
        assert_ne!(random(&did[0]), random(&did[2]), "another payload");
        assert_ne!(random(&did[0]), random(&did[3]), "another time");
        let seed = |text: &str| text.rsplit_once('(').unwrap().1.to_owned();
        assert!(did.iter().all(|one| seed(one) == seed(&did[0])), "{did:?}");
        seen.push(did);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn what_a_decoder_writes_is_in_its_log() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for (seq, action) in ["write", "write-and-trap"].into_iter().enumerate() {
        device.publish(TOPIC, payload(action, seq as u64).as_bytes()).unwrap();
    }
    gateway.wait_written("acme", 1);
    let texts = texts(&gateway);
    for said in [
        "warn configured",
        "info read",
        "info written",
        "warn careful\u{fffd}[2J",
        "warn ValueError: no temp",
    ] {
        assert!(texts.iter().any(|text| text == said), "{said}: {texts:?}");
    }
    gateway.assert_balanced();
}

#[test]
fn a_decoder_with_a_clock_gets_its_messages_one_a_call() {
    let scene = scene();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    // All at once: in one call they would all see the time of the first.
    attack_in_a_batch(&mut device, TOPIC, "world", 0);
    let mut batch = Vec::new();
    for seq in 0..20u16 {
        let payload = payload("world", u64::from(seq));
        tidegate_simulator::packet::publish_into(&mut batch, TOPIC, payload.as_bytes(), Some(seq + 1));
    }
    std::io::Write::write_all(&mut device.stream, &batch).unwrap();
    for seq in 0..20u16 {
        assert_eq!(device.puback().unwrap(), seq + 1);
    }
    gateway.wait_written("acme", 21);
    for line in scene.lines("telemetry_acme") {
        let (body, time) = line.rsplit_once(' ').unwrap();
        let seen = body.split_once("did=\"").unwrap().1.split(' ').next().unwrap().replace('.', "");
        assert_eq!(seen, time, "the clock is the line's own time");
        assert!(body.contains(" 1000 2000 "), "{body}");
    }
    gateway.assert_balanced();
}

#[test]
fn no_other_world_comes_in_under_the_name_of_wasi() {
    let scene = scene();
    let wasm = fs::read(built_guest("hostile-wasi")).unwrap();
    fs::create_dir(scene.path("elsewhere")).unwrap();
    for (from, to) in [("@0.2.12", "@0.3.12"), ("wasi:random/random@", "wasi:randum/random@")] {
        let mut other = wasm.clone();
        for start in 0..other.len() - from.len() {
            if &other[start..start + from.len()] == from.as_bytes() {
                other[start..start + from.len()].copy_from_slice(to.as_bytes());
            }
        }
        fs::write(scene.path("elsewhere/wasi.wasm"), &other).unwrap();
        let case = format!(
            "{{\"name\":\"a\",\"topic\":\"{TOPIC}\",\"payload\":\"\",\"expect\":{{\"lines\":[]}}}}\n"
        );
        fs::write(scene.path("elsewhere/wasi.cases.jsonl"), case).unwrap();
        let (status, output, errors) = scene.verb(&["test", "elsewhere"], "");
        assert_eq!(status.code(), Some(1), "{output}{errors}");
        let named = to.trim_end_matches('@');
        assert!(errors.contains(named) && errors.contains("WASI 0.2 (wasi:cli"), "{output}{errors}");
    }
}
