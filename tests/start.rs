//! The first event of the log, and the state of the sources, as an operator sees them.

use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;

#[test]
fn the_log_begins_with_all_that_the_gateway_listens_to_and_writes_to() {
    let scene = GatewayDir::new();
    scene.configure(
        "[output]\nkind = \"influxdb1\"\nurl = \"http://u:s3cret@127.0.0.1:1\"\n[log]\nformat = \"json\"\n",
    );
    let gateway = scene.start();
    let log = scene.log();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(first["message"], "tidegate starts");
    for (key, value) in [
        ("listen", scene.listener.as_str()),
        ("admin", scene.admin.as_str()),
        ("data_dir", "data"),
        ("registry", "devices.csv"),
        ("guests", "guests"),
        ("output", "http://u:(hidden)@127.0.0.1:1"),
        ("output_kind", "influxdb1"),
        ("config", "tidegate.toml"),
    ] {
        assert_eq!(first[key], value, "{first}");
    }
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert!(first.get("broker").is_none(), "{first}");
    gateway.stop();
    assert!(!scene.log().contains("s3cret"), "{}", scene.log());
}

#[test]
fn a_source_that_is_not_ready_and_the_ceilings_of_the_spool_are_in_the_metrics() {
    let mut broker = Mosquitto::start_in_memory();
    let scene = GatewayDir::new();
    scene.configure_both(&broker.url(), "[output]\nkind = \"file\"\n[spool]\nbytes_max = 1000000\n");
    let gateway = scene.start();
    let metric = |name: &str| gateway.metric(name);
    assert_eq!(metric("tidegate_source_ready{source=\"broker\"}"), Some(1.0));
    assert_eq!(metric("tidegate_source_ready{source=\"listener\"}"), Some(1.0));
    assert_eq!(metric("tidegate_spool_bytes_max{}"), Some(1_000_000.0));
    assert_eq!(metric("tidegate_spool_tenant_bytes_max{}"), Some(268_435_456.0));
    broker.kill();
    gateway
        .wait("not ready", |gateway| gateway.metric("tidegate_source_ready{source=\"broker\"}") == Some(0.0));
    assert_eq!(metric("tidegate_source_ready{source=\"listener\"}"), Some(1.0));
    broker.restart();
    gateway.wait("ready", |gateway| gateway.metric("tidegate_source_ready{source=\"broker\"}") == Some(1.0));
}
