//! A stream is the frames of one tenant for one database. Their order is that of their sequence
//! numbers; the writer has those before the stream's cursor, and fetches those from it on.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use crate::ids::{FrameLocation, NO_DATABASE};
use crate::range_set::RangeSet;
use crate::release_marks::StreamMark;
use tidegate_core::durable::{MessageSet, message_set};
use tidegate_core::ids::{DatabaseName, TenantId};

/// Shorter runs of numbers without a frame are filled up: what is looked up by number is found by
/// counting.
const JUMP_MIN: u64 = 16_384;

/// A frame that is not released. One a message where tenants trickle, so it is kept small.
#[derive(Clone, Debug)]
pub struct FrameEntry {
    pub segment: u32,
    pub offset: u32,
    pub len: u32,
    pub lines: u32,
    /// Seconds since the epoch.
    pub kept_s: u32,
    pub messages: u8,
    /// Messages that are not settled; empty: released.
    pub open: MessageSet,
    /// The open messages that the writer has.
    pub queued: MessageSet,
}

impl FrameEntry {
    /// Stands for a released frame.
    pub const GONE: FrameEntry =
        FrameEntry { segment: 0, offset: 0, len: 0, lines: 0, kept_s: 0, messages: 0, open: 0, queued: 0 };

    pub fn place(&self) -> FrameLocation {
        FrameLocation { segment: u64::from(self.segment), offset: u64::from(self.offset), len: self.len }
    }

    /// Nothing of it is settled, and the writer has nothing of it.
    pub fn is_untouched(&self) -> bool {
        self.queued == 0 && self.open == message_set(0..usize::from(self.messages))
    }
}

/// Notes on frames that are released in parts, by their numbers.
#[derive(Debug, Default)]
pub struct FrameNotes {
    /// Refused lines of frames that are not released yet.
    pub refused: HashMap<u64, u32, foldhash::fast::RandomState>,
    /// Lines of frames that are not released yet whose messages are settled, refused ones among them.
    pub settled: HashMap<u64, u32, foldhash::fast::RandomState>,
    /// Messages that wait apart with the writer, by frame, and their bytes in memory.
    pub apart: HashMap<u64, (MessageSet, u64), foldhash::fast::RandomState>,
}

#[derive(Debug)]
pub struct Stream {
    pub tenant: TenantId,
    /// At the output that the tenant has now.
    pub database: DatabaseName,
    /// Their places in the index.
    pub tenant_number: u32,
    pub database_number: u32,
    /// It was at another output before, and what the writer has of it may come back.
    pub moved: bool,
    /// Bytes of frames that the writer has.
    pub memory_bytes: u64,
    /// The sequence number of `frames[0]`: everything below is released.
    pub base: u64,
    pub frames: VecDeque<FrameEntry>,
    /// Long runs of numbers above the base that have no place in `frames`, ascending. There is one only
    /// where a start found that something was missing.
    pub jumps: VecDeque<Range<u64>>,
    /// Released frames above the base.
    pub holes: RangeSet,
    /// Frames that are neither released nor there, anywhere.
    pub lost: RangeSet,
    /// From here on the writer has nothing, but for what overtakes.
    pub cursor: u64,
    /// In frames below this number devices are hashed with another seed than now. Nobody can see
    /// if a later line is of the same device, so the frames behind wait until all of these are written.
    pub other_seed_end: u64,
    /// Frames that went to the writer before others in front of them, ascending; some may be done with.
    pub overtaking: VecDeque<u64>,
    /// The number of times that something was returned.
    pub returns: u32,
    /// A bound of the latest time of what is not written in front of a new frame, but for what overtakes,
    /// and the latest time of all lines so far.
    pub waiting_last_ns: i64,
    pub seen_last_ns: i64,
    /// `None` until there is one. Most streams have none, and each line of the CPU's cache that a stream takes is
    /// one that a message of another tenant has to wait for.
    pub notes: Option<Box<FrameNotes>>,
    pub lines: u64,
    pub bytes: u64,
    /// Changed since the last marks.
    pub changed: bool,
}

impl Stream {
    /// The notes on its frames, made if there are none.
    pub fn notes_mut(&mut self) -> &mut FrameNotes {
        self.notes.get_or_insert_default()
    }

    pub fn next_seq(&self) -> u64 {
        let jumped: u64 = self.jumps.iter().map(|jump| jump.end - jump.start).sum();
        self.base + self.frames.len() as u64 + jumped
    }

    /// The place of a number in `frames`.
    pub fn place(&self, seq: u64) -> Option<usize> {
        let mut place = seq.checked_sub(self.base)?;
        for jump in self.jumps.iter().take_while(|jump| jump.start <= seq) {
            if jump.contains(&seq) {
                return None;
            }
            place -= jump.end - jump.start;
        }
        usize::try_from(place).ok()
    }

    /// The next number that has a place, or is to have one.
    pub fn after(&self, seq: u64) -> u64 {
        let jump = self.jumps.iter().find(|jump| jump.start == seq + 1);
        jump.map_or(seq + 1, |jump| jump.end)
    }

    pub fn frame(&self, seq: u64) -> Option<&FrameEntry> {
        self.frames.get(self.place(seq)?).filter(|frame| frame.open != 0)
    }

    pub fn frame_mut(&mut self, seq: u64) -> Option<&mut FrameEntry> {
        let place = self.place(seq)?;
        self.frames.get_mut(place).filter(|frame| frame.open != 0)
    }

    /// The open frames and their numbers, ascending.
    pub fn open_frames(&self) -> impl Iterator<Item = (u64, &FrameEntry)> {
        let mut next = self.base;
        let numbered = self.frames.iter().map(move |frame| {
            let seq = next;
            next = self.after(seq);
            (seq, frame)
        });
        numbered.filter(|(_, frame)| frame.open != 0)
    }

    /// The first open frame that the writer has nothing of.
    pub fn first_untouched(&self) -> Option<(u64, &FrameEntry)> {
        let mut seq = self.cursor.max(self.base);
        while seq < self.next_seq() {
            if let Some(frame) = self.frame(seq).filter(|frame| frame.is_untouched()) {
                return Some((seq, frame));
            }
            seq = self.after(seq);
        }
        None
    }

    /// Makes `next_seq` the number that the next frame gets.
    pub fn skip_to(&mut self, next_seq: u64) {
        let now = self.next_seq();
        if self.frames.is_empty() {
            self.jumps.clear();
            self.base = next_seq;
            self.cursor = self.cursor.max(next_seq);
        } else if next_seq - now > JUMP_MIN {
            self.jumps.push_back(now..next_seq);
        } else {
            self.frames.extend((now..next_seq).map(|_| FrameEntry::GONE));
        }
    }

    /// Takes released frames off the front.
    pub fn cut(&mut self) {
        while self.frames.front().is_some_and(|frame| frame.open == 0) {
            let next = self.after(self.base);
            self.frames.pop_front();
            self.base = next;
            if self.jumps.front().is_some_and(|jump| jump.end <= next) {
                self.jumps.pop_front();
            }
        }
        self.holes.cut_below(self.base);
    }

    /// Moves the cursor over what is released or with the writer.
    pub fn skip(&mut self) {
        self.cursor = self.cursor.max(self.base);
        while self.cursor < self.next_seq()
            && self.frame(self.cursor).is_none_or(|frame| frame.open & !frame.queued == 0)
        {
            self.cursor = self.after(self.cursor);
        }
        if self.cursor == self.next_seq() && !self.is_overtaken() {
            self.waiting_last_ns = i64::MIN;
        }
    }

    /// Messages of a frame that wait apart: the writer keeps later lines of their points behind them.
    fn apart(&self, seq: u64) -> MessageSet {
        let apart = self.notes.as_ref().and_then(|notes| notes.apart.get(&seq));
        apart.map_or(0, |(messages, _)| *messages)
    }

    /// True if the writer has frames that overtook others. A frame behind those that does not overtake
    /// waits until they are written: it may correct them, and they are written beside the rest.
    pub fn is_overtaken(&mut self) -> bool {
        while let Some(&first) = self.overtaking.front()
            && self.frame(first).is_none_or(|frame| frame.queued & !self.apart(first) == 0)
        {
            self.overtaking.pop_front();
        }
        !self.overtaking.is_empty()
    }

    /// True if the frame at the cursor must wait for others to be written.
    pub fn is_cursor_barred(&mut self) -> bool {
        self.is_barred(self.cursor)
            || (self.is_overtaken() && self.overtaking.front().is_some_and(|&first| first <= self.cursor))
    }

    /// True if a frame must wait for others to be written, although it is the next one.
    pub fn is_barred(&self, seq: u64) -> bool {
        self.base < self.other_seed_end && seq >= self.other_seed_end
    }

    pub fn waits(&self) -> bool {
        self.cursor < self.next_seq()
    }

    /// True if it holds parked messages.
    pub fn is_parked(&self) -> bool {
        self.database.as_str() == NO_DATABASE
    }

    pub fn mark(&self) -> StreamMark {
        StreamMark {
            tenant: self.tenant.to_string(),
            database: self.database.to_string(),
            next_seq: self.next_seq(),
            base: self.base,
            holes: self.holes.iter().collect(),
            lost: self.lost.iter().collect(),
        }
    }
}
