//! Decoders written by hand, each with a fault that no toolchain would write, and the refusal it gets.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tidegate_simulator::{Device, packet};

use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::malformed_guests::{self, MISDEEDS};
use crate::sandbox::reasons;

fn scene(more: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    fs::create_dir_all(scene.path("guests/acme")).unwrap();
    scene.configure(&format!(
        "[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n{more}"
    ));
    scene
}

fn payload(is_long: bool) -> String {
    let padding = if is_long { "x".repeat(200) } else { String::new() };
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","p":"{padding}"}}"#)
}

fn guest(gateway: &Gateway<'_>, message_type: &str) -> Value {
    let guests = gateway.json("/api/v1/guests")["guests"].clone();
    guests.as_array().unwrap().iter().find(|guest| guest["type"] == message_type).unwrap().clone()
}

#[test]
fn each_misdeed_costs_its_own_message_and_says_what_it_was() {
    // Long enough that every fault but a loop meets its own limit first, however busy the machine is.
    let scene = scene("[guests]\ndeadline_ms = 100\n");
    for misdeed in &MISDEEDS {
        let place = scene.path(&format!("guests/acme/{}.wasm", misdeed.name));
        fs::write(place, malformed_guests::decoder(misdeed)).unwrap();
    }
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    const NEIGHBOURS: u64 = 10;
    for (index, misdeed) in MISDEEDS.iter().enumerate() {
        let state = guest(&gateway, misdeed.name);
        assert_eq!(state["state"], "serving", "{state}");
        let before = reasons(&gateway)[misdeed.reason].as_u64().unwrap_or(0);
        let topic = format!("tenant/acme/device/dev-1/{}", misdeed.name);
        let mut batch = Vec::new();
        for seq in 0..=NEIGHBOURS {
            let payload = payload(seq == NEIGHBOURS / 2);
            packet::publish_into(&mut batch, &topic, payload.as_bytes(), Some(seq as u16 + 1));
        }
        device.stream.write_all(&batch).unwrap();
        for seq in 0..=NEIGHBOURS {
            assert_eq!(device.puback().unwrap(), seq as u16 + 1, "{}", misdeed.name);
        }
        let after = reasons(&gateway);
        assert_eq!(after[misdeed.reason].as_u64().unwrap_or(0), before + 1, "{}: {after}", misdeed.name);
        let all: u64 = after.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(all, index as u64 + 1, "{}: {after}", misdeed.name);
        let latest = gateway.json("/api/v1/quarantine")["latest"].to_string().to_lowercase();
        assert!(latest.contains(&misdeed.detail.to_lowercase()), "{}: {latest}", misdeed.name);
        assert_eq!(
            gateway.book("acme", "messages", "empty"),
            NEIGHBOURS * (index as u64 + 1),
            "{}",
            misdeed.name
        );
        gateway.assert_balanced();
    }
}

#[test]
fn a_decoder_that_brings_more_than_one_memory_or_a_few_instances_does_not_serve() {
    let scene = scene("");
    let crowds = malformed_guests::crowds();
    fs::write(scene.path("guests/acme/plain.wasm"), malformed_guests::plain()).unwrap();
    for (name, component, _) in &crowds {
        fs::write(scene.path(&format!("guests/acme/{name}.wasm")), component).unwrap();
    }
    let gateway = scene.start();
    assert_eq!(guest(&gateway, "plain")["state"], "serving", "{}", guest(&gateway, "plain"));
    for (name, _, named) in &crowds {
        let guest = guest(&gateway, name);
        assert_eq!(guest["state"], "refused", "{guest}");
        assert!(guest["error"].as_str().unwrap().contains(named), "{guest}");
    }
}

#[test]
fn the_class_large_counts_memories_and_instances_too() {
    let crowds = malformed_guests::crowds();
    let routes: Vec<String> = crowds.iter().map(|(name, ..)| format!("\"acme/{name}\"")).collect();
    let scene = scene(&format!("[guests.large]\nroutes = [\"acme/plain\", {}]\n", routes.join(", ")));
    fs::write(scene.path("guests/acme/plain.wasm"), malformed_guests::plain()).unwrap();
    for (name, component, _) in &crowds {
        fs::write(scene.path(&format!("guests/acme/{name}.wasm")), component).unwrap();
    }
    let gateway = scene.start();
    let plain = guest(&gateway, "plain");
    assert_eq!((&plain["state"], &plain["class"]), (&"serving".into(), &"large".into()), "{plain}");
    for (name, _, named) in &crowds {
        let guest = guest(&gateway, name);
        assert_eq!(guest["state"], "refused", "{guest}");
        let error = guest["error"].as_str().unwrap();
        assert!(error.contains("limit") || error.contains(named), "{guest}");
    }
}

#[test]
fn a_busy_machine_fails_no_decoder_that_keeps_to_its_time() {
    let scene = scene("[guests]\nthreads = 2\n");
    scene.guest("acme", "hostile", "hostile");
    let gateway = scene.start();
    // The decode threads get a small part of the time that passes by the clock.
    let busy = Arc::new(AtomicBool::new(true));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let others: Vec<_> = (0..6 * cores)
        .map(|_| {
            let busy = busy.clone();
            std::thread::spawn(move || while busy.load(Ordering::Relaxed) {})
        })
        .collect();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 0..30 {
        let payload =
            format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","do":"burn","seq":{seq}}}"#);
        device.publish("tenant/acme/device/dev-1/hostile", payload.as_bytes()).unwrap();
    }
    busy.store(false, Ordering::Relaxed);
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(gateway.book("acme", "messages", "lines"), 30, "{}", reasons(&gateway));
    gateway.assert_balanced();
}
