//! Tenants that fall silent, and devices that the registry cannot be asked about.

use super::traffic::{FILES, NO_RATE, Sender, configure, scene_of};
use crate::harness::gateway::GatewayDir;
use crate::monitoring::shown::Check::{Above, Is};
use crate::monitoring::shown::{Shown, TOKEN, Watch, alert, panel};
use crate::registry;

pub const SILENT: &[Shown] = &[
    panel("tenant", "Messages a second", "A", &[], Is(0.0)),
    alert("TidegateTenantSilent", "warning", &[("tenant", "acme")]),
];

pub const REGISTRY_ASKED: &[Shown] = &[
    panel("overview", "Registry in PostgreSQL", "A", &[], Above(0.0)),
    panel("overview", "Registry in PostgreSQL", "B", &[], Above(0.0)),
    panel("overview", "Registry in PostgreSQL", "C", &[], Is(0.0)),
    panel("overview", "Parked messages on disk", "A", &[], Is(0.0)),
];

pub const REGISTRY_AWAY: &[Shown] = &[
    panel("overview", "Parts that are ready", "A", &[("part", "registry")], Is(0.0)),
    panel("overview", "Parked messages on disk", "A", &[], Above(0.0)),
    panel("overview", "Messages without a result", "B", &[], Above(0.0)),
    panel("tenant", "Messages without a result", "B", &[], Above(0.0)),
    panel("tenant", "Disk by kind", "A", &[("kind", "parked")], Above(0.0)),
    alert("TidegateNotReady", "critical", &[("part", "registry")]),
    alert("TidegateMessagesParked", "warning", &[("tenant", "acme")]),
];

pub const STALE: &[Shown] = &[
    panel("overview", "Parts that need a look", "A", &[("part", "registry")], Is(1.0)),
    alert("TidegateRegistryStale", "warning", &[]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_tenant_that_falls_silent_is_seen_and_its_neighbour_that_goes_on_is_not() {
    let mut scene = scene_of(&["acme", "globex"]);
    configure(&mut scene, &format!("{FILES}{NO_RATE}"));
    let _gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;
    let (mut acme, mut globex) = (Sender::of(&scene, "acme"), Sender::of(&scene, "globex"));
    let had = [panel("tenant", "Messages a second", "A", &[], Above(0.0))];
    watch.sees(&scene.admin, &had, || (acme.publish(20), globex.publish(20)).0).await;
    watch.sees(&scene.admin, SILENT, || globex.publish(1)).await;
    let alerts = watch.prometheus.alerts().await;
    assert!(!alerts.iter().any(|one| one["labels"]["tenant"] == "globex"), "{alerts:?}");
    watch.no_longer(&scene.admin, "TidegateTenantSilent", || (acme.publish(1), globex.publish(1)).0).await;
    // A registry file that cannot be read.
    let devices = std::fs::read(scene.path("devices.csv")).unwrap();
    std::fs::write(scene.path("devices.csv"), "no,such,columns\n").unwrap();
    watch.sees(&scene.admin, STALE, || acme.publish(1)).await;
    std::fs::write(scene.path("devices.csv"), devices).unwrap();
    watch.no_longer(&scene.admin, "TidegateRegistryStale", || acme.publish(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_registry_that_is_away_and_the_messages_that_wait_for_it_are_seen() {
    let (mut postgres, mut scene) = registry::scene().await;
    registry::configure(&scene, &postgres, "auto_provision = true\n");
    scene.set_token(TOKEN);
    registry::register(&postgres, "acme", "known").await;
    let gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;
    registry::publish(&scene, "known", 1);
    let mut next = 0;
    let mut publish_new = |scene: &GatewayDir| {
        next += 1;
        registry::publish(scene, &format!("new-{next}"), 1);
    };
    watch.sees(&scene.admin, REGISTRY_ASKED, || publish_new(&scene)).await;
    postgres.stop();
    watch.sees(&scene.admin, REGISTRY_AWAY, || publish_new(&scene)).await;
    postgres.restart().await;
    for name in ["TidegateNotReady", "TidegateMessagesParked"] {
        watch.no_longer(&scene.admin, name, || ()).await;
    }
    gateway.assert_balanced();
}
