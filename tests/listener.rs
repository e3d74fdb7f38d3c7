//! The listener against devices that behave and strangers that do not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rumqttc::mqttbytes::v4::{Packet, Subscribe, SubscribeReasonCode, Unsubscribe};
use rumqttc::{ConnectReturnCode, QoS};
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::source::listener::{CloseReason, Listener, ListenerSettings};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::harness::eventually;
use crate::harness::fake_pipeline::{FakePipeline, SettleMode};
use crate::harness::listener::{RunningListener, TOPIC, settings};
use crate::harness::mqtt_client::MqttClient;

fn run(settling: SettleMode, connections_max: usize, messages_max: u64) -> RunningListener {
    RunningListener::start(ListenerSettings { connections_max, ..settings() }, settling, messages_max)
}

fn raw(address: SocketAddr, bytes: &[u8]) -> MqttClient {
    let mut client = MqttClient::open(address);
    client.stream.write_all(bytes).unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_settled_in_any_order_are_acknowledged_in_the_order_they_came() {
    let running = run(SettleMode::Shuffled, 10, 100_000);
    let mut device = MqttClient::connect(running.address, "device");
    let mut reader = MqttClient::on(device.stream.try_clone().unwrap());
    let reading = std::thread::spawn(move || reader.pubacks(3000));
    let sent: Vec<u16> =
        (0..3000).map(|n| device.publish(TOPIC, QoS::AtLeastOnce, false, format!("{n}"))).collect();
    assert_eq!(tokio::task::block_in_place(|| reading.join().unwrap()), sent);
    let payloads: Vec<_> = running.downstream.taken().into_iter().map(|taken| taken.payload).collect();
    assert_eq!(payloads, (0..3000).map(|n| format!("{n}").into_bytes()).collect::<Vec<_>>());
    assert_eq!(running.downstream.account.snapshot().messages.lines, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_puback_leaves_before_its_message_is_settled() {
    let running = run(SettleMode::Held, 10, 1000);
    let mut device = MqttClient::connect(running.address, "device");
    let ids: Vec<_> = (0..3).map(|_| device.publish(TOPIC, QoS::AtLeastOnce, false, "x")).collect();
    device.publish(TOPIC, QoS::AtMostOnce, false, "x");
    eventually("all four", 5, || running.downstream.held() == 4).await;
    device.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(device.receive().is_err());
    running.downstream.settle(1);
    assert_eq!(device.puback(), ids[0]);
    assert!(device.receive().is_err());
    running.downstream.release();
    assert_eq!(device.pubacks(2), ids[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_no_broker_and_says_so_packet_by_packet() {
    let running = run(SettleMode::AtOnce, 20, 1000);
    let mut device = MqttClient::connect(running.address, "device");
    let mut subscribe = Subscribe::new("a/#", QoS::AtLeastOnce);
    subscribe.pkid = 7;
    subscribe.add("b/#".into(), QoS::AtMostOnce);
    device.send(&Packet::Subscribe(subscribe)).unwrap();
    let Packet::SubAck(suback) = device.receive().unwrap() else { panic!("no SUBACK") };
    assert_eq!((suback.pkid, suback.return_codes), (7, vec![SubscribeReasonCode::Failure; 2]));
    let mut unsubscribe = Unsubscribe::new("a/#");
    unsubscribe.pkid = 8;
    device.send(&Packet::Unsubscribe(unsubscribe)).unwrap();
    assert!(matches!(device.receive().unwrap(), Packet::UnsubAck(ack) if ack.pkid == 8));
    device.send(&Packet::PingReq).unwrap();
    assert_eq!(device.receive().unwrap(), Packet::PingResp);
    // What came before the fault counts.
    let id = device.publish(TOPIC, QoS::AtLeastOnce, false, "before");
    assert_eq!(device.puback(), id);
    device.publish(TOPIC, QoS::ExactlyOnce, false, "twice");
    device.expect_closed(Duration::from_secs(2));
    running.ended(CloseReason::ExactlyOnce, 1, 2).await;

    let mut leaving = MqttClient::connect(running.address, "leaving");
    leaving.publish(TOPIC, QoS::AtMostOnce, false, "last words");
    leaving.send(&Packet::Disconnect).unwrap();
    leaving.expect_closed(Duration::from_secs(2));
    running.ended(CloseReason::Left, 1, 2).await;
    assert_eq!(running.downstream.taken().last().unwrap().payload, b"last words");

    let mut twice = MqttClient::connect(running.address, "twice");
    assert!(twice.greet("twice", true, 1, None).is_err());
    running.ended(CloseReason::Unexpected, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_is_refused_by_the_codes_of_the_protocol() {
    let running = run(SettleMode::AtOnce, 20, 1000);
    let code = |name: &[u8], level: u8, flags: u8, client_id: &[u8]| {
        let mut body = vec![0, name.len() as u8];
        body.extend(name);
        body.extend([level, flags, 0, 60, (client_id.len() >> 8) as u8, client_id.len() as u8]);
        body.extend(client_id);
        let mut packet = vec![0x10, 0x80 | (body.len() & 0x7f) as u8, (body.len() >> 7) as u8];
        packet.extend(body);
        let mut client = raw(running.address, &packet);
        let Packet::ConnAck(connack) = client.receive().unwrap() else { panic!("no CONNACK") };
        if connack.code == ConnectReturnCode::Success {
            let id = client.publish(TOPIC, QoS::AtLeastOnce, false, "x");
            assert_eq!(client.puback(), id);
        } else {
            client.expect_closed(Duration::from_secs(2));
        }
        assert!(!connack.session_present);
        connack.code
    };
    assert_eq!(code(b"MQTT", 4, 2, b""), ConnectReturnCode::Success);
    assert_eq!(code(b"MQTT", 4, 0, b"device"), ConnectReturnCode::Success);
    assert_eq!(code(b"MQTT", 4, 0, b""), ConnectReturnCode::BadClientId);
    assert_eq!(code(b"MQTT", 4, 2, &[b'x'; 1025]), ConnectReturnCode::BadClientId);
    assert_eq!(code(b"MQTT", 6, 2, b"device"), ConnectReturnCode::RefusedProtocolVersion);
    assert_eq!(code(b"MQIsdp", 3, 2, b"device"), ConnectReturnCode::RefusedProtocolVersion);
    running.ended(CloseReason::ClientId, 2, 1).await;
    running.ended(CloseReason::ProtocolLevel, 2, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_takes_over_the_client_id_of_the_old_one() {
    let running = run(SettleMode::Held, 10, 1000);
    let mut old = MqttClient::connect(running.address, "device");
    old.publish(TOPIC, QoS::AtLeastOnce, false, "from the old");
    eventually("it came", 2, || running.downstream.held() == 1).await;
    let mut new = MqttClient::connect(running.address, "device");
    old.expect_closed(Duration::from_secs(2));
    running.ended(CloseReason::TakenOver, 1, 2).await;
    // What the old connection brought is acknowledged to nobody.
    let id = new.publish(TOPIC, QoS::AtLeastOnce, false, "from the new");
    eventually("it came", 2, || running.downstream.held() == 2).await;
    running.downstream.release();
    assert_eq!(new.puback(), id);
    new.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(new.receive().is_err());
    assert_eq!(running.downstream.account.snapshot().messages.abandoned, 1);
    // Two without a name are two.
    let mut nameless = [(); 2].map(|()| MqttClient::connect(running.address, ""));
    for client in &mut nameless {
        client.publish(TOPIC, QoS::AtLeastOnce, false, "x");
        client.puback();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_packets_time_out_and_slow_ones_arrive() {
    let running = run(SettleMode::AtOnce, 10, 1000);
    let mut half = raw(running.address, &[0x10, 20, 0, 4, b'M', b'Q']);
    let mut silent = MqttClient::open(running.address);
    let mut slow = MqttClient::connect(running.address, "slow");
    let mut bytes = bytes::BytesMut::new();
    let mut publish = rumqttc::Publish::new(TOPIC, QoS::AtLeastOnce, "byte by byte");
    publish.pkid = 5;
    publish.write(&mut bytes).unwrap();
    for byte in &bytes {
        slow.stream.write_all(&[*byte]).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(slow.puback(), 5);
    assert_eq!(running.downstream.taken()[0].payload, b"byte by byte");
    running.ended(CloseReason::ConnectTimeout, 2, 7).await;
    half.expect_closed(Duration::from_secs(1));
    silent.expect_closed(Duration::from_secs(1));
    // A device that leaves in the middle of a packet leaves nothing behind.
    slow.stream.write_all(&bytes[..10]).unwrap();
    drop(slow);
    running.ended(CloseReason::Lost, 1, 2).await;
    assert_eq!((running.open(), running.downstream.taken_count()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_over_the_limit_passes_cut_and_an_absurd_one_ends_the_connection() {
    let running = run(SettleMode::AtOnce, 10, 1000);
    let mut device = MqttClient::connect(running.address, "device");
    for payload in [8192, 8193, 16 * 8192] {
        let id = device.publish(TOPIC, QoS::AtLeastOnce, false, vec![b'x'; payload]);
        assert_eq!(device.puback(), id);
    }
    let sizes: Vec<_> =
        running.downstream.taken().iter().map(|taken| (taken.payload.len(), taken.payload_bytes)).collect();
    assert_eq!(sizes, [(8192, 8192), (1024, 8193), (1024, 131_072)]);
    eventually("buffers are given back", 2, || running.counters.buffer_bytes.load(Ordering::Relaxed) == 0)
        .await;
    device.stream.write_all(&[0x32, 0xff, 0xff, 0xff, 0x7f]).unwrap();
    device.expect_closed(Duration::from_secs(2));
    let mut stranger = raw(running.address, &[0x10, 0xff, 0xff, 0xff, 0x7f]);
    stranger.expect_closed(Duration::from_secs(2));
    running.ended(CloseReason::Malformed, 2, 2).await;
    running.assert_serves();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_packets_of_many_connections_share_a_bounded_memory() {
    let downstream = FakePipeline::new(SettleMode::AtOnce);
    let settings = ListenerSettings { payload_bytes_max: 10 << 20, ..settings() };
    let listener = Listener::bind(settings, Arc::new(ReceiveWindow::new(10, 1000)), downstream).unwrap();
    let (address, counters) = (listener.local_address(), listener.counters());
    let (_stop, stopping) = watch::channel(None);
    tokio::spawn(listener.run(stopping));
    // Ten times 8 MiB are announced, and all but the end of each is sent.
    let clients: Vec<_> = (0..10)
        .map(|n| {
            let mut client = MqttClient::connect(address, &format!("c{n}"));
            let mut packet = vec![0x30, 0x80, 0x80, 0x80, 0x04, 0, 1, b't'];
            packet.resize(8 << 20, 0);
            let _ = client.stream.write_all(&packet);
            client
        })
        .collect();
    eventually("some are closed", 5, || counters.ended(CloseReason::Buffers) >= 2).await;
    assert!(counters.buffer_bytes.load(Ordering::Relaxed) <= 64 << 20);
    drop(clients);
    eventually("all is given back", 5, || counters.buffer_bytes.load(Ordering::Relaxed) == 0).await;
}

/// Three hundred and nine strangers that announce 256 KiB each and send eight bytes of it cost nobody
/// anything; they end when their time for a packet is over.
#[tokio::test(flavor = "multi_thread")]
async fn announced_lengths_take_no_memory_from_those_who_send() {
    let settings = ListenerSettings { connections_max: 1000, payload_bytes_max: 256 << 10, ..settings() };
    let running = RunningListener::start(settings, SettleMode::AtOnce, 10_000);
    // 260,000 bytes, in a PUBLISH behind a CONNECT.
    let half = [0x32, 0xa0, 0xef, 0x0f, 0, 32, b't', b'e'];
    let connected: Vec<_> = (0..309)
        .map(|n| {
            let mut client = MqttClient::connect(running.address, &format!("half-{n}"));
            client.stream.write_all(&half).unwrap();
            client
        })
        .collect();
    let buffers = || running.counters.buffers.load(Ordering::Relaxed);
    eventually("their bytes came", 10, || buffers() == 309).await;
    assert!(running.counters.buffer_bytes.load(Ordering::Relaxed) <= 309 * half.len());
    let mut device = MqttClient::connect(running.address, "device");
    for bytes in [5_000, 20_000, 256 << 10] {
        let id = device.publish(TOPIC, QoS::AtLeastOnce, false, vec![b'x'; bytes]);
        assert_eq!(device.puback(), id);
    }
    assert_eq!(running.counters.ended(CloseReason::Buffers), 0);
    drop(connected);
    eventually("all is given back", 10, || buffers() <= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_connect_only_a_small_connect_is_read() {
    let running = run(SettleMode::AtOnce, 1000, 10_000);
    let ended = |ending| running.counters.ended(ending);
    // A CONNECT of 8,193 bytes, a PUBLISH of 256 KiB, a SUBSCRIBE: each ends with its first bytes.
    for (beginning, ending) in [
        (&[0x10, 0x81, 0x40, 0, 4, b'M', b'Q', b'T'][..], CloseReason::Malformed),
        (&[0x10, 0x80, 0x80, 0x04], CloseReason::Malformed),
        (&[0x32, 0xa0, 0xef, 0x0f, 0, 32, b't', b'e'], CloseReason::Unexpected),
        (&[0x82, 0xff, 0x01], CloseReason::Unexpected),
        (&[0xc0], CloseReason::Unexpected),
    ] {
        let before = ended(ending);
        let mut strangers: Vec<_> = (0..62).map(|_| raw(running.address, beginning)).collect();
        strangers.iter_mut().for_each(|stranger| stranger.expect_closed(Duration::from_secs(10)));
        running.ended(ending, before + 62, 10).await;
    }
    assert_eq!((ended(CloseReason::ConnectTimeout), ended(CloseReason::Buffers)), (0, 0));
    // 8,192 bytes are taken.
    let mut packet = vec![0x10, 0x80, 0x40, 0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_0010, 0, 60, 0, 1, b'c'];
    packet.extend([0x03, 0xe8]);
    packet.resize(packet.len() + 1000, b'u');
    let password = 8192 + 3 - packet.len() - 2;
    packet.extend((password as u16).to_be_bytes());
    packet.resize(8192 + 3, b'p');
    let mut device = raw(running.address, &packet);
    assert!(
        matches!(device.receive().unwrap(), Packet::ConnAck(connack) if connack.code == ConnectReturnCode::Success)
    );
}

/// The connection with the most memory is closed, and those with little stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_ends_the_connection_that_holds_most() {
    let settings = ListenerSettings { payload_bytes_max: 100 << 20, ..settings() };
    let running = RunningListener::start(settings, SettleMode::AtOnce, 10_000);
    let send = |client: &mut MqttClient, bytes: usize| {
        let mut packet = vec![0x30, 0x80, 0x80, 0x80, 0x28, 0, 1, b't'];
        packet.resize(bytes, 0);
        client.stream.write_all(&packet)
    };
    let mut small = MqttClient::connect(running.address, "small");
    send(&mut small, 100 << 10).unwrap();
    let mut large = MqttClient::connect(running.address, "large");
    send(&mut large, 40 << 20).unwrap();
    eventually("it came", 20, || running.counters.buffer_bytes.load(Ordering::Relaxed) >= 40 << 20).await;
    let mut second = MqttClient::connect(running.address, "second");
    send(&mut second, 30 << 20).unwrap();
    running.ended(CloseReason::Buffers, 1, 20).await;
    large.expect_closed(Duration::from_secs(10));
    eventually("the second has its room", 20, || {
        running.counters.buffer_bytes.load(Ordering::Relaxed) >= 30 << 20
    })
    .await;
    assert_eq!(running.counters.ended(CloseReason::Buffers), 1);
    eventually("the two others stay", 10, || running.open() == 2).await;
    running.assert_serves();
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_and_endless_connects_leave_a_good_device_alone() {
    let running = run(SettleMode::AtOnce, 1000, 1000);
    let mut seed = 1_u32;
    for n in 0..600 {
        let mut rubbish = vec![0; 1 + n % 300];
        for byte in &mut rubbish {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as u8;
        }
        let mut stream = TcpStream::connect(running.address).unwrap();
        match n % 3 {
            0 => drop(stream.write_all(&rubbish)),
            1 => {
                // Rubbish behind a proper CONNECT.
                let mut client = MqttClient::connect(running.address, &format!("r{n}"));
                let _ = client.stream.write_all(&rubbish);
            }
            _ => {}
        }
    }
    running.assert_serves();
    eventually("they are gone", 7, || running.open() == 0).await;
    assert!(running.counters.ended(CloseReason::Malformed) > 100);
    assert_eq!(running.counters.buffer_bytes.load(Ordering::Relaxed), 0);
    running.assert_serves();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_its_answers_is_closed() {
    let running = run(SettleMode::AtOnce, 10, 1000);
    let mut greedy = MqttClient::connect(running.address, "greedy");
    // Each asks for an answer a quarter of its size.
    let mut subscribe = vec![0x82, 0xe2, 0xa7, 0x02, 0, 1];
    subscribe.extend([0, 1, b'a', 0].repeat(9_496));
    let body = subscribe.len() - 4;
    subscribe[1] = 0x80 | (body & 0x7f) as u8;
    subscribe[2] = 0x80 | (body >> 7 & 0x7f) as u8;
    subscribe[3] = (body >> 14) as u8;
    greedy.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while greedy.stream.write_all(&subscribe).is_ok() {
        sent += 1;
        assert!(sent < 5000, "it reads without end");
    }
    running.assert_serves();
    running.ended(CloseReason::SlowReader, 1, 13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_past_the_keep_alive_ends_a_connection_but_not_while_nothing_is_read() {
    let running = run(SettleMode::Held, 10, 5);
    let mut quiet = MqttClient::open(running.address);
    quiet.greet("quiet", true, 1, None).unwrap();
    let began = Instant::now();
    running.ended(CloseReason::KeepAlive, 1, 4).await;
    assert!((1400..2500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    quiet.expect_closed(Duration::from_secs(1));

    let mut waiting = MqttClient::open(running.address);
    waiting.greet("waiting", true, 1, None).unwrap();
    let ids: Vec<_> = (0..5).map(|_| waiting.publish(TOPIC, QoS::AtLeastOnce, false, "x")).collect();
    eventually("a full window", 2, || running.window.is_full()).await;
    // Its pings lie unread; it must not be closed for that.
    for _ in 0..8 {
        waiting.send(&Packet::PingReq).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(running.counters.ended(CloseReason::KeepAlive), 1);
    waiting.publish(TOPIC, QoS::AtMostOnce, false, "unread");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running.downstream.taken_count(), 5, "it read on though the window was full");
    assert_eq!(running.downstream.dropped(tidegate::core::reason::Reason::Overload), 0);
    running.downstream.release();
    let (mut acknowledged, mut pings) = (Vec::new(), 0);
    for _ in 0..13 {
        match waiting.receive().unwrap() {
            Packet::PubAck(ack) => acknowledged.push(ack.pkid),
            Packet::PingResp => pings += 1,
            other => panic!("neither PUBACK nor PINGRESP but {other:?}"),
        }
    }
    assert_eq!((acknowledged, pings), (ids, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_ceiling_are_refused_and_counted() {
    let running = run(SettleMode::AtOnce, 3, 1000);
    let devices = ["a", "b", "c"].map(|id| MqttClient::connect(running.address, id));
    let mut fourth = MqttClient::open(running.address);
    fourth.expect_closed(Duration::from_secs(2));
    running.ended(CloseReason::ConnectionsMax, 1, 1).await;
    drop(devices);
    eventually("they left", 2, || running.open() == 0).await;
    running.assert_serves();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_acknowledges_what_settles_in_time_and_closes_all() {
    let running = run(SettleMode::Held, 10, 1000);
    let mut device = MqttClient::connect(running.address, "device");
    let mut idle = MqttClient::connect(running.address, "idle");
    let ids: Vec<_> = (0..5).map(|_| device.publish(TOPIC, QoS::AtLeastOnce, false, "x")).collect();
    eventually("all five", 2, || running.downstream.held() == 5).await;
    running.stop.send_replace(Some(Instant::now() + Duration::from_secs(5)));
    idle.expect_closed(Duration::from_secs(2));
    // A connection's task may hear of the stop before the one that accepts.
    eventually("no more accepted", 2, || TcpStream::connect(running.address).is_err()).await;
    running.downstream.release();
    assert_eq!(device.pubacks(5), ids);
    device.expect_closed(Duration::from_secs(2));
    running.task.await.unwrap();
    assert_eq!(running.counters.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_at_its_deadline_though_downstream_never_takes_a_group() {
    let running = run(SettleMode::AtOnce, 10, 1000);
    *running.downstream.delay.lock() = Duration::from_secs(60);
    let mut device = MqttClient::connect(running.address, "device");
    device.publish(TOPIC, QoS::AtLeastOnce, false, "x");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    running.stop.send_replace(Some(began + Duration::from_secs(1)));
    running.task.await.unwrap();
    assert!((900..2500).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    device.expect_closed(Duration::from_secs(1));
    assert_eq!(running.counters.connections.load(Ordering::Relaxed), 0);
}

/// Bytes of memory that this process alone holds.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_devices_cost_little_and_all_are_served() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write `limit`.
    let descriptors = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        limit.rlim_cur as usize
    };
    // Both ends are ours; some are left for other tests.
    let count = (descriptors.saturating_sub(1500) / 2).min(10_000);
    let running = run(SettleMode::AtOnce, 20_000, 10_000);
    let connect = [0x10, 17, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 5];
    let publish = [0x32, 8, 0, 3, b't', b'/', b'x', 0, 1, b'v'];
    let before = resident_bytes();
    let mut devices: Vec<TcpStream> = (0..count)
        .map(|n| {
            let mut stream = TcpStream::connect(running.address).unwrap();
            stream.write_all(&connect).unwrap();
            stream.write_all(format!("{n:05}").as_bytes()).unwrap();
            stream
        })
        .collect();
    let answer = |stream: &mut TcpStream, wanted: [u8; 4]| {
        let mut answer = [0; 4];
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, wanted);
    };
    devices.iter_mut().for_each(|stream| answer(stream, [0x20, 2, 0, 0]));
    devices.iter_mut().for_each(|stream| stream.write_all(&publish).unwrap());
    devices.iter_mut().for_each(|stream| answer(stream, [0x40, 2, 0, 1]));
    assert_eq!(running.open(), count);
    eventually("idle connections hold no buffer", 5, || {
        running.counters.buffers.load(Ordering::Relaxed) == 0
    })
    .await;
    let each = resident_bytes().saturating_sub(before) / count;
    println!("{count} idle connections, {each} bytes of memory each");
    // Other tests run in this process too: the ceiling is generous.
    assert!(each < 16 * 1024, "{each} bytes a connection");
    drop(devices);
    eventually("all are gone", 10, || running.open() == 0).await;
}
