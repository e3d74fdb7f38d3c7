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
//! `log`, what happens after a crash in `recovery`; all of them know nothing of threads.

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
mod committer;
#[cfg(test)]
mod model;
#[cfg(test)]
mod reading;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::Serialize;
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::domain::books::{Account, Books};
use crate::domain::durable::{Durable, Receipt, message_set};
use crate::domain::ids::{DatabaseName, GuestTag, TenantId};
use crate::domain::limits;
use crate::domain::message::CheckedBatch;
use crate::domain::slot::Slot;
use crate::domain::state::Image;

pub use log::SpoolError;
pub use parked::ParkedStatus;
pub use recovery::Recovered;

use committer::{Item, Load, Queue};
use disk::{Disk, Folder};
use frame::{Body, Draft, Header};
use index::{FrameId, HotLimits, Index, Place, Wanted};
use log::Log;
use shares::{Room, ShareLimits, Shares};

/// What happens when a share is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Its messages wait unacknowledged; nothing is lost.
    Block,
    /// The oldest lines go, counted.
    DropOldest,
}

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

/// What differs for one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnShare {
    pub bytes_max: Option<u64>,
    pub when_full: Option<WhenFull>,
}

/// To whom durable lines go.
pub trait Delivery: Send + Sync {
    /// Lines that became durable just now.
    fn deliver(&self, durable: Durable);
    /// Lines of this database wait here to be fetched.
    fn waits(&self, database: &DatabaseName);
}

struct Shared {
    settings: SpoolSettings,
    disk: Arc<dyn Disk>,
    books: Arc<Books>,
    index: Mutex<Index>,
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

struct RoomState {
    shares: Shares,
    /// What is parked, which is in `shares` too.
    parked: Shares,
    own: HashMap<TenantId, OwnShare>,
    /// Batches of tenants whose share is full, in order.
    held: HashMap<TenantId, VecDeque<HeldLines>>,
    /// Tenants of which it was logged that they lose lines.
    told: HashMap<TenantId, Instant>,
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
    /// As `Spool::set_own_outputs`, before anybody is told what waits.
    pub fn set_own_outputs(&self, own: HashSet<TenantId>) {
        let mut index = self.shared.index.lock();
        index.set_own_outputs(own);
        index.take_untold();
    }

    /// What decoders keep.
    pub fn state(&self) -> Image {
        self.shared.index.lock().state.image().clone()
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
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(run)
        };
        let committing = shared.clone();
        let committer = start("spool", Box::new(move || committer::run(&committing, log, &*delivery)))?;
        let tidying = shared.clone();
        let tidy = start("spool-tidy", Box::new(move || committer::tidy(&tidying)))?;
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
        let (index, recovered) = recovery::recover(&*disk, &nothing_hot)?;
        recovered.log(&*disk, began.elapsed());
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
        let hot = settings.hot();
        let mut log =
            Log::new(disk.clone(), settings.segment_bytes(), settings.sync, hot, recovered.next_segment);
        let shared = Shared {
            disk,
            books: books.clone(),
            index: Mutex::new(index),
            room: Mutex::new(RoomState {
                shares,
                parked,
                own: HashMap::new(),
                held: HashMap::new(),
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
        let mut room = self.shared.room.lock();
        let taken: Vec<Item> =
            items.into_iter().filter_map(|item| self.shared.take_in(&mut room, item)).collect();
        drop(room);
        if self.shared.queue.lock().push(taken, more_comes) {
            self.shared.more.notify_one();
        }
    }

    /// From now on these tenants have shares of their own. What waits for room may have it now.
    pub fn set_shares(&self, own: HashMap<TenantId, OwnShare>) {
        let mut room = self.shared.room.lock();
        if room.own == own {
            return;
        }
        room.own = own;
        self.shared.go_on(room);
    }

    /// From now on these tenants have outputs of their own, and no others. What waits here of a tenant
    /// that had it otherwise goes where it belongs now; the writer is told within a second.
    pub fn set_own_outputs(&self, own: HashSet<TenantId>) {
        self.shared.index.lock().set_own_outputs(own);
    }

    /// Lines of a database that wait here, up to `bytes_max`; true: there are more. Reads from the
    /// disk.
    pub fn fetch(&self, database: &DatabaseName, bytes_max: usize) -> (Vec<Durable>, bool) {
        let shared = &self.shared;
        let hot = shared.settings.hot();
        let (wanted, more) = shared.index.lock().fetch(database, bytes_max as u64, &hot);
        let mut reader = Reader::new(shared);
        let (durables, all) = reader.read_all(wanted, |wanted, header, body| {
            durable(shared, database, wanted, header, body).map(|durable| vec![durable])
        });
        (durables, more || !all)
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

    pub fn status(&self) -> SpoolStatus {
        let shared = &self.shared;
        let held = {
            let room = shared.room.lock();
            let messages =
                |items: &VecDeque<HeldLines>| items.iter().map(|item| item.batch.message_count()).sum();
            room.held.iter().map(|(tenant, items)| (tenant.to_string(), messages(items))).collect()
        };
        let index = shared.index.lock();
        SpoolStatus {
            bytes: index.disk_bytes(),
            live_bytes: index.live_bytes(),
            memory_bytes: index.hot_bytes(),
            segments: index.segments() as u64,
            lines: index.lines(),
            waiting_messages: held,
            parked: parked_of(&index),
            fault: shared.fault.lock().clone(),
            backlogs: backlogs(&index),
        }
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

    /// What decoders keep in the spool of a stopped gateway.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look_at_state(dir: &Path) -> Result<Image, SpoolError> {
        let disk = ReadOnly(Folder::existing(dir));
        let nothing_hot = HotLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, _) = recovery::recover(&disk, &nothing_hot)?;
        Ok(index.state.image().clone())
    }

    /// What lies in the spool of a stopped gateway.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look(dir: &Path) -> Result<(SpoolStatus, Books), SpoolError> {
        let disk = ReadOnly(Folder::existing(dir));
        let nothing_hot = HotLimits { bytes_max: 0, database_bytes_min: 0 };
        let (index, _) = recovery::recover(&disk, &nothing_hot)?;
        let books = Books::default();
        recovery::restore_books(&index, &books);
        let status = SpoolStatus {
            bytes: index.disk_bytes(),
            live_bytes: index.live_bytes(),
            memory_bytes: 0,
            segments: index.segments() as u64,
            lines: index.lines(),
            waiting_messages: BTreeMap::new(),
            parked: parked_of(&index),
            fault: None,
            backlogs: backlogs(&index),
        };
        Ok((status, books))
    }
}

fn parked_of(index: &Index) -> BTreeMap<String, ParkedStatus> {
    index.parked().into_iter().map(|(tenant, parked)| (tenant.to_string(), parked)).collect()
}

fn backlogs(index: &Index) -> Vec<BacklogStatus> {
    let now_s = now_s();
    let mut all: Vec<_> = index
        .backlogs()
        .into_iter()
        .map(|(tenant, database, backlog)| BacklogStatus {
            database: database.to_string(),
            output_of: database.output_of().map(ToString::to_string),
            tenant: tenant.to_string(),
            lines: backlog.lines,
            bytes: backlog.bytes,
            oldest_age_s: backlog.oldest_s.map_or(0, |oldest_s| now_s.saturating_sub(u64::from(oldest_s))),
        })
        .collect();
    all.sort_by(|a, b| (&a.database, &a.tenant).cmp(&(&b.database, &b.tenant)));
    all
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The spool at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct SpoolStatus {
    /// On disk.
    pub bytes: u64,
    /// Of frames that are still needed.
    pub live_bytes: u64,
    /// Of frames that are in memory too.
    pub memory_bytes: u64,
    pub segments: u64,
    pub lines: u64,
    /// Messages a tenant that wait unacknowledged because its share is full.
    pub waiting_messages: BTreeMap<String, u64>,
    /// Messages a tenant that are parked: acknowledged, and to be admitted once that can be.
    pub parked: BTreeMap<String, ParkedStatus>,
    /// Why nothing can be written.
    pub fault: Option<String>,
    #[serde(skip)]
    pub backlogs: Vec<BacklogStatus>,
}

/// The backlog of one tenant in one database.
#[derive(Clone, Debug, Serialize)]
pub struct BacklogStatus {
    pub database: String,
    /// The tenant at whose own output it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_of: Option<String>,
    pub tenant: String,
    pub lines: u64,
    pub bytes: u64,
    pub oldest_age_s: u64,
}

/// A batch that waits for room, or for the disk.
struct HeldLines {
    batch: CheckedBatch,
    draft: Draft,
}

impl HeldLines {
    fn bytes(&self) -> u64 {
        if self.draft.is_empty() { 0 } else { self.draft.header.frame_len() as u64 }
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.batch.slots_mut()
    }
}

impl From<HeldLines> for Item {
    fn from(HeldLines { batch, draft }: HeldLines) -> Self {
        Item { load: Load::Lines(batch), draft }
    }
}

impl RoomState {
    fn room(&self, tenant: &TenantId, bytes: u64) -> Room {
        let own = if self.own.is_empty() { None } else { self.own.get(tenant) };
        self.shares.room(tenant, bytes, own.and_then(|own| own.bytes_max))
    }

    /// Of what may be parked.
    fn room_to_park(&self, tenant: &TenantId, bytes: u64) -> Room {
        let own = if self.own.is_empty() { None } else { self.own.get(tenant) };
        let own_bytes_max = own.and_then(|own| own.bytes_max);
        self.parked.room(tenant, bytes, own_bytes_max.map(|most| most / limits::PARKED_TENANT_SHARE))
    }
}

impl Shared {
    /// Takes room for an item. `None`: it waits for it.
    fn take_in(&self, room: &mut RoomState, mut item: HeldLines) -> Option<Item> {
        let (tenant, bytes) = (&item.batch.tenant.id, item.bytes());
        if room.held.contains_key(tenant) {
            self.hold(room, item);
            return None;
        }
        match room.room(tenant, bytes) {
            Room::Free => {}
            full if self.when_full(room, tenant) == WhenFull::DropOldest => {
                if !self.make_room(room, tenant, full) {
                    self.hold(room, item);
                    return None;
                }
            }
            full => {
                warn!(%tenant, share_bytes = room.shares.of(tenant), disk_full = matches!(full, Room::DiskFull(_)),
                      "the tenant's share of the spool is full: its messages wait unacknowledged");
                self.hold(room, item);
                return None;
            }
        }
        room.shares.take(tenant, bytes);
        item.slots().for_each(|slot| slot.unhold());
        Some(item.into())
    }

    fn when_full(&self, room: &RoomState, tenant: &TenantId) -> WhenFull {
        let own = if room.own.is_empty() { None } else { room.own.get(tenant) };
        own.and_then(|own| own.when_full).unwrap_or(self.settings.when_full)
    }

    fn hold(&self, room: &mut RoomState, mut item: HeldLines) {
        item.slots().for_each(|slot| slot.hold());
        room.held.entry(item.batch.tenant.id.clone()).or_default().push_back(item);
    }

    /// Drops the oldest lines of whoever is over its share. False: there is nothing to drop, the
    /// writer has all of it.
    fn make_room(&self, room: &mut RoomState, tenant: &TenantId, full: Room) -> bool {
        let (victim, bytes) = match full {
            Room::Free => return true,
            Room::TenantFull(bytes) => (tenant.clone(), bytes),
            // Nobody who is promised that nothing of it is dropped makes room for others.
            Room::DiskFull(bytes) => {
                let drops = |other: &TenantId| self.when_full(room, other) == WhenFull::DropOldest;
                (room.shares.largest(drops).unwrap_or_else(|| tenant.clone()), bytes)
            }
        };
        let gone = self.index.lock().drop_oldest(&victim, bytes);
        if gone.lines > 0 {
            room.shares.give_back(&victim, gone.bytes);
            self.lines_pending.fetch_sub(gone.lines, Ordering::Relaxed);
            self.books.of_known(victim.as_str()).drop_lines(gone.lines);
            let now = Instant::now();
            let told = room.told.insert(victim.clone(), now);
            if told.is_none_or(|told| now.duration_since(told) > Duration::from_secs(60)) {
                warn!(tenant = %victim, lines = gone.lines, reason = "SPOOL_FULL",
                      "the tenant's share of the spool is full: its oldest lines are dropped, as spool.when_full says");
            } else {
                room.told.insert(victim, told.expect("just seen"));
            }
        }
        // What the writer has in hand is bounded by memory, so the share may be over by that.
        !matches!(full, Room::DiskFull(_)) || gone.bytes > 0
    }

    /// A frame is released: its bytes are free, and what waited for them goes on.
    fn freed(&self, tenant: &TenantId, bytes: u64) {
        let mut room = self.room.lock();
        room.shares.give_back(tenant, bytes);
        self.go_on(room);
    }

    /// What waits for room and has it now goes on.
    fn go_on(&self, mut room: MutexGuard<'_, RoomState>) {
        if room.held.is_empty() {
            return;
        }
        let tenants: Vec<TenantId> = room.held.keys().cloned().collect();
        let mut items = VecDeque::new();
        for tenant in tenants {
            while let Some(item) = room.held.get(&tenant).and_then(VecDeque::front) {
                let bytes = item.bytes();
                let full = room.room(&tenant, bytes);
                let drops = full != Room::Free && self.when_full(&room, &tenant) == WhenFull::DropOldest;
                if full != Room::Free && !(drops && self.make_room(&mut room, &tenant, full)) {
                    break;
                }
                room.shares.take(&tenant, bytes);
                items.extend(room.held.get_mut(&tenant).and_then(VecDeque::pop_front));
            }
            if room.held.get(&tenant).is_some_and(VecDeque::is_empty) {
                room.held.remove(&tenant);
            }
        }
        if items.is_empty() {
            return;
        }
        // Before the room is free for others: the order within a tenant stays.
        self.queue.lock().items.extend(items.into_iter().map(|mut item| {
            item.slots().for_each(|slot| slot.unhold());
            Item::from(item)
        }));
        drop(room);
        self.more.notify_one();
    }

    /// Forgets what waits for room and will come again anyway, because its connection has ended. What
    /// changes the state is not forgotten, for the next messages build on it: it goes on though its
    /// tenant's share is full, so that who connects again and again holds nobody's place.
    fn drop_held_of_ended(&self) {
        let mut room = self.room.lock();
        let RoomState { shares, held, own, .. } = &mut *room;
        let (mut gone, mut on) = (Vec::new(), Vec::new());
        for (tenant, items) in held.iter_mut() {
            let mut behind_another = false;
            for mut item in std::mem::take(items) {
                let keeps = item.batch.kept.is_some();
                let own_bytes_max = own.get(tenant).and_then(|own| own.bytes_max);
                let ended = item.slots().all(|slot| slot.is_orphan());
                if ended && (!keeps || item.draft.is_empty()) {
                    gone.push(item);
                } else if ended
                    && !behind_another
                    && !matches!(shares.room(tenant, item.bytes(), own_bytes_max), Room::DiskFull(_))
                {
                    shares.take(tenant, item.bytes());
                    on.push(item);
                } else {
                    // Changes stay in their order.
                    behind_another |= keeps;
                    items.push_back(item);
                }
            }
        }
        held.retain(|_, items| !items.is_empty());
        if !on.is_empty() {
            on.iter_mut().flat_map(HeldLines::slots).for_each(Slot::unhold);
            self.queue.lock().items.extend(on.into_iter().map(Item::from));
            self.more.notify_one();
        }
        drop(room);
        for item in gone {
            // Nothing of an ended connection is acknowledged, whatever it is settled as.
            item.batch.settle();
        }
    }

    /// Whether a frame that the disk did not give may still be there: a process that has no file
    /// descriptor left, or a disk that is away for a moment, costs no line.
    fn is_to_be_read_again(&self, place: Place, error: &std::io::Error) -> bool {
        if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof) {
            return false;
        }
        let now = Instant::now();
        let mut unread = self.unread.lock();
        let since = unread.entry(place.segment).or_insert_with(|| {
            warn!(file = %self.disk.path(place.segment).display(), offset = place.offset, %error,
                  "the spool cannot be read back here; it is tried again");
            now
        });
        if error.raw_os_error() != Some(libc::EIO) {
            // No fault of the disk's: it is not lost by waiting.
            *since = now;
        }
        now.duration_since(*since) < Duration::from_secs(limits::SPOOL_READ_PATIENCE_S)
    }

    /// A frame cannot be read: says so, and counts it.
    fn damaged(&self, id: FrameId, place: Place, why: &str) {
        let (gone, tenant, parked) = {
            let mut index = self.index.lock();
            let parked = index.unread_parked(id);
            let gone = index.damage(id);
            (gone, index.names(id.stream).0.clone(), parked)
        };
        let Some(gone) = gone else { return };
        if let Some(messages) = parked {
            error!(file = %self.disk.path(place.segment).display(), offset = place.offset, messages, %tenant, why,
                   "the spool is damaged here: parked messages are lost, and counted as dropped");
            self.lose_parked(&tenant, messages);
            return self.freed_parked(&tenant, gone.bytes);
        }
        error!(file = %self.disk.path(place.segment).display(), offset = place.offset, lines = gone.lines, %tenant, why,
               "the spool is damaged here: acknowledged lines are lost, and counted as damaged");
        self.lines_pending.fetch_sub(gone.lines, Ordering::Relaxed);
        self.books.of_known(tenant.as_str()).damage_lines(gone.lines);
        self.freed(&tenant, gone.bytes);
    }
}

/// Reads frames back, a stretch of the disk at a time.
struct Reader<'a> {
    shared: &'a Arc<Shared>,
    segment: u64,
    begin: u64,
    bytes: Vec<u8>,
    salts: HashMap<u64, Option<u32>>,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared, segment: 0, begin: 0, bytes: Vec::new(), salts: HashMap::new() }
    }

    /// Reads frames, in their order. False: the disk did not answer for one of them; that and those
    /// behind it are given back, to be fetched again.
    fn read_all<T>(
        &mut self,
        wanted: Vec<Wanted>,
        of: impl Fn(&Wanted, &Header, &[u8]) -> Result<Vec<T>, String>,
    ) -> (Vec<T>, bool) {
        let mut read = Vec::new();
        for (place, next) in wanted.iter().enumerate() {
            match self.read(next, &of) {
                Ok(of_frame) => read.extend(of_frame.into_iter().flatten()),
                Err(NoAnswer) => {
                    let mut index = self.shared.index.lock();
                    wanted[place..].iter().for_each(|left| index.give_back(left.id, left.messages));
                    return (read, false);
                }
            }
        }
        (read, true)
    }

    /// Reads one frame. `None`: it is released, or damaged, which is told.
    fn read<T>(
        &mut self,
        wanted: &Wanted,
        of: &impl Fn(&Wanted, &Header, &[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, NoAnswer> {
        let shared: &'a Arc<Shared> = self.shared;
        let mut place = wanted.place;
        loop {
            let why = match self.try_read(place, &|header, body| of(wanted, header, body)) {
                Ok(read) => {
                    shared.unread.lock().remove(&place.segment);
                    return Ok(Some(read));
                }
                Err(why) => why,
            };
            // It may have been copied elsewhere meanwhile.
            match shared.index.lock().place(wanted.id) {
                Some(now) if now != place => {
                    place = now;
                    continue;
                }
                Some(_) => {}
                None => return Ok(None),
            }
            if let Unread::Disk(error) = &why
                && shared.is_to_be_read_again(place, error)
            {
                return Err(NoAnswer);
            }
            // Nobody has it in hand.
            shared.index.lock().give_back(wanted.id, wanted.messages);
            shared.damaged(wanted.id, place, &why.to_string());
            return Ok(None);
        }
    }

    fn try_read<T>(
        &mut self,
        place: Place,
        of: &impl Fn(&Header, &[u8]) -> Result<T, String>,
    ) -> Result<T, Unread> {
        let salt = match self.salts.get(&place.segment) {
            Some(salt) => *salt,
            None => {
                let mut header = vec![0; log::SEGMENT_HEADER_BYTES];
                self.shared.disk.read_at(place.segment, 0, &mut header)?;
                let salt = log::read_segment_header(place.segment, &header);
                *self.salts.entry(place.segment).or_insert(salt)
            }
        };
        let salt = salt.ok_or("the segment's header cannot be read")?;
        let frame = self.bytes(place)?;
        let header = Header::read(salt, frame).ok_or("its header is damaged")?;
        let body = &frame[frame.len() - header.body_len as usize..];
        if header.frame_len() != frame.len() || crc32c::crc32c(body) != header.body_crc {
            return Err("its checksum is wrong".into());
        }
        Ok(of(&header, body)?)
    }

    fn bytes(&mut self, place: Place) -> std::io::Result<&[u8]> {
        let len = place.len as usize;
        let has = |reader: &Self| {
            reader.segment == place.segment
                && place.offset >= reader.begin
                && place.offset + len as u64 <= reader.begin + reader.bytes.len() as u64
        };
        if !has(self) {
            // What stands behind is most likely wanted next.
            let end = self.shared.index.lock().segment_len(place.segment).max(place.offset + len as u64);
            let stretch = (end - place.offset).min(limits::SPOOL_READ_BYTES.max(len) as u64) as usize;
            (self.segment, self.begin) = (0, 0);
            self.bytes.resize(stretch, 0);
            let read = self.shared.disk.read_at(place.segment, place.offset, &mut self.bytes);
            if read.is_err() && stretch > len {
                // What is wrong further on is no matter of this frame.
                self.bytes.resize(len, 0);
                self.shared.disk.read_at(place.segment, place.offset, &mut self.bytes)?;
            } else {
                read?;
            }
            (self.segment, self.begin) = (place.segment, place.offset);
        }
        let from = (place.offset - self.begin) as usize;
        Ok(&self.bytes[from..from + len])
    }
}

/// The disk did not answer; it is asked again.
struct NoAnswer;

/// Why a frame was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    #[error("{0}")]
    Damaged(String),
}

impl From<&str> for Unread {
    fn from(why: &str) -> Self {
        Self::Damaged(why.into())
    }
}

impl From<String> for Unread {
    fn from(why: String) -> Self {
        Self::Damaged(why)
    }
}

/// What a frame of lines holds.
fn durable(
    shared: &Arc<Shared>,
    database: &DatabaseName,
    wanted: &Wanted,
    header: &Header,
    body: &[u8],
) -> Result<Durable, String> {
    let parts = Body::read(header, body).ok_or("it does not hold what its header says")?;
    let account = shared.books.of_known(&header.tenant);
    let age = Duration::from_secs(now_s().saturating_sub(u64::from(wanted.received_s)));
    Ok(Durable {
        database: database.clone(),
        tenant: TenantId::new(&header.tenant),
        guest: GuestTag::new(&parts.guest),
        lines: body[parts.lines].to_vec(),
        messages: parts.messages,
        wanted: wanted.messages,
        overtakes: false,
        arrived: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
        receipt: committer::receipt(shared, wanted.id, &account),
        account,
    })
}

/// Tells the spool what became of the lines of one frame.
struct FrameReceipt {
    shared: Arc<Shared>,
    id: FrameId,
    account: Arc<Account>,
}

impl Receipt for FrameReceipt {
    fn lines_written(&self, lines: u64) {
        self.shared.lines_pending.fetch_sub(lines, Ordering::Relaxed);
        self.account.write_lines(lines);
    }

    fn lines_refused(&self, lines: u64) {
        self.shared.lines_pending.fetch_sub(lines, Ordering::Relaxed);
        self.account.refuse_lines(lines);
        self.shared.index.lock().refuse(self.id, lines as u32);
    }

    fn settled(&self, messages: Range<usize>) {
        let gone = self.shared.index.lock().settle(self.id, message_set(messages));
        if let Some(gone) = gone {
            self.shared.freed(self.account.tenant(), gone.bytes);
        }
    }

    fn returned(&self, messages: Range<usize>) {
        self.shared.index.lock().give_back(self.id, message_set(messages));
    }
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
            // A panic there was logged when it happened.
            let _ = handle.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

/// A folder that is looked at and not touched: its gateway may be running.
struct ReadOnly(Folder);

impl Disk for ReadOnly {
    fn list(&self) -> std::io::Result<Vec<u64>> {
        self.0.list()
    }

    fn newest(&self) -> std::io::Result<Option<u64>> {
        self.0.newest()
    }

    fn create(&self, _: u64, _: u64) -> std::io::Result<Box<dyn disk::Tail>> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn note_newest(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn read_all(&self, segment: u64) -> std::io::Result<Vec<u8>> {
        self.0.read_all(segment)
    }

    fn read_at(&self, segment: u64, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(segment, offset, into)
    }

    fn truncate(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn retire(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn retired_lines(&self) -> std::io::Result<u64> {
        self.0.retired_lines()
    }

    fn forget_retired(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn set_aside(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn read_state(&self) -> std::io::Result<Option<Vec<u8>>> {
        self.0.read_state()
    }

    fn replace_state(&self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.0.path(segment)
    }
}
