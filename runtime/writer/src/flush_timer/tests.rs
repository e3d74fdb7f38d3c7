//! Lines that wait longer than the flush interval: until when, and at whose cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::backoff::BackoffLimits;
use crate::context::WriterParts;
use crate::flush_delay::CpuSample;
use crate::handle::Writer;
use crate::settings::{OutputSettings, WriterSettings};
use crate::testing::durable_of;
use tidegate_core::books::Books;
use tidegate_core::durable::{Durable, DurableLines, Handoff};
use tidegate_core::ids::DatabaseName;
use tidegate_core::tenant::database::{DatabaseTemplate, NameRule};
use tidegate_core::tenant::policy::{TenantPolicies, TenantPolicy};
use tidegate_core::tenant::table::Tenants;

const INTERVAL: Duration = Duration::from_secs(10);

/// Lines that have waited longer than the interval.
const AGE: Duration = Duration::from_secs(11);

/// A store in which nothing waits.
struct EmptyStore;

impl DurableLines for EmptyStore {
    fn fetch(&self, _: &DatabaseName, _: usize) -> (Vec<Durable>, bool) {
        (Vec::new(), false)
    }
    fn lines_waiting(&self, _: &DatabaseName) -> u64 {
        0
    }
}

/// A writer to files, whose gateway is short of CPU or not as the test says.
struct Rig {
    writer: Writer,
    is_short: Arc<AtomicBool>,
    _folder: TempDir,
}

impl Rig {
    /// A batch is full with two lines.
    fn new(memory_bytes_max: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let is_short = Arc::new(AtomicBool::new(true));
        let settings = WriterSettings {
            output: OutputSettings::File { path: folder.path().to_owned() },
            batch_lines: 2,
            flush_interval: INTERVAL,
            flush_interval_max: Duration::from_secs(3_600),
            batch_lines_max: 10_000,
            requests_max: 1,
            waits: BackoffLimits::default(),
            memory_bytes_max,
        };
        let terms = TenantPolicy::plain(DatabaseTemplate::new("telemetry_{tenant}", NameRule::InfluxDb3));
        let parts = WriterParts {
            runtime: tokio::runtime::Handle::current(),
            idle_delay: Arc::default(),
            store: Arc::new(EmptyStore),
            refused_lines: Arc::new(|_| panic!("a file refuses nothing")),
            observer: Arc::new(()),
            tenants: Arc::new(Tenants::new(TenantPolicies::new(terms), Arc::new(Books::default()))),
        };
        let short = is_short.clone();
        let cpu = move |_| {
            let busy = Duration::from_secs(short.load(Ordering::Acquire).into());
            CpuSample { elapsed: Duration::from_secs(1), ran: busy, waited: busy }
        };
        let writer = Writer::start_with(settings, parts, Box::new(cpu)).unwrap();
        Self { writer, is_short, _folder: folder }
    }

    /// Waits until the delay is so long that no line of the test is due.
    async fn until_stretched(&self) {
        until(|| self.writer.flush_delay() >= 2 * INTERVAL).await;
    }

    fn deliver(&self, database: &str, lines: usize, bytes: usize, arrived: Instant) {
        self.writer.deliver(durable_of(database, lines, bytes, arrived));
    }

    /// Lines of a database that are not written.
    fn lines_left(&self, database: &str) -> u64 {
        let all = self.writer.databases();
        all.iter().find(|status| status.database == database).map_or(0, |status| status.lines_in_hand)
    }

    fn waits(&self, database: &str) -> bool {
        let all = self.writer.databases();
        let status = all.iter().find(|status| status.database == database).unwrap();
        status.lines_in_hand > 0 && status.requests == 0
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn lines_wait_longer_while_cpu_is_short_and_no_longer_than_that() {
    let rig = Rig::new(64 << 20);
    rig.until_stretched().await;
    let arrived = Instant::now() - AGE;
    rig.deliver("small", 1, 100, arrived);
    // A full batch that came later is written, and the other waits.
    rig.deliver("full", 2, 100, Instant::now());
    until(|| rig.lines_left("full") == 0).await;
    assert!(rig.waits("small"));
    rig.is_short.store(false, Ordering::Release);
    until(|| rig.lines_left("small") == 0).await;
    until(|| rig.writer.flush_delay() == INTERVAL).await;
}

#[tokio::test]
async fn a_stop_writes_what_waits_longer() {
    let rig = Rig::new(64 << 20);
    rig.until_stretched().await;
    rig.deliver("small", 1, 100, Instant::now() - AGE);
    rig.deliver("full", 2, 100, Instant::now());
    until(|| rig.lines_left("full") == 0).await;
    assert!(rig.waits("small"));
    let left = rig.writer.drain(Instant::now() + Duration::from_secs(600)).await;
    assert_eq!(left.databases, []);
    assert_eq!(rig.lines_left("small"), 0);
}

#[tokio::test]
async fn lines_that_wait_longer_take_a_part_of_the_memory_and_the_oldest_go_first() {
    let rig = Rig::new(64 << 10);
    rig.until_stretched().await;
    let oldest = Instant::now() - AGE;
    let name = |number: u32| format!("database{number:02}");
    // A kilobyte each counts as two and a half, and three eighths of the memory hold less than eleven.
    for number in 0..20 {
        rig.deliver(&name(number), 1, 1_000, oldest + Duration::from_millis(number.into()));
    }
    let waiting = || (0..20).filter(|&number| rig.lines_left(&name(number)) > 0).collect::<Vec<_>>();
    until(|| waiting().len() <= 10).await;
    let waiting = waiting();
    assert!(!waiting.is_empty(), "no more go than memory needs");
    assert_eq!(waiting, (20 - waiting.len() as u32..20).collect::<Vec<_>>());
    assert!(rig.writer.flush_delay() >= 2 * INTERVAL);
}
