//! The contents of the spool, in memory: the open frames, their places, those that the writer has, and
//! what may be forgotten. Pure.
//!
//! The frames are in the streams of `stream`. `fetch` hands them out by database, `segments` counts them by
//! segment, `parked` knows the parked ones, `marks` writes the index down and restores it.

mod numbered;
mod stream;
pub(crate) mod database;
mod fetch;
pub(crate) mod segment;
mod segments;
mod parked;
mod marks;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{FrameId, FrameLocation};
use crate::index::database::DatabaseIndex;
use crate::index::numbered::Numbered;
use crate::index::segment::SegmentUsage;
use crate::index::stream::{FrameEntry, Stream};
use crate::limits::{PLACES_KEPT, SPOOL_MEMORY_SHARED_BYTES_MAX};
use crate::range_set::RangeSet;
use crate::release_marks::{Epochs, LineTotals};
use crate::settings::MemoryLimits;
use crate::state_log::StateLog;
use tidegate_core::device_hash::SeedTag;
use tidegate_core::durable::{MessageSet, message_set};
use tidegate_core::ids::{DatabaseName, TenantId};
use tidegate_core::tenant::table::Tenants;

pub use crate::index::segment::RetainReason;

#[derive(Debug, Default)]
struct TenantIndex {
    totals: LineTotals,
    /// Lines that runs which did not know of each other have both done with. They are in no total, and in all
    /// marks: a later start, without the segments of one of them, could not tell them otherwise.
    twice: LineTotals,
    /// Bytes of frames that are not released.
    bytes: u64,
    lines: u64,
    changed: bool,
    /// A handful.
    streams: Vec<u32>,
}

/// A frame that has gone, and what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    pub bytes: u64,
    pub lines: u64,
}

/// The way by which a new frame gets to the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoffState {
    /// The writer gets it at once.
    Hot { overtakes: bool, returns: u32 },
    /// It waits to be fetched. `first`: nothing of its stream waited before.
    Waits { first: bool },
}

/// The reason why a frame is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReleaseReason {
    Done,
    Lost,
}

/// One database's backlog at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogSummary {
    pub lines: u64,
    pub bytes: u64,
    /// Seconds since the epoch; `None` without a backlog.
    pub oldest_s: Option<u32>,
}

#[derive(Debug, Default)]
pub struct Index {
    streams: Vec<Stream>,
    /// Names the tenants with outputs of their own; `None`: there are none.
    pub table: Option<Arc<Tenants>>,
    /// Databases with waiting frames that were not announced to the writer.
    unannounced: HashSet<DatabaseName>,
    tenants: Numbered<TenantId, TenantIndex>,
    databases: Numbered<DatabaseName, DatabaseIndex>,
    segments: BTreeMap<u64, SegmentUsage>,
    live_bytes: u64,
    disk_bytes: u64,
    memory_bytes: u64,
    lines: u64,
    /// Bytes of all frames that were ever released, for the marks of them.
    released_bytes: u64,
    /// The decoders' state.
    pub state: StateLog,
    /// No frame of an earlier run has a number from here on.
    first_seq: u64,
    /// Frames may be lost of streams that are named nowhere.
    has_lost_streams: bool,
    /// The epoch in which lines are counted, and the earlier ones.
    pub epochs: Epochs,
    /// The seed with which devices are hashed now.
    seed: SeedTag,
    /// Frames were made durable that the writer is to have at once, and does not have yet.
    pub delivering: bool,
}

impl Index {
    /// One without frames, in which streams begin with the number `first_seq`, and devices are hashed with
    /// `seed`.
    pub fn with_state(state: StateLog, first_seq: u64, seed: SeedTag) -> Self {
        Self { state, first_seq, seed, ..Self::default() }
    }

    pub fn stream(&mut self, tenant: &TenantId, database: &DatabaseName) -> u32 {
        if let Some(stream) = self.find_stream(tenant.as_str(), database.as_str()) {
            return stream;
        }
        let stream = self.streams.len() as u32;
        let first = self.first_seq.max(1);
        let lost = if self.has_lost_streams { 0..first } else { 0..0 };
        let database = self.at_output(tenant, database);
        let (tenant_number, database_number) =
            (self.tenants.number(tenant), self.databases.number(&database));
        self.streams.push(Stream {
            tenant: tenant.clone(),
            database,
            tenant_number,
            database_number,
            moved: false,
            memory_bytes: 0,
            base: first,
            frames: VecDeque::new(),
            jumps: VecDeque::new(),
            holes: RangeSet::default(),
            lost: RangeSet::from_iter([lost]),
            cursor: first,
            other_seed_end: 0,
            overtaking: VecDeque::new(),
            returns: 0,
            waiting_last_ns: i64::MIN,
            seen_last_ns: i64::MIN,
            notes: None,
            lines: 0,
            bytes: 0,
            changed: false,
        });
        self.tenants[tenant_number].streams.push(stream);
        self.databases[database_number].streams.push(stream);
        stream
    }

    /// The stream of a tenant and a database, whatever its output, if it has one.
    fn find_stream(&self, tenant: &str, database: &str) -> Option<u32> {
        let streams = &self.tenants.get(tenant)?.streams;
        let is_its = |stream: &&u32| self.streams[**stream as usize].database.as_str() == database;
        streams.iter().find(is_its).copied()
    }

    /// The tenant and the database of a stream.
    pub fn names(&self, stream: u32) -> (&TenantId, &DatabaseName) {
        let stream = &self.streams[stream as usize];
        (&stream.tenant, &stream.database)
    }

    pub fn next_seq(&self, stream: u32) -> u64 {
        self.streams[stream as usize].next_seq()
    }

    /// The number of a stream's tenant, and its lines that were ever spooled.
    pub fn spooled(&self, stream: u32) -> (u32, u64) {
        let tenant = self.streams[stream as usize].tenant_number;
        (tenant, self.tenants[tenant].totals.spooled)
    }

    /// Takes a frame that has become durable. Frames of a stream come in the order of their
    /// numbers.
    pub fn insert(
        &mut self,
        stream: u32,
        header: &FrameHeader,
        place: FrameLocation,
        limits: &MemoryLimits,
    ) -> HandoffState {
        let open = all_of(header);
        let seq = header.seq;
        let stream = &mut self.streams[stream as usize];
        assert!(seq >= stream.next_seq(), "frames come in order");
        if stream.next_seq() < seq {
            stream.skip_to(seq);
        }
        let waited = stream.waits();
        if header.seed() != self.seed && header.kind == FrameKind::Lines {
            stream.other_seed_end = seq + 1;
        }
        stream.frames.push_back(FrameEntry {
            segment: place.segment as u32,
            offset: place.offset as u32,
            len: place.len,
            lines: header.lines,
            kept_s: header.kept_s,
            messages: header.messages as u8,
            open,
            queued: 0,
        });
        stream.lines += u64::from(header.lines);
        stream.bytes += u64::from(place.len);
        stream.changed = true;
        let is_overtaken = stream.is_overtaken();
        let overtakes = (waited || is_overtaken) && header.first_ns > stream.waiting_last_ns;
        stream.seen_last_ns = stream.seen_last_ns.max(header.last_ns);
        let tenant = &mut self.tenants[stream.tenant_number];
        tenant.totals.spooled = tenant.totals.spooled.max(header.spooled);
        tenant.bytes += u64::from(place.len);
        tenant.lines += u64::from(header.lines);
        tenant.changed = true;
        let least = limits.least(self.databases.len());
        let database = &mut self.databases[stream.database_number];
        let len = u64::from(place.len);
        // Parked messages are given back once they are announced.
        let parked = header.kind == FrameKind::Parked;
        // Who shares a database leaves room in the writer's hands to the others.
        let fair = database.streams.len() == 1 || stream.memory_bytes + len <= SPOOL_MEMORY_SHARED_BYTES_MAX;
        // What overtakes has room of its own: the backlog has filled the other.
        let most = limits.database_bytes_max() + if overtakes { limits.database_bytes_min } else { 0 };
        let room = database.memory_bytes < least
            || (self.memory_bytes + len <= limits.bytes_max && database.memory_bytes + len <= most);
        let next = !waited && !stream.is_barred(seq) && !is_overtaken;
        let handoff_state = if parked || (room && fair && (next || overtakes)) {
            database.memory_bytes += len;
            stream.memory_bytes += len;
            self.memory_bytes += len;
            stream.frames.back_mut().expect("just put").queued = open;
            if !waited {
                stream.cursor = seq + 1;
            }
            if overtakes {
                stream.overtaking.push_back(seq);
            }
            self.delivering |= !parked;
            HandoffState::Hot { overtakes, returns: stream.returns }
        } else {
            stream.waiting_last_ns = stream.seen_last_ns;
            HandoffState::Waits { first: !waited }
        };
        let segment = self.segments.entry(place.segment).or_default();
        segment.live_bytes += len;
        segment.live_frames += 1;
        segment.newest_s = segment.newest_s.max(header.kept_s);
        self.live_bytes += len;
        self.lines += u64::from(header.lines);
        handoff_state
    }

    /// Messages of a frame that the writer is done with, and their lines. `Some` when that was the last of
    /// it.
    pub fn settle(&mut self, id: FrameId, messages: MessageSet, lines: u32) -> Option<Released> {
        let frame = self.streams[id.stream as usize].frame_mut(id.seq)?;
        let was_hot = frame.queued != 0;
        frame.open &= !messages;
        frame.queued &= !messages;
        let (open, hot, len) = (frame.open, frame.queued != 0, u64::from(frame.len));
        if was_hot && !hot {
            self.evict_from_memory(id, len);
        }
        if open != 0 {
            *self.streams[id.stream as usize].notes_mut().settled.entry(id.seq).or_default() += lines;
            return None;
        }
        Some(self.release(id, ReleaseReason::Done, |totals, lines, refused, _| {
            let refused = refused.min(lines);
            totals.refused += u64::from(refused);
            totals.written += u64::from(lines - refused);
        }))
    }

    /// The writer has nothing of a frame of `len` bytes any more.
    fn evict_from_memory(&mut self, id: FrameId, len: u64) {
        let stream = &mut self.streams[id.stream as usize];
        let apart = stream.notes.as_mut().and_then(|notes| notes.apart.remove(&id.seq));
        let in_memory = apart.map_or(len, |(_, bytes)| bytes);
        self.count_less(id.stream, in_memory);
    }

    fn count_less(&mut self, stream: u32, bytes: u64) {
        let stream = &mut self.streams[stream as usize];
        self.memory_bytes -= bytes;
        stream.memory_bytes -= bytes;
        self.databases[stream.database_number].memory_bytes -= bytes;
    }

    /// The writer has copied `bytes` of messages out of a frame. It keeps nothing else of it, or nothing
    /// for long.
    pub fn set_apart(&mut self, id: FrameId, messages: MessageSet, bytes: u64) {
        let stream = &mut self.streams[id.stream as usize];
        let Some(len) = stream.frame(id.seq).filter(|frame| frame.queued != 0).map(|frame| frame.len) else {
            return;
        };
        let len = u64::from(len);
        let apart = &mut stream.notes_mut().apart;
        let (counted, before) = apart.get(&id.seq).map_or((len, (0, 0)), |&apart| (apart.1, apart));
        let now = (before.1 + bytes).min(len);
        apart.insert(id.seq, (before.0 | messages, now));
        self.count_less(id.stream, counted);
        self.memory_bytes += now;
        let stream = &mut self.streams[id.stream as usize];
        stream.memory_bytes += now;
        self.databases[stream.database_number].memory_bytes += now;
    }

    /// Forgets a frame whose `open` is emptied by that.
    fn release(
        &mut self,
        id: FrameId,
        release: ReleaseReason,
        count: impl FnOnce(&mut LineTotals, u32, u32, u32),
    ) -> Released {
        let stream = &mut self.streams[id.stream as usize];
        let place = stream.place(id.seq).expect("it was open until now");
        let frame = std::mem::replace(&mut stream.frames[place], FrameEntry::GONE);
        let notes =
            stream.notes.as_mut().map(|notes| (notes.refused.remove(&id.seq), notes.settled.remove(&id.seq)));
        let (refused, settled) = notes.unwrap_or_default();
        let (refused, settled) = (refused.unwrap_or(0), settled.unwrap_or(0).min(frame.lines));
        stream.lines -= u64::from(frame.lines);
        stream.bytes -= u64::from(frame.len);
        match release {
            // The first one is below the base in a moment.
            ReleaseReason::Done if id.seq == stream.base => {}
            ReleaseReason::Done => stream.holes.insert(id.seq),
            ReleaseReason::Lost => stream.lost.insert(id.seq),
        }
        stream.cut();
        stream.changed = true;
        stream.skip();
        let tenant = &mut self.tenants[stream.tenant_number];
        tenant.bytes -= u64::from(frame.len);
        tenant.lines -= u64::from(frame.lines);
        tenant.changed = true;
        count(&mut tenant.totals, frame.lines, refused, settled);
        let segment = self.segments.get_mut(&u64::from(frame.segment)).expect("it holds a live frame");
        segment.live_bytes -= u64::from(frame.len);
        segment.live_frames -= 1;
        self.live_bytes -= u64::from(frame.len);
        self.released_bytes += u64::from(frame.len);
        self.lines -= u64::from(frame.lines);
        let lines = match release {
            ReleaseReason::Done => frame.lines,
            ReleaseReason::Lost => frame.lines - settled,
        };
        Released { bytes: u64::from(frame.len), lines: u64::from(lines) }
    }

    /// Lines of a frame were refused; they count once the frame is released.
    pub fn refuse(&mut self, id: FrameId, lines: u32) {
        *self.streams[id.stream as usize].notes_mut().refused.entry(id.seq).or_default() += lines;
    }

    /// The writer gives messages of a frame back. Gives how often that was so of its stream.
    pub fn return_messages(&mut self, id: FrameId, messages: MessageSet) -> u32 {
        let stream = &mut self.streams[id.stream as usize];
        stream.returns += 1;
        let returns = stream.returns;
        let Some(frame) = stream.frame_mut(id.seq) else { return returns };
        let was_hot = frame.queued != 0;
        frame.queued &= !messages;
        let (hot, len) = (frame.queued != 0, u64::from(frame.len));
        stream.cursor = stream.cursor.min(id.seq);
        stream.waiting_last_ns = stream.seen_last_ns;
        if stream.moved {
            self.unannounced.insert(stream.database.clone());
        }
        if was_hot && !hot {
            self.evict_from_memory(id, len);
        }
        returns
    }

    /// The place of a frame now; `None` once it is released.
    pub fn place(&self, id: FrameId) -> Option<FrameLocation> {
        self.streams[id.stream as usize].frame(id.seq).map(FrameEntry::place)
    }

    /// The frame cannot be read: what is left of it is lost. Its segment stays, and where the frame can be
    /// read at a later start it is in force again. `None` where it is released, or the writer has some of it
    /// still, which is not lost.
    pub fn damage(&mut self, id: FrameId) -> Option<Released> {
        let frame = self.streams[id.stream as usize].frame_mut(id.seq).filter(|frame| frame.queued == 0)?;
        let segment = u64::from(frame.segment);
        self.keep_segment(segment, RetainReason::Damaged);
        Some(self.release(id, ReleaseReason::Lost, |totals, lines, refused, settled| {
            let refused = refused.min(settled);
            totals.refused += u64::from(refused);
            totals.written += u64::from(settled - refused);
            totals.damaged += u64::from(lines - settled);
        }))
    }

    /// Drops the oldest frames of a tenant that the writer has nothing of, until `bytes` are free.
    pub fn drop_oldest(&mut self, tenant: &TenantId, bytes: u64) -> Released {
        let mut gone = Released { bytes: 0, lines: 0 };
        let all = self.tenants.get(tenant.as_str()).map(|of| &of.streams[..]).unwrap_or_default();
        let streams: Vec<u32> =
            all.iter().copied().filter(|&stream| !self.streams[stream as usize].is_parked()).collect();
        while gone.bytes < bytes {
            // Whole frames only: of one that was partly written, the lines are not known apart.
            let oldest = streams.iter().filter_map(|&number| {
                let stream = &self.streams[number as usize];
                let (seq, frame) = stream.first_untouched()?;
                Some((frame.kept_s, FrameId { stream: number, seq }))
            });
            let Some((_, id)) = oldest.min_by_key(|(kept_s, _)| *kept_s) else { break };
            let dropped = self
                .release(id, ReleaseReason::Done, |totals, lines, _, _| totals.dropped += u64::from(lines));
            gone.bytes += dropped.bytes;
            gone.lines += dropped.lines;
        }
        gone
    }

    /// Each tenant's totals, and its lines in open frames.
    pub fn totals(&self) -> impl Iterator<Item = (&TenantId, LineTotals, u64)> {
        self.tenants.iter().map(|(name, tenant)| (name, tenant.totals, tenant.lines))
    }

    /// Bytes of a tenant's open frames.
    pub fn tenant_bytes(&self) -> impl Iterator<Item = (&TenantId, u64)> {
        self.tenants.iter().map(|(name, tenant)| (name, tenant.bytes))
    }

    /// Bytes of all frames that were released since the start.
    pub fn released_bytes(&self) -> u64 {
        self.released_bytes
    }

    /// Gives memory back that the places of gone frames took. Gives the bytes that the others take, a
    /// tenant.
    pub fn shrink_places(&mut self) -> HashMap<TenantId, u64> {
        let mut bytes: HashMap<TenantId, u64> = HashMap::new();
        for stream in &mut self.streams {
            let places = stream.frames.len();
            if stream.frames.capacity() > PLACES_KEPT && stream.frames.capacity() / 4 > places {
                stream.frames.shrink_to((places * 2).max(PLACES_KEPT));
            }
        }
        for stream in self.streams.iter().filter(|stream| !stream.frames.is_empty()) {
            let places = stream.frames.capacity() * size_of::<FrameEntry>();
            match bytes.get_mut(&stream.tenant) {
                Some(own) => *own += places as u64,
                None => drop(bytes.insert(stream.tenant.clone(), places as u64)),
            }
        }
        bytes
    }

    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Lines of all open frames.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The backlog of each database and tenant that has one.
    pub fn backlogs(&self) -> Vec<(TenantId, DatabaseName, BacklogSummary)> {
        let with_lines = self.streams.iter().filter(|stream| stream.lines > 0);
        let backlog = with_lines.map(|stream| {
            let oldest = stream.frames.iter().find(|frame| frame.open != 0);
            let backlog = BacklogSummary {
                lines: stream.lines,
                bytes: stream.bytes,
                oldest_s: oldest.map(|frame| frame.kept_s),
            };
            (stream.tenant.clone(), stream.database.clone(), backlog)
        });
        backlog.collect()
    }

    /// True if nothing of a frame is settled or with the writer, for checks.
    #[cfg(test)]
    pub fn is_untouched(&self, id: FrameId) -> bool {
        self.streams[id.stream as usize].frame(id.seq).is_some_and(FrameEntry::is_untouched)
    }

    /// Every open frame, for checks.
    #[cfg(test)]
    pub fn open_frames(&self) -> Vec<(String, String, u64, FrameLocation)> {
        let mut all = Vec::new();
        for stream in &self.streams {
            for (seq, frame) in stream.open_frames() {
                let (tenant, database) = (stream.tenant.to_string(), stream.database.to_string());
                all.push((tenant, database, seq, frame.place()));
            }
        }
        all
    }
}

/// All messages of a frame.
fn all_of(header: &FrameHeader) -> MessageSet {
    message_set(0..usize::from(header.messages))
}
