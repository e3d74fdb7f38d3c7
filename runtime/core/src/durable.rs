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

/// Takes the outcomes of lines; in any order, from any thread. The spool.
pub trait Receipts: Send + Sync {
    /// The database accepted all lines of these messages. The same as `lines_written` and `settled` for each.
    fn written(&self, written: &[WrittenMessages<'_>]) {
        for WrittenMessages { frame, messages, lines } in written {
            self.lines_written(*frame, u64::from(*lines));
            self.settled(*frame, *messages, *lines);
        }
    }
    /// The database accepted `lines`.
    fn lines_written(&self, frame: FrameName<'_>, lines: u64);
    /// `lines` were refused, and are durable in quarantine.
    fn lines_refused(&self, frame: FrameName<'_>, lines: u64);
    /// Every line of these messages has an outcome: so many. Called once for each message.
    fn settled(&self, frame: FrameName<'_>, messages: MessageSet, lines: u32);
    /// These messages are not written now; they stay in the spool and are fetched again. Gives the number
    /// of returns in their stream so far: see `StreamPosition::returns`.
    fn returned(&self, frame: FrameName<'_>, messages: MessageSet) -> u32;
    /// The writer has copied so many bytes of these messages out of the frame, and keeps nothing else of
    /// them. They wait apart, and it keeps later lines of their points behind them.
    fn set_apart(&self, frame: FrameName<'_>, messages: MessageSet, bytes: usize);
}

/// A frame, as its receipts name it.
#[derive(Clone, Copy, Debug)]
pub struct FrameName<'a> {
    pub position: StreamPosition,
    /// The account of its tenant.
    pub account: &'a Arc<Account>,
}

/// Messages of one frame whose lines the database accepted.
#[derive(Clone, Copy, Debug)]
pub struct WrittenMessages<'a> {
    pub frame: FrameName<'a>,
    pub messages: MessageSet,
    pub lines: u32,
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
    receipts: Arc<dyn Receipts>,
    /// The place in its frame of each message of an excerpt; `None`: it is the frame.
    places: Option<Box<[u8]>>,
}

/// The set of these places of messages.
fn set_of(places: &[u8]) -> MessageSet {
    places.iter().fold(0, |set, &place| set | 1 << place)
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
    pub fn new(position: StreamPosition, frame: FrameLines, receipts: Arc<dyn Receipts>, _: &Synced) -> Self {
        Self { position, frame, receipts, places: None }
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
        let places: Box<[u8]> = places.into_iter().map(|place| self.place_of(place)).collect();
        self.receipts.set_apart(self.name(), set_of(&places), copied.len());
        let wanted = message_set(0..messages.len());
        let frame = FrameLines {
            database: self.database.clone(),
            account: self.account.clone(),
            guest: self.guest.clone(),
            lines: copied,
            messages,
            wanted,
            overtakes: self.overtakes,
            arrived: self.arrived,
        };
        Durable { position: self.position, frame, receipts: self.receipts.clone(), places: Some(places) }
    }

    pub fn position(&self) -> StreamPosition {
        self.position
    }

    /// The tenant of its lines.
    pub fn tenant(&self) -> &TenantId {
        self.account.tenant()
    }

    /// The receiver of its outcomes.
    pub fn receipts(&self) -> &Arc<dyn Receipts> {
        &self.receipts
    }

    fn name(&self) -> FrameName<'_> {
        FrameName { position: self.position, account: &self.frame.account }
    }

    /// The place in its frame of a message.
    fn place_of(&self, message: usize) -> u8 {
        self.places.as_ref().map_or(message as u8, |places| places[message])
    }

    /// Consecutive messages, as a set of those of its frame.
    fn set_in_frame(&self, messages: Range<usize>) -> MessageSet {
        match &self.places {
            None => message_set(messages),
            Some(places) => set_of(&places[messages]),
        }
    }

    /// These messages with all their lines, for `Receipts::written`.
    pub fn whole(&self, messages: Range<usize>) -> WrittenMessages<'_> {
        let lines = self.messages[messages.clone()].iter().map(|message| message.line_count).sum();
        WrittenMessages { frame: self.name(), messages: self.set_in_frame(messages), lines }
    }

    /// Records `lines` as accepted by the database.
    pub fn record_written(&self, lines: u64) {
        self.receipts.lines_written(self.name(), lines);
    }

    /// Records `lines` as refused; they are durable in quarantine.
    pub fn record_refused(&self, lines: u64) {
        self.receipts.lines_refused(self.name(), lines);
    }

    /// Settles messages of which every line has an outcome; once for each message.
    pub fn settle(&self, messages: Range<usize>) {
        let WrittenMessages { frame, messages, lines } = self.whole(messages);
        self.receipts.settled(frame, messages, lines);
    }

    /// Gives messages back to the store, to be fetched again. Gives the number of returns in their stream by now.
    pub fn give_back(&self, messages: Range<usize>) -> u32 {
        self.receipts.returned(self.name(), self.set_in_frame(messages))
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
