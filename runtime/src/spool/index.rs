//! What the spool holds, in memory: which frames are open, where they lie, which of them the writer
//! has, and what may be forgotten. Pure.
//!
//! Where a tenant has an output of its own, its databases are told apart from those of the same name at
//! the common one, in what the writer is told and asks for; on the disk there are names alone.
//!
//! A stream is the frames of one tenant for one database. Their order is that of their sequence
//! numbers; the writer has those before the stream's cursor, and fetches those from it on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::domain::durable::{MessageSet, message_set};
use crate::domain::ids::{DatabaseName, TenantId};
use crate::domain::limits::{self, SPOOL_HOT_SHARED_BYTES_MAX};

use super::frame::{Header, Kind};
use super::marks::{LineTotals, Marks, StreamMark};
use super::parked::{NO_DATABASE, ParkedStatus};
use super::ranges::RangeSet;
use super::state::StateLog;

/// Names a frame for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameId {
    pub stream: u32,
    pub seq: u64,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub segment: u64,
    pub offset: u64,
    pub len: u32,
}

/// A frame that is not released. One a message where tenants trickle, so it is kept small.
#[derive(Clone, Debug)]
struct Frame {
    segment: u32,
    offset: u32,
    len: u32,
    lines: u32,
    /// Seconds since the epoch.
    received_s: u32,
    messages: u8,
    /// Messages that are not settled; empty: released.
    open: MessageSet,
    /// Of those, the ones that the writer has.
    queued: MessageSet,
}

impl Frame {
    /// What stands for a released frame.
    const GONE: Frame =
        Frame { segment: 0, offset: 0, len: 0, lines: 0, received_s: 0, messages: 0, open: 0, queued: 0 };

    fn place(&self) -> Place {
        Place { segment: u64::from(self.segment), offset: u64::from(self.offset), len: self.len }
    }

    /// Nothing of it is settled, and the writer has nothing of it.
    fn is_untouched(&self) -> bool {
        self.queued == 0 && self.open == message_set(0..usize::from(self.messages))
    }
}

#[derive(Debug)]
struct Stream {
    tenant: TenantId,
    /// At the output that the tenant has now.
    database: DatabaseName,
    /// It was at another output before, and what the writer has of it may come back.
    moved: bool,
    /// Bytes of frames that the writer has.
    hot_bytes: u64,
    /// The sequence number of `frames[0]`: everything below is released.
    base: u64,
    frames: VecDeque<Frame>,
    /// Released frames above the base.
    holes: RangeSet,
    /// From here on the writer has nothing, but for what overtakes.
    cursor: u64,
    /// A bound of the latest time of what is not written in front of a new frame, and the latest
    /// time of all lines so far.
    waiting_last_ns: i64,
    seen_last_ns: i64,
    /// Refused lines of frames that are not released yet.
    refused: HashMap<u64, u32>,
    lines: u64,
    bytes: u64,
    /// Changed since the last marks.
    changed: bool,
}

impl Stream {
    fn next_seq(&self) -> u64 {
        self.base + self.frames.len() as u64
    }

    fn frame(&self, seq: u64) -> Option<&Frame> {
        self.frames.get(usize::try_from(seq.checked_sub(self.base)?).ok()?).filter(|frame| frame.open != 0)
    }

    fn frame_mut(&mut self, seq: u64) -> Option<&mut Frame> {
        let place = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.frames.get_mut(place).filter(|frame| frame.open != 0)
    }

    /// Moves the cursor over what is released or with the writer.
    fn skip(&mut self) {
        self.cursor = self.cursor.max(self.base);
        while self.cursor < self.next_seq()
            && self.frame(self.cursor).is_none_or(|frame| frame.open & !frame.queued == 0)
        {
            self.cursor += 1;
        }
        if self.cursor == self.next_seq() {
            self.waiting_last_ns = i64::MIN;
        }
    }

    fn waits(&self) -> bool {
        self.cursor < self.next_seq()
    }

    /// Whether it holds parked messages.
    fn is_parked(&self) -> bool {
        self.database.as_str() == NO_DATABASE
    }

    fn mark(&self) -> StreamMark {
        StreamMark {
            tenant: self.tenant.to_string(),
            database: self.database.to_string(),
            next_seq: self.next_seq(),
            base: self.base,
            holes: self.holes.iter().collect(),
        }
    }
}

#[derive(Debug, Default)]
struct Tenant {
    totals: LineTotals,
    /// Of frames that are not released.
    bytes: u64,
    lines: u64,
    changed: bool,
}

/// How much of a segment is still needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentUse {
    pub len: u64,
    pub live_bytes: u64,
    pub live_frames: u64,
    /// Of all frames that it ever held.
    pub lines: u64,
}

#[derive(Debug, Default)]
struct Database {
    streams: Vec<u32>,
    /// Bytes of frames that the writer has.
    hot_bytes: u64,
    /// Whose turn it is to be fetched from.
    turn: usize,
}

/// What the writer is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub id: FrameId,
    pub place: Place,
    pub messages: MessageSet,
    pub lines: u32,
    pub received_s: u32,
}

/// A frame that has gone, and what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    pub bytes: u64,
    pub lines: u64,
}

/// Where a new frame stands with the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The writer gets it at once.
    Hot { overtakes: bool },
    /// It waits to be fetched. `first`: nothing of its stream waited before.
    Waits { first: bool },
}

/// One database's backlog at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub lines: u64,
    pub bytes: u64,
    /// Seconds since the epoch; `None` without a backlog.
    pub oldest_s: Option<u32>,
}

/// How much of the recent lines the writer may hold.
#[derive(Clone, Copy, Debug)]
pub struct HotLimits {
    pub bytes_max: u64,
    /// So much each database may hold in any case.
    pub database_bytes_min: u64,
}

impl HotLimits {
    /// So much one database may hold at most: a fourth is left for the others.
    fn database_bytes_max(&self) -> u64 {
        self.bytes_max / 4 * 3
    }
}

#[derive(Debug, Default)]
pub struct Index {
    streams: Vec<Stream>,
    /// By tenant and the database's bare name.
    by_name: HashMap<(TenantId, DatabaseName), u32>,
    /// Tenants with outputs of their own.
    own_outputs: HashSet<TenantId>,
    /// Databases of which something waits that nobody was told of.
    untold: HashSet<DatabaseName>,
    tenants: HashMap<TenantId, Tenant>,
    databases: HashMap<DatabaseName, Database>,
    segments: BTreeMap<u64, SegmentUse>,
    live_bytes: u64,
    disk_bytes: u64,
    hot_bytes: u64,
    lines: u64,
    /// What decoders keep.
    pub state: StateLog,
    /// Streams of parked messages that were forgotten, and of which there are marks still, have no
    /// number from here on.
    parked_seq_min: u64,
}

impl Index {
    /// One without frames.
    pub fn with_state(state: StateLog) -> Self {
        Self { state, ..Self::default() }
    }

    pub fn stream(&mut self, tenant: &TenantId, database: &DatabaseName) -> u32 {
        let key = (tenant.clone(), database.at_output_of(None));
        if let Some(&stream) = self.by_name.get(&key) {
            return stream;
        }
        let stream = self.streams.len() as u32;
        let first = if database.as_str() == NO_DATABASE { self.parked_seq_min.max(1) } else { 1 };
        let database = self.at_output(tenant, database);
        self.streams.push(Stream {
            tenant: tenant.clone(),
            database: database.clone(),
            moved: false,
            hot_bytes: 0,
            base: first,
            frames: VecDeque::new(),
            holes: RangeSet::default(),
            cursor: first,
            waiting_last_ns: i64::MIN,
            seen_last_ns: i64::MIN,
            refused: HashMap::new(),
            lines: 0,
            bytes: 0,
            changed: false,
        });
        self.by_name.insert(key, stream);
        self.tenants.entry(tenant.clone()).or_default();
        self.databases.entry(database).or_default().streams.push(stream);
        stream
    }

    /// A tenant's database where the tenant's output is now.
    fn at_output(&self, tenant: &TenantId, database: &DatabaseName) -> DatabaseName {
        // What is parked goes to no output.
        let own = self.own_outputs.get(tenant).filter(|_| database.as_str() != NO_DATABASE);
        database.at_output_of(own)
    }

    /// From now on these tenants have outputs of their own, and no others. Their streams go there.
    pub fn set_own_outputs(&mut self, own: HashSet<TenantId>) {
        self.own_outputs = own;
        for number in 0..self.streams.len() {
            let (tenant, database) = (&self.streams[number].tenant, &self.streams[number].database);
            let there = self.at_output(tenant, database);
            if there == *database {
                continue;
            }
            let hot_bytes = self.streams[number].hot_bytes;
            if let Some(from) = self.databases.get_mut(database) {
                from.streams.retain(|stream| *stream != number as u32);
                from.hot_bytes -= hot_bytes;
            }
            let to = self.databases.entry(there.clone()).or_default();
            to.streams.push(number as u32);
            to.hot_bytes += hot_bytes;
            let stream = &mut self.streams[number];
            stream.database = there;
            stream.moved = true;
            if stream.waits() {
                self.untold.insert(stream.database.clone());
            }
        }
    }

    /// Databases of which something waits that nobody was told of.
    pub fn take_untold(&mut self) -> HashSet<DatabaseName> {
        std::mem::take(&mut self.untold)
    }

    /// Whose frames a stream holds.
    pub fn names(&self, stream: u32) -> (&TenantId, &DatabaseName) {
        let stream = &self.streams[stream as usize];
        (&stream.tenant, &stream.database)
    }

    pub fn next_seq(&self, stream: u32) -> u64 {
        self.streams[stream as usize].next_seq()
    }

    /// Lines of a tenant that were ever spooled.
    pub fn spooled(&self, stream: u32) -> u64 {
        self.tenants[&self.streams[stream as usize].tenant].totals.spooled
    }

    /// Takes a frame that has become durable. Frames of a stream come in the order of their
    /// numbers; those that are missing between are released.
    pub fn insert(&mut self, stream: u32, header: &Header, place: Place, limits: &HotLimits) -> Standing {
        let open = all_of(header);
        let seq = header.seq;
        let stream = &mut self.streams[stream as usize];
        assert!(seq >= stream.next_seq(), "frames come in order");
        while stream.next_seq() < seq {
            stream.holes.insert(stream.next_seq());
            stream.frames.push_back(Frame::GONE);
        }
        let waited = stream.waits();
        stream.frames.push_back(Frame {
            segment: place.segment as u32,
            offset: place.offset as u32,
            len: place.len,
            lines: header.lines,
            received_s: header.received_s,
            messages: header.messages as u8,
            open,
            queued: 0,
        });
        stream.lines += u64::from(header.lines);
        stream.bytes += u64::from(place.len);
        stream.changed = true;
        let overtakes = waited && header.first_ns > stream.waiting_last_ns;
        stream.seen_last_ns = stream.seen_last_ns.max(header.last_ns);
        let tenant = self.tenants.get_mut(&stream.tenant).expect("made with its stream");
        tenant.totals.spooled = tenant.totals.spooled.max(header.spooled);
        tenant.bytes += u64::from(place.len);
        tenant.lines += u64::from(header.lines);
        tenant.changed = true;
        let database = self.databases.get_mut(&stream.database).expect("made with its stream");
        let len = u64::from(place.len);
        // What overtakes has room of its own: the backlog has filled the other.
        let least = limits.database_bytes_min;
        // Parked messages are given back once they are told of.
        let parked = header.kind == Kind::Parked;
        // Who shares a database leaves room in the writer's hands to the others.
        let fair = database.streams.len() == 1 || stream.hot_bytes + len <= SPOOL_HOT_SHARED_BYTES_MAX;
        let room = database.hot_bytes < least
            || (self.hot_bytes + len <= limits.bytes_max
                && database.hot_bytes + len <= limits.database_bytes_max())
            || (overtakes && database.hot_bytes + len <= limits.database_bytes_max().max(least) + least);
        let standing = if parked || (room && fair && (!waited || overtakes)) {
            database.hot_bytes += len;
            stream.hot_bytes += len;
            self.hot_bytes += len;
            stream.frames.back_mut().expect("just put").queued = open;
            if !waited {
                stream.cursor = seq + 1;
            }
            Standing::Hot { overtakes }
        } else {
            stream.waiting_last_ns = stream.seen_last_ns;
            Standing::Waits { first: !waited }
        };
        let segment = self.segments.entry(place.segment).or_default();
        segment.live_bytes += len;
        segment.live_frames += 1;
        segment.lines += u64::from(header.lines);
        self.live_bytes += len;
        self.lines += u64::from(header.lines);
        standing
    }

    /// Messages of a frame that the writer is done with. `Some` when that was the last of it.
    pub fn settle(&mut self, id: FrameId, messages: MessageSet) -> Option<Gone> {
        let frame = self.streams[id.stream as usize].frame_mut(id.seq)?;
        let was_hot = frame.queued != 0;
        frame.open &= !messages;
        frame.queued &= !messages;
        let (open, hot, len) = (frame.open, frame.queued != 0, u64::from(frame.len));
        if was_hot && !hot {
            self.cool(id.stream, len);
        }
        if open != 0 {
            return None;
        }
        Some(self.release(id, |totals, lines, refused| {
            let refused = refused.min(lines);
            totals.refused += u64::from(refused);
            totals.written += u64::from(lines - refused);
        }))
    }

    fn cool(&mut self, stream: u32, len: u64) {
        self.hot_bytes -= len;
        self.streams[stream as usize].hot_bytes -= len;
        let database = self.databases.get_mut(&self.streams[stream as usize].database);
        database.expect("made with its stream").hot_bytes -= len;
    }

    /// Forgets a frame whose `open` was just emptied.
    fn release(&mut self, id: FrameId, count: impl FnOnce(&mut LineTotals, u32, u32)) -> Gone {
        let stream = &mut self.streams[id.stream as usize];
        let frame = stream.frames[(id.seq - stream.base) as usize].clone();
        let refused = stream.refused.remove(&id.seq).unwrap_or(0);
        stream.lines -= u64::from(frame.lines);
        stream.bytes -= u64::from(frame.len);
        stream.holes.insert(id.seq);
        while stream.frames.front().is_some_and(|frame| frame.open == 0) {
            stream.frames.pop_front();
            stream.base += 1;
        }
        stream.holes.cut_below(stream.base);
        stream.changed = true;
        stream.skip();
        let tenant = self.tenants.get_mut(&stream.tenant).expect("made with its stream");
        tenant.bytes -= u64::from(frame.len);
        tenant.lines -= u64::from(frame.lines);
        tenant.changed = true;
        count(&mut tenant.totals, frame.lines, refused);
        let segment = self.segments.get_mut(&u64::from(frame.segment)).expect("it holds a live frame");
        segment.live_bytes -= u64::from(frame.len);
        segment.live_frames -= 1;
        self.live_bytes -= u64::from(frame.len);
        self.lines -= u64::from(frame.lines);
        Gone { bytes: u64::from(frame.len), lines: u64::from(frame.lines) }
    }

    /// Lines of a frame were refused; they count once the frame is released.
    pub fn refuse(&mut self, id: FrameId, lines: u32) {
        *self.streams[id.stream as usize].refused.entry(id.seq).or_default() += lines;
    }

    /// The writer gives messages of a frame back.
    pub fn give_back(&mut self, id: FrameId, messages: MessageSet) {
        let stream = &mut self.streams[id.stream as usize];
        let Some(frame) = stream.frame_mut(id.seq) else { return };
        let was_hot = frame.queued != 0;
        frame.queued &= !messages;
        let (hot, len) = (frame.queued != 0, u64::from(frame.len));
        stream.cursor = stream.cursor.min(id.seq);
        stream.waiting_last_ns = stream.seen_last_ns;
        if stream.moved {
            self.untold.insert(stream.database.clone());
        }
        if was_hot && !hot {
            self.cool(id.stream, len);
        }
    }

    /// Chooses what the writer gets next of a database, up to `bytes_max` and what may be hot, and
    /// notes that it has it. Tenants that share the database take turns. True: more waits.
    pub fn fetch(
        &mut self,
        database: &DatabaseName,
        bytes_max: u64,
        limits: &HotLimits,
    ) -> (Vec<Wanted>, bool) {
        self.fetch_of(database, bytes_max, limits, |_| true)
    }

    /// As `fetch`, of some of the tenants.
    pub fn fetch_of(
        &mut self,
        database: &DatabaseName,
        bytes_max: u64,
        limits: &HotLimits,
        of_tenant: impl Fn(&TenantId) -> bool,
    ) -> (Vec<Wanted>, bool) {
        let Some(of) = self.databases.get_mut(database) else { return (Vec::new(), false) };
        let mut wanted = Vec::new();
        let mut bytes = 0;
        let mut idle = 0;
        while idle < of.streams.len() && bytes < bytes_max {
            let number = of.streams[of.turn % of.streams.len()];
            let stream = &mut self.streams[number as usize];
            stream.skip();
            if !stream.waits() || !of_tenant(&stream.tenant) {
                of.turn += 1;
                idle += 1;
                continue;
            }
            idle = 0;
            let seq = stream.cursor;
            let frame = stream.frame_mut(seq).expect("the cursor stands at an open frame");
            let len = u64::from(frame.len);
            let mut queued_now = 0;
            let room = of.hot_bytes < limits.database_bytes_min
                || (self.hot_bytes + len <= limits.bytes_max && of.hot_bytes + len <= limits.bytes_max / 2);
            if !room {
                return (wanted, true);
            }
            if frame.queued == 0 {
                of.hot_bytes += len;
                self.hot_bytes += len;
                queued_now = len;
            }
            let messages = frame.open & !frame.queued;
            frame.queued = frame.open;
            let place = frame.place();
            let (lines, received_s) = (frame.lines, frame.received_s);
            stream.hot_bytes += queued_now;
            bytes += len;
            wanted.push(Wanted { id: FrameId { stream: number, seq }, place, messages, lines, received_s });
            stream.skip();
            if of.streams.len() > 1 && bytes % (64 << 10) < len {
                of.turn += 1;
            }
        }
        let more = of.streams.iter().any(|&stream| self.streams[stream as usize].waits());
        (wanted, more)
    }

    /// Where a frame lies now; `None` once it is released.
    pub fn place(&self, id: FrameId) -> Option<Place> {
        self.streams[id.stream as usize].frame(id.seq).map(Frame::place)
    }

    /// The frame cannot be read: what it held is lost.
    pub fn damage(&mut self, id: FrameId) -> Option<Gone> {
        let frame = self.streams[id.stream as usize].frame_mut(id.seq)?;
        let (was_hot, len) = (frame.queued != 0, u64::from(frame.len));
        (frame.open, frame.queued) = (0, 0);
        if was_hot {
            self.cool(id.stream, len);
        }
        Some(self.release(id, |totals, lines, _| totals.damaged += u64::from(lines)))
    }

    /// Drops the oldest frames of a tenant that the writer has nothing of, until `bytes` are free.
    pub fn drop_oldest(&mut self, tenant: &TenantId, bytes: u64) -> Gone {
        let mut gone = Gone { bytes: 0, lines: 0 };
        let streams: Vec<u32> = (0..self.streams.len() as u32)
            .filter(|&stream| self.streams[stream as usize].tenant == *tenant)
            .filter(|&stream| !self.streams[stream as usize].is_parked())
            .collect();
        while gone.bytes < bytes {
            // Whole frames only: of one that was partly written, the lines are not known apart.
            let oldest = streams.iter().filter_map(|&number| {
                let stream = &self.streams[number as usize];
                let mut from_cursor = stream.cursor.max(stream.base)..stream.next_seq();
                let seq =
                    from_cursor.find(|&seq| stream.frame(seq).is_some_and(|frame| frame.is_untouched()))?;
                Some((stream.frame(seq)?.received_s, FrameId { stream: number, seq }))
            });
            let Some((_, id)) = oldest.min_by_key(|(received_s, _)| *received_s) else { break };
            self.streams[id.stream as usize].frame_mut(id.seq).expect("just found").open = 0;
            let dropped = self.release(id, |totals, lines, _| totals.dropped += u64::from(lines));
            gone.bytes += dropped.bytes;
            gone.lines += dropped.lines;
        }
        gone
    }

    /// Marks of what has changed since the last ones; with `all`, of everything.
    pub fn marks(&mut self, all: bool) -> Marks {
        let mut marks = Marks::default();
        for stream in &mut self.streams {
            if all || std::mem::take(&mut stream.changed) {
                stream.changed = false;
                marks.streams.push(stream.mark());
            }
        }
        for (name, tenant) in &mut self.tenants {
            if all || std::mem::take(&mut tenant.changed) {
                tenant.changed = false;
                marks.tenants.push((name.to_string(), tenant.totals));
            }
        }
        if all {
            marks.segments = self.segments.keys().copied().collect();
        }
        marks
    }

    /// Marks were not written after all: they are due again.
    pub fn unmark(&mut self, marks: &Marks) {
        for mark in &marks.streams {
            let key = (TenantId::new(&mark.tenant), DatabaseName::new(&mark.database));
            if let Some(&stream) = self.by_name.get(&key) {
                self.streams[stream as usize].changed = true;
            }
        }
        for (tenant, _) in &marks.tenants {
            if let Some(tenant) = self.tenants.get_mut(tenant.as_str()) {
                tenant.changed = true;
            }
        }
    }

    /// Notes how long a segment is.
    pub fn note_segment(&mut self, segment: u64, len: u64) {
        let entry = self.segments.entry(segment).or_default();
        self.disk_bytes = self.disk_bytes - entry.len + len;
        entry.len = len;
    }

    /// Lines of all frames that a segment ever held.
    pub fn segment_lines(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |of| of.lines)
    }

    /// The newest segment that there is, and how long it is.
    pub fn newest_segment(&self) -> Option<(u64, u64)> {
        self.segments.last_key_value().map(|(&segment, of)| (segment, of.len))
    }

    /// How long a segment is; 0 where there is none.
    pub fn segment_len(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |of| of.len)
    }

    /// Segments that hold nothing any more, but for `current`.
    pub fn empty_segments(&self, current: Option<u64>) -> Vec<u64> {
        let empty = self.without_frames(current).filter(|(number, _)| !self.state.pins(**number));
        empty.map(|(number, _)| *number).collect()
    }

    fn without_frames(&self, current: Option<u64>) -> impl Iterator<Item = (&u64, &SegmentUse)> {
        self.segments.iter().filter(move |(number, of)| of.live_frames == 0 && Some(**number) != current)
    }

    /// Bytes of the segments that hold nothing but changes of the state which no checkpoint covers.
    pub fn pinned_bytes(&self, current: Option<u64>) -> u64 {
        let pinned = self.without_frames(current).filter(|(number, _)| self.state.pins(**number));
        pinned.map(|(_, of)| of.len).sum()
    }

    pub fn forget_segment(&mut self, segment: u64) {
        if let Some(of) = self.segments.remove(&segment) {
            debug_assert_eq!(of.live_frames, 0);
            self.disk_bytes -= of.len;
        }
    }

    /// The segment with the smallest part of it alive, but for `current`.
    pub fn emptiest_segment(&self, current: Option<u64>) -> Option<(u64, SegmentUse)> {
        let others =
            self.segments.iter().filter(|(number, of)| Some(**number) != current && of.live_frames > 0);
        let share = |of: &SegmentUse| of.live_bytes as f64 / of.len.max(1) as f64;
        others.min_by(|a, b| share(a.1).total_cmp(&share(b.1))).map(|(number, of)| (*number, *of))
    }

    /// Whether exactly this copy of a frame is the one in force.
    pub fn is_live_at(&self, tenant: &str, database: &str, seq: u64, place: Place) -> Option<FrameId> {
        let key = (TenantId::new(tenant), DatabaseName::new(database));
        let &stream = self.by_name.get(&key)?;
        let frame = self.streams[stream as usize].frame(seq)?;
        (frame.place() == place).then_some(FrameId { stream, seq })
    }

    /// A copy of a frame has become durable elsewhere.
    pub fn relocate(&mut self, id: FrameId, place: Place) {
        let Some(frame) = self.streams[id.stream as usize].frame_mut(id.seq) else { return };
        let from = u64::from(frame.segment);
        frame.segment = place.segment as u32;
        frame.offset = place.offset as u32;
        let lines = u64::from(frame.lines);
        let len = u64::from(place.len);
        let old = self.segments.get_mut(&from).expect("it held the frame");
        old.live_bytes -= len;
        old.live_frames -= 1;
        let new = self.segments.entry(place.segment).or_default();
        new.live_bytes += len;
        new.live_frames += 1;
        new.lines += lines;
    }

    /// After recovery: everything waits to be fetched, and released frames are as the marks say.
    pub fn restore_stream(&mut self, mark: &StreamMark) -> u32 {
        let stream = self.stream(&TenantId::new(&mark.tenant), &DatabaseName::new(&mark.database));
        let state = &mut self.streams[stream as usize];
        debug_assert!(state.frames.is_empty());
        state.base = mark.base;
        state.cursor = mark.base;
        stream
    }

    pub fn restore_next_seq(&mut self, stream: u32, next_seq: u64) {
        let stream = &mut self.streams[stream as usize];
        if stream.frames.is_empty() {
            stream.base = stream.base.max(next_seq);
            stream.cursor = stream.base;
            stream.holes = RangeSet::default();
            return;
        }
        while stream.next_seq() < next_seq {
            stream.holes.insert(stream.next_seq());
            stream.frames.push_back(Frame::GONE);
        }
        while stream.frames.front().is_some_and(|frame| frame.open == 0) {
            stream.frames.pop_front();
            stream.base += 1;
        }
        stream.holes.cut_below(stream.base);
        stream.skip();
    }

    pub fn restore_totals(&mut self, tenant: &TenantId, totals: LineTotals) {
        let tenant = self.tenants.entry(tenant.clone()).or_default();
        tenant.totals = totals;
        tenant.changed = true;
    }

    /// Each tenant's totals, and its lines in open frames.
    pub fn totals(&self) -> impl Iterator<Item = (&TenantId, LineTotals, u64)> {
        self.tenants.iter().map(|(name, tenant)| (name, tenant.totals, tenant.lines))
    }

    /// Bytes of a tenant's open frames.
    pub fn tenant_bytes(&self) -> impl Iterator<Item = (&TenantId, u64)> {
        self.tenants.iter().map(|(name, tenant)| (name, tenant.bytes))
    }

    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of all segments on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Lines of all open frames.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    pub fn hot_bytes(&self) -> u64 {
        self.hot_bytes
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Databases of which something waits to be fetched.
    pub fn waiting(&self) -> Vec<DatabaseName> {
        let waiting = self
            .databases
            .iter()
            .filter(|(name, _)| name.as_str() != NO_DATABASE)
            .filter(|(_, of)| of.streams.iter().any(|&stream| self.streams[stream as usize].waits()));
        waiting.map(|(name, _)| name.clone()).collect()
    }

    /// The backlog of each database and tenant that has one.
    pub fn backlogs(&self) -> Vec<(TenantId, DatabaseName, Backlog)> {
        let with_lines = self.streams.iter().filter(|stream| stream.lines > 0);
        let backlog = with_lines.map(|stream| {
            let oldest = stream.frames.iter().find(|frame| frame.open != 0);
            let backlog = Backlog {
                lines: stream.lines,
                bytes: stream.bytes,
                oldest_s: oldest.map(|frame| frame.received_s),
            };
            (stream.tenant.clone(), stream.database.clone(), backlog)
        });
        backlog.collect()
    }

    /// After recovery: a stream of parked messages that holds nothing is not taken over. Its old marks
    /// must not release what a new one of that name will hold.
    pub fn forget_parked(&mut self, next_seq: u64) {
        self.parked_seq_min = self.parked_seq_min.max(next_seq);
    }

    fn parked_streams(&self) -> impl Iterator<Item = (u32, &Stream)> {
        let of = self.databases.get(&DatabaseName::new(NO_DATABASE)).map_or(&[][..], |of| &of.streams);
        of.iter().map(|&stream| (stream, &self.streams[stream as usize]))
    }

    /// Whether something that is parked can be taken up.
    pub fn has_parked(&self) -> bool {
        self.parked_streams().any(|(_, stream)| stream.waits())
    }

    /// What is parked of each tenant.
    pub fn parked(&self) -> Vec<(TenantId, ParkedStatus)> {
        let parked = self.parked_streams().filter(|(_, stream)| stream.bytes > 0).map(|(_, stream)| {
            let messages = stream.frames.iter().map(|frame| u64::from(frame.open.count_ones())).sum();
            let oldest = stream.frames.iter().find(|frame| frame.open != 0);
            let status = ParkedStatus::new(messages, stream.bytes, oldest.map(|frame| frame.received_s));
            (stream.tenant.clone(), status)
        });
        parked.collect()
    }

    /// Bytes of a tenant's frames of parked messages.
    pub fn parked_bytes(&self) -> impl Iterator<Item = (&TenantId, u64)> {
        self.parked_streams().map(|(_, stream)| (&stream.tenant, stream.bytes))
    }

    /// Every frame of parked messages.
    pub fn parked_frames(&self) -> Vec<Wanted> {
        let of_stream = |(number, stream): (u32, &Stream)| {
            let open = stream.frames.iter().zip(stream.base..).filter(|(frame, _)| frame.open != 0);
            let frames = open.map(move |(frame, seq)| Wanted {
                id: FrameId { stream: number, seq },
                place: frame.place(),
                messages: frame.open,
                lines: 0,
                received_s: frame.received_s,
            });
            frames.collect::<Vec<_>>()
        };
        self.parked_streams().flat_map(of_stream).collect()
    }

    /// Whether messages of a tenant may be parked that nobody has vouched for.
    pub fn takes_stranger(&self, tenant: &TenantId) -> bool {
        let key = (tenant.clone(), DatabaseName::new(NO_DATABASE));
        self.by_name.contains_key(&key) || self.parked_streams().count() < limits::PARKED_STRANGERS_MAX
    }

    /// Of a frame that cannot be read: its messages that nobody has in hand, where they are parked.
    pub fn unread_parked(&self, id: FrameId) -> Option<u32> {
        let stream = &self.streams[id.stream as usize];
        let frame = stream.frame(id.seq).filter(|_| stream.is_parked())?;
        Some((frame.open & !frame.queued).count_ones())
    }

    /// Every open frame, for checks.
    #[cfg(test)]
    pub fn open_frames(&self) -> Vec<(String, String, u64, Place)> {
        let mut all = Vec::new();
        for stream in &self.streams {
            for (at, frame) in stream.frames.iter().enumerate().filter(|(_, frame)| frame.open != 0) {
                let (tenant, database) = (stream.tenant.to_string(), stream.database.to_string());
                all.push((tenant, database, stream.base + at as u64, frame.place()));
            }
        }
        all
    }
}

/// All messages of a frame.
fn all_of(header: &Header) -> MessageSet {
    message_set(0..usize::from(header.messages))
}
