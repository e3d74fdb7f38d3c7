//! Lines that are durable: the last state of a message before the database. Only the spool makes
//! one, and it does so only once the lines are synced.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Instant;

use crate::books::Account;
use crate::ids::{DatabaseName, GuestTag, TenantId};
use crate::synced::Synced;

/// Messages in one batch, and so in one frame of the spool: one bit each.
pub type MessageSet = u64;

/// The set of a run of messages.
pub fn message_set(messages: Range<usize>) -> MessageSet {
    let upto = |end: usize| if end >= 64 { u64::MAX } else { (1 << end) - 1 };
    upto(messages.end) & !upto(messages.start)
}

/// Told what became of the messages of one `Durable`; in any order, from any thread.
pub trait Receipt: Send + Sync {
    /// The database accepted `lines`.
    fn lines_written(&self, lines: u64);
    /// `lines` were refused, and are durable in quarantine.
    fn lines_refused(&self, lines: u64);
    /// Every line of these messages was told of: they are done with. Once a message.
    fn settled(&self, messages: Range<usize>);
    /// These messages are not written now; they wait where they are durable and are fetched again. Gives
    /// how often lines of their stream have been given back by now: see `StreamPosition::returns`.
    fn returned(&self, messages: Range<usize>) -> u32;
}

/// One message of a `Durable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableMessage {
    pub topic: String,
    pub received_ns: i64,
    /// Where its lines end in `Durable::lines`.
    pub lines_end: u32,
    /// At least 1.
    pub line_count: u32,
    /// `DeviceHash::folded`: what has the same is written in order.
    pub affinity: u32,
}

/// The place of a frame among all that the spool ever held of its tenant and database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// Names tenant and database for as long as the process lives.
    pub stream: u32,
    /// Ascending in the order in which lines are to be written.
    pub number: u64,
    /// How often lines of its stream had been given back when it was chosen to be handed out. What was
    /// chosen before the last of them stands behind what was given back, and must not be written first.
    pub returns: u32,
    /// Nothing of its stream waited behind it when it was chosen.
    pub is_last: bool,
}

/// Lines of one frame, and what is known of them.
#[derive(Debug)]
pub struct FrameLines {
    pub database: DatabaseName,
    pub tenant: TenantId,
    pub account: Arc<Account>,
    pub guest: GuestTag,
    /// Complete lines, each ended by a newline.
    pub lines: Vec<u8>,
    pub messages: Vec<DurableMessage>,
    /// Those of the messages that are to be written; the others were, before.
    pub wanted: MessageSet,
    /// All its times are later than those of any line that waits in front of it: it may be written
    /// before them without changing which value is the last of its point.
    pub overtakes: bool,
    pub arrived: Instant,
}

/// Durable lines of one tenant for one database.
pub struct Durable {
    position: StreamPosition,
    frame: FrameLines,
    receipt: Box<dyn Receipt>,
}

/// Takes lines that are durable, to write them.
pub trait Delivery: Send + Sync {
    /// Lines that became durable just now.
    fn deliver(&self, durable: Durable);
    /// Lines of this database wait to be fetched.
    fn waits(&self, database: &DatabaseName);
}

/// Holds durable lines that nobody has in hand.
pub trait Store: Send + Sync {
    /// The next lines of a database, up to `bytes_max`; true: there are more. May read from a disk.
    fn fetch(&self, database: &DatabaseName, bytes_max: usize) -> (Vec<Durable>, bool);
}

/// What is known of the lines can be read, and cannot be changed.
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

    /// Where the lines of `message` begin.
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
