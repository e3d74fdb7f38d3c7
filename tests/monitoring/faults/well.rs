//! A gateway in order: each panel shows its work, and no alert fires.

use super::traffic::{NO_RATE, Sender, scene_of};
use crate::harness::gateway::Gateway;
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::monitoring::boards::variables;
use crate::monitoring::shown::Check::{Above, Below, Is};
use crate::monitoring::shown::{Shown, TOKEN, Watch, panel};

/// Alerts about times, which a busy machine of tests stretches.
const TIMES: [&str; 4] = ["TidegateAckSlow", "TidegateStalled", "TidegateBacklogOld", "TidegateDown"];

const ACME: &[(&str, &str)] = &[("tenant", "acme")];

pub const SHOWN: &[Shown] = &[
    panel("overview", "Ready", "A", &[], Is(1.0)),
    panel("overview", "Answers", "A", &[], Is(1.0)),
    panel("overview", "Books", "A", &[], Is(0.0)),
    panel("overview", "Databases not well", "A", &[], Is(0.0)),
    panel("overview", "Decoders not serving", "A", &[], Is(0.0)),
    panel("overview", "Oldest line", "A", &[], Is(0.0)),
    panel("overview", "Parts that are ready", "A", &[("part", "source")], Is(1.0)),
    panel("overview", "Parts that are ready", "A", &[("part", "output")], Is(1.0)),
    panel("overview", "Parts that need a look", "A", &[("part", "spool")], Is(0.0)),
    panel("overview", "Messages a second", "A", &[], Above(0.0)),
    panel("overview", "Results a second", "A", &[("outcome", "lines")], Above(0.0)),
    panel("overview", "Dropped a second, by reason", "A", &[("reason", "OVERLOAD")], Is(0.0)),
    panel("overview", "Time from receipt to PUBACK", "A", &[], Above(0.0)),
    panel("overview", "Time from receipt to PUBACK", "B", &[], Above(0.0)),
    panel("overview", "Messages without a result", "A", &[], Above(-1.0)),
    panel("overview", "Messages without a result", "B", &[], Is(0.0)),
    panel("overview", "Messages without a result", "C", &[], Is(0.0)),
    panel("overview", "Largest tenants", "A", &[("tenant", "globex")], Above(0.0)),
    panel("overview", "Lines a second", "A", &[], Above(0.0)),
    panel("overview", "Lines a second", "B", &[], Above(0.0)),
    panel("overview", "Lines a second", "C", &[], Is(0.0)),
    panel("overview", "States of databases", "A", &[("database", "telemetry_acme")], Is(0.0)),
    panel("overview", "POSTs a second, by outcome", "A", &[("outcome", "accepted")], Above(0.0)),
    panel("overview", "Duration of POSTs", "A", &[], Above(0.0)),
    panel("overview", "Duration of POSTs", "B", &[], Above(0.0)),
    panel("overview", "Wait for a full batch", "A", &[], Above(0.0)),
    panel("overview", "Spool, part of its ceiling", "A", &[], Below(0.1)),
    panel("overview", "Free on the disk", "A", &[], Above(1e6)),
    panel("overview", "Free on the disk", "B", &[], Is(67_108_864.0)),
    panel("overview", "Quarantine, parts of their ceilings", "A", &[("kind", "proven")], Is(0.0)),
    panel("overview", "Messages for one fsync", "A", &[], Above(0.0)),
    panel("overview", "Messages for one fsync", "B", &[], Above(0.0)),
    panel("overview", "Lines lost by the disk", "A", &[], Is(0.0)),
    panel("overview", "Files that cannot be read", "A", &[], Is(0.0)),
    panel("overview", "Lines dropped for room", "A", &[], Is(0.0)),
    panel("overview", "Sources", "A", &[("source", "broker")], Is(1.0)),
    panel("overview", "Sources", "A", &[("source", "listener")], Is(1.0)),
    panel("overview", "Connections of devices", "A", &[], Is(2.0)),
    panel("overview", "Connections of devices", "B", &[], Above(2.0)),
    panel("overview", "Publishes to a topic of another device", "A", &[], Is(0.0)),
    panel("overview", "Look-ups of devices, by result", "A", &[("result", "hit")], Above(0.0)),
    panel("overview", "Devices in the cache", "A", &[], Is(2.0)),
    panel("overview", "CPU", "A", &[], Above(0.0)),
    panel("overview", "Memory", "A", &[], Above(1e6)),
    panel("overview", "Memory", "B", &[("of", "used")], Above(0.0)),
    panel("overview", "Memory", "B", &[("of", "max")], Above(1e6)),
    panel("overview", "Log lines dropped", "A", &[], Is(0.0)),
    panel("overview", "Running for", "A", &[], Above(0.0)),
    panel("overview", "Running for", "A", &[], Below(3_600.0)),
    panel("overview", "Versions", "A", &[("version", env!("CARGO_PKG_VERSION"))], Is(1.0)),
    panel("tenant", "Messages a second", "A", &[], Above(0.0)),
    panel("tenant", "Results a second", "A", &[("outcome", "lines")], Above(0.0)),
    panel("tenant", "Part that is refused", "A", &[], Is(0.0)),
    panel("tenant", "Dropped a second, by reason", "A", &[("reason", "OVERLOAD")], Is(0.0)),
    panel("tenant", "Messages without a result", "A", &[], Above(-1.0)),
    panel("tenant", "Messages without a result", "B", &[], Is(0.0)),
    panel("tenant", "Messages without a result", "C", &[], Is(0.0)),
    panel("tenant", "Quarantine", "A", &[], Is(0.0)),
    panel("tenant", "Entries that left quarantine", "A", &[("outcome", "expired")], Is(0.0)),
    panel("tenant", "Lines a second", "A", &[], Above(0.0)),
    panel("tenant", "Lines a second", "B", &[], Above(0.0)),
    panel("tenant", "Age of the oldest line", "A", &[], Is(0.0)),
    panel("tenant", "POSTs a second, by outcome", "A", &[("outcome", "accepted")], Above(0.0)),
    panel("tenant", "Lines lost", "A", &[], Is(0.0)),
    panel("tenant", "Lines lost", "B", &[], Is(0.0)),
    panel("tenant", "Budgets, part in use", "A", &[("kind", "memory")], Above(0.0)),
    panel("tenant", "Budgets, part in use", "A", &[("kind", "memory")], Below(0.5)),
    panel("tenant", "Memory by kind", "A", &[("kind", "instances")], Above(0.0)),
    panel("tenant", "Disk by kind", "A", &[("kind", "guests")], Above(0.0)),
    panel("tenant", "States", "A", &[("type", "telemetry")], Is(0.0)),
    panel("tenant", "CPU of its decoders", "A", &[("type", "telemetry")], Above(0.0)),
    panel("decoders", "Decoders by state", "A", &[("state", "serving")], Is(3.0)),
    panel("decoders", "States over time", "A", ACME, Is(0.0)),
    panel("decoders", "Messages a second", "A", ACME, Above(0.0)),
    panel("decoders", "Part that fails", "A", ACME, Is(0.0)),
    panel("decoders", "CPU by decoder", "A", ACME, Above(0.0)),
    panel("decoders", "CPU a message", "A", ACME, Above(0.0)),
    panel("decoders", "State that decoders keep", "A", &[], Is(0.0)),
    panel("decoders", "Memory of instances", "A", ACME, Above(0.0)),
    panel("decoders", "Repeated messages that were passed over", "A", &[], Is(0.0)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_panel_shows_the_work_of_a_gateway_in_order_and_no_alert_fires() {
    let (influxdb, broker) = (Influxdb::start().await, Mosquitto::start_in_memory());
    for tenant in ["acme", "globex"] {
        influxdb.create(&format!("telemetry_{tenant}")).await;
    }
    let mut scene = scene_of(&["acme", "globex"]);
    scene.guest("acme", "telemetry", "pulse");
    let output =
        format!("[output]\nkind = \"influxdb1\"\nurl = \"{}\"\nflush_interval_ms = 50\n", influxdb.url());
    scene.configure_both(&broker.url(), &format!("{output}{NO_RATE}"));
    scene.set_token(TOKEN);
    let gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;
    let mut senders = [Sender::of(&scene, "acme"), Sender::of(&scene, "globex")];
    let mut traffic = || senders.iter_mut().for_each(|sender| sender.publish(5));
    watch.sees(&scene.admin, SHOWN, &mut traffic).await;
    let mut fired = watch.fired_in(12, &mut traffic).await;
    fired.retain(|one| !TIMES.iter().any(|name| one.contains(name)));
    assert!(fired.is_empty(), "{fired:#?}");
    assert_the_variables(&watch, &scene.admin).await;
    assert_sums(&watch, &gateway, &scene.admin).await;
}

/// The variables offer the gateway, its tenants and the places of decoders.
async fn assert_the_variables(watch: &Watch, instance: &str) {
    for (board, name, query) in variables() {
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        let selector = selector.replace("$gateway", instance).replace("$tenant", ".*");
        let values = watch.prometheus.label_values(&selector, label).await;
        let expected: &[&str] = match (board, name.as_str()) {
            (_, "gateway") => &[instance],
            ("tenant", "tenant") => &["acme", "globex"],
            ("decoders", "tenant") => &["_default", "acme"],
            ("decoders", "type") => &["heartbeat", "telemetry"],
            other => panic!("{other:?} is a variable that nothing is known of"),
        };
        assert_eq!(values, expected, "{board}: ${name}");
    }
}

/// The sums of the metrics are those of the books, once nothing moves.
async fn assert_sums(watch: &Watch, gateway: &Gateway<'_>, instance: &str) {
    for tenant in ["acme", "globex"] {
        gateway.wait("written", |gateway| gateway.book(tenant, "lines", "pending") == 0);
        let written = gateway.book(tenant, "lines", "written") as f64;
        let expr = format!("tidegate_lines_written_total{{instance=\"{instance}\", tenant=\"{tenant}\"}}");
        let mut value = -1.0;
        for _ in 0..600 {
            value = watch.prometheus.query(&expr).await.first().map_or(-1.0, |one| one.value);
            if value == written {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(value, written, "{tenant}");
    }
}
