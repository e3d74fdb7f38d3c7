//! What was refused, kept for the person who owns the device: durable, bounded, readable.
//!
//! - A message is settled as quarantined only when its entry is synced.
//! - It is a ring: what leaves it because of its bounds is counted as expired, a tenant. Every tenant
//!   has a share of it: one that floods it pushes out what is its own.
//! - An entry that was replayed, or that the operator removed, is overwritten with spaces where it
//!   stands, and counted as replayed or removed.
//! - What was refused before anybody was authenticated has a ring of its own, one tenth of the
//!   bytes, 1 KiB of payload each and ten entries a second and reason: a stranger cannot push out
//!   what a tenant's own devices left here. What is not kept is counted all the same.
//! - On disk: `{seq:016}.jsonl`, and `a-{seq:016}.jsonl` for strangers; one JSON object a line.
//!   Credentials in a payload are kept, because a replay needs them, and masked where shown.

mod entry;
mod filter;
mod segment;
mod ring;
mod writer;
mod read;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::domain::books::{Books, Outcome};
use crate::domain::detail::Detail;
use crate::domain::limits;
use crate::domain::message::Refused;
use crate::domain::reason::Reason;
use crate::domain::refusal::RefusedLines;
use crate::domain::topic::TopicTemplate;
use crate::domain::worker::{self, Priority};

pub use crate::domain::secrets::mask_secrets;
pub use entry::Entry;
pub use filter::{BadFilter, Filter};
pub use read::Entries;
pub use ring::{Count, Leaving};
pub use segment::{EntryId, Place};

use ring::Ring;

/// The bounds of the ring.
#[derive(Clone, Debug)]
pub struct QuarantineSettings {
    pub bytes_max: u64,
    pub days_max: u32,
    /// The first wait after a write failed; it doubles up to 30 times.
    pub retry: Duration,
    /// How topics are read, for the type of entries.
    pub template: Option<TopicTemplate>,
}

impl QuarantineSettings {
    pub fn new(bytes_max: u64, days_max: u32) -> Self {
        Self { bytes_max, days_max, retry: Duration::from_secs(1), template: None }
    }
}

/// Quarantine cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("quarantine: cannot {doing} {}: {error}", path.display())]
pub struct QuarantineError {
    pub doing: &'static str,
    pub path: PathBuf,
    #[source]
    pub error: std::io::Error,
}

impl QuarantineError {
    fn of(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self { doing, path, error }
    }
}

/// Is told of messages that were kept, once their entries are durable.
pub trait Kept: Send + Sync {
    /// It is called on the writer's thread and must not block.
    fn kept(&self, refused: &Refused, id: &str);
}

/// What waits for the writer's thread.
enum Job {
    Message(Refused),
    Lines(RefusedLines),
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// The thread has jobs in hand.
    busy: bool,
    closed: bool,
}

struct Shared {
    dir: PathBuf,
    /// Finds the type, and the device of a refused line, in a topic.
    template: Option<TopicTemplate>,
    queue: Mutex<Queue>,
    more: Condvar,
    usable: AtomicBool,
    sampler: Mutex<Sampler>,
    /// Refusals since the start, kept or not, in the order of `Reason::ALL`.
    refused: Vec<AtomicU64>,
    ring: Mutex<Ring>,
    kept: OnceLock<Arc<dyn Kept>>,
}

/// The store of refusals. Clones are the same store.
#[derive(Clone)]
pub struct Quarantine {
    shared: Arc<Shared>,
    /// Ends the thread when the last handle goes.
    _thread: Arc<Closer>,
}

impl Quarantine {
    /// Opens the store in `dir`, made if it is not there, and starts its thread. What lies there
    /// is counted into `books`.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: &Path, settings: QuarantineSettings, books: &Books) -> Result<Self, QuarantineError> {
        let retry = settings.retry;
        let template = settings.template.clone();
        let ring = Ring::open(dir, settings, books)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            template,
            queue: Mutex::default(),
            more: Condvar::new(),
            usable: AtomicBool::new(true),
            sampler: Mutex::default(),
            refused: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            ring: Mutex::new(ring),
            kept: OnceLock::new(),
        });
        let writing = shared.clone();
        let thread = worker::start("quarantine", Priority::Normal, move || writer::run(&writing, retry))
            .map_err(QuarantineError::of("start the thread of", dir))?;
        let closer = Closer { shared: shared.clone(), thread: Mutex::new(Some(thread)) };
        Ok(Self { shared, _thread: Arc::new(closer) })
    }

    /// Tells `kept` of every message that is kept from now on; only the first that is set is told.
    pub fn tell(&self, kept: Arc<dyn Kept>) {
        let _ = self.shared.kept.set(kept);
    }

    /// Takes a refused message; its slot is settled when its entry is durable. Does no I/O.
    ///
    /// The queue needs no ceiling of its own: every message in it holds a slot of the window.
    pub fn store(&self, refused: Refused) {
        self.store_many(vec![refused]);
    }

    /// Takes refused messages, as `store`.
    pub fn store_many(&self, refused: Vec<Refused>) {
        let mut kept = Vec::with_capacity(refused.len());
        for refused in refused {
            self.count(refused.reason, 1);
            let words = if refused.may_be_told() { &refused.detail } else { &Detail::default() };
            refused.slot.tell(refused.reason, words);
            // What was replayed is kept already, and must not be lost by being tried again.
            if !refused.was_admitted()
                && refused.slot.replay().is_none()
                && !self.shared.sampler.lock().keeps(refused.reason, Instant::now())
            {
                refused.slot.settle(Outcome::Quarantined, &refused.account);
            } else {
                kept.push(Job::Message(refused));
            }
        }
        self.push(kept);
    }

    /// Takes the lines of one message that the database refused; `on_durable` is called when their
    /// entries are durable.
    pub fn store_lines(&self, refused: RefusedLines) {
        self.count(Reason::DatabaseRefused, refused.lines.len() as u64);
        self.push(vec![Job::Lines(refused)]);
    }

    fn count(&self, reason: Reason, entries: u64) {
        let place = Reason::ALL.iter().position(|&other| other == reason).expect("ALL names every reason");
        self.shared.refused[place].fetch_add(entries, Ordering::Relaxed);
    }

    fn push(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        self.shared.queue.lock().jobs.extend(jobs);
        self.shared.more.notify_one();
    }

    /// Whether the last write was good. While not, nothing is settled and writes are tried again.
    pub fn is_usable(&self) -> bool {
        self.shared.usable.load(Ordering::Acquire)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.ring.lock().bytes()
    }

    /// Entries on disk by reason and tenant.
    pub fn counts(&self) -> Vec<Count> {
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

    /// The entries in a folder, whether or not a store is open in it.
    pub fn read(dir: &Path, filter: Filter) -> Entries {
        Entries::new(dir, filter)
    }

    /// The entries that a replay or a removal is about, oldest message first, at most `max`; and how
    /// many more there are. Reads files.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn matching(&self, filter: Filter, max: usize) -> Result<(Vec<Place>, u64), QuarantineError> {
        read::first_by(&self.shared.dir, filter, max, |_, entry| nanoseconds(&entry.received_at))
    }

    /// The latest refusals in a folder, newest last, at most `max`; and how many more there are.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn latest(dir: &Path, filter: Filter, max: usize) -> Result<(Vec<Place>, u64), QuarantineError> {
        // Of one instant too the one that came last is the newest.
        let (mut places, more) = read::first_by(dir, filter, max, |place, entry| {
            std::cmp::Reverse((nanoseconds(&entry.time), place.id))
        })?;
        places.reverse();
        Ok((places, more))
    }

    /// The folder that the entries lie in.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Those of the entries that are still there. Reads files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn find(dir: &Path, places: &[Place]) -> Result<Vec<(Place, Entry)>, QuarantineError> {
        read::find(dir, places)
    }

    /// Takes entries out, durably, and counts them. Gives those that were still there. Blocks the
    /// thread.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn take_out(&self, places: &[Place], why: Leaving) -> Result<Vec<EntryId>, QuarantineError> {
        self.shared.ring.lock().take_out(places, why)
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

fn nanoseconds(time: &str) -> i128 {
    time.parse::<jiff::Timestamp>().map_or(0, |time| time.as_nanosecond())
}

/// Keeps the first entries of each second and reason.
#[derive(Default)]
struct Sampler {
    began: Option<Instant>,
    kept: std::collections::HashMap<Reason, u32>,
}

impl Sampler {
    fn keeps(&mut self, reason: Reason, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
            self.began = Some(now);
            self.kept.clear();
        }
        let kept = self.kept.entry(reason).or_default();
        *kept += 1;
        *kept <= limits::STRANGER_ENTRIES_PER_S
    }
}

struct Closer {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.more.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there was logged when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
