//! The durable spool: a message is acknowledged once its lines are synced here, and they stay until
//! the database has them.
//!
//! - Appends of all sessions share one sync; the next one starts when the last one ends.
//! - A frame is the unit of sync, of release and of loss. Frames of each tenant and database are
//!   released on their own: a dead database neither blocks nor pins the others.
//! - Recent lines are handed on from memory. Beyond `memory_bytes_max`, or where a database is
//!   behind, they are read back when their turn comes.
//! - Shares: a tenant that has filled its own waits (`block`) or loses its oldest lines, counted
//!   (`drop_oldest`).
//! - What decoders keep goes to the disk in the frame of the lines that it led to, and is read back from
//!   there (`state`).
//!
//! The format is in `frame` and `marks`, the decisions in `index` and `shares`, the write side in
//! `log`, what happens after a crash in `recovery`; all of them know nothing of threads. With threads:
//! who waits for room in `room`, the thread that writes in `committer`, what is read back in `reader`,
//! what becomes of it in `receipt`. What is told of it is in `status`, and of a stopped gateway's in
//! `look`.

mod frame;
mod ranges;
mod marks;
mod index;
mod state;
mod shares;
mod parked;
mod disk;
mod recovery;
mod log;
mod deferred;
mod room;
mod receipt;
mod reader;
mod committer;
mod status;
mod look;
#[cfg(test)]
mod model;
#[cfg(test)]
mod bad_block;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tracing::error;

use crate::domain::books::{Account, Books};
use crate::domain::device_hash::SeedTag;
use crate::domain::durable::{Delivery, Durable, Store};
use crate::domain::ids::{DatabaseName, TenantId};
use crate::domain::limits;
use crate::domain::message::{CheckedBatch, Received};
use crate::domain::parked::Parking;
use crate::domain::state::Image;
use crate::domain::tenant::table::Tenants;
use crate::domain::worker::{self, Priority};

pub use crate::domain::tenant::settings::WhenFull;
pub use log::SpoolError;
pub use parked::ParkedStatus;
pub use recovery::Recovered;
pub use status::{BacklogStatus, SpoolStatus};

use committer::Queue;
use deferred::DeferredBatches;
use disk::{Disk, Folder};
use frame::Draft;
use index::{HotLimits, Index};
use log::Log;
use reader::{Reader, durable};
use room::{HeldLines, RoomState, Shed};
use shares::{ShareLimits, Shares};

/// How the spool works.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Bytes on disk.
    pub bytes_max: u64,
    pub tenant_bytes_max: u64,
    pub when_full: WhenFull,
    /// Bytes of lines that are kept in memory beside the disk.
    pub memory_bytes_max: u64,
    /// False: nothing is synced, and a power cut loses what was acknowledged.
    pub sync: bool,
    /// The seed with which devices are hashed.
    pub device_seed: SeedTag,
}

impl SpoolSettings {
    fn segment_bytes(&self) -> u64 {
        (self.bytes_max / limits::SPOOL_SEGMENTS_MIN).min(limits::SPOOL_SEGMENT_BYTES_MAX)
    }

    fn hot(&self) -> HotLimits {
        HotLimits {
            bytes_max: self.memory_bytes_max,
            database_bytes_min: limits::SPOOL_HOT_DATABASE_BYTES_MIN.min(self.memory_bytes_max),
        }
    }
}

struct Shared {
    settings: SpoolSettings,
    disk: Arc<dyn Disk>,
    books: Arc<Books>,
    index: Mutex<Index>,
    /// The writer has all of a group that it is to have at once.
    delivered: Condvar,
    room: Mutex<RoomState>,
    queue: Mutex<Queue>,
    more: Condvar,
    /// Wakes the tidying thread.
    copied: Condvar,
    /// Told when something that is parked can be taken up.
    parked: Notify,
    /// Segments of which the disk did not give something, and since when.
    unread: Mutex<HashMap<u64, Instant>>,
    /// Why nothing can be written; `None`: it can.
    fault: Mutex<Option<String>>,
    lines_pending: AtomicU64,
    messages: AtomicU64,
    syncs: AtomicU64,
    /// The segment that is written to.
    current: AtomicU64,
}

/// The spool. Clones are the same spool.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// A spool that was read, and does not write yet.
pub struct OpenedSpool {
    shared: Arc<Shared>,
    log: Log,
    pub recovered: Recovered,
}

impl OpenedSpool {
    /// Has tenants' settings hold: their shares, and the outputs that their lines wait for. Without
    /// it all tenants have the common ones. Before anybody is told what waits.
    pub fn with_tenants(self, tenants: &Arc<Tenants>) -> Self {
        self.shared.room.lock().tenants = Some(tenants.clone());
        let mut index = self.shared.index.lock();
        index.table = Some(tenants.clone());
        index.move_to_outputs();
        index.take_untold();
        drop(index);
        self
    }

    /// What decoders keep.
    pub fn state(&self) -> Image {
        self.shared.index.lock().state.image().clone()
    }

    /// What lies there, to be fetched from now on.
    pub fn lines(&self) -> Arc<dyn Store> {
        Arc::new(Lines(self.shared.clone()))
    }

    /// Starts to take batches. What lies there from earlier runs waits to be fetched.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(self, delivery: Arc<dyn Delivery>) -> std::io::Result<Spool> {
        let Self { shared, log, .. } = self;
        for database in shared.index.lock().waiting() {
            delivery.waits(&database);
        }
        shared.current.store(log.current().unwrap_or(0), Ordering::Relaxed);
        let committing = shared.clone();
        let committer =
            worker::start("spool", Priority::Normal, move || committer::run(&committing, log, &*delivery))?;
        let tidying = shared.clone();
        let tidy = worker::start("spool-tidy", Priority::Normal, move || committer::tidy(&tidying))?;
        let threads = Threads { shared: shared.clone(), handles: Mutex::new(vec![committer, tidy]) };
        Ok(Spool { shared, threads: Arc::new(threads) })
    }
}

impl Spool {
    /// Reads the spool in `dir`, made if it is not there, and counts what it holds into `books`.
    ///
    /// # Errors
    /// It cannot be read, or cannot be written to for another reason than a full disk.
    pub fn open(dir: &Path, settings: SpoolSettings, books: &Arc<Books>) -> Result<OpenedSpool, SpoolError> {
        let folder = Folder::create(dir);
        let folder = folder.map_err(|error| SpoolError { doing: "create", path: dir.to_owned(), error })?;
        Self::open_on(Arc::new(folder), settings, books)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        settings: SpoolSettings,
        books: &Arc<Books>,
    ) -> Result<OpenedSpool, SpoolError> {
        let began = Instant::now();
        // Nothing is handed on while it is read.
        let nothing_hot = HotLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, recovered) = recovery::recover(&*disk, &nothing_hot, settings.device_seed)?;
        recovered.log(&*disk, began.elapsed());
        let index = Mutex::new(index);
        let mut log = Log::new(
            disk.clone(),
            settings.segment_bytes(),
            settings.sync,
            settings.hot(),
            recovered.next_segment,
        )
        .with_seed(settings.device_seed);
        if !recovered.twins.is_empty()
            && let Err(error) = log.separate(&index, &recovered.twins)
        {
            error!(%error, "frames that share a number with others wait for the next start");
        }
        let index = index.into_inner();
        recovery::restore_books(&index, books);
        let mut shares = Shares::new(ShareLimits {
            bytes_max: settings.bytes_max,
            tenant_bytes_max: settings.tenant_bytes_max,
        });
        for (tenant, bytes) in index.tenant_bytes().filter(|(_, bytes)| *bytes > 0) {
            shares.take(tenant, bytes);
        }
        let mut parked = Shares::new(parked::share_limits(&settings));
        for (tenant, bytes) in index.parked_bytes().filter(|(_, bytes)| *bytes > 0) {
            parked.take(tenant, bytes);
        }
        let lines_pending = index.lines();
        let shared = Shared {
            disk,
            books: books.clone(),
            index: Mutex::new(index),
            delivered: Condvar::new(),
            room: Mutex::new(RoomState {
                shares,
                parked,
                tenants: None,
                held: DeferredBatches::default(),
                told: HashMap::new(),
            }),
            queue: Mutex::default(),
            more: Condvar::new(),
            copied: Condvar::new(),
            parked: Notify::new(),
            unread: Mutex::default(),
            fault: Mutex::new(None),
            lines_pending: AtomicU64::new(lines_pending),
            messages: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            current: AtomicU64::new(0),
            settings,
        };
        match log.ensure_current(&shared.index).and_then(|()| log.remove_empty(&shared.index)) {
            Ok(()) => {}
            // What lies here can still be written to the databases, and that makes room.
            Err(error) if matches!(error.error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
                error!(%error, "the spool cannot be written to: nothing is acknowledged until it can");
                *shared.fault.lock() = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(OpenedSpool { shared: Arc::new(shared), log, recovered })
    }

    /// Takes a batch; its messages are settled once it is durable. Does no I/O; from any thread.
    pub fn append(&self, batch: CheckedBatch) {
        self.append_all(vec![batch], false);
    }

    /// Takes batches as `append` does. `more_comes`: more is just being decoded, and will be here
    /// in a moment.
    pub fn append_all(&self, batches: Vec<CheckedBatch>, more_comes: bool) {
        let items: Vec<HeldLines> =
            batches.into_iter().map(|batch| HeldLines { draft: Draft::of(&batch), batch }).collect();
        let (mut taken, mut shed) = (Vec::with_capacity(items.len()), Shed::default());
        let mut room = self.shared.room.lock();
        for item in items {
            self.shared.take_in(&mut room, item, &mut taken, &mut shed);
        }
        drop(room);
        if self.shared.queue.lock().push(taken, more_comes) {
            self.shared.more.notify_one();
        }
        shed.finish();
    }

    /// Moves what waits here of these tenants, whose outputs have changed, to where it belongs now; the
    /// writer is told within a second.
    pub fn move_to_outputs(&self, changed: &[TenantId]) {
        if !changed.is_empty() {
            self.shared.index.lock().move_to_outputs();
        }
    }

    /// Whether anything can be acknowledged: why not.
    pub fn fault(&self) -> Option<String> {
        self.shared.fault.lock().clone()
    }

    /// Bytes of the files on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.index.lock().disk_bytes()
    }

    /// Lines that are durable here and not yet in their database.
    pub fn lines_pending(&self) -> u64 {
        self.shared.lines_pending.load(Ordering::Relaxed)
    }

    /// Syncs and messages made durable since the start.
    pub fn syncs(&self) -> (u64, u64) {
        (self.shared.syncs.load(Ordering::Relaxed), self.shared.messages.load(Ordering::Relaxed))
    }

    /// Waits until all that was taken is durable, or `deadline`; blocks the thread. True when all
    /// is, but for what waits for room.
    pub fn flush(&self, deadline: Instant) -> bool {
        loop {
            {
                let queue = self.shared.queue.lock();
                if queue.items.is_empty() && !queue.busy {
                    return true;
                }
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the threads: marks are written, and nothing is taken any more. What waits for room
    /// stays unacknowledged.
    pub fn close(&self) {
        self.threads.close();
    }

    /// What decoders keep, as it is durable.
    pub fn state(&self) -> Image {
        self.shared.index.lock().state.image().clone()
    }
}

/// The lines that lie in a spool. It keeps none of its threads.
struct Lines(Arc<Shared>);

impl Store for Lines {
    fn fetch(&self, database: &DatabaseName, bytes_max: usize) -> (Vec<Durable>, bool) {
        let Self(shared) = self;
        let hot = shared.settings.hot();
        let (wanted, more) = shared.index_between_groups().fetch(database, bytes_max as u64, &hot);
        let mut reader = Reader::new(shared);
        let (durables, all) = reader.read_all(wanted, |wanted, header, body, synced| {
            durable(shared, database, wanted, (header, body), synced).map(|durable| vec![durable])
        });
        (durables, more || !all)
    }
}

/// Messages stay here that the registry cannot be asked about in time.
impl Parking for Spool {
    fn park(
        &self,
        tenant: &TenantId,
        account: &Arc<Account>,
        message: Received,
    ) -> Result<(), Box<Received>> {
        Spool::park(self, tenant, account, message)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spool")
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

struct Threads {
    shared: Arc<Shared>,
    handles: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Threads {
    fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.more.notify_all();
        self.shared.copied.notify_all();
        for handle in std::mem::take(&mut *self.handles.lock()) {
            // A panic there ends the process.
            let _ = handle.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}
