//! The registry in a real PostgreSQL: the recorded verdicts, notifications of changes, and everything
//! that a database can do wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rumqttc::mqttbytes::v4::{Connect, Login, Packet};
use serde_json::{Value, json};
use tidegate::admission::registry::token_hash;
use tidegate_simulator::Device;

use crate::end_to_end::{envelope, topic};
use crate::harness::eventually;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::mqtt_client::MqttClient;
use crate::harness::postgres::Postgres;

const CASES: &str = include_str!("cases/pulse-public.jsonl");

fn cases() -> Vec<Value> {
    CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn configure_url(scene: &GatewayDir, url: &str, more: &str) {
    configure_patient(scene, url, 1000, more);
}

fn configure_patient(scene: &GatewayDir, url: &str, query_timeout_ms: u64, more: &str) {
    scene.configure(&format!(
        "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n[registry]\nkind = \"postgres\"\n\
         url = \"{url}\"\nsettings_poll_s = 1\nquery_timeout_ms = {query_timeout_ms}\n{more}"
    ));
}

pub fn configure(scene: &GatewayDir, postgres: &Postgres, more: &str) {
    configure_url(scene, &postgres.url(), more);
}

/// A server with the tables, without any rate limit, and a gateway's folder that uses it.
pub async fn scene() -> (Postgres, GatewayDir) {
    let (postgres, scene) = (Postgres::start().await, GatewayDir::new());
    configure(&scene, &postgres, "");
    let (status, _, errors) = scene.verb(&["registry", "init"], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    postgres.run("UPDATE app_settings SET value = '1e9' WHERE key LIKE 'RATE_LIMIT_%'").await;
    (postgres, scene)
}

/// Registers a device at `lab-1` whose token is `tok-{device}`.
pub async fn register(postgres: &Postgres, tenant: &str, device: &str) {
    let hash = token_hash(&format!("tok-{device}"));
    let insert = format!(
        "INSERT INTO device_registry (tenant_id, device_id, site_id, provision_token_hash) \
         VALUES ('{tenant}', '{device}', 'lab-1', '{hash}')"
    );
    postgres.run(&insert).await;
}

pub fn publish(scene: &GatewayDir, device: &str, seq: u64) {
    let mut client = Device::connect(&scene.listener, device).unwrap();
    client.publish(&topic("acme", device, "telemetry"), envelope(device, seq).as_bytes()).unwrap();
}

/// Sends without waiting for the PUBACK; the connection must be kept.
fn send(scene: &GatewayDir, device: &str, sequences: impl Iterator<Item = u64>) -> Device {
    let mut client = Device::connect(&scene.listener, device).unwrap();
    for seq in sequences {
        client.send(&topic("acme", device, "telemetry"), envelope(device, seq).as_bytes()).unwrap();
    }
    client
}

fn reasons(gateway: &Gateway<'_>) -> Value {
    gateway.json("/api/v1/quarantine")["refused_since_start"].clone()
}

fn queries(gateway: &Gateway<'_>) -> f64 {
    gateway.metric("tidegate_registry_queries_total{}").unwrap()
}

fn registry_health(gateway: &Gateway<'_>) -> (u16, Value) {
    let (status, body) = gateway.get("/readyz");
    (status, serde_json::from_str::<Value>(&body).unwrap()["registry"].clone())
}

/// The devices' lines of acme, as their sequence numbers in the order of the file.
pub fn sequences(scene: &GatewayDir, device: &str) -> Vec<u64> {
    let of_device = format!("device_id={device},");
    let lines = scene.lines("telemetry_acme").into_iter().filter(|line| line.contains(&of_device));
    lines.map(|line| line.split("seq=").nth(1).unwrap().split('i').next().unwrap().parse().unwrap()).collect()
}

/// Tenant and device.
type Key = (String, String);

/// Cases that can share one state of the database: the same settings, and no two rows of one device.
#[derive(Debug)]
struct Pack<'a> {
    settings: &'a Value,
    /// None: a device that must not be there.
    rows: BTreeMap<Key, Option<&'a Value>>,
    cases: Vec<&'a Value>,
}

/// Packs cases into as few states of the database as comes easily.
fn packs<'a>(cases: impl Iterator<Item = &'a Value>) -> Vec<Pack<'a>> {
    let mut packs: Vec<Pack<'a>> = Vec::new();
    for case in cases {
        let row = Some(&case["device"]).filter(|row| row.is_object());
        let parts: Vec<&str> = case["topic"].as_str().unwrap().split('/').collect();
        let mut needs = BTreeMap::new();
        if let [_, tenant, _, device, ..] = parts[..] {
            needs.insert((tenant.to_owned(), device.to_owned()), None);
        }
        if let Some(row) = row {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            needs.insert((text("tenant_id"), text("device_id")), Some(row));
        }
        let fits = |pack: &&mut Pack<'_>| {
            pack.settings == &case["settings"]
                && needs.iter().all(|(key, row)| pack.rows.get(key).is_none_or(|there| there == row))
        };
        match packs.iter_mut().find(fits) {
            Some(pack) => {
                pack.rows.append(&mut needs);
                pack.cases.push(case);
            }
            None => packs.push(Pack { settings: &case["settings"], rows: needs, cases: vec![case] }),
        }
    }
    packs
}

impl Pack<'_> {
    fn setting(&self, key: &str) -> Option<String> {
        self.settings[key].as_str().map(str::to_owned)
    }

    /// Loads devices and settings, and configures the settings that have no row.
    async fn set(&self, postgres: &Postgres, scene: &GatewayDir, output: &str) {
        let client = postgres.client().await;
        client
            .batch_execute(
                "TRUNCATE device_registry, app_settings, quarantine_events, quarantine_counters_minute",
            )
            .await
            .unwrap();
        for row in self.rows.values().flatten() {
            let text = |key: &str| row[key].as_str();
            let insert = "INSERT INTO device_registry (tenant_id, device_id, site_id, status, provision_token_hash) \
                          VALUES ($1, $2, $3, $4, $5)";
            let keys = ["tenant_id", "device_id", "site_id", "status", "provision_token_hash"].map(text);
            client.execute(insert, &[&keys[0], &keys[1], &keys[2], &keys[3], &keys[4]]).await.unwrap();
        }
        // Without the case's own word no message meets the rate limit.
        for (key, default) in [
            ("MODE", "PROD"),
            ("STORE_REJECTS", "0"),
            ("MAX_PAYLOAD_BYTES", "8192"),
            ("RATE_LIMIT_RPS", "5"),
            ("RATE_LIMIT_BURST", "1e9"),
        ] {
            let value = self.setting(key).unwrap_or_else(|| default.into());
            let insert = "INSERT INTO app_settings (key, value) VALUES ($1, $2)";
            client.execute(insert, &[&key, &value]).await.unwrap();
        }
        let switch = |key: &str, default: &str| self.setting(key).unwrap_or_else(|| default.into()) == "1";
        scene.configure(&format!(
            "[output]\n{output}\n[registry]\nkind = \"postgres\"\nurl = \"{}\"\nsettings_poll_s = 1\n\
             require_token = {}\nauto_provision = {}\ncounters = {}\n",
            postgres.url(),
            switch("REQUIRE_TOKEN", "1"),
            switch("AUTO_PROVISION", "0"),
            switch("COUNTERS_ENABLED", "1"),
        ));
    }
}

fn payload(case: &Value) -> Vec<u8> {
    use base64::Engine as _;
    match case["payload"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => base64::engine::general_purpose::STANDARD
            .decode(case["payload_base64"].as_str().unwrap())
            .unwrap(),
    }
}

/// The case whose exact time is outside 64 bits, as in `pulse_cases`.
const BEYOND_64_BITS: &str = "timestamps-0389";

#[tokio::test(flavor = "multi_thread")]
async fn every_case_gives_its_verdict_with_the_rows_in_the_database() {
    let (postgres, scene) = scene().await;
    let cases = cases();
    let judged_alone = cases.iter().filter(|case| {
        // No table holds U+0000.
        let storable = !case["device"].to_string().contains("\\u0000");
        case["needs"].is_null() && case["id"] != BEYOND_64_BITS && storable
    });
    let (mut wrong, mut judged) = (Vec::new(), 0);
    for pack in packs(judged_alone) {
        pack.set(&postgres, &scene, "kind = \"influxdb3\"").await;
        let cases = &pack.cases;
        let input: String = cases
            .iter()
            .map(|case| {
                let mut question = (*case).clone();
                // The registry itself is asked.
                question.as_object_mut().unwrap().retain(|key, _| {
                    ["id", "topic", "payload", "payload_base64", "received_at"].contains(&key.as_str())
                });
                format!("{question}\n")
            })
            .collect();
        let (status, output, errors) = scene.verb(&["explain", "--jsonl"], &input);
        assert!(status.code().is_some_and(|code| code < 2), "{status}: {errors}");
        assert_eq!(output.lines().count(), cases.len(), "one verdict for each case");
        for (case, verdict) in cases.iter().zip(output.lines()) {
            let verdict: Value = serde_json::from_str(verdict).unwrap();
            let expected = &case["expect"];
            let differs = |key: &str| !expected[key].is_null() && expected[key] != verdict[key];
            if ["outcome", "reason", "database", "lines"].into_iter().any(differs) {
                wrong.push(format!("{}\n  expected {expected}\n  got      {verdict}", case["id"]));
            }
            judged += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {judged} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged > 600, "only {judged} cases were judged");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_leave_the_counters_and_rows_that_the_python_service_left() {
    let (postgres, scene) = scene().await;
    let cases = cases();
    // Where any reason will do there is nothing to compare.
    let refused = cases
        .iter()
        .filter(|case| case["expect"]["outcome"] == "quarantined" && !case["expect"]["reason"].is_null());
    let (mut counted, mut stored) = (0, 0);
    for pack in packs(refused) {
        pack.set(&postgres, &scene, "kind = \"file\"").await;
        let gateway = scene.start();
        let mut client = Device::connect(&scene.listener, "replay").unwrap();
        let mut counters: BTreeMap<(String, String), i64> = BTreeMap::new();
        let mut events = Vec::new();
        for case in &pack.cases {
            let topic = case["topic"].as_str().unwrap();
            if topic.is_empty() || topic.contains(['+', '#', '\0']) {
                continue; // no MQTT
            }
            client.publish(topic, &payload(case)).unwrap();
            let [tenant, reason] = [0, 1].map(|n| case["expect"]["counter"][n].as_str().unwrap_or(""));
            if !tenant.is_empty() {
                *counters.entry((tenant.into(), reason.into())).or_default() += 1;
            }
            if !case["expect"]["event"].is_null() {
                events.push(*case);
            }
        }
        // A stop writes the waiting rows.
        assert_eq!(gateway.stop().code(), Some(0), "{}", scene.log());
        let sums = "SELECT tenant_id, reason, sum(cnt) FROM quarantine_counters_minute \
                    WHERE bucket_minute = date_trunc('minute', bucket_minute) GROUP BY 1, 2";
        let rows = postgres.ask(sums).await.into_iter().map(|row| row.map_text());
        let left: BTreeMap<_, _> =
            rows.map(|row| ((row[0].clone(), row[1].clone()), row[2].parse::<i64>().unwrap())).collect();
        assert_eq!(left, counters, "{pack:?}");
        counted += counters.values().sum::<i64>();

        let columns = "event_ts, topic, tenant_id, site_id, device_id, msg_type, reason, payload";
        let rows = postgres.ask_json(&format!("SELECT {columns} FROM quarantine_events ORDER BY id")).await;
        assert_eq!(rows.len(), events.len(), "{pack:?}\n{rows:#?}");
        for (mut row, case) in rows.into_iter().zip(events) {
            let mut expected = case["expect"]["event"].clone();
            if expected["event_ts"] == case["received_at"] {
                // It was filled in at receipt, which was another time.
                // PostgreSQL writes no zeros at the end of a second's fraction.
                let moment = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
                assert_eq!(moment(&row["event_ts"]), moment(&row["payload"]["ts"]));
                for event in [&mut row, &mut expected] {
                    event["event_ts"] = Value::Null;
                    event["payload"]["ts"] = Value::Null;
                }
            }
            let time = |event: &Value| {
                event["event_ts"].as_str().map(|text| text.parse::<jiff::Timestamp>().unwrap())
            };
            assert_eq!(time(&row), time(&expected), "{}", case["id"]);
            row["event_ts"] = expected["event_ts"].clone();
            assert_eq!(row, expected, "{}", case["id"]);
            stored += 1;
        }
    }
    assert!(counted > 60 && stored > 15, "{counted} counted, {stored} stored");
}

trait MapText {
    fn map_text(self) -> Vec<String>;
}

impl MapText for Vec<Option<String>> {
    fn map_text(self) -> Vec<String> {
        self.into_iter().map(Option::unwrap_or_default).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn init_is_safe_to_run_twice_and_the_device_verbs_keep_the_table() {
    let (_postgres, scene) = scene().await;
    let good = |arguments: &[&str], input: &str| {
        let (status, output, errors) = scene.verb(arguments, input);
        assert_eq!(status.code(), Some(0), "{arguments:?}: {errors}");
        output
    };
    good(&["registry", "init"], "");
    good(&["device", "put", "acme", "dev-1", "--site", "lab-1"], "tok-dev-1\n");
    let listed = good(&["device", "list", "--tenant", "acme", "--json"], "");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed,
        json!([{"tenant_id": "acme", "device_id": "dev-1", "site_id": "lab-1", "status": "ACTIVE", "has_token": true}])
    );
    let gateway = scene.start();
    publish(&scene, "dev-1", 1);
    assert_eq!(sequences(&scene, "dev-1"), [1]);
    good(&["device", "revoke", "acme", "dev-1"], "");
    std::thread::sleep(Duration::from_millis(1_000));
    publish(&scene, "dev-1", 2);
    assert_eq!(reasons(&gateway)["DEVICE_REVOKED"], 1);
    good(&["device", "rm", "acme", "dev-1"], "");
    assert_eq!(scene.verb(&["device", "rm", "acme", "dev-1"], "").0.code(), Some(1));
    // Validate opens no socket: the form is good, and whether anybody answers is not its question.
    configure_url(&scene, "postgres://iot:iot@127.0.0.1:1/iotcloud", "");
    good(&["validate"], "");
    configure_url(&scene, "postgres://127.0.0.1:1/iotcloud", "");
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert!(status.code() == Some(2) && errors.contains("registry.url"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_database_holds_within_a_second() {
    let (postgres, scene) = scene().await;
    let gateway = scene.start();
    let refused = |reason: &str, count: u64| {
        let refused = reasons(&gateway)[reason].as_u64().unwrap_or(0);
        assert_eq!(refused, count, "{reason}: {}", reasons(&gateway));
    };
    gateway.wait("listening", |gateway| registry_health(gateway).1["why"].is_null());
    publish(&scene, "dev-1", 1);
    refused("UNREGISTERED_DEVICE", 1);
    register(&postgres, "acme", "dev-1").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    publish(&scene, "dev-1", 2);
    assert_eq!(sequences(&scene, "dev-1"), [2], "an unknown device that was added");
    postgres.run("UPDATE device_registry SET status = 'REVOKED'").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    publish(&scene, "dev-1", 3);
    refused("DEVICE_REVOKED", 1);
    postgres.run("UPDATE device_registry SET status = 'ACTIVE', device_id = 'dev-2'").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    publish(&scene, "dev-1", 4);
    refused("UNREGISTERED_DEVICE", 2);
    publish(&scene, "dev-2", 5);
    refused("TOKEN_INVALID", 1);
    postgres.run("TRUNCATE device_registry").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    publish(&scene, "dev-2", 6);
    refused("UNREGISTERED_DEVICE", 3);
    // More rows than are notified one by one.
    postgres
        .run("INSERT INTO device_registry (tenant_id, device_id, site_id) SELECT 'acme', 'dev-' || n, 'lab-1' FROM generate_series(1, 5000) AS n")
        .await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    publish(&scene, "dev-2", 7);
    refused("TOKEN_NOT_SET_IN_REGISTRY", 1);
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_of_a_new_device_ask_once_and_keep_their_order() {
    let (postgres, scene) = scene().await;
    register(&postgres, "acme", "dev-1").await;
    let gateway = scene.start();
    // They all come while the registry thinks.
    let lock = postgres.client().await;
    lock.batch_execute("BEGIN; LOCK TABLE device_registry IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let before = queries(&gateway);
    let mut device = send(&scene, "dev-1", 0..1_000);
    gateway.wait("received", |gateway| gateway.book("acme", "messages", "received") == 1_000);
    lock.batch_execute("COMMIT").await.unwrap();
    for _ in 0..1_000 {
        device.puback().unwrap();
    }
    assert_eq!(sequences(&scene, "dev-1"), (0..1_000).collect::<Vec<_>>());
    assert_eq!(queries(&gateway) - before, 1.0);
    // Without a lock as well: many new devices in few queries.
    for n in 0..50 {
        register(&postgres, "acme", &format!("many-{n}")).await;
    }
    let mut devices: Vec<Device> = (0..50).map(|n| send(&scene, &format!("many-{n}"), 0..20)).collect();
    for device in &mut devices {
        for _ in 0..20 {
            device.puback().unwrap();
        }
    }
    for n in 0..50 {
        assert_eq!(sequences(&scene, &format!("many-{n}")), (0..20).collect::<Vec<_>>());
    }
    assert!(queries(&gateway) - before <= 51.0, "{}", queries(&gateway));
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_devices_that_come_at_once_are_asked_about_in_few_queries() {
    let (postgres, scene) = scene().await;
    let hash = token_hash("tok");
    postgres
        .run(&format!(
            "INSERT INTO device_registry (tenant_id, device_id, site_id, provision_token_hash) \
             SELECT 'acme', 'dev-' || n, 'lab-1', '{hash}' FROM generate_series(0, 9999) AS n"
        ))
        .await;
    let gateway = scene.start();
    let topics: Vec<String> = (0..10_000).map(|n| topic("acme", &format!("dev-{n}"), "telemetry")).collect();
    let payload = envelope("", 1).replace("tok-", "tok");
    let mut gate = Device::connect(&scene.listener, "site").unwrap();
    let began = Instant::now();
    let messages = topics.iter().map(|topic| (topic.as_str(), payload.as_bytes()));
    assert_eq!(gate.publish_all(messages, 5_000).unwrap(), 10_000);
    let cold = began.elapsed();
    gateway.wait("counted", |gateway| gateway.book("acme", "messages", "lines") == 10_000);
    assert!(queries(&gateway) <= 500.0, "{} queries", queries(&gateway));
    let began = Instant::now();
    let messages = topics.iter().map(|topic| (topic.as_str(), payload.as_bytes()));
    assert_eq!(gate.publish_all(messages, 5_000).unwrap(), 10_000);
    assert!(cold < began.elapsed() + Duration::from_secs(3), "{cold:?}");
    eprintln!("cold {cold:?}, then {:?}, {} queries", began.elapsed(), queries(&gateway));
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_registry_is_down_known_devices_go_on_and_new_ones_are_parked_until_it_is_back() {
    let (mut postgres, scene) = scene().await;
    register(&postgres, "acme", "known").await;
    register(&postgres, "acme", "cold").await;
    // What is known is old by the time that it is needed.
    configure(&scene, &postgres, "cache_ttl_s = 1\n");
    let gateway = scene.start();
    publish(&scene, "known", 0);
    postgres.stop();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let mut cold = send(&scene, "cold", 0..100);
    let slowest = (1..50).map(|seq| {
        let began = Instant::now();
        publish(&scene, "known", seq);
        began.elapsed()
    });
    let slowest = slowest.max().unwrap();
    // One that waited for the registry would take a query's whole timeout, two seconds.
    assert!(slowest < Duration::from_millis(1_900), "a known device waited for {slowest:?}");
    assert!(gateway.metric("tidegate_auth_cache_lookups_total{result=\"stale\"}").unwrap() > 0.0);
    // They are acknowledged: they are durable.
    for _ in 0..100 {
        cold.puback().unwrap();
    }
    assert_eq!(gateway.book("acme", "messages", "parked"), 100);
    gateway.assert_balanced();
    let (status, health) = registry_health(&gateway);
    assert_eq!(status, 503);
    assert!(health["why"].as_str().unwrap().contains("cannot be used"), "{health}");
    assert!(scene.log().contains("REGISTRY_UNAVAILABLE"));
    // Later messages of a parked device queue behind, and those of known devices still pass.
    for seq in 100..110 {
        cold.send(&topic("acme", "cold", "telemetry"), envelope("cold", seq).as_bytes()).unwrap();
    }
    publish(&scene, "known", 50);
    assert_eq!(reasons(&gateway), json!({}), "nothing is refused for our own fault");
    for _ in 0..10 {
        cold.puback().unwrap();
    }
    postgres.restart().await;
    gateway.wait("taken up", |gateway| {
        let of = |key| gateway.book("acme", "messages", key);
        of("parked") == 0 && of("in_flight") == 0
    });
    assert_eq!(sequences(&scene, "cold"), (0..110).collect::<Vec<_>>());
    assert_eq!(sequences(&scene, "known"), (0..=50).collect::<Vec<_>>());
    gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
    assert_eq!(reasons(&gateway), json!({}));
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_was_missed_holds_once_the_registry_is_back() {
    let (mut postgres, scene) = scene().await;
    register(&postgres, "acme", "dev-1").await;
    let gateway = scene.start();
    publish(&scene, "dev-1", 0);
    postgres.stop();
    eventually("down", 10, || registry_health(&gateway).0 == 503).await;
    publish(&scene, "dev-1", 1);
    postgres.restart().await;
    // Whether our connection that hears came before this or after makes no difference.
    postgres.run("UPDATE device_registry SET status = 'REVOKED'").await;
    gateway.wait("ready", |gateway| registry_health(gateway) == (200, json!({"ready": true})));
    publish(&scene, "dev-1", 2);
    assert_eq!(reasons(&gateway)["DEVICE_REVOKED"], 1);
    assert_eq!(sequences(&scene, "dev-1"), [0, 1]);

    // A change without a notification, and then the listening connection is lost.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidegate'";
    postgres
        .run(&format!(
            "BEGIN; SET LOCAL session_replication_role = replica; \
             UPDATE device_registry SET status = 'ACTIVE'; COMMIT; {kill}"
        ))
        .await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    publish(&scene, "dev-1", 3);
    assert_eq!(sequences(&scene, "dev-1"), [0, 1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_add_the_same_devices_and_each_is_there_once() {
    let (postgres, one) = scene().await;
    let two = GatewayDir::new();
    for scene in [&one, &two] {
        // An answer that comes too late on a busy machine is a device that was added and not counted.
        configure_patient(scene, &postgres.url(), 20_000, "auto_provision = true\nrequire_token = true\n");
    }
    let gateways = [one.start(), two.start()];
    std::thread::scope(|scope| {
        for scene in [&one, &two] {
            scope.spawn(move || {
                let mut devices: Vec<Device> =
                    (0..40).map(|n| send(scene, &format!("new-{n}"), 0..1)).collect();
                devices.iter_mut().for_each(|device| assert_eq!(device.puback().unwrap(), 1));
            });
        }
    });
    // A refusal is acknowledged before its device is added.
    let added = || -> f64 {
        let of = |gateway: &Gateway<'_>| gateway.metric("tidegate_registry_provisioned_total{}").unwrap();
        gateways.iter().map(of).sum()
    };
    eventually("all are added", 20, || added() >= 40.0).await;
    let rows = postgres
        .ask(
            "SELECT count(*), count(DISTINCT device_id) FROM device_registry WHERE tenant_id = 'acme' \
              AND site_id = 'lab-1' AND status = 'ACTIVE' AND provision_token_hash IS NULL",
        )
        .await;
    assert_eq!(rows, [[Some("40".to_owned()), Some("40".to_owned())]]);
    for gateway in &gateways {
        let reasons = reasons(gateway);
        let of = |reason: &str| reasons[reason].as_u64().unwrap_or(0);
        // The first is refused though the device is added by it; one that the other gateway was faster
        // with may find it there.
        assert_eq!(of("UNREGISTERED_DEVICE") + of("TOKEN_NOT_SET_IN_REGISTRY"), 40, "{reasons}");
    }
    assert_eq!(added(), 40.0);
    let before = reasons(&gateways[0])["TOKEN_NOT_SET_IN_REGISTRY"].as_u64().unwrap_or(0);
    // The very next message finds the device, even behind the first on one connection.
    publish(&one, "new-0", 2);
    let mut fresh = send(&one, "fresh", 0..3);
    (1..=3).for_each(|id| assert_eq!(fresh.puback().unwrap(), id));
    assert_eq!(reasons(&gateways[0])["TOKEN_NOT_SET_IN_REGISTRY"], before + 3);
    gateways.iter().for_each(Gateway::assert_balanced);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_table_hold_while_it_runs() {
    let (postgres, scene) = scene().await;
    register(&postgres, "acme", "dev-1").await;
    let gateway = scene.start();
    let large = |bytes: usize| {
        envelope("dev-1", 1).replace("{\"v\":1}", &format!("{{\"v\":1,\"p\":\"{}\"}}", "x".repeat(bytes)))
    };
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let mut publish =
        |payload: &str| device.publish(&topic("acme", "dev-1", "telemetry"), payload.as_bytes()).unwrap();
    publish(&large(8_100));
    assert_eq!(reasons(&gateway)["PAYLOAD_TOO_LARGE"], 1, "the seeded ceiling is 8,192");
    // Over what the configuration names.
    postgres.run("UPDATE app_settings SET value = ' 1_000_000' WHERE key = 'MAX_PAYLOAD_BYTES'").await;
    eventually("the new ceiling", 10, || scene.log().contains("payload_bytes_max=1000000")).await;
    publish(&large(500_000));
    assert_eq!(reasons(&gateway)["PAYLOAD_TOO_LARGE"], 1);
    gateway.wait("counted", |gateway| gateway.book("acme", "messages", "lines") == 1);
    postgres
        .run(
            "UPDATE app_settings SET value = '3' WHERE key = 'RATE_LIMIT_BURST'; \
              UPDATE app_settings SET value = '0' WHERE key = 'RATE_LIMIT_RPS'",
        )
        .await;
    eventually("the new rate", 10, || scene.log().contains("burst: 3.0")).await;
    (0..10).for_each(|_| publish(&large(1)));
    assert_eq!(reasons(&gateway)["RATE_LIMITED"], 7);
    // What is no number is the default, and a database that is gone changes nothing.
    postgres.run("UPDATE app_settings SET value = 'many' WHERE key = 'MAX_PAYLOAD_BYTES'").await;
    eventually("the default", 10, || scene.log().matches("payload_bytes_max=8192").count() >= 2).await;
    postgres.run("DROP TABLE app_settings").await;
    gateway.wait("said", |gateway| registry_health(gateway).1["why"].to_string().contains("app_settings"));
    assert_eq!(registry_health(&gateway).0, 200, "devices are known all the same");
    publish(&large(8_100));
    assert_eq!(reasons(&gateway)["PAYLOAD_TOO_LARGE"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_registry_is_named_and_stops_no_known_device() {
    let (postgres, scene) = scene().await;
    register(&postgres, "acme", "known").await;
    for name in ["locked", "column", "table", "slow", "killed"] {
        register(&postgres, "acme", &format!("cold-{name}")).await;
    }
    configure(&scene, &postgres, "cache_ttl_s = 1\n");
    let gateway = scene.start();
    publish(&scene, "known", 0);
    let mut known = Device::connect(&scene.listener, "known").unwrap();
    known.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut seq = 0;
    // In each trouble a known device still passes, the words name it, and a new device passes afterwards.
    let mut trouble = |name: &str, says: &str| {
        let mut cold = send(&scene, &format!("cold-{name}"), std::iter::once(seq));
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2_500) {
            let sent = Instant::now();
            let sending =
                known.publish(&topic("acme", "known", "telemetry"), envelope("known", seq).as_bytes());
            assert!(sending.is_ok(), "{name}: {sending:?}\n{}", scene.log());
            assert!(sent.elapsed() < Duration::from_millis(1_900), "{name}: {:?}", sent.elapsed());
            seq += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        let why = registry_health(&gateway).1["why"].as_str().unwrap_or_default().to_owned();
        assert!(why.contains(says), "{name}: {why}");
        assert_eq!(reasons(&gateway), json!({}), "{name}");
        move || assert_eq!(cold.puback().unwrap(), 1)
    };
    let client = postgres.client().await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    client.batch_execute("BEGIN; LOCK TABLE device_registry IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut after = trouble("locked", "lock");
    client.batch_execute("COMMIT").await.unwrap();
    after();

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    client.batch_execute("ALTER TABLE device_registry RENAME provision_token_hash TO other").await.unwrap();
    let mut after = trouble("column", "provision_token_hash");
    client.batch_execute("ALTER TABLE device_registry RENAME other TO provision_token_hash").await.unwrap();
    after();

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    client.batch_execute("ALTER TABLE device_registry RENAME TO real_registry").await.unwrap();
    let mut after = trouble("table", "tidegate registry init");
    // A view that is slower than a query may be.
    client
        .batch_execute(
            "CREATE VIEW device_registry AS SELECT * FROM real_registry WHERE pg_sleep(3) IS NOT NULL",
        )
        .await
        .unwrap();
    let mut after_slow = trouble("slow", "query_timeout_ms");
    client
        .batch_execute("DROP VIEW device_registry; ALTER TABLE real_registry RENAME TO device_registry")
        .await
        .unwrap();
    after();
    after_slow();

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidegate'";
    for _ in 0..5 {
        client.batch_execute(kill).await.unwrap();
        publish(&scene, "known", 0);
        publish(&scene, "cold-killed", 0);
    }
    gateway.wait("well", |gateway| registry_health(gateway) == (200, json!({"ready": true})));

    // Rows that the schema would not allow are correct service: no site, no status.
    client
        .batch_execute(
            "ALTER TABLE device_registry ALTER site_id DROP NOT NULL, ALTER status DROP NOT NULL; \
             INSERT INTO device_registry (tenant_id, device_id, site_id, status) \
             VALUES ('acme', 'no-site', NULL, 'ACTIVE'), ('acme', 'no-status', 'lab-1', NULL)",
        )
        .await
        .unwrap();
    publish(&scene, "no-site", 0);
    publish(&scene, "no-status", 0);
    assert_eq!(reasons(&gateway), json!({"DEVICE_REVOKED": 1, "SITE_MISMATCH_REGISTRY_VS_PAYLOAD": 1}));
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lets_us_not_in_is_named_and_its_password_is_not() {
    let (postgres, scene) = scene().await;
    let says = |url: &str, words: &str| {
        configure_url(&scene, url, "");
        let gateway = scene.start_unready();
        gateway.wait(words, |gateway| {
            let (status, health) = registry_health(gateway);
            status == 503 && health["why"].as_str().is_some_and(|why| why.contains(words))
        });
        drop(gateway);
        assert!(!scene.log().contains("wrong-secret"), "the log holds a password");
    };
    let at = format!("127.0.0.1:{}", postgres.port);
    says(&format!("postgres://iot:wrong-secret@{at}/iotcloud"), "password authentication failed");
    says(
        &format!("postgres://iot:iot_dev@{at}/nowhere"),
        "\\\"nowhere\\\" does not exist".replace('\\', "").as_str(),
    );
    says(&format!("postgres://iot:iot_dev@{at}/iotcloud?sslmode=require"), "TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_encrypted_and_the_server_is_checked_as_the_url_asks() {
    let mut authority = String::new();
    let postgres = Postgres::start_with(|folder| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(folder.join("server.pem"), made.cert.pem()).unwrap();
        let key = folder.join("server.key");
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        authority = made.cert.pem();
        format!(
            "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
            folder.join("server.pem").display(),
            key.display()
        )
    })
    .await;
    let scene = GatewayDir::new();
    let file = scene.path("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let init = |host: &str, query: &str| {
        let port = postgres.port;
        configure_url(&scene, &format!("postgres://iot:iot_dev@{host}:{port}/iotcloud?{query}"), "");
        let (status, _, errors) = scene.verb(&["registry", "init"], "");
        (status.code(), errors)
    };
    let root = format!("sslrootcert={}", file.display());
    assert_eq!(init("127.0.0.1", "sslmode=require").0, Some(0));
    assert_eq!(init("127.0.0.1", "sslmode=prefer").0, Some(0));
    assert_eq!(init("localhost", &format!("sslmode=verify-full&{root}")).0, Some(0));
    assert_eq!(init("127.0.0.1", &format!("sslmode=verify-ca&{root}")).0, Some(0));
    let (code, errors) = init("127.0.0.1", &format!("sslmode=verify-full&{root}"));
    assert!(code == Some(1) && errors.contains("certificate"), "{errors}");
    let (code, errors) = init("localhost", "sslmode=verify-full");
    assert!(code == Some(1) && errors.contains("certificate"), "{errors}");
    configure_url(&scene, &format!("{}?sslmode=require", postgres.url()), "");
    let gateway = scene.start();
    gateway.wait("listening", |gateway| registry_health(gateway).1["why"].is_null());
    let plain = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl \
                 JOIN pg_stat_activity USING (pid) WHERE application_name = 'tidegate'";
    let row = postgres.ask(plain).await.remove(0).map_text();
    assert!(row[0].parse::<u32>().unwrap() >= 3 && row[1] == "0", "{row:?}");
}

/// The code of a CONNACK to a device of acme that brings this token.
fn connect(scene: &GatewayDir, device: &str, token: &str) -> rumqttc::ConnectReturnCode {
    let login = Login::new(format!("acme/{device}"), token);
    let mut client = MqttClient::open(scene.listener.parse().unwrap());
    client.greet(device, true, 60, Some(login)).unwrap().code
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_connect_are_checked_against_the_database_and_by_what_is_known_while_it_is_down() {
    use rumqttc::ConnectReturnCode as Code;
    let (mut postgres, scene) = scene().await;
    register(&postgres, "acme", "dev-1").await;
    register(&postgres, "acme", "dev-2").await;
    let listener = "[listen]\naddress = \"";
    let text = std::fs::read_to_string(scene.path("tidegate.toml")).unwrap();
    let text = text
        .replace(listener, "[listen]\ncredentials = \"required\"\naddress = \"")
        .replace("[admission]\n", "[admission]\ncredentials = \"listener\"\n");
    std::fs::write(scene.path("tidegate.toml"), text).unwrap();
    let gateway = scene.start();
    assert_eq!(connect(&scene, "dev-1", "tok-dev-1"), Code::Success);
    assert_eq!(connect(&scene, "dev-1", "guess"), Code::BadUserNamePassword);
    assert_eq!(connect(&scene, "dev-9", "tok-dev-9"), Code::BadUserNamePassword);
    // One that is registered later is known within the time that an unknown one is believed unknown.
    register(&postgres, "acme", "dev-9").await;
    eventually("it is known", 15, || connect(&scene, "dev-9", "tok-dev-9") == Code::Success).await;
    // A revocation is notified.
    postgres.run("UPDATE device_registry SET status = 'REVOKED' WHERE device_id = 'dev-9'").await;
    eventually("it is revoked", 5, || connect(&scene, "dev-9", "tok-dev-9") == Code::NotAuthorized).await;
    // Many at once are asked about together.
    let many = "INSERT INTO device_registry (tenant_id, device_id, site_id, provision_token_hash) \
                SELECT 'acme', 'many-' || n, 'lab-1', encode(sha256(('tok-many-' || n)::bytea), 'hex') \
                FROM generate_series(1, 400) n";
    postgres.run(many).await;
    let before = queries(&gateway);
    let mut waiting: Vec<MqttClient> = (1..=400)
        .map(|n| {
            let mut client = MqttClient::open(scene.listener.parse().unwrap());
            let mut hello = Connect::new(format!("many-{n}"));
            hello.login = Some(Login::new(format!("acme/many-{n}"), format!("tok-many-{n}")));
            client.send(&Packet::Connect(hello)).unwrap();
            client
        })
        .collect();
    for client in &mut waiting {
        assert!(
            matches!(client.receive().unwrap(), Packet::ConnAck(connack) if connack.code == Code::Success)
        );
    }
    let asked = queries(&gateway) - before;
    assert!(asked < 300.0, "{asked} queries for 400 devices");
    drop(waiting);

    postgres.stop();
    gateway.wait("down", |gateway| gateway.get("/readyz").0 == 503);
    assert_eq!(connect(&scene, "dev-1", "tok-dev-1"), Code::Success);
    assert_eq!(connect(&scene, "dev-1", "guess"), Code::BadUserNamePassword);
    let began = Instant::now();
    assert_eq!(connect(&scene, "dev-2", "tok-dev-2"), Code::ServiceUnavailable);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    postgres.restart().await;
    eventually("it is back", 30, || connect(&scene, "dev-2", "tok-dev-2") == Code::Success).await;
    gateway.assert_balanced();
}
