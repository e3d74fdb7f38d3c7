//! Connections that end because their device's proof does not hold any more.

use std::time::Duration;

use rumqttc::Login;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;

use crate::harness::fake_pipeline::SettleMode;
use crate::harness::gateway::GatewayDir;
use crate::harness::listener::{RunningListener, TOPIC, settings};
use crate::harness::mqtt_client::MqttClient;
use crate::harness::mqtt5_client::Mqtt5Client;
use crate::registry;
use tidegate::source::listener::{CloseReason, CredentialPolicy, ListenerSettings};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_revoked_loses_its_connection_and_its_neighbour_does_not() {
    let settings = ListenerSettings { asks: CredentialPolicy::Always, ..settings() };
    let running = RunningListener::start(settings, SettleMode::AtOnce, 1000);
    let open = |device: &str| {
        let (name, token) = (format!("acme/{device}"), format!("tok-{device}"));
        Mqtt5Client::open(running.address).connected(device, Some((&name, &token)))
    };
    let (mut gone, mut stays) = (open("d2"), open("d1"));
    running.downstream.revoke("acme", "d2");
    assert_eq!(gone.disconnected().0, DisconnectReasonCode::NotAuthorized);
    running.ended(CloseReason::Revoked, 1, 5).await;
    let id = stays.publish(TOPIC, QoS::AtLeastOnce, "still here");
    assert_eq!(stays.puback().0, id);
}

/// Connects a device of acme, which proves itself by its token.
fn open(scene: &GatewayDir, device: &str) -> MqttClient {
    let mut client = MqttClient::open(scene.listener.parse().unwrap());
    let login = Login::new(format!("acme/{device}"), format!("tok-{device}"));
    let connack = client.greet(device, true, 60, Some(login)).unwrap();
    assert_eq!(connack.code, rumqttc::ConnectReturnCode::Success);
    client
}

/// A file registry: the row is removed, revoked, or has another token.
#[test]
fn a_change_of_the_registry_s_file_ends_the_connections_that_it_is_about() {
    let mut scene = GatewayDir::new();
    for device in ["removed", "revoked", "renewed", "stays"] {
        scene.device("acme", device, "lab-1");
    }
    scene.configure("[output]\nkind = \"file\"\n[admission]\ncredentials = \"listener\"\n");
    let gateway = scene.start();
    let mut stays = open(&scene, "stays");
    for (device, verb, input) in [
        ("removed", &["device", "rm", "acme", "removed"][..], ""),
        ("revoked", &["device", "revoke", "acme", "revoked"], ""),
        ("renewed", &["device", "put", "acme", "renewed", "--site", "lab-1"], "another token\n"),
    ] {
        let mut client = open(&scene, device);
        let (status, _, errors) = scene.verb(verb, input);
        assert!(status.success(), "{errors}");
        client.expect_closed(Duration::from_secs(20));
    }
    let ended = "tidegate_listener_connections_ended_total{reason=\"revoked\"}";
    gateway.wait("counted", |gateway| gateway.metric(ended) == Some(3.0));
    gateway.wait("said with the device", |_| {
        let log = scene.log();
        ["acme/removed", "acme/revoked", "acme/renewed"].iter().any(|device| log.contains(device))
    });
    stays.send(&rumqttc::mqttbytes::v4::Packet::PingReq).unwrap();
    assert_eq!(stays.receive().unwrap(), rumqttc::mqttbytes::v4::Packet::PingResp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_database_ends_the_connections_that_it_is_about() {
    let (postgres, scene) = registry::scene().await;
    for device in ["dev-1", "dev-2"] {
        registry::register(&postgres, "acme", device).await;
    }
    let text = std::fs::read_to_string(scene.path("tidegate.toml")).unwrap();
    let text = text.replace("[admission]\n", "[admission]\ncredentials = \"listener\"\n");
    std::fs::write(scene.path("tidegate.toml"), text).unwrap();
    let _gateway = scene.start();
    let (mut gone, mut stays) = (open(&scene, "dev-1"), open(&scene, "dev-2"));
    postgres.run("UPDATE device_registry SET status = 'REVOKED' WHERE device_id = 'dev-1'").await;
    tokio::task::block_in_place(|| gone.expect_closed(Duration::from_secs(20)));
    stays.send(&rumqttc::mqttbytes::v4::Packet::PingReq).unwrap();
    assert_eq!(stays.receive().unwrap(), rumqttc::mqttbytes::v4::Packet::PingResp);
}
