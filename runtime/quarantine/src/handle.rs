//! The handle of quarantine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::entry::Entry;
use crate::error::QuarantineError;
use crate::filter::Filter;
use crate::queue::{QuarantineJob, Shared, StoredObserver};
use crate::reader::Entries;
use crate::ring::{ReasonCount, RemovalReason, Ring, SeriesBytes};
use crate::segment::{EntryId, EntryLocation, Series};
use crate::settings::QuarantineSettings;
use crate::{reader, writer};
use tidegate_core::books::Books;
use tidegate_core::detail::Detail;
use tidegate_core::message::RefusedMessage;
use tidegate_core::reason::Reason;
use tidegate_core::refused_lines::RefusedLines;
use tidegate_core::worker;
use tidegate_core::worker::Priority;

/// The store of refusals. Clones are the same store.
#[derive(Clone)]
pub struct Quarantine {
    shared: Arc<Shared>,
    /// Ends the thread when the last handle goes.
    _thread: Arc<ThreadCloser>,
}

impl Quarantine {
    /// Opens the store in `dir`, made if it is not there, and starts its thread. The entries there are
    /// counted into `books`. `observer` sees each message that is stored.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(
        dir: &Path,
        settings: QuarantineSettings,
        observer: Option<Arc<dyn StoredObserver>>,
        books: &Books,
    ) -> Result<Self, QuarantineError> {
        let retry = settings.retry;
        let (topics, age_clock) = (settings.topics.clone(), settings.age_clock.clone());
        let ring = Ring::open(dir, settings, books)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            topics,
            queue: Mutex::default(),
            more: Condvar::new(),
            usable: AtomicBool::new(true),
            sampler: Mutex::default(),
            refused: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            ring: Mutex::new(ring),
            observer,
            age_clock,
        });
        let writing = shared.clone();
        let thread = worker::start("quarantine", Priority::Normal, move || writer::run(&writing, retry))
            .map_err(QuarantineError::failed_to("start the thread of", dir))?;
        let closer = ThreadCloser { shared: shared.clone(), thread: Mutex::new(Some(thread)) };
        Ok(Self { shared, _thread: Arc::new(closer) })
    }

    /// Takes a refused message; its token is settled when its entry is durable. Does no I/O.
    ///
    /// The queue needs no ceiling of its own: every message in it holds a token of the window.
    pub fn store(&self, refused: RefusedMessage) {
        self.store_many(vec![refused]);
    }

    /// Takes refused messages; otherwise the same as `store`.
    pub fn store_many(&self, refused: Vec<RefusedMessage>) {
        let mut jobs = Vec::with_capacity(refused.len());
        for refused in refused {
            self.count(refused.reason, 1);
            let detail = if refused.may_reveal_reason() { &refused.detail } else { &Detail::default() };
            refused.token.notify_refused(refused.reason, detail);
            // A replayed message is in the store already, and must not be lost by a replay.
            if Series::of(&refused) == Series::Strangers
                && refused.token.replay().is_none()
                && !self.shared.sampler.lock().keeps(refused.reason, Instant::now())
            {
                refused.token.drop_for(refused.reason, &refused.account);
            } else {
                jobs.push(QuarantineJob::Message(refused));
            }
        }
        self.push(jobs);
    }

    /// Takes the lines of one message that the database refused; `on_durable` is called when their
    /// entries are durable.
    pub fn store_lines(&self, refused: RefusedLines) {
        self.count(Reason::DatabaseRefused, refused.lines.len() as u64);
        self.push(vec![QuarantineJob::Lines(refused)]);
    }

    fn count(&self, reason: Reason, entries: u64) {
        let index = Reason::ALL.iter().position(|&other| other == reason).expect("ALL names every reason");
        self.shared.refused[index].fetch_add(entries, Ordering::Relaxed);
    }

    fn push(&self, jobs: Vec<QuarantineJob>) {
        if jobs.is_empty() {
            return;
        }
        self.shared.queue.lock().jobs.extend(jobs);
        self.shared.more.notify_one();
    }

    /// True if the last write succeeded. While false, nothing is settled and writes are tried again.
    pub fn is_usable(&self) -> bool {
        self.shared.usable.load(Ordering::Acquire)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.ring.lock().bytes()
    }

    /// Bytes on disk of each series, and their bound.
    pub fn bytes_of_series(&self) -> [SeriesBytes; 3] {
        self.shared.ring.lock().bytes_of_series()
    }

    /// Entries on disk by reason and tenant.
    pub fn counts(&self) -> Vec<ReasonCount> {
        self.shared.ring.lock().counts()
    }

    /// Refusals since the start by reason, those that the sampling left out included.
    pub fn refused_since_start(&self) -> Vec<(Reason, u64)> {
        let all = Reason::ALL.iter().zip(&self.shared.refused);
        all.map(|(&reason, count)| (reason, count.load(Ordering::Relaxed)))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    /// The entries on disk, oldest first in each ring, strangers' last.
    pub fn entries(&self, filter: Filter) -> Entries {
        Self::read(&self.shared.dir, filter)
    }

    /// The entries in a folder; a store may be open in it.
    pub fn read(dir: &Path, filter: Filter) -> Entries {
        Entries::new(dir, filter)
    }

    /// The entries for a replay or a removal, oldest message first, at most `max`; and the number of further
    /// ones. Reads files.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn matching(&self, filter: Filter, max: usize) -> Result<(Vec<EntryLocation>, u64), QuarantineError> {
        reader::first_by(&self.shared.dir, filter, max, |_, entry| nanoseconds(&entry.received_at))
    }

    /// The latest refusals in a folder, newest last, at most `max`; and the number of further ones.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn latest(
        dir: &Path,
        filter: Filter,
        max: usize,
    ) -> Result<(Vec<EntryLocation>, u64), QuarantineError> {
        // Within one instant the last one is the newest.
        let (mut locations, more) = reader::first_by(dir, filter, max, |location, entry| {
            std::cmp::Reverse((nanoseconds(&entry.time), location.id))
        })?;
        locations.reverse();
        Ok((locations, more))
    }

    /// The folder of the entries.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The entries that are still there. Reads files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn find(
        dir: &Path,
        locations: &[EntryLocation],
    ) -> Result<Vec<(EntryLocation, Entry)>, QuarantineError> {
        reader::find(dir, locations)
    }

    /// Takes entries out, durably, and counts them. Gives those that were still there. Blocks the
    /// thread.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn take_out(
        &self,
        locations: &[EntryLocation],
        why: RemovalReason,
    ) -> Result<Vec<EntryId>, QuarantineError> {
        self.shared.ring.lock().take_out(locations, why)
    }

    /// Waits until all that was stored is written, or `deadline`; blocks the thread. True when all is written.
    pub fn flush(&self, deadline: Instant) -> bool {
        loop {
            {
                let queue = self.shared.queue.lock();
                if queue.jobs.is_empty() && !queue.busy {
                    return true;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) fn nanoseconds(time: &str) -> i128 {
    time.parse::<jiff::Timestamp>().map_or(0, |time| time.as_nanosecond())
}

/// A guard that ends the thread when the last handle is dropped.
pub(crate) struct ThreadCloser {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for ThreadCloser {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.more.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there was logged when it happened.
            let _ = thread.join();
        }
    }
}
