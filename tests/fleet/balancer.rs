//! 300 devices behind HAProxy with the shipped configuration, while one of three gateways is killed, one drained and
//! one upgraded. All rows are counted in a real InfluxDB.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Connect, Login, Packet, Publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::end_to_end::topic;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::haproxy::Haproxy;
use crate::harness::influxdb::Influxdb;

const DEVICES: usize = 300;

/// Messages that a device sends without waiting for their PUBACKs.
const AHEAD: usize = 3;

fn bytes_of(packet: &Packet) -> BytesMut {
    let mut out = BytesMut::new();
    packet.write(&mut out, usize::MAX).unwrap();
    out
}

fn connect_packet(device: &str) -> BytesMut {
    let mut connect = Connect::new(device);
    connect.keep_alive = 60;
    connect.login = Some(Login::new(format!("acme/{device}"), format!("tok-{device}")));
    bytes_of(&Packet::Connect(connect))
}

/// A device that counts: it sends 1, 2, 3 …, and what was not acknowledged again, in order, when it has connected again.
struct Device {
    name: String,
    address: String,
    /// The highest value that is acknowledged; read by the test.
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    reconnects: Arc<AtomicU64>,
}

impl Device {
    async fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            let _ = self.connection().await;
            self.reconnects.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One connection, until it is lost or the test ends; all is acknowledged then.
    async fn connection(&self) -> std::io::Result<()> {
        let patience = Duration::from_secs(20);
        let mut stream = timeout(patience, tokio::net::TcpStream::connect(&self.address)).await??;
        stream.set_nodelay(true)?;
        stream.write_all(&connect_packet(&self.name)).await?;
        let mut connack = [0; 4];
        timeout(patience, stream.read_exact(&mut connack)).await??;
        if connack != [0x20, 2, 0, 0] {
            return Err(std::io::Error::other(format!("{connack:?}")));
        }
        let mut acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let mut sent = acknowledged;
        loop {
            let is_over = self.stop.load(Ordering::Relaxed);
            if is_over && sent == acknowledged {
                return stream.write_all(&[0xe0, 0]).await;
            }
            while !is_over && sent < acknowledged + AHEAD as u64 {
                sent += 1;
                let payload = format!("{{\"v\":{sent}}}");
                let mut publish =
                    Publish::new(topic("acme", &self.name, "reading"), QoS::AtLeastOnce, payload);
                publish.pkid = (sent % 60_000) as u16 + 1;
                stream.write_all(&bytes_of(&Packet::Publish(publish))).await?;
            }
            let mut puback = [0; 4];
            timeout(patience, stream.read_exact(&mut puback)).await??;
            acknowledged += 1;
            let id = (acknowledged % 60_000) as u16 + 1;
            assert_eq!(puback, [0x40, 2, (id >> 8) as u8, id as u8], "{}: PUBACKs out of order", self.name);
            self.acknowledged.store(acknowledged, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
}

/// All devices, and what they have had acknowledged.
struct Devices {
    acknowledged: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    reconnects: Arc<AtomicU64>,
}

impl Devices {
    fn start(address: &str) -> Self {
        let (stop, reconnects) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut devices = Self {
            acknowledged: Vec::new(),
            stop: stop.clone(),
            tasks: Vec::new(),
            reconnects: reconnects.clone(),
        };
        for n in 0..DEVICES {
            let acknowledged = Arc::<AtomicU64>::default();
            devices.acknowledged.push(acknowledged.clone());
            let (stop, reconnects) = (stop.clone(), reconnects.clone());
            let device = Device { name: name(n), address: address.into(), acknowledged, stop, reconnects };
            devices.tasks.push(tokio::spawn(device.run()));
        }
        devices
    }

    fn now(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Waits until every device has had `more` further messages acknowledged.
    async fn until_all_go_on(&self, more: u64, what: &str) {
        let before = self.now();
        crate::harness::eventually(what, 90, || {
            self.now().iter().zip(&before).all(|(now, before)| *now >= before + more)
        })
        .await;
    }
}

fn name(n: usize) -> String {
    format!("dev-{n}")
}

fn wall_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// A row: its time, the gateway that wrote it, and its value.
type Row = (i64, usize, u64);

/// The rows of each device in the order of their times. Each gateway has a table of its own.
async fn rows(influxdb: &Influxdb) -> BTreeMap<String, Vec<Row>> {
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for gateway in 0..3 {
        let query = format!("SELECT v FROM \"g{}_reading\" GROUP BY device_id", gateway + 1);
        let answer = influxdb.ask("telemetry_acme", &query).await;
        for series in answer["results"][0]["series"].as_array().into_iter().flatten() {
            let device = series["tags"]["device_id"].as_str().unwrap().to_owned();
            let of_device = rows.entry(device).or_default();
            for row in series["values"].as_array().unwrap() {
                of_device.push((row[0].as_i64().unwrap(), gateway, row[1].as_f64().unwrap() as u64));
            }
        }
    }
    rows.values_mut().for_each(|rows| rows.sort_unstable());
    rows
}

/// The gateway of a device at a time: that of its last row before it.
fn place(rows: &[Row], at_ns: i64) -> usize {
    rows.iter().take_while(|(time, ..)| *time <= at_ns).last().map(|(_, gateway, _)| *gateway).unwrap()
}

/// The changes of a device's gateway between two times.
fn moves(rows: &[Row], from_ns: i64, to_ns: i64) -> usize {
    let mut places = vec![place(rows, from_ns)];
    places.extend(
        rows.iter().filter(|(time, ..)| (from_ns..to_ns).contains(time)).map(|(_, gateway, _)| *gateway),
    );
    places.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

fn gateway_dir(influxdb: &Influxdb, number: usize) -> GatewayDir {
    let mut dir = GatewayDir::new();
    for n in 0..DEVICES {
        dir.device("acme", &name(n), "lab-1");
    }
    dir.guest("acme", "reading", "json");
    dir.configure(&format!(
        "proxies = [\"127.0.0.1\"]\n[admission]\ncredentials = \"listener\"\nrate_per_s = 0\n\
         [fleet]\ndrain_notice_s = 3\ndrain_spread_s = 3\n\
         [output]\nkind = \"influxdb1\"\nurl = \"{}\"\ntable_prefix = \"g{number}_\"\n",
        influxdb.url()
    ));
    dir.set_token("operator");
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_a_gateway_that_leaves_move_once_and_lose_nothing() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let dirs: Vec<GatewayDir> = (1..=3).map(|number| gateway_dir(&influxdb, number)).collect();
    let mut gateways: Vec<Option<Gateway<'_>>> = dirs.iter().map(|dir| Some(dir.start())).collect();
    let addresses: Vec<(String, String)> =
        dirs.iter().map(|dir| (dir.listener.clone(), dir.admin.clone())).collect();
    let haproxy = Haproxy::start(&addresses);
    let devices = Devices::start(&haproxy.address);
    devices.until_all_go_on(3, "all devices publish").await;
    let mut events = vec![wall_ns()];

    // The first is killed, and comes back with what it had acknowledged.
    gateways[0].take().unwrap().kill();
    devices.until_all_go_on(5, "devices go on elsewhere after a kill").await;
    gateways[0] = Some(dirs[0].start());
    devices.until_all_go_on(10, "devices stay when it is back").await;
    events.push(wall_ns());

    // The second is drained.
    let (status, output, errors) = dirs[1].verb(&["drain", "--wait-s", "60"], "");
    assert_eq!(status.code(), Some(0), "{output}{errors}");
    assert!(output.contains("nothing is left"), "{output}");
    let drained = gateways[1].as_ref().unwrap();
    let (ready, body) = drained.get("/readyz");
    assert!(ready == 503 && body.contains("drained"), "{body}");
    assert_eq!(drained.json("/api/v1/drain")["connections"], 0);
    devices.until_all_go_on(5, "devices go on elsewhere after a drain").await;
    assert_eq!(drained.json("/api/v1/drain")["state"], "drained", "no device comes back");
    let (_, output, _) = dirs[1].verb(&["drain", "--resume"], "");
    assert!(output.contains("serves"), "{output}");
    assert_eq!(drained.get("/readyz").0, 200);
    devices.until_all_go_on(10, "devices stay when the drain is over").await;
    events.push(wall_ns());

    // The third is upgraded: stopped and started again.
    assert_eq!(gateways[2].take().unwrap().stop().code(), Some(0));
    devices.until_all_go_on(5, "devices go on elsewhere after a stop").await;
    gateways[2] = Some(dirs[2].start());
    devices.until_all_go_on(10, "devices stay after the upgrade").await;
    events.push(wall_ns());

    devices.stop.store(true, Ordering::Relaxed);
    let (acknowledged, reconnects) = (devices.acknowledged.clone(), devices.reconnects.clone());
    for task in devices.tasks {
        task.await.unwrap();
    }
    for gateway in gateways.iter().flatten() {
        gateway.wait("all written", |gateway| gateway.json("/api/v1/drain")["lines_pending"] == 0);
        gateway.assert_balanced();
    }

    let rows = rows(&influxdb).await;
    let all: u64 = acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let (mut lost, mut moved) = (0, [0; 3]);
    for (n, acknowledged) in acknowledged.iter().enumerate() {
        let of_device = &rows[&name(n)];
        // What was sent again after its PUBACK was lost is there twice; the first time counts.
        let (mut seen, mut last) = (BTreeSet::new(), 0);
        for (_, _, value) in of_device {
            if seen.insert(*value) {
                assert!(*value > last, "dev-{n}: {value} after {last}");
                last = *value;
            }
        }
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        lost += (1..=acknowledged).filter(|value| !seen.contains(value)).count();
        for event in 0..3 {
            let left = place(of_device, events[event]) == event;
            let moves = moves(of_device, events[event], events[event + 1]);
            assert_eq!(moves, usize::from(left), "dev-{n} in event {event}, of gateway {left}");
            moved[event] += moves;
        }
    }
    println!("{all} messages acknowledged, {lost} lost; moved {moved:?}; {reconnects:?} connections");
    assert_eq!(lost, 0);
    // Each gateway had a third or so, and then what came to it.
    assert!(moved.iter().all(|moved| (60..=240).contains(moved)), "{moved:?}");
}

/// The first answer to bytes that are sent piece by piece.
fn answer_to(address: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for piece in pieces {
        // A balancer that has seen enough may have closed it.
        let _ = stream.write_all(piece);
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut answer = vec![0; 4];
    match stream.read_exact(&mut answer) {
        Ok(()) => answer,
        Err(_) => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_s_own_address_holds_behind_a_balancer_and_nobody_else_can_name_one() {
    let influxdb = Influxdb::start().await;
    let dirs: Vec<GatewayDir> = (1..=3).map(|number| gateway_dir(&influxdb, number)).collect();
    let gateway = dirs[0].start();
    let connack = [0x20, 2, 0, 0];
    let connect = connect_packet(&name(0));
    let with = |header: &str, connect: &[u8]| [header.as_bytes(), connect].concat();

    // Only with a header, and whatever pieces it comes in.
    let header = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 1883\r\n";
    assert_eq!(answer_to(&dirs[0].listener, &[&with(header, &connect)]), connack);
    assert_eq!(
        answer_to(&dirs[0].listener, &[b"PROXY TCP4 192.0.2", &with(".7 10.0.0.1 4711 1883\r\n", &connect)]),
        connack
    );
    assert_eq!(answer_to(&dirs[0].listener, &[&connect]), b"");
    let closed = || gateway.metric("tidegate_listener_connections_ended_total{reason=\"proxy_header\"}");
    assert_eq!(closed(), Some(1.0));
    // An open port that is looked for is no fault.
    drop(TcpStream::connect(&dirs[0].listener).unwrap());
    gateway.wait("closed", |gateway| gateway.json("/api/v1/drain")["connections"] == 0);
    assert_eq!(closed(), Some(1.0));

    // By HAProxy, with a CONNECT in pieces too; what is no CONNECT does not reach a gateway.
    let others: Vec<Gateway<'_>> = dirs[1..].iter().map(GatewayDir::start).collect();
    let addresses: Vec<(String, String)> =
        dirs.iter().map(|dir| (dir.listener.clone(), dir.admin.clone())).collect();
    let haproxy = Haproxy::start(&addresses);
    assert_eq!(answer_to(&haproxy.address, &[&connect]), connack);
    assert_eq!(answer_to(&haproxy.address, &[&connect[..5], &connect[5..20], &connect[20..]]), connack);
    assert_eq!(answer_to(&haproxy.address, &[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]), b"");
    assert_eq!(closed(), Some(1.0));

    // A device that connects again finds the same gateway, which gives its client id to the new connection.
    for n in 0..30 {
        let open = || {
            let mut stream = TcpStream::connect(&haproxy.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(&connect_packet(&name(n))).unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, connack);
            stream
        };
        let (mut first, _second) = (open(), open());
        assert_eq!(first.read(&mut [0; 4]).unwrap(), 0, "dev-{n} is at two gateways");
    }

    // The limits of an address are those of the device: the balancer has none, and a device has its own.
    drop(gateway);
    drop(others);
    let text = std::fs::read_to_string(dirs[0].path("tidegate.toml")).unwrap();
    let text = text.replacen("proxies", "connections_per_address_max = 1\nproxies", 1);
    std::fs::write(dirs[0].path("tidegate.toml"), text).unwrap();
    let gateway = dirs[0].start();
    let open = |address: &str| {
        let mut stream = TcpStream::connect(&dirs[0].listener).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&with(&format!("PROXY TCP4 {address} 10.0.0.1 1 2\r\n"), &connect)).unwrap();
        let mut answer = [0; 4];
        let answered = stream.read_exact(&mut answer).is_ok();
        answered.then_some(stream)
    };
    let first = open("192.0.2.7");
    assert!(first.is_some());
    assert!(open("192.0.2.7").is_none(), "a second connection of one address");
    assert!(open("192.0.2.8").is_some(), "another address");
    gateway.wait("counted", |gateway| {
        gateway.metric("tidegate_listener_connections_ended_total{reason=\"address_max\"}") == Some(1.0)
    });
}
