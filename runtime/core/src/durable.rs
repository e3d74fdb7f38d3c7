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
    /// The writer has copied so many bytes of these messages out of the frame, and keeps nothing else of
    /// them. They wait apart, and it keeps later lines of their points behind them.
    fn set_apart(&self, messages: &[usize], bytes: usize);
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
    receipt: Arc<dyn Receipt>,
}

/// The receipt of an excerpt: passes the outcomes on under the messages' numbers in the frame.
struct ExcerptReceipt {
    frame: Arc<dyn Receipt>,
    /// The place in the frame of each message.
    places: Vec<usize>,
}

impl Receipt for ExcerptReceipt {
    fn lines_written(&self, lines: u64) {
        self.frame.lines_written(lines);
    }
    fn lines_refused(&self, lines: u64) {
        self.frame.lines_refused(lines);
    }
    fn settled(&self, messages: Range<usize>) {
        self.places[messages].iter().for_each(|&place| self.frame.settled(place..place + 1));
    }
    fn returned(&self, messages: Range<usize>) -> u32 {
        self.places[messages].iter().fold(0, |_, &place| self.frame.returned(place..place + 1))
    }
    fn set_apart(&self, messages: &[usize], bytes: usize) {
        let places: Vec<usize> = messages.iter().map(|&message| self.places[message]).collect();
        self.frame.set_apart(&places, bytes);
    }
}

/// Takes durable lines in order to write them; the writer.
pub trait Handoff: Send + Sync {
    /// Lines that became durable just now.
    fn deliver(&self, durable: Durable);
    /// Lines that became durable together, in their order.
    fn deliver_all(&self, durables: Vec<Durable>) {
        durables.into_iter().for_each(|durable| self.deliver(durable));
    }
    /// Lines of this database wait to be fetched.
    fn waits(&self, database: &DatabaseName);
}

/// Gives durable lines that no writer has; the spool.
pub trait DurableLines: Send + Sync {
    /// The next lines of a database, up to `bytes_max`; true: there are more. May read from a disk.
    fn fetch(&self, database: &DatabaseName, bytes_max: usize) -> (Vec<Durable>, bool);
    /// Lines of a database that are not written, those that the writer has among them.
    fn lines_waiting(&self, database: &DatabaseName) -> u64;
}

/// The frame is readable and immutable.
impl Deref for Durable {
    type Target = FrameLines;

    fn deref(&self) -> &FrameLines {
        &self.frame
    }
}

impl Durable {
    pub fn new(position: StreamPosition, frame: FrameLines, receipt: Arc<dyn Receipt>, _: &Synced) -> Self {
        Self { position, frame, receipt }
    }

    /// A copy of some lines, without the rest of the frame. `lines`: the message and the place of each,
    /// without its newline, ascending.
    pub fn excerpt(&self, lines: &[(usize, Range<usize>)]) -> Durable {
        let mut copied = Vec::with_capacity(lines.iter().map(|(_, line)| line.len() + 1).sum());
        let (mut places, mut messages) = (Vec::new(), Vec::<DurableMessage>::new());
        for (place, line) in lines {
            copied.extend_from_slice(&self.lines[line.clone()]);
            copied.push(b'\n');
            if places.last() != Some(place) {
                places.push(*place);
                messages.push(self.messages[*place].clone());
            }
            messages.last_mut().expect("just put").lines_end = copied.len() as u32;
        }
        self.receipt.set_apart(&places, copied.len());
        let wanted = message_set(0..messages.len());
        let frame = FrameLines {
            database: self.database.clone(),
            tenant: self.tenant.clone(),
            account: self.account.clone(),
            guest: self.guest.clone(),
            lines: copied,
            messages,
            wanted,
            overtakes: self.overtakes,
            arrived: self.arrived,
        };
        let receipt = ExcerptReceipt { frame: self.receipt.clone(), places };
        Durable { position: self.position, frame, receipt: Arc::new(receipt) }
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
