//! Messages and lines that are refused, by everybody who may refuse them.

use std::io::Write;
use std::net::TcpStream;

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::Login;
use tidegate_simulator::Device;

use super::traffic::{NO_RATE, Sender, scene_of};
use crate::end_to_end::{envelope, topic};
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::monitoring::shown::Check::{Above, Is};
use crate::monitoring::shown::{Shown, TOKEN, Watch, alert, panel};

const ACME: &[(&str, &str)] = &[("tenant", "acme")];
const HOSTILE: &[(&str, &str)] = &[("tenant", "acme"), ("type", "hostile")];

pub const SHOWN: &[Shown] = &[
    panel("overview", "Messages a second", "B", &[], Above(0.0)),
    panel("overview", "Results a second", "A", &[("outcome", "quarantined")], Above(0.0)),
    panel("overview", "Refused a second, by reason", "A", &[("reason", "GUEST_TRAP")], Above(0.0)),
    panel("overview", "Refused a second, by reason", "A", &[("reason", "UNREGISTERED_DEVICE")], Above(0.0)),
    panel("overview", "Refused a second, by reason", "A", &[("reason", "DATABASE_REFUSED")], Above(0.0)),
    panel("overview", "Dropped a second, by reason", "A", &[("reason", "UNREGISTERED_DEVICE")], Above(0.0)),
    panel("overview", "Lines a second", "C", &[], Above(0.0)),
    panel("overview", "Lines that databases refused, by answer", "A", &[("outcome", "refused")], Above(0.0)),
    panel("overview", "Quarantine, parts of their ceilings", "A", &[("kind", "proven")], Above(0.8)),
    panel("overview", "Quarantine", "A", &[], Above(500_000.0)),
    panel("overview", "Connections that ended, by reason", "A", &[("reason", "malformed")], Above(0.0)),
    panel("overview", "Publishes to a topic of another device", "A", &[], Above(0.0)),
    panel("overview", "Answers on the refused topic", "A", &[("outcome", "dropped")], Above(0.0)),
    panel("tenant", "Results a second", "A", &[("outcome", "quarantined")], Above(0.0)),
    panel("tenant", "Part that is refused", "A", &[], Above(0.05)),
    panel("tenant", "Quarantine", "A", &[], Above(10.0)),
    panel("tenant", "Entries that left quarantine", "A", &[("outcome", "expired")], Above(0.0)),
    panel("tenant", "Lines a second", "C", &[], Above(0.0)),
    panel(
        "tenant",
        "Messages that were not decoded",
        "A",
        &[("type", "hostile"), ("kind", "trap")],
        Above(0.0),
    ),
    panel("decoders", "Failures a second, by kind", "A", &[("tenant", "acme"), ("kind", "trap")], Above(0.0)),
    panel("decoders", "Part that fails", "A", HOSTILE, Is(1.0)),
    panel("decoders", "Values that were left out", "A", &[("kind", "text")], Above(0.0)),
    alert("TidegateRefusalsUp", "warning", ACME),
    alert("TidegateStrangers", "info", &[]),
    alert("TidegateQuarantineFilling", "warning", &[]),
    alert("TidegateDecoderFails", "warning", HOSTILE),
    alert("TidegateDatabaseRefusesLines", "warning", ACME),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_admission_a_decoder_and_a_database_refuse_is_seen_by_reason() {
    let (influxdb, broker) = (Influxdb::start().await, Mosquitto::start_in_memory());
    influxdb.create("telemetry_acme").await;
    let mut scene = scene_of(&["acme"]);
    scene.guest("acme", "hostile", "hostile");
    scene.configure_both(
        &broker.url(),
        &format!(
            "[output]\nkind = \"influxdb1\"\nurl = \"{}\"\nflush_interval_ms = 50\n{NO_RATE}\
             [admission.types.lp]\ncredentials = \"listener\"\n[quarantine]\nbytes_max = 1048576\n",
            influxdb.url()
        ),
    );
    let path = scene.path("tidegate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let answers = "[mqtt]\nrefused_topic = \"refused/{tenant}/{device}\"\n";
    std::fs::write(path, text.replacen("[mqtt]\n", answers, 1)).unwrap();
    scene.set_token(TOKEN);
    let gateway = scene.start();
    let watch = Watch::on(&[&scene.admin]).await;

    let mut sender = Sender::of(&scene, "acme");
    // The field v is an integer from now on.
    sender.publish(1);
    gateway.wait_written("acme", 1);
    let mut stranger = Device::connect(&scene.listener, "stranger").unwrap();
    let mut behind = MqttClient::to_broker(broker.port, "behind-a-broker");
    let to_nobody = topic("nobody", "dev-1", "telemetry");
    let hello = envelope("dev-1", 1);
    let trap = format!(
        r#"{{"site_id":"lab-1","provision_token":"tok-of-acme","do":"trap","pad":"{}"}}"#,
        "x".repeat(20_000)
    );
    let fraction = envelope("of-acme", 7).replace("\"v\":7", "\"v\":7.5,\"said\":\"hot\"");
    watch
        .sees(&scene.admin, SHOWN, || {
            sender.publish(5);
            sender.publish_as("telemetry", &fraction, 1);
            sender.publish_as("hostile", &trap, 20);
            // What is sent once more has the flag DUP.
            let mut again = sender.packet(Some(60_000));
            again[0] |= 8;
            sender.device.stream.write_all(&again).unwrap();
            assert_eq!(sender.device.puback().unwrap(), 60_000);
            let strange = (0..100).map(|_| (to_nobody.as_str(), hello.as_bytes()));
            assert_eq!(stranger.publish_all(strange, 100).unwrap(), 100);
            // A packet of a type that does not exist.
            let mut rubbish = Device::connect(&scene.listener, "rubbish").unwrap();
            rubbish.stream.write_all(&[0x06, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
            let mut foreign = MqttClient::on(TcpStream::connect(&scene.listener).unwrap());
            foreign.greet("foreign", true, 60, Some(Login::new("acme/of-acme", "tok-of-acme"))).unwrap();
            foreign.publish(&topic("acme", "of-another", "lp"), QoS::AtLeastOnce, false, "m v=1");
            let refused = (0..20).map(|_| (topic("acme", "of-acme", "telemetry"), b"no envelope".to_vec()));
            behind.publish_all(refused);
        })
        .await;
    gateway.assert_balanced();
}
