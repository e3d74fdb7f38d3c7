//! Durable lines: the last state of a message before the database. Only the spool makes them, once the
//! lines are synced.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Instant;

use crate::books::Account;
use crate::ids::{DatabaseName, GuestTag, TenantId};
use crate::synced::Synced;

/// A set of messages of one batch, and so of one frame of the spool: one bit each.
pub type MessageSet = u64;

/// The set of consecutive messages.
#[inline]
pub fn message_set(messages: Range<usize>) -> MessageSet {
    let upto = |end: usize| if end >= 64 { u64::MAX } else { (1 << end) - 1 };
    upto(messages.end) & !upto(messages.start)
}

/// Takes the outcomes of the messages of one `Durable`; in any order, from any thread.
pub trait Receipt: Send + Sync {
    /// The database accepted `lines`.
    fn lines_written(&self, lines: u64);
    /// `lines` were refused, and are durable in quarantine.
    fn lines_refused(&self, lines: u64);
    /// Every line of these messages has an outcome. Called once for each message.
    fn settled(&self, messages: Range<usize>);
    /// These messages are not written now; they stay in the spool and are fetched again. Gives the number
    /// of returns in their stream so far: see `StreamPosition::returns`.
    fn returned(&self, messages: Range<usize>) -> u32;
}

/// One message of a `Durable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableMessage {
    pub topic: String,
    pub received_ns: i64,
    /// End of its lines in `Durable::lines`.
    pub lines_end: u32,
    /// At least 1.
    pub line_count: u32,
    /// `DeviceHash::folded`: messages with the same value are written in order.
    pub affinity: u32,
}

/// The position of a frame among all frames of its tenant and database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// Names tenant and database for as long as the process lives.
    pub stream: u32,
    /// Ascending in the order in which lines are to be written.
    pub number: u64,
    /// Returns in its stream when the frame was chosen for delivery. A frame chosen before the last return
    /// stands behind the returned lines, and must not be written first.
    pub returns: u32,
    /// No frame of its stream waited behind it when it was chosen.
    pub is_last: bool,
}

/// Lines of one frame, with their origin.
#[derive(Debug)]
pub struct FrameLines {
    pub database: DatabaseName,
    pub tenant: TenantId,
    pub account: Arc<Account>,
    pub guest: GuestTag,
    /// Complete lines, each ended by a newline.
    pub lines: Vec<u8>,
    pub messages: Vec<DurableMessage>,
    /// The messages that are to be written; the others are written already.
    pub wanted: MessageSet,
    /// All its times are later than those of any waiting line in front of it: it may be written first
    /// without changing the last value of any point.
    pub overtakes: bool,
    pub arrived: Instant,
}

/// Durable lines of one tenant for one database.
pub struct Durable {
    position: StreamPosition,
    frame: FrameLines,
    receipt: Box<dyn Receipt>,
}

/// Takes durable lines in order to write them; the writer.
pub trait Handoff: Send + Sync {
    /// Lines that became durable just now.
    fn deliver(&self, durable: Durable);
    /// Lines of this database wait to be fetched.
    fn waits(&self, database: &DatabaseName);
}

/// Gives durable lines that no writer has; the spool.
pub trait DurableLines: Send + Sync {
    /// The next lines of a database, up to `bytes_max`; true: there are more. May read from a disk.
    fn fetch(&self, database: &DatabaseName, bytes_max: usize) -> (Vec<Durable>, bool);
}

/// The frame is readable and immutable.
impl Deref for Durable {
    type Target = FrameLines;

    fn deref(&self) -> &FrameLines {
        &self.frame
    }
}

impl Durable {
    pub fn new(position: StreamPosition, frame: FrameLines, receipt: Box<dyn Receipt>, _: &Synced) -> Self {
        Self { position, frame, receipt }
    }

    pub fn position(&self) -> StreamPosition {
        self.position
    }

    pub fn receipt(&self) -> &dyn Receipt {
        &*self.receipt
    }

    /// Lines of the messages that are wanted.
    pub fn line_count(&self) -> u64 {
        let wanted = self.messages.iter().enumerate().filter(|(place, _)| self.wants(*place));
        wanted.map(|(_, message)| u64::from(message.line_count)).sum()
    }

    pub fn wants(&self, message: usize) -> bool {
        self.wanted & (1 << message) != 0
    }

    /// Start of the lines of `message`.
    pub fn lines_begin(&self, message: usize) -> usize {
        message.checked_sub(1).map_or(0, |before| self.messages[before].lines_end as usize)
    }
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable")
            .field("position", &self.position)
            .field("frame", &self.frame)
            .finish_non_exhaustive()
    }
}
