//! Reading back from a disk of which a block is bad.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::disk::{Disk, RetiredLines, SegmentDir, SegmentWriter};
use crate::handle::Spool;
use crate::settings::SpoolSettings;
use tidegate_core::ack::tracker::AckTracker;
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::books::Books;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::{Durable, DurableLines, Handoff};
use tidegate_core::ids::DatabaseName;
use tidegate_core::message::{CheckedBatch, CheckedMessage};
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::settings::{TenantSettings, WhenFull};

/// A folder of which some bytes of a segment cannot be read.
struct BadBlock {
    folder: SegmentDir,
    bad: Mutex<Option<(u64, u64)>>,
    /// The error of each read there.
    error: i32,
}

impl Disk for BadBlock {
    fn read_at(&self, segment: u64, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match *self.bad.lock() {
            Some((of, at)) if of == segment && (offset..offset + into.len() as u64).contains(&at) => {
                Err(io::Error::from_raw_os_error(self.error))
            }
            _ => self.folder.read_at(segment, offset, into),
        }
    }

    fn list(&self) -> io::Result<Vec<u64>> {
        self.folder.list()
    }

    fn newest(&self) -> io::Result<Option<u64>> {
        self.folder.newest()
    }

    fn create(&self, segment: u64, reserve: u64) -> io::Result<Box<dyn SegmentWriter>> {
        self.folder.create(segment, reserve)
    }

    fn record_newest(&self) -> io::Result<()> {
        self.folder.record_newest()
    }

    fn read_all(&self, segment: u64) -> io::Result<Vec<u8>> {
        self.folder.read_all(segment)
    }

    fn truncate(&self, segment: u64, len: u64) -> io::Result<()> {
        self.folder.truncate(segment, len)
    }

    fn sync(&self, segment: u64) -> io::Result<()> {
        self.folder.sync(segment)
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        self.folder.remove(segment)
    }

    fn retire(&self, segment: u64, lines: &RetiredLines) -> io::Result<()> {
        self.folder.retire(segment, lines)
    }

    fn retired_lines(&self) -> io::Result<RetiredLines> {
        self.folder.retired_lines()
    }

    fn forget_retired(&self) -> io::Result<()> {
        self.folder.forget_retired()
    }

    fn move_aside(&self, segment: u64, extension: &str) -> io::Result<()> {
        self.folder.move_aside(segment, extension)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        self.folder.read_state()
    }

    fn replace_state(&self, bytes: &[u8]) -> io::Result<()> {
        self.folder.replace_state(bytes)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.path(segment)
    }
}

/// Wants lines only when they are fetched.
struct Fetched;

impl Handoff for Fetched {
    fn deliver(&self, durable: Durable) {
        let _ = durable.give_back(0..durable.messages.len());
    }

    fn waits(&self, _: &DatabaseName) {}
}

fn settings() -> SpoolSettings {
    SpoolSettings {
        bytes_max: 64 << 20,
        tenant_bytes_max: 64 << 20,
        when_full: WhenFull::Block,
        memory_bytes_max: 64 << 20,
        sync: false,
        device_seed: SeedTag::default(),
        age_clock: Arc::default(),
    }
}

fn start(dir: &Path, error: i32) -> (Spool, Arc<dyn DurableLines>, Arc<BadBlock>, Arc<Books>) {
    let folder = SegmentDir::create(dir).unwrap();
    let (disk, books) = (Arc::new(BadBlock { folder, bad: Mutex::default(), error }), Arc::default());
    let opened = Spool::open_on(disk.clone(), settings(), None, &books).unwrap();
    let lines_of = opened.lines();
    (opened.start(Arc::new(Fetched)).unwrap(), lines_of, disk, books)
}

fn batch(books: &Books, connection: &Arc<AckTracker>, number: u16) -> CheckedBatch {
    let account = books.of_known("acme");
    account.receive(1);
    let lines = format!("m f={number} {number}\n").into_bytes();
    let message = CheckedMessage {
        topic: "t".into(),
        received_ns: 1,
        lines_end: lines.len() as u32,
        line_count: 1,
        affinity: 1,
        token: connection.receive(number, 1),
    };
    let tenant = Tenant::new("acme".into(), account, TenantSettings::plain(Ok("db".into())));
    CheckedBatch::new("db".into(), Arc::new(tenant), "g@1#0".into(), lines, vec![message])
}

#[test]
fn a_place_that_the_disk_does_not_give_costs_nothing_in_front_of_it_and_is_asked_for_again() {
    ask_again_after(libc::ENOMEM);
}

#[test]
fn io_errors_cost_nothing_for_however_long_they_last() {
    ask_again_after(libc::EIO);
}

fn ask_again_after(error: i32) {
    let dir = tempfile::tempdir().unwrap();
    let (spool, lines_of, disk, books) = start(dir.path(), error);
    let connection = AckTracker::new(Arc::new(ReceiveWindow::new(1_000, 1_000_000)));
    (1..=20).for_each(|number| spool.append(vec![batch(&books, &connection, number)], false));
    assert!(spool.flush(Instant::now() + Duration::from_secs(30)));
    while spool.status().memory_bytes > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // In the middle of the eleventh.
    let place = spool.shared.index.lock().open_frames()[10].3;
    *disk.bad.lock() = Some((place.segment, place.offset + u64::from(place.len) / 2));
    let database = DatabaseName::new("db");
    let lines = |durables: &[Durable]| -> String {
        durables.iter().map(|durable| String::from_utf8_lossy(&durable.lines).into_owned()).collect()
    };
    let expected = |numbers: std::ops::RangeInclusive<u16>| -> String {
        numbers.map(|number| format!("m f={number} {number}\n")).collect()
    };
    let (first, more) = lines_of.fetch(&database, usize::MAX);
    assert_eq!(lines(&first), expected(1..=10));
    assert!(more);
    let (none, more) = lines_of.fetch(&database, usize::MAX);
    assert!(none.is_empty() && more, "what stands behind does not overtake it");
    let failed = Instant::now();
    // Past the interval: only the log is told once more.
    let long_ago = failed.checked_sub(Duration::from_secs(90)).expect("the machine runs for longer");
    spool.shared.unread.lock().get_mut(&place.segment).unwrap().logged = long_ago;
    for _ in 0..3 {
        let (none, more) = lines_of.fetch(&database, usize::MAX);
        assert!(none.is_empty() && more);
    }
    assert!(spool.shared.unread.lock()[&place.segment].logged >= failed);
    let unreadable = spool.unreadable();
    assert!(unreadable.len() == 1 && unreadable[0].contains(".seg: "), "{unreadable:?}");
    assert_eq!(books.of_known("acme").snapshot().lines.damaged, 0);
    *disk.bad.lock() = None;
    let (rest, more) = lines_of.fetch(&database, usize::MAX);
    assert_eq!(lines(&rest), expected(11..=20));
    assert!(!more);
    assert!(spool.unreadable().is_empty());
    assert_eq!(spool.lines_pending(), 20);
}
