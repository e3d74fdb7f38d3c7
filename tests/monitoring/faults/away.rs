//! Gateways that are away, start again and again, turn devices away, and have certificates that end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use tidegate_simulator::Device;

use super::traffic::{FILES, NO_RATE, configure, scene_of};
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::mosquitto::Mosquitto;
use crate::monitoring::shown::Check::{Above, Below, Is};
use crate::monitoring::shown::{Shown, TOKEN, Watch, alert, panel};

pub const BROKER_AWAY: &[Shown] = &[
    panel("overview", "Sources", "A", &[("source", "broker")], Is(0.0)),
    panel("overview", "Ready", "A", &[], Is(0.0)),
    alert("TidegateNotReady", "critical", &[("part", "source")]),
];

pub const CROWDED: &[Shown] = &[
    panel("overview", "Connections of devices", "A", &[], Is(10.0)),
    panel("overview", "Connections of devices", "B", &[], Is(10.0)),
    panel("overview", "Connections that ended, by reason", "A", &[("reason", "connections_max")], Above(0.0)),
    alert("TidegateConnectionsNearCeiling", "warning", &[]),
];

pub const STARTED_AGAIN: &[Shown] =
    &[panel("overview", "Running for", "A", &[], Above(0.0)), alert("TidegateRestarts", "warning", &[])];

pub const DOWN: &[Shown] =
    &[panel("overview", "Answers", "A", &[], Is(0.0)), alert("TidegateDown", "critical", &[])];

pub const ABSENT: &[Shown] = &[alert("TidegateAbsent", "critical", &[])];

pub const CERTIFICATES: &[Shown] = &[
    panel("overview", "Certificates end in", "A", &[("key", "listen.tls_cert_file")], Above(0.0)),
    panel("overview", "Certificates end in", "A", &[("key", "listen.tls_cert_file")], Below(2.0 * 86_400.0)),
    alert("TidegateCertificateExpires", "warning", &[("key", "listen.tls_cert_file")]),
    alert("TidegateCertificateExpires", "critical", &[("key", "listen.tls_cert_file")]),
];

/// The start of the process as it tells it.
fn started(gateway: &Gateway<'_>) -> f64 {
    gateway.metric("process_start_time_seconds{}").unwrap()
}

/// Writes a certificate of the listener that is valid for so many days.
fn certify(scene: &GatewayDir, days: u64) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.not_after = (SystemTime::now() + Duration::from_secs(days * 86_400)).into();
    std::fs::write(scene.path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(scene.path("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_gateway_that_is_crowded_starts_again_and_again_or_does_not_answer_is_seen() {
    let mut scene = scene_of(&["acme"]);
    configure(&mut scene, &format!("connections_max = 10\n{FILES}{NO_RATE}"));
    let mut gateway = scene.start();
    let mut watch = Watch::on(&[&scene.admin]).await;
    let connect = |name: &str| Device::connect(&scene.listener, name);
    let connections: Vec<Device> = (0..10).map(|n| connect(&format!("one-{n}")).unwrap()).collect();
    let one_more = || drop(connect("one-more"));
    watch.sees(&scene.admin, CROWDED, one_more).await;
    drop(connections);
    for _ in 0..3 {
        let began = started(&gateway);
        gateway.kill();
        // A start is told by its second.
        while SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() < began + 1.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gateway = scene.start();
        let own = started(&gateway);
        while watch.prometheus.query("process_start_time_seconds").await.first().map(|one| one.value)
            != Some(own)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    watch.sees(&scene.admin, STARTED_AGAIN, || ()).await;
    gateway.kill();
    watch.sees(&scene.admin, DOWN, || ()).await;
    watch.prometheus.restart(&[]).await;
    watch.sees(&scene.admin, ABSENT, || ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_broker_that_is_away_is_seen_until_it_is_back() {
    let mut broker = Mosquitto::start_in_memory();
    let mut scene = scene_of(&["acme"]);
    scene.configure_both(&broker.url(), &format!("{FILES}{NO_RATE}"));
    scene.set_token(TOKEN);
    let _gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;
    let well = [panel("overview", "Sources", "A", &[("source", "broker")], Is(1.0))];
    watch.sees(&scene.admin, &well, || ()).await;
    broker.kill();
    watch.sees(&scene.admin, BROKER_AWAY, || ()).await;
    broker.restart();
    watch.no_longer(&scene.admin, "TidegateNotReady", || ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_certificate_near_its_end_is_seen_until_a_new_one_is_there() {
    let mut scene = scene_of(&["acme"]);
    certify(&scene, 1);
    let tls = "tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n";
    scene.configure(&format!("{tls}{FILES}{NO_RATE}"));
    scene.set_token(TOKEN);
    let _gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;
    watch.sees(&scene.admin, CERTIFICATES, || ()).await;
    certify(&scene, 90);
    watch.no_longer(&scene.admin, "TidegateCertificateExpires", || ()).await;
}
