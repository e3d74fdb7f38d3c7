//! Everything at once, for as long as `RIG_TORTURE_S` says (`cargo xtask torture --for 10m`): kills,
//! stops, a failing disk, a database that fails in every way it can, while messages come by broker and
//! listener. In the end all that was acknowledged is in the database, and the books balance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_simulator::Device;

use crate::durability::message;
use crate::end_to_end::topic;
use crate::harness::fake_influxdb3::{FakeInfluxdb3, Fault};
use crate::harness::faults::Faults;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const DEVICES: u64 = 10;

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn database_faults() -> Vec<Fault> {
    let status = |status| Fault::Status { status, retry_after: None, body: "out of order" };
    vec![
        status(500),
        status(503),
        status(401),
        status(403),
        status(404),
        status(200),
        Fault::Status { status: 429, retry_after: Some("1"), body: "slow down" },
        Fault::Drop,
        Fault::ApplyThenDrop,
        Fault::BreakAnswer,
        Fault::Hang,
        Fault::SlowRead,
        Fault::CloseUpload,
    ]
}

/// Sends by the broker, which stores messages that the gateway has not acknowledged.
fn publish_by_broker(port: u16, stop: &AtomicBool, published: &AtomicU64) {
    let mut publisher = MqttClient::to_broker(port, "publisher");
    let mut from = 0;
    while !stop.load(Ordering::Relaxed) {
        publisher.publish_all((from..from + 200).map(|seq| {
            let device = format!("dev-{}", seq % DEVICES);
            (topic("acme", &device, "telemetry"), message(&device, seq))
        }));
        from += 200;
        published.store(from, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends straight to the gateway, and reconnects whenever it is gone, until all is acknowledged.
fn publish_to_listener(address: &str, stop: &AtomicBool, published: &AtomicU64) {
    let mut from = 0;
    let mut device: Option<Device> = None;
    while !stop.load(Ordering::Relaxed) || published.load(Ordering::Relaxed) < from {
        let Some(connected) = &mut device else {
            std::thread::sleep(Duration::from_millis(20));
            device = Device::connect(address, "of-globex").ok();
            continue;
        };
        let topic = topic("globex", "of-globex", "telemetry");
        let payloads: Vec<_> = (from..from + 50).map(|seq| message("of-globex", seq)).collect();
        let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_slice()));
        match connected.publish_all(messages, 50) {
            Ok(_) => {
                from += 50;
                published.store(from, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => device = None,
        }
    }
}

fn start<'a>(scene: &'a GatewayDir, faults: &Faults) -> Gateway<'a> {
    faults.set("");
    scene.start_with(faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_nothing_acknowledged_is_lost() {
    let seconds = std::env::var("RIG_TORTURE_S").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let mut influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let broker = Mosquitto::start_in_memory();
    let mut scene = GatewayDir::new();
    for device in 0..DEVICES {
        scene.device("acme", &format!("dev-{device}"), "lab-1");
    }
    scene.device("globex", "of-globex", "lab-1");
    scene.configure_both(
        &broker.url(),
        &format!(
            "[output]\nkind = \"influxdb3\"\nurl = \"{}\"\nflush_interval_ms = 100\nrequest_timeout_ms = 1000\n\
             [admission]\nrate_per_s = 0\n[spool]\nbytes_max = 67108864\nmemory_bytes_max = 1048576\n",
            front.url()
        ),
    );
    let faults = Faults::on(&scene);
    let mut gateway = start(&scene, &faults);
    let stop = Arc::new(AtomicBool::new(false));
    let published = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let publishing = [
        std::thread::spawn({
            let (port, stop, published) = (broker.port, stop.clone(), published[0].clone());
            move || publish_by_broker(port, &stop, &published)
        }),
        std::thread::spawn({
            let (address, stop, published) = (scene.listener.clone(), stop.clone(), published[1].clone());
            move || publish_to_listener(&address, &stop, &published)
        }),
    ];
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let began = Instant::now();
    let mut done: std::collections::BTreeMap<&str, u64> = Default::default();
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(200 + random.below(600)));
        let what = match random.below(8) {
            0 | 1 => {
                gateway.kill();
                gateway = start(&scene, &faults);
                "kills"
            }
            2 => {
                assert_eq!(gateway.stop().code(), Some(0));
                gateway = start(&scene, &faults);
                "stops"
            }
            3 | 4 => {
                faults.set(
                    ["fdatasync EIO", "write ENOSPC", "write EROFS", "fdatasync SLOW"]
                        [random.below(4) as usize],
                );
                std::thread::sleep(Duration::from_millis(random.below(700)));
                if random.below(2) == 0 {
                    gateway.kill();
                    gateway = start(&scene, &faults);
                }
                faults.set("");
                "faults of the disk"
            }
            5 => {
                influxdb.kill();
                std::thread::sleep(Duration::from_millis(random.below(500)));
                influxdb.restart().await;
                "kills of the database"
            }
            _ => {
                let database = ["telemetry_acme", "telemetry_globex"][random.below(2) as usize];
                let all = database_faults();
                front.fail_database(database, Some(all[random.below(all.len() as u64) as usize].clone()));
                std::thread::sleep(Duration::from_millis(random.below(900)));
                front.fail_database(database, None);
                "faults of a database"
            }
        };
        *done.entry(what).or_default() += 1;
        let (status, books) = gateway.get("/api/v1/books");
        assert!(status == 200 && books.contains("\"balanced\":true"), "{books}");
    }
    stop.store(true, Ordering::Relaxed);
    for thread in publishing {
        thread.join().unwrap();
    }
    // A database that was out of order may be asked again a minute later.
    gateway.kill();
    let gateway = start(&scene, &faults);
    let [acme, globex] = published.map(|published| published.load(Ordering::Relaxed));
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut there = (0, 0);
    while there != (acme, globex) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
        there = (
            influxdb.count("telemetry_acme", "telemetry", "seq").await,
            influxdb.count("telemetry_globex", "telemetry", "seq").await,
        );
    }
    println!("{done:?} in {:?}", began.elapsed());
    println!(
        "lost: {} of {acme} by the broker, {} of {globex} by the listener",
        acme - there.0,
        globex - there.1
    );
    assert_eq!(there, (acme, globex), "{}", gateway.get("/api/v1/spool").1);
    gateway.wait("idle", |gateway| gateway.book("acme", "lines", "pending") == 0);
    gateway.assert_balanced();
    for tenant in ["acme", "globex"] {
        for key in ["damaged", "dropped", "refused"] {
            assert_eq!(gateway.book(tenant, "lines", key), 0, "{tenant} {key}");
        }
    }
}
