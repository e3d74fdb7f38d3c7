//! Decoders that do not serve as their files say.

use std::fs;

use super::traffic::{FILES, NO_RATE, Sender, configure, scene_of};
use crate::harness::gateway::{GatewayDir, built_guest};
use crate::monitoring::shown::Check::{Above, Is};
use crate::monitoring::shown::{Shown, Watch, alert, panel};

const STEPS: &[(&str, &str)] = &[("tenant", "acme"), ("type", "steps")];
const METER: &[(&str, &str)] = &[("tenant", "acme"), ("type", "meter")];
const GARBAGE: &[(&str, &str)] = &[("tenant", "acme"), ("type", "garbage")];

pub const PROBATION: &[Shown] = &[
    panel("decoders", "Decoders by state", "A", &[("state", "probation")], Is(1.0)),
    panel("decoders", "States over time", "A", STEPS, Is(1.0)),
];

pub const SHOWN: &[Shown] = &[
    panel("overview", "Decoders not serving", "A", &[], Is(3.0)),
    panel("tenant", "States", "A", &[("type", "steps")], Is(4.0)),
    panel("decoders", "Decoders by state", "A", &[("state", "rolled_back")], Is(1.0)),
    panel("decoders", "Decoders by state", "A", &[("state", "refused")], Is(1.0)),
    panel("decoders", "Decoders by state", "A", &[("state", "missing")], Is(1.0)),
    panel("decoders", "Not serving as their files say", "A", STEPS, Is(4.0)),
    panel("decoders", "Not serving as their files say", "A", METER, Is(3.0)),
    panel("decoders", "Not serving as their files say", "A", GARBAGE, Is(5.0)),
    panel("decoders", "States over time", "A", GARBAGE, Is(5.0)),
    panel(
        "decoders",
        "Changes since the start",
        "A",
        &[("type", "steps"), ("outcome", "rolled_back")],
        Is(1.0),
    ),
    panel("decoders", "Changes since the start", "A", &[("type", "meter"), ("outcome", "refused")], Is(1.0)),
    panel("decoders", "State that decoders keep", "A", &[], Above(0.0)),
    alert("TidegateDecoderRolledBack", "warning", STEPS),
    alert("TidegateDecoderRefused", "warning", METER),
    alert("TidegateDecoderMissing", "critical", GARBAGE),
];

/// Renames a file into its place, as an operator does.
fn place(scene: &GatewayDir, name: &str, bytes: &[u8]) {
    let place = scene.path("guests/acme").join(format!("{name}.wasm"));
    fs::write(place.with_file_name(".staged"), bytes).unwrap();
    fs::rename(place.with_file_name(".staged"), place).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_decoder_on_probation_rolled_back_refused_and_missing_is_seen_until_a_good_one_serves() {
    let mut scene = scene_of(&["acme"]);
    scene.guest("acme", "steps", "steady");
    scene.guest("acme", "meter", "counter");
    configure(&mut scene, &format!("{FILES}{NO_RATE}"));
    let gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;
    let mut sender = Sender::of(&scene, "acme");
    let payload =
        |more: &str| format!(r#"{{"site_id":"lab-1","provision_token":"tok-of-acme","seq":1{more}}}"#);
    sender.publish_as("steps", &payload(""), 1);
    sender.publish_as("meter", &payload(",\"count\":5"), 1);

    place(&scene, "steps", &fs::read(built_guest("strict")).unwrap());
    watch.sees(&scene.admin, PROBATION, || ()).await;
    // It cannot stand these, and the version before can.
    sender.publish_as("steps", &payload(",\"extra\":\"trap\""), 40);
    place(&scene, "meter", b"no component");
    place(&scene, "garbage", b"no component");
    watch.sees(&scene.admin, SHOWN, || sender.publish(1)).await;

    place(&scene, "steps", &fs::read(built_guest("steady")).unwrap());
    place(&scene, "meter", &fs::read(built_guest("counter")).unwrap());
    fs::remove_file(scene.path("guests/acme/garbage.wasm")).unwrap();
    for name in ["TidegateDecoderRolledBack", "TidegateDecoderRefused", "TidegateDecoderMissing"] {
        watch.no_longer(&scene.admin, name, || ()).await;
    }
    gateway.assert_balanced();
}
