//! The texts of refusals: what a stranger's payload, topic or name can make of them, and cannot.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::Value;

use crate::end_to_end::{envelope, topic};
use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::harness::mqtt5_client::Mqtt5Client;
use crate::registry;

fn entries(scene: &GatewayDir) -> Vec<Value> {
    let (status, listed, errors) = scene.verb(&["quarantine", "list", "--json"], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    serde_json::from_str(&listed).unwrap()
}

/// A payload of some 100 kB: a name that a detail quotes, and thousands of credentials.
fn full_of_credentials() -> String {
    let credentials: String = (0..1_800).map(|n| format!(",\"provision_token\":\"tok-{n:08}\"")).collect();
    let text = format!("{{\"tenant_id\":\"{}\"{credentials}}}", "\u{2028}tok-00000042".repeat(2_400));
    assert!(text.len() > 90_000, "{}", text.len());
    text
}

#[test]
fn a_strangers_payloads_full_of_credentials_hold_nobody_up() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\n[admission]\npayload_bytes_max = 262144\nrate_per_s = 0\n");
    let gateway = scene.start();
    let address = scene.listener.parse().unwrap();
    let mut stranger = MqttClient::connect(address, "stranger");
    for payload in [full_of_credentials(), "\"provision_token\":\"x\",".repeat(4_700)] {
        stranger.publish(&topic("acme", "dev-9", "telemetry"), rumqttc::QoS::AtLeastOnce, false, payload);
    }
    let mut device = MqttClient::connect(address, "dev-1");
    let id = device.publish(
        &topic("acme", "dev-1", "telemetry"),
        rumqttc::QoS::AtLeastOnce,
        false,
        envelope("dev-1", 1),
    );
    assert_eq!(device.puback(), id);
    stranger.pubacks(2);
    gateway.wait("quarantined", |gateway| gateway.book("acme", "quarantine", "entries") == 2);
    let entries = entries(&scene);
    assert_eq!(entries.len(), 2);
    for entry in entries {
        let detail = entry["detail"].as_str().unwrap();
        assert!(detail.len() <= 1024, "{}", detail.len());
        assert!(!detail.contains("tok-0"), "a credential was told: {detail}");
        assert!(!detail.contains('\u{2028}'), "{detail}");
    }
    gateway.assert_balanced();
}

#[test]
fn a_topic_with_a_long_name_or_a_control_character_is_no_topic_of_a_device() {
    let broker = Mosquitto::start();
    let scene = GatewayDir::new();
    scene.configure_both(&broker.url(), "[output]\nkind = \"file\"\n");
    let gateway = scene.start();
    let (long, good) = ("n".repeat(256), "n".repeat(255));
    let mut device = Mqtt5Client::open(scene.listener.parse().unwrap()).connected("d", None);
    for (topic, words) in [
        (topic(&long, "d", "t"), "tenant of 256 bytes"),
        (topic("acme", &long, "t"), "device of 256 bytes"),
        (topic("acme", "d", &long), "type of 256 bytes"),
        (topic("acme", "d\u{1b}[2J", "t"), "control character '\\u{1b}'"),
        (topic("acme", "d", "t\u{9b}"), "control character '\\u{9b}'"),
    ] {
        device.publish(&topic, QoS::AtLeastOnce, "{}");
        let (_, said, why) = device.puback();
        assert_eq!(said, PubAckReason::TopicNameInvalid, "{topic:?}");
        let why = why.unwrap();
        assert!(why.starts_with("BAD_TOPIC_FORMAT: ") && why.contains(words), "{why}");
    }
    device.publish(&topic(&good, &good, &good), QoS::AtLeastOnce, "{}");
    assert_eq!(device.puback().1, PubAckReason::PayloadFormatInvalid, "a name of 255 bytes is good");
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all([(topic("acme", &long, "t"), b"{}".to_vec())]);
    gateway.wait("refused", |gateway| {
        gateway.json("/api/v1/quarantine")["refused_since_start"]["BAD_TOPIC_FORMAT"] == 6
    });
    // No name that was refused has accounts of its own.
    let books = gateway.json("/api/v1/books");
    let tenants: Vec<&String> = books["tenants"].as_object().unwrap().keys().collect();
    assert!(tenants.iter().all(|tenant| tenant.len() < 256), "{tenants:?}");
    gateway.assert_balanced();
}

#[test]
fn only_the_right_token_is_told_how_a_device_stands() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.device("acme", "dev-2", "lab-1");
    assert_eq!(scene.verb(&["device", "revoke", "acme", "dev-2"], "").0.code(), Some(0));
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n");
    let gateway = scene.start();
    let mut device = Mqtt5Client::open(scene.listener.parse().unwrap()).connected("d", None);
    let mut told = |device_id: &str, site: &str, token: &str| {
        let payload = format!("{{\"site_id\":\"{site}\",\"provision_token\":\"{token}\"}}");
        device.publish(&topic("acme", device_id, "telemetry"), QoS::AtLeastOnce, payload);
        let (_, said, why) = device.puback();
        assert_eq!(said, PubAckReason::NotAuthorized, "{device_id} {site} {token}: {why:?}");
        why
    };
    for (device_id, site) in [("dev-1", "lab-1"), ("dev-1", "lab-2"), ("dev-2", "lab-1"), ("dev-9", "lab-1")]
    {
        assert_eq!(told(device_id, site, "guess"), None, "{device_id} {site}");
    }
    let why = told("dev-1", "lab-2", "tok-dev-1").unwrap();
    assert!(why.starts_with("SITE_MISMATCH_REGISTRY_VS_PAYLOAD: site_id is \"lab-2\""), "{why}");
    let why = told("dev-2", "lab-1", "tok-dev-2").unwrap();
    assert!(why.starts_with("DEVICE_REVOKED: "), "{why}");
    // Its owner finds all of it in quarantine.
    gateway.wait("quarantined", |gateway| gateway.book("acme", "quarantine", "entries") == 6);
    assert!(entries(&scene).iter().all(|entry| !entry["detail"].as_str().unwrap().is_empty()));
}

/// True if nothing in a text moves the cursor or reorders it.
fn is_printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' || ('\u{2028}'..='\u{202e}').contains(&c))
}

#[test]
fn no_verb_writes_what_steers_a_terminal() {
    let mut scene = GatewayDir::new();
    let name = "d\u{1b}[31m\u{7}\u{202e}";
    scene.device("acme\u{9b}", name, "lab\u{2028}");
    let payload = "{\"site_id\":\"\\u001b]0;x\",\"provision_token\":\"tok\"}";
    let tenant = "[output]\nkind = \"file\"\n[tenants.\"t\\u001b\\u202e\"]\n";
    scene.configure(tenant);
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.contains("invalid database name") && is_printable(&errors), "{errors:?}");
    scene.configure(&format!("{tenant}database = \"own\"\n"));
    for arguments in [
        &["device", "list"][..],
        &["explain", "--topic", &topic("acme", name, "telemetry"), "--payload", payload],
        &["explain", "--topic", &topic("\u{202e}", "\u{2028}", "telemetry"), "--payload", payload],
        &["validate"],
    ] {
        let (_, output, errors) = scene.verb(arguments, "");
        assert!(!output.is_empty(), "{arguments:?}: {errors}");
        assert!(is_printable(&output) && is_printable(&errors), "{arguments:?}: {output:?} {errors:?}");
    }
    // JSON is for programs, and stays whole.
    let (_, listed, _) = scene.verb(&["device", "list", "--json"], "");
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()[0]["device_id"], name);

    scene.device("\u{202e}acme", "dev-1", "lab-1");
    let gateway = scene.start();
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "d");
    device.publish(&topic("\u{202e}acme", "dev-1", "t"), rumqttc::QoS::AtLeastOnce, false, "\u{1b}[2J");
    device.puback();
    for arguments in [&["books"][..], &["top"], &["spool"], &["quarantine", "list"], &["guest", "list"]] {
        let (status, output, errors) = scene.verb(arguments, "");
        assert_eq!(status.code(), Some(0), "{arguments:?}: {errors}");
        assert!(is_printable(&output) && is_printable(&errors), "{arguments:?}: {output:?}");
    }
    assert!(scene.verb(&["books"], "").1.contains("\\u{202e}acme"));
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_database_cannot_store_costs_its_own_count_alone() {
    let (postgres, scene) = registry::scene().await;
    // Stands for any limit of the database's, as a key that is too long for its index (SQLSTATE 54000).
    postgres
        .run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF NEW.tenant_id = 'bad' THEN RAISE 'too long' USING ERRCODE = '54000'; END IF; RETURN NEW; \
             END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON quarantine_counters_minute \
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let gateway = scene.start();
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "d");
    for tenant in ["a", "bad", "c", "d"] {
        device.publish(
            &topic(tenant, "dev-1", "t"),
            rumqttc::QoS::AtLeastOnce,
            false,
            "{\"tenant_id\":\"x\"}",
        );
    }
    device.pubacks(4);
    gateway.wait("dropped", |gateway| {
        gateway.metric("tidegate_registry_rejects_dropped_total{}").unwrap_or_default() == 1.0
    });
    assert_eq!(gateway.stop().code(), Some(0), "{}", scene.log());
    let counted = postgres.ask("SELECT tenant_id FROM quarantine_counters_minute ORDER BY 1").await;
    let counted: Vec<&str> = counted.iter().map(|row| row[0].as_deref().unwrap()).collect();
    assert_eq!(counted, ["a", "c", "d"]);
}

#[test]
fn remarks_of_explain_bring_no_control_characters_to_the_terminal() {
    let scene = GatewayDir::new();
    let row = "acme,d\u{1b}[2J,lab-1,ACTIVE,\n";
    let header = "tenant_id,device_id,site_id,status,provision_token_hash\n";
    std::fs::write(scene.path("devices.csv"), format!("{header}{row}{row}")).unwrap();
    let arguments = ["explain", "--topic", &topic("acme", "d", "telemetry"), "--payload", "{}"];
    let (_, _, errors) = scene.verb(&arguments, "");
    assert!(errors.contains("note: ") && errors.contains("\\u{1b}"), "{errors:?}");
    assert!(!errors.contains('\u{1b}'), "{errors:?}");
    let line = r#"{"topic":"t","payload":"","received_at":"\u001b[2J"}"#;
    let (status, _, errors) = scene.verb(&["explain", "--jsonl"], line);
    assert_eq!(status.code(), Some(2), "{errors:?}");
    assert!(errors.contains("stdin line 1") && !errors.contains('\u{1b}'), "{errors:?}");
}
