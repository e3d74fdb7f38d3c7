//! The age of what lies in the spool, while the wall clock does as it likes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::handle::Spool;
use crate::settings::SpoolSettings;
use tidegate_core::ack::tracker::AckTracker;
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::age_clock::AgeClock;
use tidegate_core::books::Books;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::{Durable, Handoff};
use tidegate_core::ids::DatabaseName;
use tidegate_core::message::{CheckedBatch, CheckedMessage};
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::settings::{TenantSettings, WhenFull};

/// Gives all back, so that it lies on the disk alone.
struct Nobody;

impl Handoff for Nobody {
    fn deliver(&self, durable: Durable) {
        let _ = durable.give_back(0..durable.messages.len());
    }

    fn waits(&self, _: &DatabaseName) {}
}

/// A machine whose clock is at `since_start` seconds.
struct Rig {
    dir: tempfile::TempDir,
    age_clock: Arc<AgeClock>,
    connection: Arc<AckTracker>,
    books: Arc<Books>,
}

impl Rig {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            age_clock: Arc::new(AgeClock::manual(Duration::from_secs(1_800_000_000))),
            connection: AckTracker::new(Arc::new(ReceiveWindow::new(1_000, 1_000_000))),
            books: Arc::default(),
        }
    }

    fn open(&self) -> Spool {
        open(self.dir.path(), &self.age_clock, &self.books)
    }

    /// A message of `bytes` bytes of lines that was received at `received_s` by the wall clock.
    fn append(&self, spool: &Spool, database: &str, bytes: usize, received_s: i64) {
        let account = self.books.of_known("acme");
        account.receive(1);
        let lines = format!("m f=\"{}\" 1\n", "x".repeat(bytes)).into_bytes();
        let message = CheckedMessage {
            topic: "t".into(),
            received_ns: received_s * 1_000_000_000,
            lines_end: lines.len() as u32,
            line_count: 1,
            affinity: 1,
            token: self.connection.receive(1, 1),
        };
        let tenant = Tenant::new("acme".into(), account, TenantSettings::plain(Ok(database.into())));
        let batch =
            CheckedBatch::new(database.into(), Arc::new(tenant), "g@1#0".into(), lines, vec![message]);
        spool.append(vec![batch], false);
        assert!(spool.flush(Instant::now() + Duration::from_secs(60)));
        while spool.status().memory_bytes > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The databases that have a backlog, and its age.
    fn ages(&self, spool: &Spool) -> Vec<(String, u64)> {
        let backlogs = spool.status().backlogs;
        backlogs.into_iter().map(|backlog| (backlog.database, backlog.oldest_age_s)).collect()
    }
}

fn open(dir: &Path, age_clock: &Arc<AgeClock>, books: &Arc<Books>) -> Spool {
    let settings = SpoolSettings {
        bytes_max: 1 << 20,
        tenant_bytes_max: 20_000,
        when_full: WhenFull::DropOldest,
        memory_bytes_max: 1 << 20,
        sync: false,
        device_seed: SeedTag::default(),
        age_clock: age_clock.clone(),
    };
    Spool::open(dir, settings, None, books).unwrap().start(Arc::new(Nobody)).unwrap()
}

#[test]
fn the_oldest_is_what_came_first_whatever_the_wall_clock_said() {
    let rig = Rig::new();
    let spool = rig.open();
    rig.append(&spool, "first", 9_000, 1_800_000_000);
    rig.age_clock.advance(Duration::from_secs(60));
    // The clock was set back to 1970 meanwhile.
    rig.append(&spool, "second", 9_000, 5);
    rig.age_clock.advance(Duration::from_secs(40));
    assert_eq!(rig.ages(&spool), [("first".into(), 100), ("second".into(), 40)]);
    rig.append(&spool, "third", 9_000, 1_800_000_200);
    assert_eq!(rig.ages(&spool), [("second".into(), 40), ("third".into(), 0)]);
}

#[test]
fn ages_go_on_over_a_restart() {
    let rig = Rig::new();
    let spool = rig.open();
    rig.append(&spool, "db", 100, 5);
    drop(spool);
    rig.age_clock.advance(Duration::from_secs(30));
    let rig = Rig { books: Arc::default(), ..rig };
    assert_eq!(rig.ages(&rig.open()), [("db".into(), 30)]);
}
