//! Frames as they are read back from the disk, and what becomes of those that cannot be.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tracing::{error, warn};

use crate::frame::{FrameBody, FrameHeader};
use crate::ids::{FrameId, FrameLocation};
use crate::index::Index;
use crate::index::database::FetchRequest;
use crate::shared::{Shared, UnreadFrame};
use crate::{limits, segment_scan};
use tidegate_core::durable::{Durable, DurableLines, FrameLines, StreamPosition};
use tidegate_core::ids::{DatabaseName, GuestTag};
use tidegate_core::synced::Synced;

/// Reads frames back, a stretch of the disk at a time.
pub struct FetchReader<'a> {
    shared: &'a Arc<Shared>,
    segment: u64,
    begin: u64,
    bytes: Vec<u8>,
    salts: HashMap<u64, Option<u32>>,
}

impl<'a> FetchReader<'a> {
    pub fn new(shared: &'a Arc<Shared>) -> Self {
        Self { shared, segment: 0, begin: 0, bytes: Vec::new(), salts: HashMap::new() }
    }

    /// Reads frames, in their order. False: the disk did not answer for one of them; that and those
    /// behind it are given back, to be fetched again.
    pub fn read_all<T>(
        &mut self,
        wanted: Vec<FetchRequest>,
        of: impl Fn(&FetchRequest, &FrameHeader, &[u8], &Synced) -> Result<Vec<T>, String>,
    ) -> (Vec<T>, bool) {
        let mut read = Vec::new();
        for (place, next) in wanted.iter().enumerate() {
            match self.read(next, &of) {
                Ok(of_frame) => read.extend(of_frame.into_iter().flatten()),
                Err(DiskNotReady) => {
                    // What was chosen meanwhile is with the writer by then, which waits for this.
                    let mut index = self.shared.index_between_groups();
                    for left in &wanted[place..] {
                        index.return_messages(left.id, left.messages);
                    }
                    return (read, false);
                }
            }
        }
        (read, true)
    }

    /// Reads one frame. `None`: it is released, or damaged, which is logged.
    fn read<T>(
        &mut self,
        wanted: &FetchRequest,
        of: &impl Fn(&FetchRequest, &FrameHeader, &[u8], &Synced) -> Result<T, String>,
    ) -> Result<Option<T>, DiskNotReady> {
        let shared: &'a Arc<Shared> = self.shared;
        let mut place = wanted.place;
        loop {
            let why = match self.try_read(place, &|header, body, synced| of(wanted, header, body, synced)) {
                Ok(read) => {
                    let mut unread = shared.unread.lock();
                    if unread.get(&place.segment).is_some_and(|unread| unread.id == wanted.id) {
                        unread.remove(&place.segment);
                    }
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
            if let FetchError::Disk(error) = &why
                && shared.is_to_be_read_again(wanted.id, place, error)
            {
                return Err(DiskNotReady);
            }
            // Nobody has it in hand.
            shared.index.lock().return_messages(wanted.id, wanted.messages);
            shared.damaged(wanted.id, place, &why.to_string());
            return Ok(None);
        }
    }

    fn try_read<T>(
        &mut self,
        place: FrameLocation,
        of: &impl Fn(&FrameHeader, &[u8], &Synced) -> Result<T, String>,
    ) -> Result<T, FetchError> {
        let salt = match self.salts.get(&place.segment) {
            Some(salt) => *salt,
            None => {
                let mut header = vec![0; segment_scan::SEGMENT_HEADER_BYTES];
                self.shared.disk.read_at(place.segment, 0, &mut header)?;
                let salt = segment_scan::read_segment_header(place.segment, &header);
                *self.salts.entry(place.segment).or_insert(salt)
            }
        };
        let salt = salt.ok_or("the segment's header cannot be read")?;
        let frame = self.bytes(place)?;
        let header = FrameHeader::read(salt, frame).ok_or("its header is damaged")?;
        let body = &frame[frame.len() - header.body_len as usize..];
        let synced = Synced::by_checksum(body, header.body_crc).filter(|_| header.frame_len() == frame.len());
        let synced = synced.ok_or("its checksum is wrong")?;
        Ok(of(&header, body, &synced)?)
    }

    fn bytes(&mut self, place: FrameLocation) -> std::io::Result<&[u8]> {
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
                // An error further on is no matter of this frame.
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
struct DiskNotReady;

/// The reason why a frame was not read.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    #[error("{0}")]
    Damaged(String),
}

impl From<&str> for FetchError {
    fn from(why: &str) -> Self {
        Self::Damaged(why.into())
    }
}

impl From<String> for FetchError {
    fn from(why: String) -> Self {
        Self::Damaged(why)
    }
}

/// The lines and messages of a frame.
pub fn durable(
    shared: &Arc<Shared>,
    database: &DatabaseName,
    wanted: &FetchRequest,
    (header, body): (&FrameHeader, &[u8]),
    synced: &Synced,
) -> Result<Durable, String> {
    let mut parts = FrameBody::read(header, body).ok_or("it does not hold what its header says")?;
    if header.seed() != shared.settings.device_seed {
        // Nobody can tell their devices apart any more: all are as one, and so in order.
        parts.messages.iter_mut().for_each(|message| message.affinity = 0);
    }
    let account = shared.books.of_known(&header.tenant);
    let age = Duration::from_secs(u64::from(shared.settings.age_clock.now_s().saturating_sub(wanted.kept_s)));
    let frame = FrameLines {
        database: database.clone(),
        guest: GuestTag::new(&parts.guest),
        lines: body[parts.lines].to_vec(),
        messages: parts.messages,
        wanted: wanted.messages,
        overtakes: false,
        arrived: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
        account,
    };
    let position = StreamPosition {
        stream: wanted.id.stream,
        number: wanted.id.seq,
        returns: wanted.returns,
        is_last: wanted.is_last,
    };
    Ok(Durable::new(position, frame, shared.clone(), synced))
}

/// The lines that lie in a spool. It keeps none of its threads.
pub struct Lines(pub Arc<Shared>);

impl DurableLines for Lines {
    fn fetch(&self, database: &DatabaseName, bytes_max: usize) -> (Vec<Durable>, bool) {
        let Self(shared) = self;
        let memory = shared.settings.memory_limits();
        let (wanted, more) = shared.index_between_groups().fetch(database, bytes_max as u64, &memory);
        let mut reader = FetchReader::new(shared);
        let (durables, all) = reader.read_all(wanted, |wanted, header, body, synced| {
            durable(shared, database, wanted, (header, body), synced).map(|durable| vec![durable])
        });
        (durables, more || !all)
    }

    fn lines_waiting(&self, database: &DatabaseName) -> u64 {
        self.0.index.lock().database_lines(database)
    }
}

impl Shared {
    /// The index at a moment at which the writer has all that it is to have.
    pub fn index_between_groups(&self) -> MutexGuard<'_, Index> {
        let mut index = self.index.lock();
        while index.delivering {
            self.delivered.wait(&mut index);
        }
        index
    }

    /// True if a frame that the disk did not give may still be there. Neither a process without file
    /// descriptors nor a disk that fails costs a line, for however long: only a file that is gone or too
    /// short is not asked again.
    fn is_to_be_read_again(&self, id: FrameId, place: FrameLocation, error: &std::io::Error) -> bool {
        if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof) {
            return false;
        }
        let now = Instant::now();
        let mut unread = self.unread.lock();
        let logged = unread.get(&place.segment).map(|unread| unread.logged);
        let is_due = logged.is_none_or(|logged| {
            now.duration_since(logged) >= Duration::from_secs(limits::SPOOL_READ_WARNING_INTERVAL_S)
        });
        if is_due {
            warn!(file = %self.disk.path(place.segment).display(), offset = place.offset, %error,
                  "the spool cannot be read back here; it is tried again");
        }
        let logged = logged.filter(|_| !is_due).unwrap_or(now);
        unread.insert(place.segment, UnreadFrame { id, place, error: error.to_string(), logged });
        true
    }

    /// The segments that cannot be read back, in words: the file, and the disk's error.
    pub fn unreadable(&self) -> Vec<String> {
        let index = self.index.lock();
        let mut unread = self.unread.lock();
        // Some may have been dropped, or copied elsewhere.
        unread.retain(|_, unread| index.place(unread.id) == Some(unread.place));
        let mut all: Vec<_> = unread.values().collect();
        all.sort_by_key(|unread| unread.place);
        let words = |unread: &&UnreadFrame| {
            format!("{}: {}", self.disk.path(unread.place.segment).display(), unread.error)
        };
        all.iter().map(words).collect()
    }

    /// A frame cannot be read: says so, and counts it.
    pub fn damaged(&self, id: FrameId, place: FrameLocation, why: &str) {
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
