//! A stream is the frames of one tenant for one database. Their order is that of their sequence
//! numbers; the writer has those before the stream's cursor, and fetches those from it on.

use std::collections::{HashMap, VecDeque};

use crate::domain::durable::{MessageSet, message_set};
use crate::domain::ids::{DatabaseName, TenantId};
use crate::spool::marks::StreamMark;
use crate::spool::parked::NO_DATABASE;
use crate::spool::ranges::RangeSet;

use super::Place;

/// A frame that is not released. One a message where tenants trickle, so it is kept small.
#[derive(Clone, Debug)]
pub struct Frame {
    pub segment: u32,
    pub offset: u32,
    pub len: u32,
    pub lines: u32,
    /// Seconds since the epoch.
    pub received_s: u32,
    pub messages: u8,
    /// Messages that are not settled; empty: released.
    pub open: MessageSet,
    /// Of those, the ones that the writer has.
    pub queued: MessageSet,
}

impl Frame {
    /// What stands for a released frame.
    pub const GONE: Frame =
        Frame { segment: 0, offset: 0, len: 0, lines: 0, received_s: 0, messages: 0, open: 0, queued: 0 };

    pub fn place(&self) -> Place {
        Place { segment: u64::from(self.segment), offset: u64::from(self.offset), len: self.len }
    }

    /// Nothing of it is settled, and the writer has nothing of it.
    pub fn is_untouched(&self) -> bool {
        self.queued == 0 && self.open == message_set(0..usize::from(self.messages))
    }
}

#[derive(Debug)]
pub struct Stream {
    pub tenant: TenantId,
    /// At the output that the tenant has now.
    pub database: DatabaseName,
    /// It was at another output before, and what the writer has of it may come back.
    pub moved: bool,
    /// Bytes of frames that the writer has.
    pub hot_bytes: u64,
    /// The sequence number of `frames[0]`: everything below is released.
    pub base: u64,
    pub frames: VecDeque<Frame>,
    /// Released frames above the base.
    pub holes: RangeSet,
    /// From here on the writer has nothing, but for what overtakes.
    pub cursor: u64,
    /// A bound of the latest time of what is not written in front of a new frame, and the latest
    /// time of all lines so far.
    pub waiting_last_ns: i64,
    pub seen_last_ns: i64,
    /// Refused lines of frames that are not released yet.
    pub refused: HashMap<u64, u32>,
    pub lines: u64,
    pub bytes: u64,
    /// Changed since the last marks.
    pub changed: bool,
}

impl Stream {
    pub fn next_seq(&self) -> u64 {
        self.base + self.frames.len() as u64
    }

    pub fn frame(&self, seq: u64) -> Option<&Frame> {
        self.frames.get(usize::try_from(seq.checked_sub(self.base)?).ok()?).filter(|frame| frame.open != 0)
    }

    pub fn frame_mut(&mut self, seq: u64) -> Option<&mut Frame> {
        let place = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.frames.get_mut(place).filter(|frame| frame.open != 0)
    }

    /// Moves the cursor over what is released or with the writer.
    pub fn skip(&mut self) {
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

    pub fn waits(&self) -> bool {
        self.cursor < self.next_seq()
    }

    /// Whether it holds parked messages.
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
        }
    }
}
