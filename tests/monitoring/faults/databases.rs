//! Databases that do not take their lines.

use super::traffic::{NO_RATE, Sender, configure, scene_of};
use crate::harness::influxdb::Influxdb;
use crate::monitoring::shown::Check::{Above, Is};
use crate::monitoring::shown::{Shown, Watch, alert, panel};

const DATABASE: &[(&str, &str)] = &[("database", "telemetry_acme")];
const ACME: &[(&str, &str)] = &[("tenant", "acme")];

pub const AWAY: &[Shown] = &[
    panel("overview", "Databases not well", "A", &[], Is(1.0)),
    panel("overview", "Oldest line", "A", &[], Above(1.0)),
    panel("overview", "Parts that need a look", "A", &[("part", "output")], Is(1.0)),
    panel("overview", "Backlog", "A", ACME, Above(0.0)),
    panel("overview", "Age of the oldest line", "A", ACME, Above(1.0)),
    panel("overview", "States of databases", "A", DATABASE, Is(1.0)),
    panel("overview", "POSTs a second, by outcome", "A", &[("outcome", "failed")], Above(0.0)),
    panel("tenant", "Backlog", "A", &[], Above(0.0)),
    panel("tenant", "Age of the oldest line", "A", &[], Above(1.0)),
    alert("TidegateDatabaseAway", "warning", DATABASE),
    alert("TidegateBacklogOld", "warning", ACME),
    alert("TidegateBacklogOld", "critical", ACME),
];

pub const PAUSED: &[Shown] = &[
    panel("overview", "States of databases", "A", DATABASE, Is(2.0)),
    panel("overview", "Firing alerts", "A", &[("alertname", "TidegateDatabasePaused")], Is(1.0)),
    alert("TidegateDatabasePaused", "critical", DATABASE),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_database_that_is_away_and_one_that_is_missing_are_seen_until_they_are_back() {
    let mut influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let mut scene = scene_of(&["acme"]);
    let output =
        format!("[output]\nkind = \"influxdb1\"\nurl = \"{}\"\nflush_interval_ms = 50\n", influxdb.url());
    configure(&mut scene, &format!("{output}{NO_RATE}"));
    let gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;
    let mut sender = Sender::of(&scene, "acme");
    sender.publish(5);
    gateway.wait_written("acme", 5);
    influxdb.kill();
    watch.sees(&scene.admin, AWAY, || sender.publish(5)).await;
    // It comes back, and its data does not.
    influxdb.restart().await;
    influxdb.ask("", "DROP DATABASE \"telemetry_acme\"").await;
    watch.sees(&scene.admin, PAUSED, || sender.publish(5)).await;
    influxdb.create("telemetry_acme").await;
    let (status, _, errors) = scene.verb(&["spool", "retry", "telemetry_acme"], "");
    assert!(status.success(), "{errors}");
    for name in ["TidegateDatabasePaused", "TidegateDatabaseAway", "TidegateBacklogOld"] {
        watch.no_longer(&scene.admin, name, || ()).await;
    }
    gateway.assert_balanced();
}
