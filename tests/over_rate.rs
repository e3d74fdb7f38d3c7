//! Devices over their rate: read no faster at the listener, refused and kept behind a broker.

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::Packet;
use serde_json::json;

use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

fn telemetry(device: &str, count: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    let topic = format!("tenant/acme/device/{device}/telemetry");
    let token = format!("tok-{device}");
    (0..count).map(move |seq| {
        let payload =
            json!({"site_id": "lab-1", "provision_token": token, "seq": seq, "metrics": {"t": 1.5}});
        (topic.clone(), payload.to_string().into_bytes())
    })
}

#[test]
fn a_burst_of_a_known_device_behind_a_broker_is_kept_to_the_last_message() {
    let broker = Mosquitto::start();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let output = "[output]\nkind = \"file\"\n[admission]\nburst = 20\nrate_per_s = 0.01\n";
    scene.configure_broker(&broker.url(), output);
    scene.set_token("operator");
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all(telemetry("dev-1", 100));
    gateway.wait("settled", |gateway| {
        gateway.book("acme", "messages", "received") == 100
            && gateway.book("acme", "messages", "in_flight") == 0
    });
    assert_eq!(gateway.book("acme", "messages", "quarantined"), 80);
    assert_eq!(gateway.book("acme", "messages", "dropped"), 0);
    let kept = gateway.json("/api/v1/quarantine/entries?reason=RATE_LIMITED&limit=1000");
    let kept = kept["entries"].as_array().unwrap();
    assert_eq!(kept.len(), 80);
    assert!(kept.iter().all(|entry| entry.get("truncated").is_none()), "{}", kept[0]);

    // Under names that the registry does not have, a sample is kept, and the rest is counted.
    publisher.publish_all(telemetry("stranger", 300));
    gateway.wait("settled", |gateway| {
        gateway.book("acme", "messages", "received") == 400
            && gateway.book("acme", "messages", "in_flight") == 0
    });
    let books = gateway.json("/api/v1/books")["tenants"]["acme"].clone();
    let dropped = books["messages"]["dropped"].as_u64().unwrap();
    let reasons = books["dropped_by_reason"].as_object().unwrap();
    assert!(dropped > 0, "{books:#}");
    assert_eq!(reasons.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), dropped, "{books:#}");
    assert_eq!(books["messages"]["quarantined"].as_u64().unwrap() + dropped, 380, "{books:#}");
    let (reason, count) = reasons.iter().next().unwrap();
    let metric = format!("tidegate_messages_dropped_total{{tenant=\"acme\",reason=\"{reason}\"}}");
    assert_eq!(gateway.metric(&metric), count.as_f64());
    gateway.assert_balanced();
    // None of them has pushed out what is known.
    assert!(gateway.json("/api/v1/quarantine")["reasons"]["RATE_LIMITED"].as_u64() >= Some(80));
}

#[test]
fn the_listener_reads_a_device_no_faster_than_its_rate_and_refuses_nothing() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.configure("[output]\nkind = \"file\"\n[admission]\nburst = 5\nrate_per_s = 20\n");
    let gateway = scene.start();
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
    for (topic, payload) in telemetry("dev-1", 60) {
        device.publish(&topic, QoS::AtLeastOnce, false, payload);
    }
    device.send(&Packet::PingReq).unwrap();
    let (mut acknowledged, mut before_ping) = (0, None);
    while acknowledged < 60 {
        match device.receive().unwrap() {
            Packet::PubAck(ack) => {
                acknowledged += 1;
                assert_eq!(ack.pkid, acknowledged, "out of order");
            }
            Packet::PingResp => before_ping = Some(acknowledged),
            other => panic!("{other:?}"),
        }
    }
    // A ping behind messages that wait is answered before them.
    assert!(before_ping.is_some_and(|acknowledged| acknowledged < 60), "{before_ping:?}");
    assert_eq!(gateway.book("acme", "messages", "lines"), 60);
    assert_eq!(gateway.book("acme", "messages", "quarantined"), 0);
    gateway.assert_balanced();

    // Its last words count, too.
    for (topic, payload) in telemetry("dev-1", 40) {
        device.publish(&topic, QoS::AtMostOnce, false, payload);
    }
    device.send(&Packet::Disconnect).unwrap();
    gateway.wait("all are taken", |gateway| gateway.book("acme", "messages", "lines") == 100);
    gateway.assert_balanced();
}

#[test]
fn a_stop_does_not_wait_for_messages_that_wait_for_their_rate() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    // Longer than `stop` waits.
    scene.configure(
        "[output]\nkind = \"file\"\n[admission]\nburst = 5\nrate_per_s = 2\n[shutdown]\ndeadline_s = 300\n",
    );
    let gateway = scene.start();
    let mut device = MqttClient::connect(scene.listener.parse().unwrap(), "dev-1");
    for (topic, payload) in telemetry("dev-1", 60) {
        device.publish(&topic, QoS::AtLeastOnce, false, payload);
    }
    gateway.wait("the burst", |gateway| gateway.book("acme", "messages", "lines") >= 5);
    assert_eq!(gateway.stop().code(), Some(0));
    let mut acknowledged = 0;
    while let Ok(packet) = device.receive() {
        acknowledged += u64::from(matches!(packet, Packet::PubAck(_)));
    }
    assert!((5..60).contains(&acknowledged), "{acknowledged}: all that is durable, and nothing else");
}

#[test]
fn a_device_that_floods_delays_no_other_and_is_refused_where_the_operator_wants_it() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "flood", "lab-1");
    scene.device("acme", "dev-1", "lab-1");
    let window = "unsettled_messages_max = 100\n";
    scene
        .configure(&format!("[output]\nkind = \"file\"\n[admission]\nburst = 5\nrate_per_s = 0.1\n{window}"));
    let gateway = scene.start();
    let address = scene.listener.parse().unwrap();
    // More than the window of the whole gateway, in hundreds of kilobytes.
    let mut flood = MqttClient::connect(address, "flood");
    for (topic, payload) in telemetry("flood", 300) {
        flood.publish(&topic, QoS::AtLeastOnce, false, payload);
    }
    gateway.wait("it is slowed", |gateway| gateway.book("acme", "messages", "lines") >= 5);
    let mut device = MqttClient::connect(address, "dev-1");
    device.publish_all(telemetry("dev-1", 5));
    assert_eq!(gateway.book("acme", "messages", "quarantined"), 0);
    drop(flood);
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));

    scene.configure(&format!(
        "[output]\nkind = \"file\"\n[admission]\nover_rate = \"refuse\"\nburst = 5\nrate_per_s = 0.1\n{window}"
    ));
    let gateway = scene.start();
    let mut device = MqttClient::connect(address, "dev-1");
    device.publish_all(telemetry("dev-1", 30));
    assert_eq!(gateway.book("acme", "messages", "quarantined"), 25);
    gateway.assert_balanced();
}
