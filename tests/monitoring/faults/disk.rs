//! A disk that fills up, fails, is slow and loses lines.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use super::traffic::{FILES, NO_RATE, Sender, configure, scene_of};
use crate::harness::fake_influxdb3::{FakeInfluxdb3, Fault};
use crate::harness::faults::Faults;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::influxdb::Influxdb;
use crate::harness::mqtt_client::MqttClient;
use crate::monitoring::shown::Check::{Above, Is};
use crate::monitoring::shown::{Shown, Watch, alert, panel};

const ACME: &[(&str, &str)] = &[("tenant", "acme")];

pub const FULL: &[Shown] = &[
    panel("overview", "Spool, part of its ceiling", "A", &[], Above(0.72)),
    panel("overview", "Messages without a result", "A", &[], Above(0.0)),
    panel("overview", "Messages without a result", "C", &[], Above(0.0)),
    panel("overview", "Dropped a second, by reason", "A", &[("reason", "OVERLOAD")], Above(0.0)),
    panel("tenant", "Messages without a result", "A", &[], Above(0.0)),
    panel("tenant", "Messages without a result", "C", &[], Above(0.0)),
    panel("tenant", "Dropped a second, by reason", "A", &[("reason", "OVERLOAD")], Above(0.0)),
    panel("tenant", "Disk by kind", "A", &[("kind", "spool")], Above(100_000.0)),
    panel("tenant", "Memory by kind", "A", &[("kind", "deferred")], Above(0.0)),
    panel("tenant", "Budgets, part in use", "A", &[("kind", "disk")], Above(0.9)),
    panel("overview", "Free on the disk", "B", &[], Is(9e18)),
    alert("TidegateSpoolNearCeiling", "warning", &[]),
    alert("TidegateSpoolNearCeiling", "critical", &[]),
    alert("TidegateShareFull", "warning", ACME),
    alert("TidegateMessagesDropped", "warning", &[("tenant", "acme"), ("reason", "OVERLOAD")]),
    alert("TidegateBudgetNear", "warning", &[("tenant", "acme"), ("kind", "disk")]),
    alert("TidegateDiskLow", "critical", &[]),
];

pub const DROPPING: &[Shown] = &[
    panel("overview", "Lines dropped for room", "A", &[], Above(0.0)),
    panel("tenant", "Lines lost", "B", &[], Above(0.0)),
    alert("TidegateLinesDropped", "warning", ACME),
];

pub const FAILING: &[Shown] = &[
    panel("overview", "Ready", "A", &[], Is(0.0)),
    panel("overview", "Parts that are ready", "A", &[("part", "spool")], Is(0.0)),
    alert("TidegateNotReady", "critical", &[("part", "spool")]),
    alert("TidegateStalled", "critical", &[]),
];

pub const SLOW: &[Shown] = &[
    panel("overview", "Time from receipt to PUBACK", "B", &[], Above(1.0)),
    alert("TidegateAckSlow", "warning", &[]),
];

pub const PASSED_OVER: &[Shown] =
    &[panel("decoders", "Repeated messages that were passed over", "A", &[], Above(0.0))];

pub const UNSET_CLOCK: &[Shown] = &[
    panel("overview", "Parts that need a look", "A", &[("part", "clock")], Is(1.0)),
    alert("TidegateClockUnset", "critical", &[]),
];

pub const UNREADABLE: &[Shown] = &[
    panel("overview", "Files that cannot be read", "A", &[], Above(0.0)),
    alert("TidegateLinesUnreadable", "critical", &[]),
];

pub const DAMAGED: &[Shown] = &[
    panel("overview", "Lines lost by the disk", "A", &[], Above(0.0)),
    panel("tenant", "Lines lost", "A", &[], Above(0.0)),
    alert("TidegateLinesDamaged", "critical", ACME),
];

/// An output at which nobody answers.
fn to_nobody() -> String {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("[output]\nkind = \"influxdb1\"\nurl = \"http://{nobody}\"\n")
}

/// Publishes until messages of acme wait for room. Nobody waits for their PUBACKs.
fn fill(gateway: &Gateway<'_>, sender: &mut Sender) {
    let waiting = || gateway.json("/api/v1/spool")["waiting_messages"]["acme"].as_u64().unwrap_or(0);
    let mut next = 0_u16;
    while waiting() == 0 {
        for _ in 0..100 {
            next = next.checked_add(1).unwrap_or(1);
            let packet = sender.packet(Some(next));
            sender.device.stream.write_all(&packet).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_full_spool_a_full_share_and_a_disk_below_its_reserve_are_seen() {
    // One tenant waits for room, and one loses its oldest lines.
    let (mut waiting, mut dropping) = (scene_of(&["acme"]), scene_of(&["acme"]));
    let spool = "bytes_max = 1400000\ntenant_bytes_max = 1040000\nreserve_bytes = 9000000000000000000\n";
    let share = "[budget]\ntenant_disk_bytes_max = 1048576\n";
    configure(&mut waiting, &format!("{}{NO_RATE}[spool]\n{spool}{share}", to_nobody()));
    let spool = "tenant_bytes_max = 65536\nwhen_full = \"drop_oldest\"\n";
    configure(&mut dropping, &format!("{}{NO_RATE}[spool]\n{spool}", to_nobody()));
    let gateways = [waiting.start(), dropping.start()];
    let watch = Watch::on(&[&waiting.admin, &dropping.admin]).await;
    let mut sender = Sender::of(&waiting, "acme");
    let mut reading = sender.device.stream.try_clone().unwrap();
    std::thread::spawn(
        move || while std::io::Read::read(&mut reading, &mut [0; 4096]).is_ok_and(|n| n > 0) {},
    );
    fill(&gateways[0], &mut sender);
    let mut unsure = Sender::named(&waiting, "acme", "at-qos-0");
    watch
        .sees(&waiting.admin, FULL, || {
            // At QoS 0 nobody sends it again.
            let packets: Vec<u8> = (0..5).flat_map(|_| unsure.packet(None)).collect();
            let _ = unsure.device.stream.write_all(&packets);
        })
        .await;
    let mut sender = Sender::of(&dropping, "acme");
    watch.sees(&dropping.admin, DROPPING, || sender.publish(50)).await;
    gateways.iter().for_each(|gateway| gateway.assert_balanced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_disk_that_fails_one_that_is_slow_and_a_clock_that_was_never_set_are_seen() {
    let mut scene = scene_of(&["acme"]);
    scene.guest("acme", "meter", "counter");
    configure(&mut scene, &format!("{FILES}{NO_RATE}"));
    let faults = Faults::on(&scene);
    let gateway = scene.start_with(&faults);
    let watch = Watch::on(&[&scene.admin]).await;
    let mut sender = Sender::of(&scene, "acme");
    sender.publish(5);
    faults.set("fdatasync EIO");
    let packet = sender.packet(Some(1));
    sender.device.stream.write_all(&packet).unwrap();
    watch.sees(&scene.admin, FAILING, || ()).await;
    faults.set("");
    assert_eq!(sender.device.puback().unwrap(), 1);
    for name in ["TidegateNotReady", "TidegateStalled"] {
        watch.no_longer(&scene.admin, name, || sender.publish(1)).await;
    }
    watch
        .sees(&scene.admin, SLOW, || {
            faults.set("fdatasync EIO");
            let packet = sender.packet(Some(1));
            sender.device.stream.write_all(&packet).unwrap();
            // That long the message waits at least.
            std::thread::sleep(Duration::from_millis(2_500));
            faults.set("");
            assert_eq!(sender.device.puback().unwrap(), 1);
        })
        .await;
    let mut packet_id = 0;
    watch.sees(&scene.admin, PASSED_OVER, || send_again(&scene, &faults, &gateway, &mut packet_id)).await;
    faults.step_clock(-40 * 365 * 86_400);
    watch.sees(&scene.admin, UNSET_CLOCK, || ()).await;
    faults.step_clock(0);
    watch.no_longer(&scene.admin, "TidegateClockUnset", || ()).await;
    gateway.assert_balanced();
}

/// A message of a decoder with state is decoded, its connection is lost before it is durable, and it comes again.
fn send_again(scene: &GatewayDir, faults: &Faults, gateway: &Gateway<'_>, packet_id: &mut u16) {
    use rumqttc::QoS;
    use rumqttc::mqttbytes::v4::{Packet, Publish};
    *packet_id += 1;
    let connect = || {
        let mut client = MqttClient::open(scene.listener.parse().unwrap());
        client.greet("meter", false, 60, None).unwrap();
        client
    };
    let payload =
        format!(r#"{{"site_id":"lab-1","provision_token":"tok-of-acme","count":{packet_id},"do":"naive"}}"#);
    let mut publish = Publish::new("tenant/acme/device/of-acme/meter", QoS::AtLeastOnce, payload);
    publish.pkid = *packet_id;
    let messages = || gateway.json("/api/v1/guests/acme")["guests"][0]["messages"].as_u64().unwrap();
    let before = messages();
    faults.set("fdatasync EIO");
    let mut client = connect();
    client.send(&Packet::Publish(publish.clone())).unwrap();
    gateway.wait("decoded", |_| messages() > before);
    let received = gateway.book("acme", "messages", "received");
    drop(client);
    let mut client = connect();
    publish.dup = true;
    client.send(&Packet::Publish(publish)).unwrap();
    gateway.wait("received again", |gateway| gateway.book("acme", "messages", "received") > received);
    faults.set("");
    assert_eq!(client.puback(), *packet_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn lines_that_the_disk_does_not_give_back_and_lines_that_it_has_lost_are_seen() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let away = || Some(Fault::Status { status: 503, retry_after: None, body: "away" });
    front.fail_database("telemetry_acme", away());
    let mut scene = scene_of(&["acme"]);
    let output =
        format!("[output]\nkind = \"influxdb3\"\nurl = \"{}\"\nflush_interval_ms = 50\n", front.url());
    let spool = "[spool]\nbytes_max = 4194304\ntenant_bytes_max = 4194304\nmemory_bytes_max = 400000\n";
    configure(&mut scene, &format!("{output}{NO_RATE}{spool}"));
    let faults = Faults::on(&scene);
    let gateway = scene.start_with(&faults);
    let watch = Watch::on(&[&scene.admin]).await;
    Sender::of(&scene, "acme").publish(8_000);
    faults.set("pread EIO");
    front.fail_database("telemetry_acme", None);
    watch.sees(&scene.admin, UNREADABLE, || ()).await;
    front.fail_database("telemetry_acme", away());
    faults.set("");
    watch.no_longer(&scene.admin, "TidegateLinesUnreadable", || ()).await;

    Sender::of(&scene, "acme").publish(4_000);
    // Prometheus has seen that nothing was lost yet.
    watch.sees(&scene.admin, &[panel("overview", "Lines lost by the disk", "A", &[], Is(0.0))], || ()).await;
    assert!(gateway.stop().success());
    let mut segments: Vec<PathBuf> =
        fs::read_dir(scene.path("data/spool")).unwrap().map(|file| file.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    segments.sort();
    let missing = &segments[segments.len() / 2];
    let elsewhere = scene.path("elsewhere");
    fs::rename(missing, &elsewhere).unwrap();
    let gateway = scene.start_with(&faults);
    watch.sees(&scene.admin, DAMAGED, || ()).await;
    // The runbook says: put it back, and start again.
    assert!(gateway.stop().success());
    fs::rename(&elsewhere, missing).unwrap();
    let gateway = scene.start_with(&faults);
    watch.no_longer(&scene.admin, "TidegateLinesDamaged", || ()).await;
    gateway.assert_balanced();
}
