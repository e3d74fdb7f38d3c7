//! The broker session against a real Mosquitto.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, Packet, SubAck, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::{QoS as QoS5, v5};
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::core::reason::Reason;
use tidegate::source::SourceStatus;
use tidegate::source::broker::{Broker, BrokerCounters, BrokerSettings, Protocol, TopicFilter};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::harness::eventually;
use crate::harness::fake_pipeline::{FakePipeline, SettleMode};
use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::harness::mqtt_proxy::MqttProxy;
use crate::harness::mqtt5_client::Mqtt5Client;

/// A session that runs.
struct Running {
    downstream: Arc<FakePipeline>,
    window: Arc<ReceiveWindow>,
    status: watch::Receiver<SourceStatus>,
    counters: Arc<BrokerCounters>,
    stop: watch::Sender<Option<Instant>>,
    task: tokio::task::JoinHandle<()>,
}

fn settings(url: &str, data_dir: &Path) -> BrokerSettings {
    BrokerSettings {
        url: url.parse().unwrap(),
        protocol: Protocol::V5,
        filters: vec![TopicFilter { filter: "tenant/+/device/+/+".into(), qos: 1 }],
        share: None,
        client_id: "tidegate".into(),
        username: String::new(),
        password: None,
        ca_file: None,
        accepts_retained: false,
        payload_bytes_max: 8192,
        keep_alive_s: 30,
        data_dir: data_dir.to_owned(),
        answer_topic: None,
        sparkplug_host_id: None,
    }
}

fn run(settings: BrokerSettings, settling: SettleMode, messages_max: u64) -> Running {
    run_into(settings, FakePipeline::new(settling), messages_max)
}

fn run_into(settings: BrokerSettings, downstream: Arc<FakePipeline>, messages_max: u64) -> Running {
    let window = Arc::new(ReceiveWindow::new(messages_max, 64 << 20));
    let broker = Broker::new(settings, window.clone(), downstream.clone()).unwrap();
    let (stop, stopping) = watch::channel(None);
    let (status, counters) = (broker.status(), broker.counters());
    let task = tokio::spawn(broker.run(stopping));
    Running { downstream, window, status, counters, stop, task }
}

impl Running {
    async fn ready(&self) {
        eventually("the session is subscribed", 10, || self.status.borrow().is_ready()).await;
    }

    async fn stop(self) -> Arc<FakePipeline> {
        self.stop.send_replace(Some(Instant::now() + Duration::from_secs(5)));
        self.task.await.unwrap();
        self.downstream
    }
}

fn messages(range: std::ops::Range<u32>) -> impl Iterator<Item = (String, Vec<u8>)> {
    range.map(|n| (format!("tenant/acme/device/d{}/telemetry", n % 7), format!("message {n}").into_bytes()))
}

const TOPIC: &str = "tenant/acme/device/d1/telemetry";

#[tokio::test(flavor = "multi_thread")]
async fn messages_settled_in_any_order_are_acknowledged_in_the_order_they_came() {
    let broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&tap.url(), folder.path()), SettleMode::Shuffled, 10_000);
    running.ready().await;
    MqttClient::to_broker(broker.port, "publisher").publish_all(messages(0..3000));
    eventually("all PUBACKs", 10, || tap.records()[0].acknowledged.len() == 3000).await;
    tap.records()[0].assert_ordered();
    let downstream = running.stop().await;
    eventually("the DISCONNECT", 2, || tap.records()[0].disconnected).await;
    let expected: Vec<_> = messages(0..3000).collect();
    let taken: Vec<_> = downstream.taken().into_iter().map(|taken| (taken.topic, taken.payload)).collect();
    assert_eq!(taken, expected);
    assert!(downstream.account.snapshot().balanced());
    assert_eq!(downstream.account.snapshot().messages.lines, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_costs_no_message_and_no_old_packet_is_acknowledged_to_the_new_one() {
    let mut broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&tap.url(), folder.path()), SettleMode::Held, 10_000);
    running.ready().await;
    MqttClient::to_broker(broker.port, "publisher").publish_all(messages(0..500));
    eventually("all 500", 5, || running.downstream.held() == 500).await;
    running.downstream.settle(200);
    eventually("200 PUBACKs", 5, || tap.records()[0].acknowledged.len() == 200).await;
    // The broker saves its store once a second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    broker.kill();
    eventually("the loss is seen", 5, || !running.status.borrow().connected).await;
    // 300 of the old connection settle only now, some before and some after the new one stands.
    running.downstream.settle(100);
    broker.restart();
    eventually("the unacknowledged come again", 10, || running.downstream.taken_count() >= 800).await;
    assert_eq!(tap.records().last().unwrap().acknowledged.len(), 0);
    running.downstream.settle(200);
    running.downstream.release();
    MqttClient::to_broker(broker.port, "publisher").publish_all(messages(500..520));
    eventually("everything", 5, || running.downstream.distinct() == 520).await;
    eventually("all PUBACKs", 5, || tap.records().last().unwrap().acknowledged.len() >= 320).await;
    let records = tap.records();
    records.iter().for_each(|record| record.assert_ordered());
    let last = records.last().unwrap();
    assert_eq!((last.published.len(), last.acknowledged.len()), (320, 320));
    assert!(last.published[..300].iter().all(|(_, dup)| *dup));
    assert_eq!(running.counters.redelivered.load(Ordering::Relaxed), 300);
    assert_eq!(running.downstream.resumed().len(), 1);
    let downstream = running.stop().await;
    let books = downstream.account.snapshot().messages;
    assert_eq!((books.received, books.abandoned, books.lines, books.in_flight), (820, 300, 520, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_while_it_drains_its_queue_to_us_costs_no_message() {
    let mut broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    let first = run(settings(&tap.url(), folder.path()), SettleMode::AtOnce, 100);
    first.ready().await;
    first.stop().await;
    MqttClient::to_broker(broker.port, "publisher").publish_all(messages(0..1000));
    // The broker saves its store once a second (and after each change, so a long queue fills slowly).
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let downstream = FakePipeline::new(SettleMode::Shuffled);
    *downstream.delay.lock() = Duration::from_millis(400);
    let running = run_into(settings(&tap.url(), folder.path()), downstream, 100);
    eventually("a part", 5, || running.downstream.taken_count() >= 200).await;
    broker.kill();
    assert!(running.downstream.taken_count() < 900, "it was over before the kill");
    *running.downstream.delay.lock() = Duration::ZERO;
    broker.restart();
    eventually("all 1000", 10, || running.downstream.distinct() == 1000).await;
    eventually("all are settled", 5, || running.window.messages() == 0).await;
    // The restart of the program and that of the broker were each an absence.
    eventually("the session is resumed", 10, || running.downstream.resumed().len() == 2).await;
    running.ready().await;
    eventually("what came again is settled", 5, || {
        let last = tap.records().pop().unwrap();
        running.window.messages() == 0 && last.published.len() == last.acknowledged.len()
    })
    .await;
    assert!(running.downstream.resumed()[0] >= Duration::from_secs(2));
    let downstream = running.stop().await;
    tap.records().iter().for_each(|record| record.assert_ordered());
    let books = downstream.account.snapshot();
    assert!(books.balanced() && books.messages.in_flight == 0, "{books:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_the_session_is_subscribed_to_again() {
    let mut broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&broker.url(), folder.path()), SettleMode::AtOnce, 100);
    running.ready().await;
    broker.kill();
    let _ = std::fs::remove_file(broker.folder().join("mosquitto.db"));
    eventually("the loss is seen", 5, || !running.status.borrow().connected).await;
    broker.restart();
    running.ready().await;
    MqttClient::to_broker(broker.port, "publisher").publish_all(messages(0..10));
    eventually("messages come", 5, || running.downstream.taken_count() == 10).await;
    assert!(running.downstream.resumed().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_giant_message_from_a_stranger_passes_with_its_first_kibibyte_and_the_next_is_whole() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&broker.url(), folder.path()), SettleMode::AtOnce, 100);
    running.ready().await;
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all([(TOPIC.into(), vec![b'x'; 1 << 20]), (TOPIC.into(), b"good".to_vec())]);
    eventually("both", 5, || running.downstream.taken_count() == 2).await;
    let taken = running.downstream.taken();
    assert_eq!((taken[0].payload.len(), taken[0].payload_bytes), (1024, 1 << 20));
    assert_eq!((taken[1].payload.as_slice(), taken[1].payload_bytes), (&b"good"[..], 4));
    assert_eq!(running.counters.connects.load(Ordering::Relaxed), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_are_dropped_and_acknowledged_unless_they_are_wanted() {
    let broker = Mosquitto::start();
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish(TOPIC, QoS::AtLeastOnce, true, "old");
    publisher.puback();
    for accepts_retained in [false, true] {
        let tap = MqttProxy::to(broker.port).await;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(&tap.url(), folder.path());
        settings.client_id = format!("tidegate-{accepts_retained}");
        settings.accepts_retained = accepts_retained;
        let running = run(settings, SettleMode::AtOnce, 100);
        running.ready().await;
        publisher.publish(TOPIC, QoS::AtLeastOnce, false, "new");
        publisher.puback();
        eventually("both PUBACKs", 5, || tap.records()[0].acknowledged.len() == 2).await;
        let downstream = running.stop().await;
        let payloads: Vec<_> = downstream.taken().into_iter().map(|taken| taken.payload).collect();
        if accepts_retained {
            assert_eq!(payloads, [b"old", b"new"]);
        } else {
            assert_eq!(payloads, [b"new"]);
            assert_eq!(downstream.dropped(Reason::Retained), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_at_qos_0_beyond_the_window_is_dropped_and_counted_and_the_session_goes_on() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&broker.url(), folder.path()), SettleMode::Held, 50);
    running.ready().await;
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    // One write, so that one read finds more of them than the window holds.
    let mut burst = bytes::BytesMut::new();
    for n in 0..1000 {
        rumqttc::Publish::new(TOPIC, QoS::AtMostOnce, format!("{n}")).write(&mut burst).unwrap();
    }
    std::io::Write::write_all(&mut publisher.stream, &burst).unwrap();
    // Once the last group is taken nothing of the read that filled the window is being dropped any more.
    eventually("a full window", 20, || running.downstream.held() == 50).await;
    assert_eq!(running.window.messages(), 50);
    running.downstream.release();
    publisher.publish(TOPIC, QoS::AtLeastOnce, false, "after");
    eventually("the message after the burst", 20, || {
        running.downstream.taken().last().is_some_and(|taken| taken.payload == b"after")
    })
    .await;
    let (taken, dropped) = (running.downstream.taken_count(), running.downstream.dropped(Reason::Overload));
    assert_eq!(taken + dropped, 1001);
    assert!(dropped > 0, "nothing was dropped");
    assert_eq!(running.counters.connects.load(Ordering::Relaxed), 1);
    assert!(running.stop().await.account.snapshot().balanced());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_blocked_for_long_makes_the_session_leave_and_return_without_loss() {
    let broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&tap.url(), folder.path());
    settings.keep_alive_s = 2;
    let running = run(settings, SettleMode::Held, 10);
    running.ready().await;
    // Larger than one read, so that the window fills before all are read.
    let payload = |n: u32| format!("{n:0>8000}").into_bytes();
    MqttClient::to_broker(broker.port, "publisher").publish_all((0..50).map(|n| (TOPIC.into(), payload(n))));
    eventually("the session leaves", 4, || running.counters.blocked.load(Ordering::Relaxed) == 1).await;
    assert!(running.status.borrow().last_error.as_ref().unwrap().contains("blocked"));
    eventually("the broker sees it", 2, || tap.records()[0].disconnected).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(tap.records().len(), 1, "it came back while nothing was settled");
    running.downstream.release();
    eventually("all 50", 5, || running.downstream.distinct() == 50).await;
    assert_eq!(tap.records().len(), 2);
    running.stop().await;
    tap.records().iter().for_each(|record| record.assert_ordered());
    assert!(!broker.log().contains("exceeded timeout"), "{}", broker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_acknowledgements_go_on_while_a_group_waits_for_room_downstream() {
    let broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&tap.url(), folder.path());
    settings.keep_alive_s = 2;
    let running = run(settings, SettleMode::AtOnce, 1000);
    running.ready().await;
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all(messages(0..1));
    eventually("the first", 2, || running.downstream.taken_count() == 1).await;
    *running.downstream.delay.lock() = Duration::from_secs(6);
    publisher.publish_all(messages(1..2));
    eventually("the second", 10, || running.downstream.taken_count() == 2).await;
    eventually("its PUBACK", 2, || tap.records()[0].acknowledged.len() == 2).await;
    assert_eq!(tap.records().len(), 1, "the connection did not live through the wait");
    assert!(tap.records()[0].pings >= 4, "{} pings", tap.records()[0].pings);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_filter_takes_the_place_of_the_old_one_in_the_session() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    for (filter, wanted) in [("old/#", "old/x"), ("new/#", "new/x")] {
        let mut settings = settings(&broker.url(), folder.path());
        settings.filters = vec![TopicFilter { filter: filter.into(), qos: 1 }];
        let running = run(settings, SettleMode::AtOnce, 100);
        running.ready().await;
        let file = folder.path().join("mqtt-session.json");
        eventually("the session holds one filter", 5, || {
            let held: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            held["filters"] == serde_json::json!([filter])
        })
        .await;
        let mut publisher = MqttClient::to_broker(broker.port, "publisher");
        publisher.publish_all(
            [("old/x", "1"), ("new/x", "2"), (wanted, "last")]
                .map(|(topic, payload)| (topic.to_owned(), payload.as_bytes().to_vec())),
        );
        eventually("the last", 5, || {
            running.downstream.taken().last().is_some_and(|taken| taken.payload == b"last")
        })
        .await;
        let downstream = running.stop().await;
        assert!(downstream.taken().iter().all(|taken| taken.topic == wanted), "{:?}", downstream.taken());
        assert_eq!(downstream.taken_count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_acknowledges_what_settles_in_time_and_then_disconnects() {
    let broker = Mosquitto::start();
    let tap = MqttProxy::to(broker.port).await;
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&tap.url(), folder.path()), SettleMode::Held, 100);
    running.ready().await;
    let mut publisher = MqttClient::to_broker(broker.port, "publisher");
    publisher.publish_all(messages(0..20));
    eventually("all 20", 5, || running.downstream.held() == 20).await;
    running.stop.send_replace(Some(Instant::now() + Duration::from_secs(8)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    publisher.publish_all(messages(20..30));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(running.downstream.taken_count(), 20, "it read on while stopping");
    assert!(!running.task.is_finished());
    running.downstream.release();
    running.task.await.unwrap();
    eventually("the DISCONNECT", 2, || tap.records()[0].disconnected).await;
    assert_eq!(tap.records()[0].acknowledged.len(), 20);
    tap.records()[0].assert_ordered();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_at_its_deadline_though_messages_never_settle() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&broker.url(), folder.path()), SettleMode::Held, 100);
    running.ready().await;
    MqttClient::to_broker(broker.port, "publisher").publish_all(messages(0..5));
    eventually("all 5", 5, || running.downstream.held() == 5).await;
    let began = Instant::now();
    running.stop.send_replace(Some(began + Duration::from_secs(1)));
    running.task.await.unwrap();
    assert!((900..2500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    running.downstream.release();
    assert_eq!(running.downstream.account.snapshot().messages.abandoned, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_behind_tls_and_a_password_is_reached_and_a_wrong_one_is_named() {
    let certificates = tempfile::tempdir().unwrap();
    let issuer_key = rcgen::KeyPair::generate().unwrap();
    let mut issuer = rcgen::CertificateParams::new([]).unwrap();
    issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // With the default name on both, OpenSSL takes the server's certificate for its own issuer.
    issuer.distinguished_name.push(rcgen::DnType::CommonName, "test root");
    let root = issuer.self_signed(&issuer_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(["localhost".into()])
        .unwrap()
        .signed_by(&key, &rcgen::Issuer::new(issuer, &issuer_key))
        .unwrap();
    let path = |name: &str| certificates.path().join(name);
    std::fs::write(path("ca.pem"), root.pem()).unwrap();
    std::fs::write(path("server.pem"), server.pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(path("passwords"))
        .args(["gateway", "secret"])
        .status()
        .unwrap();
    assert!(made.success());
    let broker = Mosquitto::start_with(|_| {
        format!(
            "certfile {}\nkeyfile {}\nallow_anonymous false\npassword_file {}\n",
            path("server.pem").display(),
            path("server.key").display(),
            path("passwords").display(),
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let mut right = settings(&format!("mqtts://localhost:{}", broker.port), folder.path());
    right.username = "gateway".into();
    right.password = Some("secret".into());
    right.ca_file = Some(path("ca.pem"));
    let running = run(right.clone(), SettleMode::AtOnce, 100);
    running.ready().await;
    let published = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &broker.port.to_string(), "-u", "gateway", "-P", "secret", "-q", "1"])
        .arg("--cafile")
        .arg(path("ca.pem"))
        .args(["-t", TOPIC, "-m", "through tls"])
        .status()
        .unwrap();
    assert!(published.success());
    eventually("the message", 5, || running.downstream.taken_count() == 1).await;
    running.stop().await;

    let mut wrong_password = right.clone();
    wrong_password.password = Some("guess".into());
    let mut wrong_root = right;
    let stranger = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    std::fs::write(path("stranger.pem"), stranger.cert.pem()).unwrap();
    wrong_root.ca_file = Some(path("stranger.pem"));
    for (settings, wanted) in [(wrong_password, "password"), (wrong_root, "certificate")] {
        let running = run(settings, SettleMode::AtOnce, 100);
        eventually("the fault is named", 5, || {
            running.status.borrow().last_error.as_ref().is_some_and(|error| error.contains(wanted))
        })
        .await;
        assert!(!running.status.borrow().is_ready());
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_program_with_our_client_id_is_named() {
    let broker = Mosquitto::start();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let both = [&folders[0], &folders[1]]
        .map(|folder| run(settings(&broker.url(), folder.path()), SettleMode::AtOnce, 100));
    eventually("one of them names it", 14, || {
        both.iter().any(|running| {
            running.status.borrow().last_error.as_ref().is_some_and(|error| error.contains("client_id"))
        })
    })
    .await;
    for running in both {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_not_ready_and_is_asked_for_again() {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let (refused, was_refused) = std::sync::mpsc::channel();
    let (grant, may_grant) = std::sync::mpsc::channel::<()>();
    let script = std::thread::spawn(move || {
        let mut peer = MqttClient::on(socket.accept().unwrap().0);
        let Packet::Connect(connect) = peer.receive().unwrap() else { panic!("no CONNECT") };
        assert!(!connect.clean_session);
        peer.send(&Packet::ConnAck(ConnAck::new(rumqttc::ConnectReturnCode::Success, false))).unwrap();
        for (n, answer) in [SubscribeReasonCode::Failure, SubscribeReasonCode::Success(QoS::AtLeastOnce)]
            .into_iter()
            .enumerate()
        {
            if n == 1 {
                may_grant.recv().unwrap();
            }
            let subscribe = loop {
                match peer.receive().unwrap() {
                    Packet::Subscribe(subscribe) => break subscribe,
                    Packet::PingReq => {}
                    other => panic!("no SUBSCRIBE but {other:?}"),
                }
            };
            assert_eq!(subscribe.filters[0].qos, QoS::AtLeastOnce);
            peer.send(&Packet::SubAck(SubAck::new(subscribe.pkid, vec![answer]))).unwrap();
            if n == 0 {
                refused.send(()).unwrap();
            }
        }
        peer.expect_closed(Duration::from_secs(10));
    });
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&format!("mqtt://127.0.0.1:{port}"), folder.path());
    settings.protocol = Protocol::V4;
    let running = run(settings, SettleMode::AtOnce, 10);
    tokio::task::block_in_place(|| was_refused.recv_timeout(Duration::from_secs(5))).unwrap();
    eventually("the refusal is named", 2, || {
        running.status.borrow().last_error.as_ref().is_some_and(|error| error.contains("refused"))
    })
    .await;
    assert!(!running.status.borrow().is_ready());
    grant.send(()).unwrap();
    running.ready().await;
    running.stop().await;
    script.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_left_reads_on_until_the_broker_has_read_its_pubacks() {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let (sent, was_sent) = std::sync::mpsc::channel();
    let (left, has_left) = std::sync::mpsc::channel::<()>();
    let script = std::thread::spawn(move || {
        let mut peer = MqttClient::on(socket.accept().unwrap().0);
        let Packet::Connect(_) = peer.receive().unwrap() else { panic!("no CONNECT") };
        peer.send(&Packet::ConnAck(ConnAck::new(rumqttc::ConnectReturnCode::Success, false))).unwrap();
        let Packet::Subscribe(subscribe) = peer.receive().unwrap() else { panic!("no SUBSCRIBE") };
        let granted = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
        peer.send(&Packet::SubAck(SubAck::new(subscribe.pkid, granted))).unwrap();
        (0..20).for_each(|_| _ = peer.publish(TOPIC, QoS::AtLeastOnce, false, "in time"));
        sent.send(()).unwrap();
        has_left.recv().unwrap();
        // It still sends, long before it reads.
        let late = vec![b'x'; 4000];
        for _ in 0..50 {
            peer.publish(TOPIC, QoS::AtLeastOnce, false, late.clone());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(peer.pubacks(20), (1..=20).collect::<Vec<u16>>());
        assert!(matches!(peer.receive(), Ok(Packet::Disconnect)));
    });
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&format!("mqtt://127.0.0.1:{port}"), folder.path());
    settings.protocol = Protocol::V4;
    let running = run(settings, SettleMode::AtOnce, 100);
    tokio::task::block_in_place(|| was_sent.recv_timeout(Duration::from_secs(20))).unwrap();
    eventually("all that was sent in time", 20, || running.downstream.taken_count() == 20).await;
    running.stop.send_replace(Some(Instant::now() + Duration::from_secs(20)));
    // Long enough for a session that does not wait to be gone.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!running.task.is_finished(), "it has not waited for the broker");
    left.send(()).unwrap();
    tokio::task::block_in_place(|| script.join()).unwrap();
    running.task.await.unwrap();
    assert_eq!(running.downstream.taken_count(), 20, "what comes after the stop is left to come again");
}

/// Packets of a peer that is scripted byte by byte.
struct Script {
    stream: TcpStream,
}

impl Script {
    fn accept(socket: &TcpListener) -> Self {
        let (stream, _) = socket.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// The first byte and the body of the next packet of fewer than 128 bytes.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[1])];
        self.stream.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    /// Takes a CONNECT and gives its protocol level.
    fn level(&mut self) -> u8 {
        let (first, body) = self.receive();
        assert_eq!((first, &body[..6]), (0x10, &b"\0\x04MQTT"[..]));
        assert_eq!(body[7] & 2, 0, "it asks for a clean session");
        body[6]
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Grants a SUBSCRIBE of either version.
    fn grant(&mut self, v5: bool) {
        let (first, body) = self.receive();
        assert_eq!(first, 0x82);
        let (high, low) = (body[0], body[1]);
        if v5 { self.send(&[0x90, 4, high, low, 0, 1]) } else { self.send(&[0x90, 3, high, low, 1]) }
    }
}

fn scripted(script: impl FnOnce(TcpListener) + Send + 'static) -> (String, std::thread::JoinHandle<()>) {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("mqtt://{}", socket.local_addr().unwrap());
    (url, std::thread::spawn(move || script(socket)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_mqtt_3_1_1_alone_is_spoken_to_in_that_and_from_then_on_in_nothing_else() {
    // The CONNACK of MQTT 3.1.1, that of MQTT 5, and a connection that is closed.
    for refusal in [&[0x20, 2, 0, 1][..], &[0x20, 3, 0, 0x84, 0], &[]] {
        let (url, script) = scripted(move |socket| {
            let mut first = Script::accept(&socket);
            assert_eq!(first.level(), 5);
            first.send(refusal);
            drop(first);
            for _ in 0..2 {
                let mut next = Script::accept(&socket);
                assert_eq!(next.level(), 4);
                next.send(&[0x20, 2, 0, 0]);
                next.grant(false);
                next.send(&[&[0x32, 41, 0, 31][..], TOPIC.as_bytes(), &[0, 9], b"hello!"].concat());
                assert_eq!(next.receive(), (0x40, vec![0, 9]));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let running = run(settings(&url, folder.path()), SettleMode::AtOnce, 10);
        tokio::task::block_in_place(|| script.join()).unwrap();
        assert_eq!(running.downstream.taken_count(), 2);
        assert_eq!(running.downstream.taken()[0].payload, b"hello!");
        assert_eq!(running.counters.connects.load(Ordering::Relaxed), 2);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_starting_is_not_taken_for_one_of_mqtt_3_1_1() {
    let (url, script) = scripted(|socket| {
        // It closes whatever comes.
        for level in [5, 4, 5, 4] {
            assert_eq!(Script::accept(&socket).level(), level);
        }
        let mut ready = Script::accept(&socket);
        assert_eq!(ready.level(), 5);
        ready.send(&[0x20, 3, 0, 0, 0]);
        ready.grant(true);
        // DISCONNECT, when the gateway stops.
        assert_eq!(ready.receive(), (0xe0, vec![]));
    });
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&url, folder.path()), SettleMode::AtOnce, 10);
    running.ready().await;
    running.stop().await;
    tokio::task::block_in_place(|| script.join()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_subscription_waits_for_a_broker_that_has_them() {
    // Each fault stays to be seen until the next answer.
    let (seen, was_seen) = std::sync::mpsc::channel();
    let (url, script) = scripted(move |socket| {
        for connack in [&[0x20, 2, 0, 1][..], &[0x20, 5, 0, 0, 2, 0x2a, 0], &[0x20, 3, 0, 0, 0]] {
            let mut peer = Script::accept(&socket);
            assert_eq!(peer.level(), 5, "MQTT 3.1.1 would take the filter by its letters");
            peer.send(connack);
            if connack != [0x20, 3, 0, 0, 0] {
                drop(peer);
                was_seen.recv().unwrap();
                continue;
            }
            let (first, body) = peer.receive();
            assert_eq!((first, &body[5..]), (0x82, &b"$share/gateways/tenant/+/device/+/+\x01"[..]));
            peer.send(&[0x90, 4, body[0], body[1], 0, 0x9e]);
            was_seen.recv().unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let running = run(
        BrokerSettings { share: Some("gateways".into()), ..settings(&url, folder.path()) },
        SettleMode::AtOnce,
        10,
    );
    let mut status = running.status.clone();
    for wanted in
        ["mqtt.share needs MQTT 5", "has no shared subscriptions", "SharedSubscriptionsNotSupported"]
    {
        let named =
            status.wait_for(|status| status.last_error.as_ref().is_some_and(|error| error.contains(wanted)));
        let named = tokio::time::timeout(Duration::from_secs(20), named).await;
        assert!(named.is_ok(), "{wanted} is not named");
        seen.send(()).unwrap();
    }
    assert!(!running.status.borrow().is_ready());
    running.stop().await;
    tokio::task::block_in_place(|| script.join()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_taken_over_names_the_client_id_and_comes_back_later() {
    // Each end stays to be seen until the next one.
    let (seen, was_seen) = std::sync::mpsc::channel();
    let (url, script) = scripted(move |socket| {
        for end in [&[0xe0, 1, 0x8e][..], &[0xe0, 2, 0x8e, 0], &[0xe0, 2, 0x8b, 0], &[0xe0, 0]] {
            let mut peer = Script::accept(&socket);
            assert_eq!(peer.level(), 5);
            peer.send(&[0x20, 3, 0, 0, 0]);
            peer.grant(true);
            peer.send(end);
            drop(peer);
            was_seen.recv().unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&url, folder.path()), SettleMode::AtOnce, 10);
    let mut status = running.status.clone();
    for wanted in
        ["client_id \"tidegate\"", "(SessionTakenOver)", "ServerShuttingDown", "NormalDisconnection"]
    {
        let named =
            status.wait_for(|status| status.last_error.as_ref().is_some_and(|error| error.contains(wanted)));
        let named = tokio::time::timeout(Duration::from_secs(20), named).await;
        assert!(named.is_ok(), "{wanted} is not named");
        seen.send(()).unwrap();
    }
    running.stop().await;
    tokio::task::block_in_place(|| script.join()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn long_properties_from_a_stranger_do_not_end_the_session() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().unwrap();
    let running = run(settings(&broker.url(), folder.path()), SettleMode::AtOnce, 100);
    running.ready().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], broker.port));
    let mut publisher = Mqtt5Client::open(address).connected("publisher", None);
    let properties = v5::PublishProperties {
        user_properties: vec![("key".into(), "v".repeat(60_000)); 10],
        ..Default::default()
    };
    for (payload, properties) in [("long", Some(properties)), ("plain", None)] {
        publisher.publish_with(TOPIC, QoS5::AtLeastOnce, payload, properties);
        publisher.puback();
    }
    eventually("both", 10, || running.downstream.taken_count() == 2).await;
    let payloads: Vec<_> = running.downstream.taken().into_iter().map(|taken| taken.payload).collect();
    assert_eq!(payloads, [&b"long"[..], b"plain"]);
    assert_eq!(running.counters.connects.load(Ordering::Relaxed), 1);
    running.stop().await;
}

/// A gateway behind `broker` that writes to files.
fn gateway_behind(broker: &Mosquitto, more: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("_default", "lp", "passthrough");
    let output = "[output]\nkind = \"file\"\n[admission]\ncredentials = \"broker\"\nrate_per_s = 0\n";
    scene.configure_broker(&broker.url(), &format!("{more}{output}"));
    scene
}

fn lines(range: std::ops::Range<u32>) -> impl Iterator<Item = (String, Vec<u8>)> {
    range.map(|n| ("tenant/acme/device/dev-1/lp".to_owned(), format!("m n={n}i {}", n + 1).into_bytes()))
}

/// The numbers of the lines that were written.
fn written(scene: &GatewayDir) -> BTreeSet<u32> {
    let number = |line: String| {
        let value = line.split("n=").nth(1).unwrap().split('i').next().unwrap();
        value.parse().unwrap()
    };
    scene.lines("telemetry_acme").into_iter().map(number).collect()
}

#[test]
fn a_gateway_that_is_killed_goes_on_with_its_session_of_mqtt_5() {
    let broker = Mosquitto::start_in_memory();
    let scene = gateway_behind(&broker, "");
    let gateway = scene.start();
    assert!(scene.log().contains("protocol=5"), "{}", scene.log());
    let port = broker.port;
    let publishing =
        std::thread::spawn(move || MqttClient::to_broker(port, "publisher").publish_all(lines(0..3000)));
    gateway.wait("some", |gateway| gateway.book("acme", "messages", "lines") >= 300);
    gateway.kill();
    publishing.join().unwrap();
    let gateway = scene.start();
    assert!(scene.log().contains("session_present=true"), "{}", scene.log());
    gateway.wait("all", |_| written(&scene).len() == 3000);
    gateway.wait("settled", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
    assert_eq!(gateway.stop().code(), Some(0));
}

/// Each message goes to one of the two. Those of the killed one are sent again when it is back.
#[test]
fn of_two_gateways_that_share_a_subscription_one_may_be_killed_without_a_message_lost() {
    let broker = Mosquitto::start_in_memory();
    let share = |id: &str| format!("client_id = \"{id}\"\nshare = \"gateways\"\n");
    let scenes = ["one", "two"].map(|id| gateway_behind(&broker, &share(id)));
    let (first, second) = (scenes[0].start(), scenes[1].start());
    let port = broker.port;
    let (killed, was_killed) = std::sync::mpsc::channel();
    let publishing = std::thread::spawn(move || {
        let mut publisher = MqttClient::to_broker(port, "publisher");
        publisher.publish_all(lines(0..2000));
        was_killed.recv().unwrap();
        publisher.publish_all(lines(2000..4000));
    });
    first.wait("a part for the first", |first| first.book("acme", "messages", "lines") >= 200);
    first.kill();
    killed.send(()).unwrap();
    publishing.join().unwrap();
    second.wait("a part for the second", |second| second.book("acme", "messages", "lines") >= 200);
    let first = scenes[0].start();
    let all = |_: &_| {
        let both: BTreeSet<u32> = written(&scenes[0]).union(&written(&scenes[1])).copied().collect();
        both.len() == 4000
    };
    first.wait("all by one of the two", all);
    for (scene, gateway) in scenes.iter().zip([first, second]) {
        gateway.wait("settled", |gateway| gateway.book("acme", "messages", "in_flight") == 0);
        gateway.assert_balanced();
        let held: serde_json::Value =
            serde_json::from_slice(&std::fs::read(scene.path("data/mqtt-session.json")).unwrap()).unwrap();
        assert_eq!(held["filters"], serde_json::json!(["$share/gateways/tenant/+/device/+/+"]));
        assert_eq!(gateway.stop().code(), Some(0));
    }
    let (one, two) = (written(&scenes[0]), written(&scenes[1]));
    assert!(
        one.len() < 4000 && two.len() < 4000,
        "the subscription was not shared: {} {}",
        one.len(),
        two.len()
    );
}
