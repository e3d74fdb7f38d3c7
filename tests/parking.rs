//! Messages of unknown devices while the registry is down: durable, acknowledged, and
//! admitted once it is back, whatever happens in between.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rumqttc::QoS;
use serde_json::{Value, json};
use tidegate_simulator::Device;

use crate::durability::message;
use crate::end_to_end::topic;
use crate::harness::faults::Faults;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::registry::{configure, publish, register, scene, sequences};

/// Sends at QoS 1 and waits for every PUBACK.
fn publish_all(scene: &GatewayDir, device: &str, seqs: std::ops::Range<u64>) {
    let mut client = Device::connect(&scene.listener, device).unwrap();
    client.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let topic = topic("acme", device, "telemetry");
    let payloads: Vec<_> = seqs.map(|seq| message(device, seq)).collect();
    let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_slice()));
    assert_eq!(client.publish_all(messages, 100).unwrap(), payloads.len() as u64);
}

fn parked(gateway: &Gateway<'_>) -> u64 {
    gateway.book("acme", "messages", "parked")
}

/// Waits until every parked message is a line.
fn wait_taken_up(gateway: &Gateway<'_>) {
    gateway.wait_for(Duration::from_secs(90), "taken up", |gateway| {
        gateway.assert_balanced();
        parked(gateway) == 0
            && gateway.book("acme", "messages", "in_flight") == 0
            && gateway.book("acme", "lines", "pending") == 0
    });
}

/// Asserts that all messages of a device are there, in order but for repeated ones.
fn assert_all_in_order(scene: &GatewayDir, device: &str, all: u64) {
    let mut seen = BTreeSet::new();
    let came = sequences(scene, device);
    let first: Vec<u64> = came.iter().copied().filter(|seq| seen.insert(*seq)).collect();
    assert_eq!(first, (0..all).collect::<Vec<_>>(), "{device}: {came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_messages_hold_up_nobody_and_outlive_two_kills() {
    const DEVICES: u64 = 30;
    const EACH: u64 = 200;
    let (mut postgres, scene) = scene().await;
    let names: Vec<String> = (0..DEVICES).map(|n| format!("cold-{n}")).collect();
    for name in names.iter().map(String::as_str).chain(["known"]) {
        register(&postgres, "acme", name).await;
    }
    let broker = Mosquitto::start_in_memory();
    scene.configure_broker(
        &broker.url(),
        &format!(
            "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n[registry]\nkind = \"postgres\"\n\
             url = \"{}\"\nsettings_poll_s = 1\nquery_timeout_ms = 1000\n",
            postgres.url()
        ),
    );
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    let mut send = |device: &str, seq: u64, qos| {
        publisher.publish(&topic("acme", device, "telemetry"), qos, false, message(device, seq));
        if qos == QoS::AtLeastOnce {
            publisher.puback();
        }
    };
    send("known", 0, QoS::AtLeastOnce);
    gateway.wait_written("acme", 1);
    postgres.stop();
    gateway.wait("down", |gateway| gateway.get("/readyz").0 == 503);
    // All through one session, and each tenth without an acknowledgement.
    for seq in 0..EACH / 2 {
        for name in &names {
            send(name, seq, if seq % 10 == 3 { QoS::AtMostOnce } else { QoS::AtLeastOnce });
        }
    }
    // It stands behind them in the order of PUBACKs.
    send("known", 1, QoS::AtLeastOnce);
    gateway.wait("the known one went on", |gateway| gateway.book("acme", "lines", "written") == 2);
    let unsettled = |gateway: &Gateway<'_>| gateway.json("/api/v1/spool")["messages_unsettled"].as_u64();
    let half = DEVICES * EACH / 2;
    gateway.wait("parked", |gateway| parked(gateway) == half && unsettled(gateway) == Some(0));
    gateway.assert_balanced();
    let status = gateway.json("/api/v1/spool");
    assert_eq!(status["parked"]["acme"]["messages"], half, "{status:#}");
    assert!(gateway.metric("tidegate_spool_parked_bytes{}").unwrap() > 0.0);
    assert_eq!(gateway.metric("tidegate_messages_parked{tenant=\"acme\"}"), Some(half as f64));
    gateway.kill();

    // Nothing of it comes again from the broker: it was acknowledged. Later messages queue behind.
    let gateway = scene.start_unready();
    assert_eq!(parked(&gateway), half);
    assert_eq!(gateway.book("acme", "messages", "received"), half, "what is found counts as received");
    for seq in EACH / 2..EACH {
        for name in &names {
            send(name, seq, QoS::AtLeastOnce);
        }
    }
    gateway.wait("parked", |gateway| parked(gateway) >= 2 * half && unsettled(gateway) == Some(0));
    assert_eq!(parked(&gateway), 2 * half);
    gateway.assert_balanced();
    gateway.kill();

    let gateway = scene.start_unready();
    assert_eq!(parked(&gateway), 2 * half);
    postgres.restart().await;
    wait_taken_up(&gateway);
    for name in &names {
        assert_all_in_order(&scene, name, EACH);
    }
    assert_eq!(gateway.book("acme", "messages", "lines"), 2 * half);
    // And new ones go straight through.
    send("cold-0", EACH, QoS::AtLeastOnce);
    gateway.wait("written", |gateway| gateway.book("acme", "messages", "lines") == 2 * half + 1);
    assert_eq!(gateway.json("/api/v1/spool")["parked"], json!({}));
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_what_is_parked_and_the_verbs_show_it() {
    let (mut postgres, scene) = scene().await;
    register(&postgres, "acme", "cold").await;
    configure(&scene, &postgres, "");
    postgres.stop();
    let gateway = scene.start_unready();
    publish_all(&scene, "cold", 0..500);
    assert_eq!(parked(&gateway), 500);
    let (_, top, _) = scene.verb(&["top"], "");
    assert!(top.contains("500 messages are parked"), "{top}");
    assert_eq!(gateway.stop().code(), Some(0), "{}", scene.log());
    let (status, listing, errors) = scene.verb(&["spool"], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(listing.contains("acme: 500 messages are parked"), "{listing}");
    let (status, books, _) = scene.verb(&["books", "--json"], "");
    assert_eq!(status.code(), Some(0));
    let books: Value = serde_json::from_str(&books).unwrap();
    assert_eq!(books["tenants"]["acme"]["messages"]["parked"], 500, "{books:#}");
    postgres.restart().await;
    let gateway = scene.start();
    wait_taken_up(&gateway);
    assert_all_in_order(&scene, "cold", 500);
    // Another registry unparks the messages of this one.
    postgres.stop();
    gateway.wait("down", |gateway| gateway.get("/readyz").0 == 503);
    publish_all(&scene, "late", 0..10);
    assert_eq!(gateway.stop().code(), Some(0));
    scene.configure("[output]\nkind = \"file\"\n");
    let gateway = scene.start();
    gateway.wait("taken up", |gateway| parked(gateway) == 0);
    gateway.wait("refused", |gateway| {
        gateway.json("/api/v1/quarantine")["refused_since_start"]["UNREGISTERED_DEVICE"] == 10
    });
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_they_are_taken_up_costs_none() {
    const EACH: u64 = 1_500;
    let (mut postgres, scene) = scene().await;
    let names = ["cold-a", "cold-b"];
    for name in names {
        register(&postgres, "acme", name).await;
    }
    let faults = Faults::on(&scene);
    postgres.stop();
    let gateway = scene.start_unready_with(&faults);
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(|| publish_all(&scene, name, 0..EACH));
        }
    });
    assert_eq!(parked(&gateway), 2 * EACH);
    // Slow enough to be met on the way.
    faults.set("fdatasync SLOW");
    postgres.restart().await;
    gateway.wait("on the way", |gateway| gateway.book("acme", "messages", "lines") > 0);
    gateway.assert_balanced();
    gateway.kill();
    let gateway = scene.start_with(&faults);
    // Down again in the middle of it: messages whose look-up failed are parked again.
    gateway.wait("on the way", |gateway| gateway.book("acme", "messages", "lines") > 0);
    postgres.stop();
    gateway.kill();
    faults.set("");
    let gateway = scene.start_unready_with(&faults);
    let left = parked(&gateway);
    publish_all(&scene, "cold-a", EACH..EACH + 50);
    assert_eq!(parked(&gateway), left + 50);
    postgres.restart().await;
    wait_taken_up(&gateway);
    assert_all_in_order(&scene, "cold-a", EACH + 50);
    assert_all_in_order(&scene, "cold-b", EACH);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_comes_and_goes_keeps_their_order() {
    let (mut postgres, scene) = scene().await;
    let names: Vec<String> = (0..6).map(|n| format!("cold-{n}")).collect();
    for name in &names {
        register(&postgres, "acme", name).await;
    }
    // What is known is soon forgotten, and never believed for long.
    configure(&scene, &postgres, "cache_ttl_s = 1\nstale_max_s = 1\n");
    let gateway = scene.start();
    for round in 0..4 {
        postgres.stop();
        gateway.wait("down", |gateway| gateway.get("/readyz").0 == 503);
        std::thread::scope(|scope| {
            for name in &names {
                let scene = &scene;
                scope.spawn(move || publish_all(scene, name, 60 * round..60 * (round + 1)));
            }
        });
        postgres.restart().await;
        gateway.wait("some taken up", |gateway| gateway.book("acme", "messages", "lines") > 300 * round);
    }
    wait_taken_up(&gateway);
    for name in &names {
        assert_all_in_order(&scene, name, 240);
    }
    assert_eq!(gateway.book("acme", "messages", "lines"), 6 * 240, "none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_their_share_is_full_they_wait_unacknowledged_and_none_is_dropped() {
    let (mut postgres, scene) = scene().await;
    for name in ["known", "cold-0", "cold-1"] {
        register(&postgres, "acme", name).await;
    }
    configure(&scene, &postgres, "[spool]\ntenant_bytes_max = 65536\nwhen_full = \"drop_oldest\"\n");
    let gateway = scene.start();
    publish(&scene, "known", 0);
    postgres.stop();
    gateway.wait("down", |gateway| gateway.get("/readyz").0 == 503);
    let mut devices: Vec<Device> =
        (0..2).map(|n| Device::connect(&scene.listener, &format!("cold-{n}")).unwrap()).collect();
    for seq in 0..120 {
        for (n, device) in devices.iter_mut().enumerate() {
            let name = format!("cold-{n}");
            device.send(&topic("acme", &name, "telemetry"), &message(&name, seq)).unwrap();
        }
    }
    gateway.wait("as many as there is room for", |gateway| parked(gateway) > 60);
    std::thread::sleep(Duration::from_millis(500));
    let held = parked(&gateway);
    assert!(held < 240, "{held}");
    gateway.assert_balanced();
    // Lines of the tenant still fit into the other half of its share, though the oldest would be dropped.
    for seq in 1..100 {
        publish(&scene, "known", seq);
    }
    assert!(parked(&gateway) >= held, "none is evicted");
    postgres.restart().await;
    for device in &mut devices {
        device.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for _ in 0..120 {
            device.puback().unwrap();
        }
    }
    wait_taken_up(&gateway);
    assert_all_in_order(&scene, "cold-0", 120);
    assert_all_in_order(&scene, "cold-1", 120);
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_of_parked_messages_is_named_and_counted_and_the_rest_goes_on() {
    let (mut postgres, scene) = scene().await;
    register(&postgres, "acme", "cold").await;
    postgres.stop();
    let gateway = scene.start_unready();
    publish_all(&scene, "cold", 0..1_000);
    let damage = |times: usize| {
        let segments = fs::read_dir(scene.path("data/spool")).unwrap().map(|file| file.unwrap().path());
        let segment = segments
            .filter(|path| path.extension().is_some_and(|ending| ending == "seg"))
            .max_by_key(|path| fs::metadata(path).unwrap().len())
            .unwrap();
        let mut bytes = fs::read(&segment).unwrap();
        // In the middle of a payload, not of a header.
        let places: Vec<usize> =
            bytes.windows(7).enumerate().filter(|(_, text)| text == b"metrics").map(|(at, _)| at).collect();
        bytes[places[places.len() * times / 5]] ^= 1;
        fs::write(&segment, bytes).unwrap();
    };
    // While it runs: found out when it is read back.
    damage(1);
    postgres.restart().await;
    wait_taken_up(&gateway);
    let lost = gateway.book("acme", "messages", "dropped");
    assert!((1..=128).contains(&lost), "{lost}");
    assert_eq!(gateway.book("acme", "messages", "lines"), 1_000 - lost);
    assert!(scene.log().contains("parked messages are lost"), "{}", scene.log());
    gateway.kill();

    // While it does not: told at the start.
    postgres.stop();
    let gateway = scene.start_unready();
    let before = parked(&gateway);
    publish_all(&scene, "cold", 1_000..2_000);
    gateway.kill();
    damage(3);
    let gateway = scene.start_unready();
    let found = parked(&gateway);
    assert!((before + 872..before + 1_000).contains(&found), "{found}");
    assert!(scene.log().contains("parked messages were lost to damage of the spool"), "{}", scene.log());
    postgres.restart().await;
    wait_taken_up(&gateway);
    assert_eq!(gateway.book("acme", "messages", "lines"), found);
}
