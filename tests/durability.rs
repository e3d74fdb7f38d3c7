//! Nothing acknowledged is lost: the built program is killed, its disk fails, fills up and is
//! damaged, its database is away; and at each moment the books account for every line.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_simulator::{Device, packet};

use crate::end_to_end::topic;
use crate::harness::fake_influxdb3::{FakeInfluxdb3, Fault};
use crate::harness::faults::Faults;
use crate::harness::gateway::{Gateway, GatewayDir, tidegate};
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;

const NO_RATE: &str = "[admission]\nrate_per_s = 0\n";

/// An envelope with a time of its own: one millisecond for each `seq`.
pub fn message(device: &str, seq: u64) -> Vec<u8> {
    let (minute, second, milli) = (seq / 60_000, seq / 1000 % 60, seq % 1000);
    format!(
        r#"{{"version":"1","ts":"2026-11-23T08:{minute:02}:{second:02}.{milli:03}Z","site_id":"lab-1","seq":{seq},"provision_token":"tok-{device}","metrics":{{"v":{seq}}}}}"#
    )
    .into_bytes()
}

/// A gateway with the listener, before a fake InfluxDB 3 whose databases can be made to fail.
pub struct Plant {
    pub influxdb: Influxdb,
    pub front: FakeInfluxdb3,
    pub scene: GatewayDir,
}

impl Plant {
    pub async fn new(more: &str) -> Self {
        Self::with("", more).await
    }

    /// Starts it with more keys of the output, and more sections.
    pub async fn with(output: &str, more: &str) -> Self {
        let influxdb = Influxdb::start().await;
        let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
        let mut scene = GatewayDir::new();
        for tenant in ["acme", "globex"] {
            scene.device(tenant, &format!("of-{tenant}"), "lab-1");
        }
        scene.configure(&format!(
            "[output]\nkind = \"influxdb3\"\nurl = \"{}\"\nflush_interval_ms = 50\n{output}{NO_RATE}{more}",
            front.url()
        ));
        Self { influxdb, front, scene }
    }

    pub fn database(&self, tenant: &str, well: bool) {
        let fault = Fault::Status { status: 503, retry_after: None, body: "away" };
        self.front.fail_database(&format!("telemetry_{tenant}"), (!well).then_some(fault));
    }

    pub fn device(&self, tenant: &str) -> Device {
        Device::connect(&self.scene.listener, &format!("of-{tenant}")).unwrap()
    }

    pub async fn stored(&self, tenant: &str) -> BTreeSet<u64> {
        stored(&self.influxdb, &format!("telemetry_{tenant}")).await
    }

    /// The segments of the spool, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.scene.path("data/spool")).unwrap().map(|file| file.unwrap().path());
        let mut segments: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).collect();
        segments.sort();
        segments
    }
}

async fn stored(influxdb: &Influxdb, database: &str) -> BTreeSet<u64> {
    let answer = influxdb.ask(database, "SELECT seq FROM telemetry").await;
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row[1].as_u64().unwrap()).collect()
}

/// Publishes and waits for every PUBACK.
pub fn publish(device: &mut Device, tenant: &str, seqs: impl IntoIterator<Item = u64>) {
    let name = format!("of-{tenant}");
    let topic = topic(tenant, &name, "telemetry");
    let payloads: Vec<_> = seqs.into_iter().map(|seq| message(&name, seq)).collect();
    let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_slice()));
    assert_eq!(device.publish_all(messages, 100).unwrap(), payloads.len() as u64);
}

fn lines(gateway: &Gateway<'_>, tenant: &str) -> [u64; 6] {
    ["spooled", "written", "refused", "dropped", "damaged", "pending"]
        .map(|key| gateway.book(tenant, "lines", key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn twenty_kills_under_a_hundred_thousand_messages_lose_none() {
    const MESSAGES: u64 = 100_000;
    const DEVICES: u64 = 10;
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let broker = Mosquitto::start_in_memory();
    let mut scene = GatewayDir::new();
    for device in 0..DEVICES {
        scene.device("acme", &format!("dev-{device}"), "lab-1");
    }
    scene.configure_broker(
        &broker.url(),
        &format!(
            "[output]\nkind = \"influxdb1\"\nurl = \"{}\"\nflush_interval_ms = 100\n{NO_RATE}",
            influxdb.url()
        ),
    );
    // Slow enough that messages are unsettled at each kill.
    let faults = Faults::on(&scene);
    faults.set("fdatasync SLOW");
    let mut gateway = scene.start_with(&faults);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (port, count) = (broker.port, acknowledged.clone());
    let publishing = std::thread::spawn(move || {
        let mut publisher = MqttClient::to_broker(port, "publisher");
        for part in 0..MESSAGES / 500 {
            let messages = (part * 500..(part + 1) * 500).map(|seq| {
                let device = format!("dev-{}", seq % DEVICES);
                (topic("acme", &device, "telemetry"), message(&device, seq))
            });
            publisher.publish_all(messages);
            count.store((part + 1) * 500, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(60));
        }
    });
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for kill in 1..=20 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(100 + random % 500));
        gateway.wait("unsettled", |gateway| gateway.book("acme", "messages", "in_flight") > 0);
        gateway.assert_balanced();
        gateway.kill();
        gateway = scene.start_with(&faults);
        println!("kill {kill}: {} acknowledged by the broker", acknowledged.load(Ordering::Relaxed));
    }
    publishing.join().unwrap();
    gateway.wait_for(Duration::from_secs(60), "idle", |gateway| {
        gateway.book("acme", "messages", "in_flight") == 0 && gateway.book("acme", "lines", "pending") == 0
    });
    let everything: BTreeSet<u64> = (0..MESSAGES).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut there = stored(&influxdb, "telemetry_acme").await;
    while there != everything && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(300)).await;
        there = stored(&influxdb, "telemetry_acme").await;
    }
    let lost = everything.difference(&there).count();
    println!("lost: {lost} of {MESSAGES}");
    assert_eq!(lost, 0);
    gateway.assert_balanced();
    let [spooled, written, refused, dropped, damaged, pending] = lines(&gateway, "acme");
    assert!(spooled >= MESSAGES && written == spooled, "{spooled} {written}");
    assert_eq!((refused, dropped, damaged, pending), (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_acknowledged_outlives_a_kill_and_a_stop_while_the_database_is_away() {
    let plant = Plant::new("").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 0..2000);
    assert_eq!(lines(&gateway, "acme"), [2000, 0, 0, 0, 0, 2000]);
    gateway.kill();
    let gateway = plant.scene.start();
    assert_eq!(lines(&gateway, "acme"), [2000, 0, 0, 0, 0, 2000]);
    publish(&mut plant.device("acme"), "acme", 2000..2500);
    let began = Instant::now();
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "a dead database is not waited for: {:?}",
        began.elapsed()
    );
    let (status, listing, errors) = plant.scene.verb(&["spool", "--json"], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(listing.contains("\"telemetry_acme\"") && listing.contains("2500"), "{listing}");
    plant.database("acme", true);
    let gateway = plant.scene.start();
    gateway.wait_written("acme", 2500);
    assert_eq!(plant.stored("acme").await, (0..2500).collect());
    assert_eq!(lines(&gateway, "acme"), [2500, 2500, 0, 0, 0, 0]);
    assert_eq!(gateway.stop().code(), Some(0));
    // The accounts of lines outlive a stop too, and are shown without a gateway.
    let (status, books, _) = plant.scene.verb(&["books", "--json"], "");
    assert_eq!(status.code(), Some(0));
    let books: serde_json::Value = serde_json::from_str(&books).unwrap();
    assert_eq!(books["tenants"]["acme"]["lines"]["written"], 2500, "{books:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_acknowledged_while_the_disk_fails_and_all_of_it_once_it_is_well() {
    let plant = Plant::new("").await;
    let faults = Faults::on(&plant.scene);
    let gateway = plant.scene.start_with(&faults);
    let mut from = 0;
    for fault in ["fdatasync EIO", "write ENOSPC", "write EROFS"] {
        let mut device = plant.device("acme");
        publish(&mut device, "acme", from..from + 50);
        faults.set(fault);
        device.stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        let topic = topic("acme", "of-acme", "telemetry");
        for seq in from + 50..from + 100 {
            device.send(&topic, &message("of-acme", seq)).unwrap();
        }
        assert!(device.puback().is_err(), "acknowledged while {fault}");
        gateway.wait("not ready", |gateway| {
            let (status, body) = gateway.get("/readyz");
            status == 503 && body.contains("spool/0")
        });
        gateway.assert_balanced();
        assert_eq!(gateway.book("acme", "messages", "in_flight"), 50, "{fault}");
        faults.set("");
        device.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for _ in 0..50 {
            device.puback().unwrap();
        }
        gateway.wait("ready again", |gateway| gateway.get("/readyz").0 == 200);
        from += 100;
    }
    gateway.kill();
    let gateway = plant.scene.start();
    gateway.wait_written("acme", from);
    assert_eq!(plant.stored("acme").await, (0..from).collect());
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_torn_tail_is_cut_and_costs_nothing() {
    let plant = Plant::new("").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 0..300);
    gateway.kill();
    // The beginning of a frame like the others: as if the write had been cut.
    let segment = plant.segments().pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let frame = bytes.windows(4).position(|four| four == [0xFF, b'T', b'G', 0xFE]).unwrap();
    bytes.extend_from_within(frame..frame + 40);
    fs::write(&segment, bytes).unwrap();
    let gateway = plant.scene.start();
    assert_eq!(lines(&gateway, "acme"), [300, 0, 0, 0, 0, 300]);
    assert!(plant.scene.log().contains("cut an unfinished write off the spool"), "{}", plant.scene.log());
    plant.database("acme", true);
    gateway.wait_written("acme", 300);
    assert_eq!(plant.stored("acme").await, (0..300).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_flipped_bit_and_a_missing_file_are_named_and_counted_and_the_rest_arrives() {
    let plant = Plant::new("[spool]\nbytes_max = 4194304\ntenant_bytes_max = 4194304\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let mut device = plant.device("acme");
    for part in 0..60 {
        publish(&mut device, "acme", part * 100..(part + 1) * 100);
    }
    // Marks say how much there was.
    std::thread::sleep(Duration::from_millis(1500));
    gateway.kill();
    let segments = plant.segments();
    assert!(segments.len() > 4, "{segments:?}");
    let mut bytes = fs::read(&segments[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segments[1], bytes).unwrap();
    fs::remove_file(&segments[2]).unwrap();
    let gateway = plant.scene.start();
    gateway.assert_balanced();
    let [spooled, _, _, _, damaged, pending] = lines(&gateway, "acme");
    assert_eq!((spooled, pending + damaged), (6000, 6000));
    assert!((100..1500).contains(&damaged), "{damaged}");
    let log = plant.scene.log();
    for segment in &segments[1..3] {
        let name = segment.file_name().unwrap().to_str().unwrap();
        assert!(log.contains(name), "{name} is not named in\n{log}");
    }
    assert!(log.contains("offset="), "{log}");
    plant.database("acme", true);
    gateway.wait_written("acme", pending);
    assert_eq!(plant.stored("acme").await.len() as u64, pending);
    assert_eq!(lines(&gateway, "acme"), [6000, pending, 0, 0, damaged, 0]);
    // It is reported once, and stays in the books.
    gateway.stop();
    let gateway = plant.scene.start();
    assert_eq!(lines(&gateway, "acme"), [6000, pending, 0, 0, damaged, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_segment_that_is_put_back_brings_all_its_lines() {
    let plant = Plant::new("[spool]\nbytes_max = 4194304\ntenant_bytes_max = 4194304\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let mut device = plant.device("acme");
    for part in 0..60 {
        publish(&mut device, "acme", part * 100..(part + 1) * 100);
    }
    assert_eq!(gateway.stop().code(), Some(0));
    let segments = plant.segments();
    assert!(segments.len() > 4, "{segments:?}");
    let (missing, elsewhere) = (&segments[2], plant.scene.path("elsewhere"));
    fs::rename(missing, &elsewhere).unwrap();
    let gateway = plant.scene.start();
    let [spooled, _, _, _, damaged, pending] = lines(&gateway, "acme");
    assert!(damaged > 0 && spooled == 6000 && pending == 6000 - damaged, "{spooled} {damaged} {pending}");
    assert_eq!(gateway.stop().code(), Some(0));
    fs::rename(&elsewhere, missing).unwrap();
    let gateway = plant.scene.start();
    assert_eq!(lines(&gateway, "acme"), [6000, 0, 0, 0, 0, 6000]);
    plant.database("acme", true);
    gateway.wait_written("acme", 6000);
    assert_eq!(plant.stored("acme").await, (0..6000).collect());
    gateway.assert_balanced();
    // What was missing once is not deleted.
    let kept = missing.with_extension("returned");
    gateway.wait("put out of the way", |_| kept.exists() && !missing.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_a_returned_segment_had_counted_as_written_is_not_damaged() {
    let plant = Plant::new("").await;
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 0..100);
    gateway.wait_written("acme", 100);
    assert_eq!(gateway.stop().code(), Some(0));
    // The segment of this run alone knows of those lines.
    plant.database("acme", false);
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 100..200);
    assert_eq!(gateway.stop().code(), Some(0));
    let segments = plant.segments();
    let (missing, elsewhere) = (segments.last().unwrap(), plant.scene.path("elsewhere"));
    fs::rename(missing, &elsewhere).unwrap();
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 200..210);
    assert_eq!(gateway.stop().code(), Some(0));
    fs::rename(&elsewhere, missing).unwrap();
    let gateway = plant.scene.start();
    let [spooled, written, _, _, damaged, pending] = lines(&gateway, "acme");
    assert_eq!((spooled, written, damaged, pending), (210, 100, 0, 110));
    plant.database("acme", true);
    gateway.wait_written("acme", 210);
    assert_eq!(plant.stored("acme").await, (0..210).collect());
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_only_segment_may_be_away_while_others_are_written() {
    let plant = Plant::new("").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 0..100);
    assert_eq!(gateway.stop().code(), Some(0));
    let segments = plant.segments();
    let [missing] = segments.as_slice() else { panic!("{segments:?}") };
    let elsewhere = plant.scene.path("elsewhere");
    fs::rename(missing, &elsewhere).unwrap();
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 100..200);
    assert_eq!(gateway.stop().code(), Some(0));
    fs::rename(&elsewhere, missing).unwrap();
    let gateway = plant.scene.start();
    assert_eq!(lines(&gateway, "acme"), [200, 0, 0, 0, 0, 200]);
    plant.database("acme", true);
    gateway.wait_written("acme", 200);
    assert_eq!(plant.stored("acme").await, (0..200).collect());
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_device_that_corrects_a_value_after_a_restart_has_the_last_word() {
    const DEVICES: u64 = 64;
    let mut plant = Plant::new("").await;
    for device in 0..DEVICES {
        plant.scene.device("acme", &format!("dev-{device}"), "lab-1");
    }
    plant.database("acme", false);
    for value in [1, 2] {
        let gateway = plant.scene.start();
        for number in 0..DEVICES {
            let name = format!("dev-{number}");
            let mut device = Device::connect(&plant.scene.listener, &name).unwrap();
            let payload = format!(
                r#"{{"version":"1","ts":"2026-11-23T08:00:00Z","site_id":"lab-1","seq":1,"provision_token":"tok-{name}","metrics":{{"v":{value}}}}}"#
            );
            let topic = topic("acme", &name, "telemetry");
            assert_eq!(device.publish_all([(topic.as_str(), payload.as_bytes())].into_iter(), 1).unwrap(), 1);
        }
        assert_eq!(gateway.stop().code(), Some(0));
    }
    plant.database("acme", true);
    let gateway = plant.scene.start();
    gateway.wait_written("acme", 2 * DEVICES);
    let answer = plant.influxdb.ask("telemetry_acme", "SELECT * FROM telemetry").await;
    let series = &answer["results"][0]["series"][0];
    let column = series["columns"].as_array().unwrap().iter().position(|name| name == "v").unwrap();
    let values: Vec<_> =
        series["values"].as_array().unwrap().iter().map(|row| row[column].as_f64()).collect();
    assert_eq!(values, vec![Some(2.0); DEVICES as usize]);
}

/// A small file system for the spool, unmounted when dropped.
struct SmallDisk {
    holder: std::process::Child,
}

impl SmallDisk {
    /// # Panics
    /// Not even a user namespace may mount a tmpfs.
    fn below(scene: &GatewayDir, size: &str) -> Self {
        let spool = scene.path("data/spool");
        fs::create_dir_all(&spool).unwrap();
        let ready = scene.path("mounted");
        let holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o size={size},mode=0700 tmpfs '{}' && touch '{}' && exec sleep 600",
                spool.display(),
                ready.display()
            ))
            .spawn()
            .expect("unshare of util-linux");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "no tmpfs can be mounted in a user namespace of its own");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { holder }
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.holder.id().to_string(),
            "--user",
            "--mount",
            "--preserve-credentials",
        ]);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        assert!(self.enter().arg(program).args(arguments).status().unwrap().success());
    }

    /// A gateway's folder on this disk. The gateway enters it inside: the folder of outside
    /// leads past the mount.
    fn gateway(&self, scene: &GatewayDir) -> Command {
        let mut command = self.enter();
        command
            .args(["sh", "-c", "cd \"$1\" && exec \"$0\" run"])
            .arg(tidegate().get_program())
            .arg(scene.path(""));
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_full_disk_stops_acknowledgements_and_loses_nothing() {
    // It may take 64 MiB and finds 3.
    let plant = Plant::new("[spool]\nbytes_max = 67108864\n").await;
    let disk = SmallDisk::below(&plant.scene, "3m");
    plant.database("acme", false);
    let gateway = plant.scene.start_unready_by(disk.gateway(&plant.scene));
    gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut device = plant.device("acme");
    device.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let publishing = std::thread::spawn({
        let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
        move || {
            for part in 0.. {
                publish(&mut device, "acme", part * 100..(part + 1) * 100);
                acknowledged.store((part + 1) * 100, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return (part + 1) * 100;
                }
            }
            unreachable!()
        }
    });
    gateway.wait("not ready", |gateway| {
        let (status, body) = gateway.get("/readyz");
        status == 503 && body.contains("make room on that disk")
    });
    let at_full = acknowledged.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(acknowledged.load(Ordering::Relaxed) <= at_full + 200, "acknowledged on a full disk");
    gateway.assert_balanced();
    // Killed on the full disk, it starts again, and the lines that it writes make room.
    stop.store(true, Ordering::Relaxed);
    plant.database("acme", true);
    gateway.wait("ready again", |gateway| gateway.get("/readyz").0 == 200);
    let published = publishing.join().unwrap();
    gateway.wait_written("acme", published);
    println!("{published} messages on a disk of 3 MiB");
    assert_eq!(plant.stored("acme").await, (0..published).collect());
    gateway.assert_balanced();
    // Filled by another process before it starts: it writes the stored lines, and then takes more.
    plant.database("acme", false);
    publish(&mut plant.device("acme"), "acme", published..published + 500);
    gateway.kill();
    let ballast = plant.scene.path("data/spool/ballast");
    let _ = disk
        .enter()
        .args(["sh", "-c"])
        .arg(format!("cat /dev/zero > '{}' 2>/dev/null", ballast.display()))
        .status();
    plant.database("acme", true);
    let gateway = plant.scene.start_unready_by(disk.gateway(&plant.scene));
    gateway.wait_written("acme", published + 500);
    disk.run("rm", &[ballast.to_str().unwrap()]);
    gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
    publish(&mut plant.device("acme"), "acme", published + 500..published + 600);
    gateway.wait_written("acme", published + 600);
    gateway.assert_balanced();
    gateway.kill();
    // On a disk that may only be read it does not start, and says which and what to do.
    disk.run("mount", &["-o", "remount,ro", plant.scene.path("data/spool").to_str().unwrap()]);
    let output = disk.gateway(&plant.scene).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("spool/0") && errors.contains("read-only"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_tenant_whose_share_is_full_waits_and_nobody_else_does() {
    let plant = Plant::new("[spool]\ntenant_bytes_max = 100000\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let mut held = plant.device("acme");
    let topic = topic("acme", "of-acme", "telemetry");
    let mut batch = Vec::new();
    for seq in 0..1000 {
        packet::publish_into(&mut batch, &topic, &message("of-acme", seq), Some(seq as u16 + 1));
    }
    std::io::Write::write_all(&mut held.stream, &batch).unwrap();
    gateway
        .wait("full", |gateway| gateway.json("/api/v1/spool")["waiting_messages"]["acme"].as_u64().is_some());
    gateway.wait("all it has room for", |gateway| gateway.book("acme", "lines", "spooled") > 200);
    // The other tenant is served all the while, and books balance.
    publish(&mut plant.device("globex"), "globex", 0..3000);
    gateway.wait_written("globex", 3000);
    gateway.assert_balanced();
    assert_eq!(gateway.get("/readyz").0, 200);
    assert_eq!(gateway.book("acme", "lines", "dropped"), 0);
    plant.database("acme", true);
    for seq in 0..1000 {
        assert_eq!(held.puback().unwrap(), seq + 1);
    }
    gateway.wait_written("acme", 1000);
    assert_eq!(plant.stored("acme").await, (0..1000).collect());
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_device_whose_tenant_waits_is_kept_alive() {
    let plant = Plant::new("[spool]\ntenant_bytes_max = 16384\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let mut device = plant.device("acme");
    device.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let topic = topic("acme", "of-acme", "telemetry");
    // More than its share, as many as a client sends ahead; then it asks whether we live.
    let mut batch = Vec::new();
    for seq in 0..150 {
        packet::publish_into(&mut batch, &topic, &message("of-acme", seq), Some(seq as u16 + 1));
    }
    batch.extend_from_slice(&[0xC0, 0]);
    std::io::Write::write_all(&mut device.stream, &batch).unwrap();
    let mut answers = Vec::new();
    while !answers.windows(2).any(|two| two == [0xD0, 0]) {
        let mut bytes = [0; 512];
        let read = std::io::Read::read(&mut device.stream, &mut bytes).expect("a PINGRESP while it waits");
        assert!(read > 0, "the connection was closed");
        answers.extend_from_slice(&bytes[..read]);
    }
    let acknowledged = (answers.len() - 2) / 4;
    assert!(acknowledged < 150, "{acknowledged}");
    gateway
        .wait("held", |gateway| gateway.json("/api/v1/spool")["waiting_messages"]["acme"].as_u64().is_some());
}

/// The number of acme's messages that wait for room.
fn waiting(gateway: &Gateway<'_>) -> u64 {
    gateway.json("/api/v1/spool")["waiting_messages"]["acme"].as_u64().unwrap_or(0)
}

/// Sends messages of acme's device by `stream`: `seqs`, at QoS 1 or 0.
fn send(stream: &mut TcpStream, seqs: std::ops::Range<u64>, at_least_once: bool) {
    let topic = topic("acme", "of-acme", "telemetry");
    let mut batch = Vec::new();
    for (place, seq) in seqs.enumerate() {
        let packet_id = at_least_once.then_some(place as u16 + 1);
        packet::publish_into(&mut batch, &topic, &message("of-acme", seq), packet_id);
    }
    stream.write_all(&batch).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_devices_of_a_tenant_whose_share_is_full_stop_nobody_else() {
    // Their messages are more than the window takes.
    let more = "unsettled_messages_max = 300\n[spool]\ntenant_bytes_max = 16384\n";
    let plant = Plant::new(more).await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let mut first = plant.device("acme");
    send(&mut first.stream, 0..200, true);
    gateway.wait("full", |gateway| waiting(gateway) > 0);
    let connect = |name: &str| Device::connect(&plant.scene.listener, name).unwrap();
    let mut globex = plant.device("globex");
    let mut sent = 0..;
    let mut globex_is_served = || {
        let seq = sent.next().unwrap();
        let topic = topic("globex", "of-globex", "telemetry");
        globex.publish(&topic, &message("of-globex", seq)).expect("a PUBACK for the other tenant");
    };
    for number in 0..200 {
        let mut device = connect(&format!("once-{number}"));
        send(&mut device.stream, 1_000..1_003, false);
        device.disconnect().unwrap();
        globex_is_served();
    }
    gateway.wait("what nobody can be held back for is dropped", |gateway| {
        gateway.book("acme", "messages", "dropped") == 600
    });
    let mut devices = Vec::new();
    for number in 0..500 {
        let mut device = connect(&format!("again-{number}"));
        send(&mut device.stream, 2_000..2_002, true);
        devices.push(device);
        globex_is_served();
    }
    gateway.wait("all wait", |gateway| waiting(gateway) >= 1_000);
    globex_is_served();
    let (status, ready) = gateway.get("/readyz");
    assert_eq!(status, 200);
    assert!(ready.contains("wait for room") && ready.contains("acme"), "{ready}");
    gateway.assert_balanced();
    // Some say so, the others just go.
    for (number, device) in devices.into_iter().enumerate() {
        if number % 2 == 0 {
            device.disconnect().unwrap();
        }
    }
    gateway.wait("what the others had waiting is freed", |gateway| waiting(gateway) <= 200);
    gateway.wait("as abandoned", |gateway| gateway.book("acme", "messages", "abandoned") == 1_000);
    globex_is_served();
    gateway.assert_balanced();
    plant.database("acme", true);
    for seq in 0..200 {
        assert_eq!(first.puback().unwrap(), seq + 1);
    }
    gateway.wait("nobody waits", |gateway| !gateway.get("/readyz").1.contains("wait for room"));
    gateway.wait_written("globex", sent.next().unwrap());
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_device_that_is_held_back_is_noticed_when_it_leaves_or_falls_silent() {
    let plant = Plant::new("[spool]\ntenant_bytes_max = 16384\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let held = |name: &str, keep_alive_s: u16| {
        let mut stream = TcpStream::connect(&plant.scene.listener).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&packet::connect(name, keep_alive_s)).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        send(&mut stream, 0..300, true);
        stream
    };
    let (mut silent, mut leaving, patient) = (held("silent", 2), held("leaving", 0), held("patient", 0));
    gateway.wait("all are held back", |gateway| waiting(gateway) >= 3 * 128);
    leaving.shutdown(std::net::Shutdown::Write).unwrap();
    for stream in [&mut silent, &mut leaving] {
        let closed = std::io::copy(stream, &mut std::io::sink());
        assert!(closed.is_ok() || closed.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    }
    gateway.wait("only the third waits", |gateway| waiting(gateway) < 2 * 128 + 64);
    assert!(waiting(&gateway) >= 128, "who only waits is not closed");
    gateway.assert_balanced();
    drop(patient);
    gateway.wait("nobody waits", |gateway| waiting(gateway) == 0);
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_batch_larger_than_its_tenants_share_is_written() {
    let plant = Plant::new("[spool]\ntenant_bytes_max = 16384\n").await;
    let gateway = plant.scene.start();
    let mut device = plant.device("acme");
    let topic = topic("acme", "of-acme", "telemetry");
    let mut batch = Vec::new();
    for seq in 0..64 {
        let metrics: Vec<String> = (0..60).map(|place| format!("\"metric_{place:02}\":{seq}.25")).collect();
        let payload = String::from_utf8(message("of-acme", seq)).unwrap();
        let payload = payload.replace("\"v\":", &format!("{},\"v\":", metrics.join(",")));
        assert!(payload.len() > 1_000);
        packet::publish_into(&mut batch, &topic, payload.as_bytes(), Some(seq as u16 + 1));
    }
    device.stream.write_all(&batch).unwrap();
    for seq in 0..64 {
        assert_eq!(device.puback().unwrap(), seq + 1);
    }
    gateway.wait_written("acme", 64);
    assert_eq!(plant.stored("acme").await, (0..64).collect());
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn where_the_oldest_is_dropped_each_line_is_counted_and_the_newest_arrives() {
    let plant = Plant::new("[spool]\ntenant_bytes_max = 200000\nwhen_full = \"drop_oldest\"\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let mut device = plant.device("acme");
    for part in 0..50 {
        publish(&mut device, "acme", part * 100..(part + 1) * 100);
        gateway.assert_balanced();
    }
    let [spooled, written, _, dropped, _, pending] = lines(&gateway, "acme");
    assert_eq!((spooled, written, dropped + pending), (5000, 0, 5000));
    assert!(dropped > 3000 && pending > 300, "{dropped} {pending}");
    gateway.kill();
    let gateway = plant.scene.start();
    let [_, _, _, dropped_then, damaged, pending_then] = lines(&gateway, "acme");
    assert_eq!(damaged, 0);
    // Marks of the last second may be missing: dropped frames may be back, and nothing else.
    assert!(dropped_then <= dropped && pending_then >= pending);
    plant.database("acme", true);
    gateway.wait("written", |gateway| gateway.book("acme", "lines", "pending") == 0);
    let there = plant.stored("acme").await;
    assert!((4700..5000).all(|seq| there.contains(&seq)), "the newest are there");
    gateway.assert_balanced();
    assert_eq!(gateway.book("globex", "lines", "dropped"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_dead_database_pins_its_own_bytes_only() {
    let plant = Plant::new("[spool]\nbytes_max = 4194304\ntenant_bytes_max = 1048576\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let (mut dead, mut well) = (plant.device("acme"), plant.device("globex"));
    // A little of the one in each stretch of the other's.
    for part in 0..200 {
        publish(&mut dead, "acme", part..part + 1);
        publish(&mut well, "globex", part * 200..(part + 1) * 200);
    }
    gateway.wait_written("globex", 40_000);
    // Nothing is copied out of a segment of the last 30 seconds while the disk has room.
    gateway.wait_for(Duration::from_secs(120), "tidied", |gateway| {
        gateway.json("/api/v1/spool")["bytes"].as_u64().unwrap() < 600_000
    });
    let spool = gateway.json("/api/v1/spool");
    assert_eq!(spool["lines"], 200, "{spool:#}");
    gateway.kill();
    plant.database("acme", true);
    let gateway = plant.scene.start();
    gateway.wait_written("acme", 200);
    assert_eq!(plant.stored("acme").await, (0..200).collect());
    // Marks of the last moment may be missing after a kill: then some are written again.
    gateway.wait("globex is written too", |gateway| gateway.book("globex", "lines", "pending") == 0);
    assert_eq!(gateway.book("globex", "lines", "written"), gateway.book("globex", "lines", "spooled"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_present_is_written_beside_a_long_backlog() {
    let plant = Plant::with("batch_lines_max = 500\n", "[spool]\nmemory_bytes_max = 400000\n").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 0..20_000);
    // Slow: each write takes a while, and the backlog many of them.
    plant.front.slow_down(Duration::from_millis(150));
    plant.database("acme", true);
    gateway.wait("catching up", |gateway| gateway.book("acme", "lines", "written") > 0);
    publish(&mut plant.device("acme"), "acme", [50_000]);
    let began = Instant::now();
    let mut behind = 0;
    while !plant.stored("acme").await.contains(&50_000) {
        behind = gateway.book("acme", "lines", "pending");
        assert!(began.elapsed() < Duration::from_secs(20), "{behind} pending");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("the newest line was there with {behind} older ones pending");
    assert!(behind > 1000, "the backlog was gone by then: {behind}");
    gateway.wait_written("acme", 20_001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_the_disk_does_not_give_back_for_a_moment_is_asked_for_again() {
    let plant = Plant::new("[spool]\nmemory_bytes_max = 400000\n").await;
    let faults = Faults::on(&plant.scene);
    plant.database("acme", false);
    let gateway = plant.scene.start_with(&faults);
    let mut all = 0;
    // No file descriptor left, and then a disk that is away.
    for (fault, told) in [("pread EMFILE", "Too many open files"), ("pread EIO", "Input/output error")] {
        publish(&mut plant.device("acme"), "acme", all..all + 8_000);
        all += 8_000;
        faults.set(fault);
        plant.database("acme", true);
        gateway.wait("told", |_| plant.scene.log().contains(told));
        gateway.assert_balanced();
        assert_eq!(lines(&gateway, "acme")[4], 0, "{fault}: nothing is damaged");
        faults.set("");
        gateway.wait_written("acme", all);
        plant.database("acme", false);
    }
    assert_eq!(lines(&gateway, "acme"), [all, all, 0, 0, 0, 0]);
    assert_eq!(plant.stored("acme").await, (0..all).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn files_of_others_in_our_folders_cost_nothing() {
    let plant = Plant::new("").await;
    plant.database("acme", false);
    let gateway = plant.scene.start();
    publish(&mut plant.device("acme"), "acme", 0..300);
    gateway.kill();
    let spool = plant.scene.path("data/spool");
    let nothing: &[u8] = b"";
    for (name, bytes) in [
        ("0000000000000000.seg", nothing),
        ("0000000000000077.seg", b"a note of somebody\n"),
        // Where we would count on from them, what is written next could not be found again.
        ("0000004294967296.seg", &[7; 5_000]),
        ("9999999999999999.seg", &[7; 5_000]),
        ("17.seg", nothing),
        ("core", b"x"),
        ("newest", b"\xff\xfe"),
        ("newest.staged", b"1"),
        ("-.done", nothing),
    ] {
        fs::write(spool.join(name), bytes).unwrap();
    }
    let quarantine = plant.scene.path("data/quarantine");
    fs::create_dir_all(quarantine.join("folder")).unwrap();
    for (name, bytes) in [("a-0000000000000009.jsonl", nothing), ("note.txt", b"\xff\xfe{"), ("x", nothing)] {
        fs::write(quarantine.join(name), bytes).unwrap();
    }
    for start in 0..3 {
        let gateway = plant.scene.start();
        publish(&mut plant.device("acme"), "acme", 300 + start * 100..400 + start * 100);
        let all = 400 + start * 100;
        assert_eq!(lines(&gateway, "acme"), [all, 0, 0, 0, 0, all]);
        gateway.kill();
    }
    plant.database("acme", true);
    let gateway = plant.scene.start();
    gateway.wait_written("acme", 600);
    assert_eq!(plant.stored("acme").await, (0..600).collect());
    gateway.assert_balanced();
}
