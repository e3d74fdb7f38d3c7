//! Spool and writer against real databases, and against the ways in which they fail.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use tidegate::core::ack::tracker::AckTracker;
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::core::books::{Account, Books};
use tidegate::core::message::{CheckedBatch, CheckedMessage};
use tidegate::core::tenant::Tenant;
use tidegate::core::tenant::database::{DatabaseTemplate, NameRule};
use tidegate::core::tenant::policy::{TenantPolicies, TenantPolicy};
use tidegate::core::tenant::settings::TenantSettings;
use tidegate::core::tenant::table::Tenants;
use tidegate::quarantine::{Filter, Quarantine, QuarantineSettings};
use tidegate::spool::{Spool, SpoolSettings, WhenFull};
use tidegate::writer::{
    BackoffLimits, Gzip, HttpSettings, OutputSettings, ServerKind, WriteObserver, Writer, WriterParts,
    WriterSettings,
};

use crate::harness::eventually;
use crate::harness::fake_influxdb3::{FakeInfluxdb3, Fault};
use crate::harness::influxdb::Influxdb;
use crate::harness::victoria::Victoria;

/// A spool and a writer with a source on one side and quarantine on the other.
struct Gateway {
    spool: Spool,
    writer: Writer,
    quarantine: Quarantine,
    _dir: tempfile::TempDir,
    connection: Arc<AckTracker>,
    books: Arc<Books>,
    next: Mutex<u64>,
}

/// Times that are far apart enough to be told from each other, and short enough to wait for.
fn waits() -> BackoffLimits {
    BackoffLimits {
        retry_min: Duration::from_millis(100),
        retry_max: Duration::from_millis(400),
        pause_min: Duration::from_millis(500),
        pause_max: Duration::from_millis(700),
        ..BackoffLimits::default()
    }
}

fn http(kind: ServerKind, url: &str) -> HttpSettings {
    HttpSettings {
        kind,
        url: url.into(),
        token: String::new(),
        org: "o".into(),
        username: String::new(),
        password: String::new(),
        gzip: Gzip::Auto,
        request_timeout: Duration::from_secs(5),
        create_database: false,
    }
}

fn v3(url: &str) -> OutputSettings {
    OutputSettings::Http(http(ServerKind::InfluxDb3, url))
}

impl Gateway {
    fn start(output: OutputSettings) -> Self {
        Self::with(output, 500, Duration::from_millis(50))
    }

    fn with(output: OutputSettings, batch_lines: u32, flush_interval: Duration) -> Self {
        Self::observed(output, batch_lines, flush_interval, Arc::new(()))
    }

    fn observed(
        output: OutputSettings,
        batch_lines: u32,
        flush_interval: Duration,
        observer: Arc<dyn WriteObserver>,
    ) -> Self {
        Self::sized(output, (batch_lines, 10_000), flush_interval, observer)
    }

    /// Starts it with the lines of a request, and the most of one that catches up.
    fn sized(
        output: OutputSettings,
        (batch_lines, batch_lines_max): (u32, u32),
        flush_interval: Duration,
        observer: Arc<dyn WriteObserver>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let books = Arc::new(Books::default());
        let settings = QuarantineSettings::new(1 << 20, 7);
        let quarantine = Quarantine::open(&dir.path().join("quarantine"), settings, None, &books).unwrap();
        let window = Arc::new(ReceiveWindow::new(100_000, 64 << 20));
        let spool_settings = SpoolSettings {
            bytes_max: 64 << 20,
            tenant_bytes_max: 64 << 20,
            when_full: WhenFull::Block,
            memory_bytes_max: 1 << 20,
            sync: true,
            device_seed: Default::default(),
            age_clock: Arc::default(),
        };
        let opened = Spool::open(&dir.path().join("spool"), spool_settings, None, &books).unwrap();
        let settings = WriterSettings {
            output,
            batch_lines,
            flush_interval,
            flush_interval_max: flush_interval,
            batch_lines_max,
            requests_max: 32,
            waits: waits(),
            memory_bytes_max: 64 << 20,
        };
        let refused_lines = {
            let quarantine = quarantine.clone();
            Arc::new(move |refused| quarantine.store_lines(refused))
        };
        let policy = TenantPolicy::plain(DatabaseTemplate::new("telemetry_{tenant}", NameRule::InfluxDb3));
        let parts = WriterParts {
            runtime: tokio::runtime::Handle::current(),
            idle_delay: Arc::default(),
            store: opened.lines(),
            refused_lines,
            observer,
            tenants: Arc::new(Tenants::new(TenantPolicies::new(policy), books.clone())),
        };
        let writer = Writer::start(settings, parts).unwrap();
        let spool = opened.start(Arc::new(writer.clone())).unwrap();
        let connection = AckTracker::new(window);
        Self { spool, writer, quarantine, _dir: dir, connection, books, next: Mutex::new(0) }
    }

    fn account(&self, tenant: &str) -> Arc<Account> {
        self.books.of_known(tenant)
    }

    /// Messages of these lines, as decode threads hand them over: 64 a batch.
    fn send_lines(&self, tenant: &str, messages: &[Vec<String>]) {
        let account = self.account(tenant);
        let database = format!("telemetry_{tenant}");
        let rules = TenantSettings::plain(Ok(database.as_str().into()));
        let of_tenant = Arc::new(Tenant::new(tenant.into(), account.clone(), rules));
        for chunk in messages.chunks(64) {
            let (mut lines, mut checked) = (Vec::new(), Vec::new());
            for message in chunk {
                for line in message {
                    lines.extend_from_slice(line.as_bytes());
                    lines.push(b'\n');
                }
                account.receive(1);
                let mut next = self.next.lock();
                *next += 1;
                checked.push(CheckedMessage {
                    topic: format!("tenant/{tenant}/device/d/telemetry"),
                    received_ns: 1,
                    lines_end: lines.len() as u32,
                    line_count: message.len() as u32,
                    affinity: (*next % 7) as u32,
                    token: self.connection.receive((*next % 65_535) as u16 + 1, 100),
                });
            }
            self.spool.append(
                vec![CheckedBatch::new(
                    database.as_str().into(),
                    of_tenant.clone(),
                    "g@1.0.0#000000000000".into(),
                    lines,
                    checked,
                )],
                false,
            );
        }
    }

    /// `count` messages of one line each, told apart by their time.
    fn send(&self, tenant: &str, from: u64, count: u64) {
        self.send_lines(tenant, &lines(from, count));
    }

    /// Waits until every message is settled, and checks the books.
    async fn settled(&self, tenant: &str) {
        let account = self.account(tenant);
        let books = || account.snapshot();
        let began = Instant::now();
        while books().messages.in_flight > 0 || books().lines.pending > 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?} {:?}", books(), self.writer.databases());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(books().balanced());
        let mut packet_ids = Vec::new();
        self.connection.take_ready(&mut packet_ids);
    }
}

fn lines(from: u64, count: u64) -> Vec<Vec<String>> {
    (from..from + count).map(|n| vec![format!("m,device_id=d{} v={n},i={n}i {}", n % 7, T0 + n)]).collect()
}

const T0: u64 = 1_700_000_000_000_000_000;

fn status(status: u16) -> Fault {
    Fault::Status { status, retry_after: None, body: "" }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_reach_the_engine_behind_version_3_each_once() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), Some("secret")).await;
    let settings = HttpSettings {
        token: "secret".into(),
        gzip: Gzip::Always,
        ..http(ServerKind::InfluxDb3, &front.url())
    };
    // On a busy machine lines are late and requests fail, and then one may grow up to the most.
    let settings = HttpSettings { request_timeout: Duration::from_secs(60), ..settings };
    let output = OutputSettings::Http(settings);
    let gateway = Gateway::sized(output, (500, 500), Duration::from_millis(50), Arc::new(()));
    for (tenant, count) in [("acme", 3000), ("beta", 700)] {
        gateway.send(tenant, 0, count);
    }
    for (tenant, count) in [("acme", 3000), ("beta", 700)] {
        gateway.settled(tenant).await;
        assert_eq!(influxdb.count(&format!("telemetry_{tenant}"), "m", "v").await, count);
        assert_eq!(gateway.account(tenant).snapshot().messages.lines, count);
    }
    let seen = front.seen();
    assert!(seen.iter().all(|seen| seen.gzip && seen.lines <= 500 && !seen.body.ends_with(b"\n")));
    assert!(seen[0].query.contains("precision=ns") && seen[0].query.contains("no_sync=false"));
    assert_eq!(gateway.writer.stats().lines_written(), 3700);
    assert_eq!(gateway.spool.lines_pending(), 0);
    // A request that failed was sent again with the same bytes.
    let bodies: BTreeSet<_> = seen.iter().map(|seen| (&seen.database, &seen.body)).collect();
    assert_eq!(gateway.writer.stats().flushes(), bodies.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_lines_are_one_request_and_fewer_wait_for_the_interval() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let gateway = Gateway::with(v3(&front.url()), 500, Duration::from_secs(3));
    let began = Instant::now();
    gateway.send("acme", 0, 1000);
    gateway.settled("acme").await;
    assert!(began.elapsed() < Duration::from_millis(2_900), "a full batch waits for nothing");
    assert_eq!(front.seen().iter().map(|seen| seen.lines).collect::<Vec<_>>(), [500, 500]);
    let began = Instant::now();
    gateway.send("acme", 1000, 300);
    tokio::time::sleep(Duration::from_millis(100)).await;
    gateway.send("acme", 1300, 199);
    gateway.settled("acme").await;
    let last = front.seen().pop().unwrap();
    assert_eq!((front.seen().len(), last.lines), (3, 499));
    let waited = last.at - began;
    assert!(waited.as_millis() >= 2_990, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failure_of_a_server_or_a_network_loses_a_line() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let settings = HttpSettings {
        request_timeout: Duration::from_millis(500),
        ..http(ServerKind::InfluxDb3, &front.url())
    };
    let gateway = Gateway::start(OutputSettings::Http(settings));
    let faults = [
        status(500),
        status(502),
        status(503),
        status(408),
        Fault::Drop,
        Fault::ApplyThenDrop,
        Fault::BreakAnswer,
        Fault::Hang,
        Fault::SlowRead,
        Fault::CloseUpload,
        status(200),
        status(403),
        status(401),
        Fault::Redirect(format!("{}/elsewhere", front.url())),
        Fault::Status { status: 404, retry_after: None, body: "404 page not found" },
    ];
    let mut from = 0;
    for fault in &faults {
        front.fail_next([fault.clone()]);
        gateway.send("acme", from, 10);
        from += 10;
        gateway.settled("acme").await;
        assert_eq!(influxdb.count("telemetry_acme", "m", "v").await, from, "{fault:?}");
    }
    assert_eq!(gateway.account("acme").snapshot().messages.lines, from);
    assert_eq!(gateway.quarantine.counts(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_are_sent_again_and_not_before_retry_after() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    front.fail_next([Fault::Status { status: 429, retry_after: Some("1"), body: "slow down" }]);
    let gateway = Gateway::start(v3(&front.url()));
    gateway.send("acme", 0, 10);
    gateway.settled("acme").await;
    let seen = front.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].body, seen[1].body);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_database_in_trouble_holds_up_no_other() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let gateway = Gateway::start(v3(&front.url()));
    gateway.send("good", 0, 1);
    gateway.settled("good").await;
    for fault in [status(503), Fault::Hang, status(401), status(200), status(403)] {
        front.fail_database("telemetry_sick", Some(fault.clone()));
        gateway.send("sick", 0, 10);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        gateway.send("good", 0, 10);
        gateway.settled("good").await;
        // One that waited for the other would wait for the time-out of its request, five seconds.
        assert!(began.elapsed() < Duration::from_secs(2), "{fault:?} {:?}", began.elapsed());
        assert!(gateway.account("sick").snapshot().lines.pending >= 10);
    }
    front.fail_database("telemetry_sick", None);
    gateway.settled("sick").await;
    assert_eq!(gateway.account("sick").snapshot().messages.lines, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_for_seconds_gets_every_line() {
    let mut influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let gateway = Gateway::start(v3(&front.url()));
    gateway.send("acme", 0, 500);
    gateway.settled("acme").await;
    // It answers 503 first, then it is killed, then it comes back.
    front.fail_database("telemetry_acme", Some(status(503)));
    gateway.send("acme", 500, 2500);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    influxdb.kill();
    front.fail_database("telemetry_acme", None);
    gateway.send("acme", 3000, 1000);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gateway.account("acme").snapshot().lines.pending, 3500);
    influxdb.restart().await;
    gateway.settled("acme").await;
    assert_eq!(influxdb.count("telemetry_acme", "m", "v").await, 4000);
    assert!(front.seen().iter().any(|seen| seen.lines > 500), "it catches up in larger batches");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_lines_that_version_3_refuses_are_quarantined() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let gateway = Gateway::start(v3(&front.url()));
    gateway.send("acme", 0, 1);
    gateway.settled("acme").await;
    let mut messages = lines(1, 20);
    messages[3].push(format!("m,device_id=d v=\"text\" {}", T0 + 900));
    messages.push(vec![format!("m,device_id=d v=true {}", T0 + 901)]);
    gateway.send_lines("acme", &messages);
    gateway.settled("acme").await;
    assert_eq!(influxdb.count("telemetry_acme", "m", "v").await, 21);
    let books = gateway.account("acme").snapshot();
    assert_eq!((books.lines.written, books.lines.refused), (21, 2));
    assert_eq!((books.messages.lines, books.messages.quarantined), (22, 0));
    let entries: Vec<_> = gateway.quarantine.entries(Filter::default()).map(Result::unwrap).collect();
    assert_eq!(entries.len(), 2);
    let of_line = |line: &str| entries.iter().find(|entry| entry.line.as_deref() == Some(line)).unwrap();
    assert!(of_line(&messages[3][1]).answer.as_ref().unwrap().contains("invalid column type"), "{entries:?}");
    assert_eq!(of_line(&messages[20][0]).database.as_deref(), Some("telemetry_acme"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_lines_that_version_1_refuses_are_quarantined() {
    let influxdb = Influxdb::start().await;
    influxdb.create("telemetry_acme").await;
    let gateway = Gateway::start(OutputSettings::Http(http(ServerKind::InfluxDb1, &influxdb.url())));
    gateway.send("acme", 0, 1);
    gateway.settled("acme").await;
    let mut messages = lines(1, 100);
    // Quoted in the answer, not quoted, and two types for one new field within one body.
    messages[10] = vec![format!("m,device_id=d v=oops {}", T0 + 900)];
    messages[50] = vec![format!("m,device_id=d v=\"text\" {}", T0 + 901)];
    messages.push(vec![format!("n f=1 {T0}")]);
    messages.push(vec![format!("n f=\"text\" {}", T0 + 1)]);
    gateway.send_lines("acme", &messages);
    gateway.settled("acme").await;
    assert_eq!(influxdb.count("telemetry_acme", "m", "v").await, 99);
    let refused: BTreeSet<String> =
        gateway.quarantine.entries(Filter::default()).map(|entry| entry.unwrap().line.unwrap()).collect();
    assert_eq!(refused.len(), 3, "{refused:?}");
    assert!(refused.contains(&messages[10][0]) && refused.contains(&messages[50][0]));
    assert_eq!(influxdb.count("telemetry_acme", "n", "f").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_asked_about_by_one_request_at_a_time() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let tenants = ["a", "b", "c", "d"];
    for tenant in tenants {
        front.fail_database(&format!("telemetry_{tenant}"), Some(status(401)));
    }
    let gateway = Gateway::start(v3(&front.url()));
    for tenant in tenants {
        gateway.send(tenant, 0, 10);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let asked = front.seen().len();
    assert!((2..=8).contains(&asked), "four at first, then at most one each 500 ms: {asked}");
    for tenant in tenants {
        assert_eq!(gateway.account(tenant).snapshot().lines.pending, 10);
        front.fail_database(&format!("telemetry_{tenant}"), None);
    }
    for tenant in tenants {
        gateway.settled(tenant).await;
        assert!(front.seen().iter().any(|seen| seen.database == format!("telemetry_{tenant}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_meet_a_ceiling_of_the_server_wait_while_others_go_on() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let gateway = Gateway::start(v3(&front.url()));
    let columns: Vec<String> = (0..500).map(|n| format!("f{n}=1")).collect();
    gateway.send_lines(
        "acme",
        &[vec![format!("wide {} {T0}", columns.join(","))], vec![format!("wide g=1 {T0}")]],
    );
    gateway.send("acme", 0, 10);
    let written = || gateway.account("acme").snapshot().lines.written;
    eventually("all that meets no ceiling is written", 20, || written() >= 11).await;
    let books = gateway.account("acme").snapshot();
    assert_eq!((books.lines.written, books.lines.pending, books.lines.refused), (11, 1, 0));
    gateway.send("acme", 10, 10);
    // Meanwhile the one that waits is tried again.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    eventually("the others are written", 20, || written() >= 21).await;
    let books = gateway.account("acme").snapshot();
    assert_eq!((books.lines.written, books.lines.pending, books.messages.in_flight), (21, 1, 0));
}

/// One line in a hundred meets a ceiling, and as much waits as memory is for.
#[tokio::test(flavor = "multi_thread")]
async fn lines_at_a_ceiling_keep_no_memory_and_stop_no_others() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let gateway = Gateway::start(v3(&front.url()));
    let columns: Vec<String> = (0..500).map(|n| format!("f{n}=1")).collect();
    gateway.send_lines("acme", &[vec![format!("wide {} {T0}", columns.join(","))]]);
    gateway.settled("acme").await;
    let text = "x".repeat(200);
    let line = |n: u64| match n % 100 {
        0 => format!("wide,device_id=d{} g{n}=1 {}", n % 7, T0 + n),
        _ => format!("m,device_id=d{} v={n},s=\"{text}\" {}", n % 7, T0 + n),
    };
    let messages: Vec<_> = (0..20_000).map(|n| vec![line(n)]).collect();
    gateway.send_lines("acme", &messages);
    let books = || gateway.account("acme").snapshot();
    let began = Instant::now();
    while books().lines.written != 19_801 {
        let state = || (books().lines, gateway.writer.databases(), gateway.spool.status().memory_bytes);
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", state());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((books().lines.pending, books().lines.refused), (200, 0));
    let status = gateway.spool.status();
    assert!(status.memory_bytes < 256 << 10, "{} bytes for 200 short lines", status.memory_bytes);
    assert_eq!(gateway.writer.databases()[0].lines_delayed, 200);
    // A stop does not wait for them.
    let left = gateway.writer.drain(Instant::now() + Duration::from_secs(300)).await;
    assert_eq!(left.databases, ["telemetry_acme".into()]);
}

/// The writer holds all lines when it finds that too many meet a ceiling: those that it returns to the spool
/// are announced by nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_went_back_to_the_spool_at_a_ceiling_are_written_once_it_is_raised() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    // All lines are one request, so none waits behind the first that meet the ceiling.
    let gateway = Gateway::with(v3(&front.url()), 9_001, Duration::from_secs(60));
    let columns: Vec<String> = (0..500).map(|n| format!("f{n}=1")).collect();
    let mut messages = vec![vec![format!("wide {} {T0}", columns.join(","))]];
    messages.extend((1..=9_000).map(|n| vec![format!("wide g=1 {}", T0 + n)]));
    gateway.send_lines("acme", &messages);
    let waits_in_store = || {
        let databases = gateway.writer.databases();
        // The writer may not have heard of the database yet.
        databases.first().is_some_and(|of| {
            of.lines_delayed > 0 && of.lines_delayed == of.lines_in_hand && of.lines_in_hand < 9_000
        })
    };
    eventually("lines are back in the spool", 60, waits_in_store).await;
    front.forget_table("telemetry_acme", "wide");
    gateway.settled("acme").await;
    assert_eq!(influxdb.count("telemetry_acme", "wide", "g").await, 9_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_missing_is_waited_for() {
    let influxdb = Influxdb::start().await;
    let gateway = Gateway::start(OutputSettings::Http(http(ServerKind::InfluxDb1, &influxdb.url())));
    gateway.send("acme", 0, 10);
    eventually("an answer", 20, || {
        let databases = gateway.writer.databases();
        databases.first().is_some_and(|of| !of.last_answer.is_empty() && of.lines_in_hand == 10)
    })
    .await;
    let waiting = &gateway.writer.databases()[0];
    assert!(waiting.last_answer.contains("database not found"), "{waiting:?}");
    assert_eq!((waiting.lines_in_hand, waiting.failures), (10, 1));
    influxdb.create("telemetry_acme").await;
    gateway.settled("acme").await;
    assert_eq!(influxdb.count("telemetry_acme", "m", "v").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn victoria_metrics_takes_lines_by_both_old_endpoints() {
    let victoria = Victoria::start().await;
    for (kind, tenant) in [(ServerKind::InfluxDb1, "one"), (ServerKind::InfluxDb2, "two")] {
        let gateway = Gateway::start(OutputSettings::Http(http(kind, &victoria.url())));
        let messages: Vec<_> =
            (0..50).map(|n| vec![format!("{tenant},device_id=d v={n} {}", T0 + n * 1_000_000)]).collect();
        gateway.send_lines(tenant, &messages);
        gateway.settled(tenant).await;
        assert_eq!(victoria.count(&format!("{tenant}_v")).await, 50);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_product_costs_no_line() {
    let victoria = Victoria::start().await;
    // It has no such path, and says so with 400: three single lines are asked, none is blamed.
    let gateway = Gateway::start(v3(&victoria.url()));
    gateway.send("acme", 0, 100);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let books = gateway.account("acme").snapshot();
    assert_eq!((books.lines.pending, books.lines.refused), (100, 0));
    let left = gateway.writer.drain(Instant::now()).await;
    assert_eq!(left.databases, ["telemetry_acme".into()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_what_waits_and_tells_what_it_could_not() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let gateway = Gateway::with(v3(&front.url()), 500, Duration::from_secs(30));
    gateway.send("acme", 0, 700);
    front.fail_database("telemetry_sick", Some(status(503)));
    gateway.send("sick", 0, 5);
    // What is not durable yet is no matter of the writer's.
    assert!(gateway.spool.flush(Instant::now() + Duration::from_secs(5)));
    let began = Instant::now();
    let left = gateway.writer.drain(began + Duration::from_secs(10)).await;
    assert_eq!(left.databases, ["telemetry_sick".into()]);
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(influxdb.count("telemetry_acme", "m", "v").await, 700);
    assert_eq!(gateway.account("sick").snapshot().lines.pending, 5);
}

struct PanicsOnce(std::sync::atomic::AtomicBool);

impl WriteObserver for PanicsOnce {
    fn write(&self, outcome: &'static str, _: u64, _: Duration) {
        if outcome == "retried" && !self.0.swap(true, std::sync::atomic::Ordering::Relaxed) {
            panic!("a fault of ours");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_middle_of_a_write_loses_no_line() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    front.fail_next([status(503)]);
    let observer = Arc::new(PanicsOnce(false.into()));
    let gateway = Gateway::observed(v3(&front.url()), 500, Duration::from_secs(1), observer.clone());
    gateway.send("acme", 0, 1500);
    gateway.settled("acme").await;
    assert!(observer.0.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(influxdb.count("telemetry_acme", "m", "v").await, 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_hold_every_line_and_a_full_disk_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    // In the way at first.
    std::fs::write(&path, b"").unwrap();
    let gateway = Gateway::start(OutputSettings::File { path: path.clone() });
    gateway.send("acme", 0, 1200);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let waiting = &gateway.writer.databases()[0];
    assert!(waiting.last_answer.contains(path.to_str().unwrap()), "{waiting:?}");
    std::fs::remove_file(&path).unwrap();
    gateway.settled("acme").await;
    let of_device = |lines: &[String], device: u64| -> Vec<String> {
        let mark = format!("device_id=d{device} ");
        lines.iter().filter(|line| line.contains(&mark)).cloned().collect()
    };
    let (read, sent) = (read_lines(&path.join("telemetry_acme")), lines(0, 1200).concat());
    assert_eq!(read.len(), sent.len());
    for device in 0..7 {
        assert!(
            of_device(&read, device) == of_device(&sent, device),
            "the lines of d{device} and their order"
        );
    }
}

fn read_lines(folder: &Path) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let text: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert!(text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}
