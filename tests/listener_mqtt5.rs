//! The listener in MQTT 5: its reasons; and the authentication of devices, in both versions.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::ConnectReturnCode as Code4;
use rumqttc::mqttbytes::v4::Login;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode as Code5, DisconnectReasonCode, LastWill, Packet,
    PubAckReason, PublishProperties,
};
use serde_json::json;
use tidegate::core::topic::{EnvelopeKind, TopicRules, TopicTemplate, TopicTemplates};
use tidegate::source::listener::{CloseReason, ConnectLimitSettings, CredentialPolicy, ListenerSettings};
use tokio::time::Instant;

use crate::harness::eventually;
use crate::harness::fake_pipeline::SettleMode;
use crate::harness::gateway::GatewayDir;
use crate::harness::listener::{RunningListener, TOPIC, settings};
use crate::harness::mqtt_client::MqttClient;
use crate::harness::mqtt5_client::{Mqtt5Client, socket};

fn asking(asks: CredentialPolicy) -> ListenerSettings {
    ListenerSettings { asks, ..settings() }
}

fn start(settings: ListenerSettings) -> RunningListener {
    RunningListener::start(settings, SettleMode::AtOnce, 1000)
}

fn wishes() -> ConnectProperties {
    ConnectProperties::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connack_tells_the_terms_and_names_who_has_no_name() {
    let running = start(settings());
    let mut device = Mqtt5Client::open(running.address);
    let asked = ConnectProperties { session_expiry_interval: Some(3600), ..wishes() };
    let connack = device.greet("", None, Some(asked)).unwrap();
    assert_eq!((connack.code, connack.session_present), (Code5::Success, false));
    let told = connack.properties.unwrap();
    assert_eq!(
        (told.session_expiry_interval, told.receive_max, told.max_qos),
        (Some(0), Some(10_000), Some(1))
    );
    assert!(told.max_packet_size.unwrap() > 16 * 8192);
    assert_eq!(told.topic_alias_max, Some(0));
    assert_eq!(told.wildcard_subscription_available, Some(0));
    assert_eq!(told.shared_subscription_available, Some(0));
    assert_eq!(told.subscription_identifiers_available, Some(0));
    assert!(told.assigned_client_identifier.unwrap().len() > 20);
    // Properties of a PUBLISH are read over.
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(10),
        user_properties: vec![("a".into(), "b".into()); 20],
        ..PublishProperties::default()
    };
    let id = device.publish_with(TOPIC, QoS::AtLeastOnce, "x", Some(properties));
    assert_eq!(device.puback(), (id, PubAckReason::Success, None));
    assert_eq!(running.downstream.taken()[0].payload, b"x");
    let big = device.publish(TOPIC, QoS::AtLeastOnce, vec![b'x'; 100_000]);
    assert_eq!(device.puback().0, big);
    let taken = running.downstream.taken()[1].clone();
    assert_eq!((taken.payload.len(), taken.payload_bytes), (1024, 100_000));
    device.send(&Packet::PingReq(rumqttc::v5::mqttbytes::v5::PingReq)).unwrap();
    assert!(matches!(device.receive().unwrap(), Packet::PingResp(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribe_is_refused_filter_by_filter() {
    use rumqttc::v5::mqttbytes::v5::{Filter, Subscribe, SubscribeReasonCode, Unsubscribe};
    let running = start(settings());
    let mut device = Mqtt5Client::open(running.address).connected("device", None);
    let mut subscribe = Subscribe::new(Filter::new("a/#", QoS::AtLeastOnce), None);
    subscribe.pkid = 7;
    subscribe.filters.push(Filter::new("b", QoS::AtMostOnce));
    device.send(&Packet::Subscribe(subscribe)).unwrap();
    let Packet::SubAck(suback) = device.receive().unwrap() else { panic!("no SUBACK") };
    assert_eq!((suback.pkid, suback.return_codes), (7, vec![SubscribeReasonCode::Unspecified; 2]));
    let mut unsubscribe = Unsubscribe::new("a/#", None);
    unsubscribe.pkid = 8;
    device.send(&Packet::Unsubscribe(unsubscribe)).unwrap();
    assert!(
        matches!(device.receive().unwrap(), Packet::UnsubAck(ack) if ack.pkid == 8 && ack.reasons.len() == 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_sent_away_is_told_why() {
    let running = start(settings());
    let disconnected = |bytes: &[u8]| {
        let mut device = Mqtt5Client::open(running.address).connected("device", None);
        device.stream.write_all(bytes).unwrap();
        device.disconnected().0
    };
    use DisconnectReasonCode as Reason;
    assert_eq!(disconnected(&[0x34, 6, 0, 1, b't', 0, 1, 0]), Reason::QoSNotSupported);
    assert_eq!(disconnected(&[0x32, 9, 0, 1, b't', 0, 1, 3, 0x23, 0, 1]), Reason::TopicAliasInvalid);
    assert_eq!(disconnected(&[0x32, 4, 0, 9, b't', 0]), Reason::MalformedPacket);
    assert_eq!(disconnected(&[0x32, 10, 0, 1, b't', 0, 1, 4, 1, 0, 1, 0]), Reason::ProtocolError);
    assert_eq!(disconnected(&[0x32, 0xff, 0xff, 0xff, 0x7f]), Reason::PacketTooLarge);
    assert_eq!(disconnected(&[0x20, 3, 0, 0, 0]), Reason::ProtocolError);
    running.ended(CloseReason::ExactlyOnce, 1, 2).await;

    let mut old = Mqtt5Client::open(running.address).connected("same", None);
    let _new = Mqtt5Client::open(running.address).connected("same", None);
    assert_eq!(old.disconnected().0, Reason::SessionTakenOver);

    // Keep-alive of one second.
    let mut quiet = socket(running.address);
    let connect = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 1, 0, 0, 1, b'q'];
    quiet.write_all(&connect).unwrap();
    let mut quiet = Mqtt5Client::on(quiet);
    assert!(matches!(quiet.receive().unwrap(), Packet::ConnAck(_)));
    assert_eq!(quiet.disconnected().0, Reason::KeepAliveTimeout);

    let mut last = Mqtt5Client::open(running.address).connected("last", None);
    running.stop.send_replace(Some(Instant::now() + Duration::from_secs(5)));
    assert_eq!(last.disconnected().0, Reason::ServerShuttingDown);
    running.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_at_connect_and_a_wrong_one_says_no_more_than_that() {
    let running = start(asking(CredentialPolicy::Always));
    let v5 = |login: Option<(&str, &str)>| {
        let mut device = Mqtt5Client::open(running.address);
        let connack = device.greet("device", login, None).unwrap();
        let closed = connack.code == Code5::Success || device.receive().is_err();
        assert!(closed, "still open");
        (connack.code, connack.properties.and_then(|told| told.reason_string))
    };
    let v4 = |login: Option<(&str, &str)>| {
        let login = login.map(|(username, password)| Login::new(username, password));
        MqttClient::open(running.address).greet("device", true, 60, login).unwrap().code
    };
    assert_eq!(v5(Some(("acme/d1", "tok-d1"))), (Code5::Success, None));
    assert_eq!(v4(Some(("acme/d1", "tok-d1"))), Code4::Success);
    let (wrong, why) = v5(Some(("acme/d1", "tok-d2")));
    assert_eq!(wrong, Code5::BadUserNamePassword);
    assert_eq!(v4(Some(("acme/d1", "tok-d2"))), Code4::BadUserNamePassword);
    // Nobody learns whether it was the name or the token.
    assert!(!why.as_ref().unwrap().contains("TOKEN"), "{why:?}");
    assert_eq!(v5(Some(("d1", "tok-d1"))).0, Code5::BadUserNamePassword);
    assert_eq!(v4(Some(("acme/d1/x", "tok-d1"))), Code4::BadUserNamePassword);
    assert_eq!(v5(None).0, Code5::NotAuthorized);
    assert_eq!(v4(None), Code4::NotAuthorized);
    assert_eq!(v5(Some(("away/d1", "tok-d1"))).0, Code5::ServerUnavailable);
    assert_eq!(v4(Some(("away/d1", "tok-d1"))), Code4::ServiceUnavailable);
    running.ended(CloseReason::BadCredentials, 4, 2).await;
    running.ended(CloseReason::NotAuthorized, 2, 2).await;
    running.ended(CloseReason::Unavailable, 2, 2).await;
    let method = ConnectProperties { authentication_method: Some("SCRAM".into()), ..wishes() };
    let connack = Mqtt5Client::open(running.address).greet("d", Some(("acme/d1", "tok-d1")), Some(method));
    assert_eq!(connack.unwrap().code, Code5::BadAuthenticationMethod);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_credentials_are_optional_bad_ones_are_no_good_and_none_prove_nothing() {
    let running = start(asking(CredentialPolicy::IfAny));
    let mut stranger = MqttClient::connect(running.address, "stranger");
    let id = stranger.publish(TOPIC, rumqttc::QoS::AtLeastOnce, false, "x");
    assert_eq!(stranger.puback(), id);
    for (username, password) in [("acme/d1", "guess"), ("acme/d1", ""), ("d1", "tok-d1")] {
        let mut wrong = MqttClient::open(running.address);
        let connack = wrong.greet("wrong", true, 60, Some(Login::new(username, password))).unwrap();
        assert_eq!(connack.code, Code4::BadUserNamePassword, "{username}:{password}");
    }
    // MQTT 5 may bring a password alone.
    let nameless = Mqtt5Client::open(running.address).greet("wrong", Some(("", "tok-d1")), None).unwrap();
    assert_eq!(nameless.code, Code5::BadUserNamePassword);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_publishes_to_its_own_topics_only() {
    let running = start(asking(CredentialPolicy::Always));
    let mut device = Mqtt5Client::open(running.address).connected("d1", Some(("acme/d1", "tok-d1")));
    let foreign = ["tenant/acme/device/d2/telemetry", "tenant/globex/device/d1/telemetry"];
    let before = device.publish(TOPIC, QoS::AtLeastOnce, "mine");
    let refused = foreign.map(|topic| device.publish(topic, QoS::AtLeastOnce, "not mine"));
    device.publish(foreign[0], QoS::AtMostOnce, "not mine");
    let after = device.publish("no/device's/topic", QoS::AtLeastOnce, "nobody's");
    assert_eq!(device.puback(), (before, PubAckReason::Success, None));
    for id in refused {
        let (acknowledged, reason, why) = device.puback();
        assert_eq!((acknowledged, reason), (id, PubAckReason::NotAuthorized));
        assert!(why.unwrap().starts_with("NOT_OWN_TOPIC: acme/d1 "));
    }
    assert_eq!(device.puback().0, after, "what is no device's topic is for admission to judge");
    assert_eq!(running.downstream.refused().len(), 3);
    assert!(running.downstream.refused().iter().all(|(sender, _)| sender == "acme/d1"));
    let topics: Vec<_> = running.downstream.taken().into_iter().map(|taken| taken.topic).collect();
    assert_eq!(topics, [TOPIC, "no/device's/topic"]);

    // In MQTT 3.1.1 there is no such answer: the connection ends, and nothing is acknowledged.
    let mut old = MqttClient::open(running.address);
    old.greet("old", true, 60, Some(Login::new("acme/d1", "tok-d1"))).unwrap();
    let id = old.publish(TOPIC, rumqttc::QoS::AtLeastOnce, false, "mine");
    assert_eq!(old.puback(), id);
    old.publish(foreign[1], rumqttc::QoS::AtLeastOnce, false, "not mine");
    assert!(old.receive().is_err());
    running.ended(CloseReason::NotOwnTopic, 1, 2).await;
    assert_eq!(running.counters.foreign_publishes.load(Ordering::Relaxed), 4);
    assert_eq!(running.downstream.taken_count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_publishes_to_its_own_topics_of_every_template_only() {
    let template = |template, tenant, device| {
        let tenants = std::collections::BTreeMap::new();
        let (message_type, site, envelope) = ("type", "", EnvelopeKind::None);
        let rules =
            TopicRules { template, tenant, device, message_type, site, tenants: &tenants, envelope, qos: 1 };
        TopicTemplate::new(&rules).unwrap()
    };
    let templates = [
        TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap(),
        template("acme/{device}/up", "acme", "{device}"),
        template("globex/{device}/up", "globex", "{device}"),
        template("boiler/{part}", "acme", "boiler"),
        template("spb/{group}/{edge}", "acme", "{group}/{edge}"),
    ];
    let topics = Arc::new(TopicTemplates::new(templates.into()).unwrap());
    let running = start(ListenerSettings { topics, ..asking(CredentialPolicy::Always) });
    let mut device = Mqtt5Client::open(running.address).connected("d1", Some(("acme/d1", "tok-d1")));
    let own = [TOPIC, "acme/d1/up", "no/template's"];
    let foreign = ["acme/d2/up", "globex/d1/up", "boiler/pressure", "spb/acme/d1", "spb/d1/d1"];
    for topic in own {
        let id = device.publish(topic, QoS::AtLeastOnce, "mine");
        assert_eq!(device.puback(), (id, PubAckReason::Success, None), "{topic}");
    }
    for topic in foreign {
        let id = device.publish(topic, QoS::AtLeastOnce, "not mine");
        let (acknowledged, reason, _) = device.puback();
        assert_eq!((acknowledged, reason), (id, PubAckReason::NotAuthorized), "{topic}");
    }
    let taken: Vec<_> = running.downstream.taken().into_iter().map(|taken| taken.topic).collect();
    assert_eq!(taken, own);
    assert_eq!(running.downstream.refused().len(), foreign.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_at_qos_2_is_refused_by_its_code_and_others_are_ignored() {
    let running = start(settings());
    for (qos, code) in [
        (QoS::AtMostOnce, Code5::Success),
        (QoS::AtLeastOnce, Code5::Success),
        (QoS::ExactlyOnce, Code5::QoSNotSupported),
    ] {
        let mut device = Mqtt5Client::open(running.address);
        let connect = Connect { keep_alive: 60, client_id: "d".into(), clean_start: true, properties: None };
        let will = LastWill::new("a/b", "gone", qos, false, None);
        device.send(&Packet::Connect(connect, Some(will), None)).unwrap();
        let Packet::ConnAck(connack) = device.receive().unwrap() else { panic!("no CONNACK") };
        assert_eq!(connack.code, code);
    }
    running.ended(CloseReason::WillQos, 1, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_is_taken_over_within_its_tenant_and_by_no_other() {
    let running = start(asking(CredentialPolicy::Always));
    let mut acme = Mqtt5Client::open(running.address).connected("pump", Some(("acme/d1", "tok-d1")));
    let mut globex = Mqtt5Client::open(running.address).connected("pump", Some(("globex/d1", "tok-d1")));
    let id = acme.publish(TOPIC, QoS::AtLeastOnce, "still here");
    assert_eq!(acme.puback().0, id);
    let _again = Mqtt5Client::open(running.address).connected("pump", Some(("acme/d1", "tok-d1")));
    assert_eq!(acme.disconnected().0, DisconnectReasonCode::SessionTakenOver);
    let id = globex.publish("tenant/globex/device/d1/telemetry", QoS::AtLeastOnce, "x");
    assert_eq!(globex.puback().0, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_and_a_tenant_has_so_many_connections() {
    let ceilings = ConnectLimitSettings {
        failed_connects_per_min: 3,
        connections_per_tenant_max: 2,
        ..ConnectLimitSettings::default()
    };
    let running = start(ListenerSettings { ceilings, ..asking(CredentialPolicy::Always) });
    let code = |login: (&str, &str)| {
        let mut device = Mqtt5Client::open(running.address);
        let code = device.greet("", Some(login), None).unwrap().code;
        (code, device)
    };
    for _ in 0..3 {
        assert_eq!(code(("acme/d1", "guess")).0, Code5::BadUserNamePassword);
    }
    assert_eq!(code(("acme/d1", "tok-d1")).0, Code5::ConnectionRateExceeded, "it is not looked at");
    running.ended(CloseReason::FailedConnects, 1, 2).await;
    let first = code(("acme/d2", "tok-d2"));
    let second = code(("acme/d3", "tok-d3"));
    assert_eq!((first.0, second.0), (Code5::Success, Code5::Success), "its neighbours are");
    assert_eq!(code(("acme/d4", "tok-d4")).0, Code5::QuotaExceeded);
    assert_eq!(code(("globex/d1", "tok-d1")).0, Code5::Success);
    drop(first);
    eventually("it left", 5, || code(("acme/d4", "tok-d4")).0 == Code5::Success).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_rate_is_read_no_faster_and_loses_nothing() {
    let ceilings = ConnectLimitSettings { messages_per_s_per_tenant: 100, ..ConnectLimitSettings::default() };
    let running = start(ListenerSettings { ceilings, ..asking(CredentialPolicy::Always) });
    let mut device = Mqtt5Client::open(running.address).connected("d1", Some(("acme/d1", "tok-d1")));
    let began = Instant::now();
    let ids: Vec<u16> = (0..300).map(|_| device.publish(TOPIC, QoS::AtLeastOnce, "x")).collect();
    assert_eq!(ids.iter().map(|_| device.puback().0).collect::<Vec<_>>(), ids);
    let last = device.publish(TOPIC, QoS::AtLeastOnce, "x");
    assert_eq!(device.puback().0, last);
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_of_mqtt_5_leaves_a_good_device_alone() {
    let running = start(ListenerSettings { connections_max: 1000, ..settings() });
    let mut seed = 1_u32;
    let mut byte = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    for n in 0..300 {
        let mut device = Mqtt5Client::open(running.address).connected(&format!("r{n}"), None);
        let mut rubbish: Vec<u8> = (0..1 + n % 200).map(|_| byte()).collect();
        if n % 2 == 0 {
            // A plausible PUBLISH around it.
            rubbish.splice(0..0, [0x32, rubbish.len() as u8, 0, 1, b't', 0, 1]);
        }
        let _ = device.stream.write_all(&rubbish);
        if n % 3 == 0 {
            // CONNECTs, too.
            let mut stream = TcpStream::connect(running.address).unwrap();
            let mut connect = vec![0x10, 60, 0, 4, b'M', b'Q', b'T', b'T', 5];
            connect.extend((0..53).map(|_| byte()));
            let _ = stream.write_all(&connect);
        }
    }
    running.assert_serves();
    eventually("they are gone", 20, || running.open() == 0).await;
    assert_eq!(running.counters.buffer_bytes.load(Ordering::Relaxed), 0);
    running.assert_serves();
}

/// The whole gateway: tokens at CONNECT against the registry, payloads without an envelope, and reasons
/// that travel back with the PUBACK.
#[test]
fn the_gateway_lets_devices_in_by_the_registry_and_tells_them_what_was_wrong() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.device("globex", "dev-1", "lab-9");
    scene.guest("_default", "lp", "passthrough");
    scene.configure(
        "[output]\nkind = \"file\"\n[admission]\ncredentials = \"listener\"\nburst = 3\nrate_per_s = 0.001\n\
         payload_bytes_max = 4096\n",
    );
    let gateway = scene.start();
    let address = scene.listener.parse().unwrap();
    let bad = Mqtt5Client::open(address).greet("x", Some(("acme/dev-1", "wrong")), None).unwrap();
    assert_eq!(bad.code, Code5::BadUserNamePassword);
    let unknown = Mqtt5Client::open(address).greet("x", Some(("acme/dev-9", "wrong")), None).unwrap();
    assert_eq!(unknown.properties, bad.properties, "one can tell unknown devices from known ones");
    assert_eq!(Mqtt5Client::open(address).greet("x", None, None).unwrap().code, Code5::NotAuthorized);

    let mut device = Mqtt5Client::open(address).connected("d", Some(("acme/dev-1", "tok-dev-1")));
    let own = "tenant/acme/device/dev-1/lp";
    let sent = [
        (own, &b"m value=1"[..], PubAckReason::Success, ""),
        (own, b"not line protocol", PubAckReason::UnspecifiedError, "BAD_LINE"),
        ("tenant/globex/device/dev-1/lp", b"m value=666", PubAckReason::NotAuthorized, "NOT_OWN_TOPIC"),
        ("tenant/acme/device/dev-1/nothing", b"x", PubAckReason::UnspecifiedError, "NO_GUEST"),
        (own, b"m value=2", PubAckReason::QuotaExceeded, "RATE_LIMITED"),
        ("somewhere", b"x", PubAckReason::TopicNameInvalid, "BAD_TOPIC_FORMAT"),
        (own, &[b'x'; 5000], PubAckReason::QuotaExceeded, "PAYLOAD_TOO_LARGE"),
    ];
    let ids = sent.map(|(topic, payload, ..)| device.publish(topic, QoS::AtLeastOnce, payload));
    for ((_, _, reason, code), id) in sent.iter().zip(ids) {
        let (acknowledged, said, why) = device.puback();
        assert_eq!((acknowledged, &said), (id, reason), "{code}: {why:?}");
        assert!(why.unwrap_or_default().starts_with(code), "{code}");
    }
    // One that wants no words gets none.
    let mut terse = Mqtt5Client::open(address);
    let wish = ConnectProperties { request_problem_info: Some(0), ..wishes() };
    terse.greet("t", Some(("acme/dev-1", "tok-dev-1")), Some(wish)).unwrap();
    terse.publish(own, QoS::AtLeastOnce, "m value=3");
    let (_, said, why) = terse.puback();
    assert_eq!((said, why), (PubAckReason::QuotaExceeded, None));

    gateway.wait("written", |gateway| gateway.book("acme", "lines", "written") == 1);
    let lines = scene.lines("telemetry_acme");
    assert!(lines[0].starts_with("m,device_id=dev-1,site_id=lab-1 value=1"), "{lines:?}");
    assert_eq!(
        gateway.json("/api/v1/books")["tenants"]["globex"],
        json!(null),
        "another's books were touched"
    );
    let entries = gateway.json("/api/v1/quarantine/entries?reason=NOT_OWN_TOPIC");
    assert_eq!(
        (&entries["entries"][0]["tenant"], &entries["entries"][0]["device"]),
        (&json!("acme"), &json!("dev-1"))
    );
    let ended = "tidegate_listener_connections_ended_total{reason=\"bad_credentials\"}";
    // Counted once nothing more is read of them.
    gateway.wait("both counted", |gateway| gateway.metric(ended) >= Some(2.0));
    assert_eq!(gateway.metric(ended), Some(2.0));
    assert_eq!(gateway.metric("tidegate_listener_foreign_publishes_total{}"), Some(1.0));
    gateway.assert_balanced();
    assert_eq!(gateway.stop().code(), Some(0));
}

/// A proof at CONNECT holds for no message that came another way.
#[test]
fn the_listeners_word_does_not_hold_for_what_came_by_a_broker_and_an_explain_asks_as_the_listener() {
    let broker = crate::harness::mosquitto::Mosquitto::start();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("_default", "lp", "passthrough");
    let types = "[output]\nkind = \"file\"\n[admission.types.lp]\ncredentials = \"listener\"\n";
    scene.configure_both(&broker.url(), types);
    let gateway = scene.start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all([("tenant/acme/device/dev-1/lp".to_owned(), b"m value=1".to_vec())]);
    gateway.wait("refused", |gateway| gateway.book("acme", "messages", "quarantined") == 1);
    let reasons = gateway.json("/api/v1/quarantine")["reasons"].clone();
    assert_eq!(reasons, json!({"BAD_PAYLOAD": 1}));
    // A device that proves nothing at the listener needs the envelope too; one with a proof needs none.
    let address = scene.listener.parse().unwrap();
    for (login, reason) in [
        (None, PubAckReason::PayloadFormatInvalid),
        (Some(("acme/dev-1", "tok-dev-1")), PubAckReason::Success),
    ] {
        let mut device = Mqtt5Client::open(address).connected("d", login);
        device.publish("tenant/acme/device/dev-1/lp", QoS::AtLeastOnce, "m value=1");
        assert_eq!(device.puback().1, reason);
    }
    let (status, out, errors) =
        scene.verb(&["explain", "--topic", "tenant/acme/device/dev-1/lp", "--payload", "m value=1"], "");
    assert!(status.success() && out.contains("device_id=dev-1"), "{out}{errors}");
    gateway.assert_balanced();
}
