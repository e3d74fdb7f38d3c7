//! The writer's unit of intake: the lines of some messages, and whom to tell what became of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::books::{Account, Outcome};
use crate::domain::ids::{DatabaseName, GuestTag};
use crate::domain::message::{CheckedBatch, Tenant};
use crate::domain::refusal::{RefusedLine, RefusedLines};
use crate::domain::slot::{Slot, settle_all};

/// Told what became of the messages of one load. Each message is settled exactly once, each line
/// is written or refused exactly once; in any order, from any thread.
///
/// This is all that the writer knows of where lines come from: a store that reads lines back
/// releases them here.
pub trait Receipt: Send + Sync {
    /// The database accepted `lines`.
    fn lines_written(&self, lines: u64);
    /// `lines` were refused, and are durable in quarantine.
    fn lines_refused(&self, lines: u64);
    /// The outcome of these messages is durable.
    fn settled(&self, messages: Range<usize>, outcome: Outcome);
}

/// One message of a load.
#[derive(Debug)]
pub struct LoadMessage {
    pub topic: String,
    pub received_ns: i64,
    /// Where its lines end in `Load::lines`.
    pub lines_end: u32,
    /// At least 1.
    pub line_count: u32,
}

/// Lines of one tenant for one database.
pub struct Load {
    pub tenant: Arc<Tenant>,
    pub guest: GuestTag,
    /// Complete lines, each ended by a newline.
    pub lines: Vec<u8>,
    pub messages: Vec<LoadMessage>,
    pub arrived: Instant,
    receipt: Box<dyn Receipt>,
    /// Messages of which the fate of some lines is known and that of others is not.
    progress: Mutex<BTreeMap<usize, Progress>>,
}

#[derive(Debug, Default)]
struct Progress {
    told: u32,
    refused: Vec<RefusedLine>,
}

/// Where refused lines go: to quarantine.
pub type RefusedLinesSink = Arc<dyn Fn(RefusedLines) + Send + Sync>;

impl Load {
    pub fn new(
        tenant: Arc<Tenant>,
        guest: GuestTag,
        lines: Vec<u8>,
        messages: Vec<LoadMessage>,
        arrived: Instant,
        receipt: Box<dyn Receipt>,
    ) -> Self {
        Self { tenant, guest, lines, messages, arrived, receipt, progress: Mutex::default() }
    }

    /// A load whose messages are settled by their slots, without a store between.
    pub fn of_batch(batch: CheckedBatch, arrived: Instant) -> (DatabaseName, Self) {
        let mut slots = Vec::with_capacity(batch.messages.len());
        let messages = batch
            .messages
            .into_iter()
            .map(|message| {
                slots.push(Some(message.slot));
                LoadMessage {
                    topic: message.topic,
                    received_ns: message.received_ns,
                    lines_end: message.lines_end,
                    line_count: message.line_count,
                }
            })
            .collect();
        let receipt = SlotReceipt { account: batch.tenant.account.clone(), slots: Mutex::new(slots) };
        let load = Self::new(batch.tenant, batch.guest, batch.lines, messages, arrived, Box::new(receipt));
        (batch.database, load)
    }

    pub fn line_count(&self) -> u64 {
        self.messages.iter().map(|message| u64::from(message.line_count)).sum()
    }

    /// Where the lines of `message` begin.
    pub fn lines_begin(&self, message: usize) -> usize {
        message.checked_sub(1).map_or(0, |before| self.messages[before].lines_end as usize)
    }

    /// All lines of `messages` are written.
    pub(super) fn written(&self, messages: Range<usize>, lines: u64) {
        self.receipt.lines_written(lines);
        self.receipt.settled(messages, Outcome::Lines);
    }

    /// Some lines of one message are written, others refused.
    pub(super) fn note(
        self: &Arc<Self>,
        message: usize,
        written: u32,
        refused: Option<RefusedLine>,
        sink: &RefusedLinesSink,
        database: &DatabaseName,
    ) {
        if written > 0 {
            self.receipt.lines_written(u64::from(written));
        }
        let lines_all = self.messages[message].line_count;
        let refused = {
            let mut all = self.progress.lock();
            let progress = all.entry(message).or_default();
            progress.told += written + u32::from(refused.is_some());
            progress.refused.extend(refused);
            if progress.told < lines_all {
                return;
            }
            all.remove(&message).expect("just made").refused
        };
        if refused.is_empty() {
            return self.receipt.settled(message..message + 1, Outcome::Lines);
        }
        let refused_count = refused.len() as u64;
        let outcome = match refused_count < u64::from(lines_all) {
            true => Outcome::Lines,
            false => Outcome::Quarantined,
        };
        let load = self.clone();
        sink(RefusedLines {
            database: database.clone(),
            topic: self.messages[message].topic.clone(),
            received_ns: self.messages[message].received_ns,
            tenant: self.tenant.id.clone(),
            guest: self.guest.clone(),
            account: self.tenant.account.clone(),
            lines: refused,
            on_durable: Box::new(move || {
                load.receipt.lines_refused(refused_count);
                load.receipt.settled(message..message + 1, outcome);
            }),
        });
    }
}

/// Settles the slots that a batch came with.
struct SlotReceipt {
    account: Arc<Account>,
    slots: Mutex<Vec<Option<Slot>>>,
}

impl Receipt for SlotReceipt {
    fn lines_written(&self, lines: u64) {
        self.account.write_lines(lines);
    }

    fn lines_refused(&self, lines: u64) {
        self.account.refuse_lines(lines);
    }

    fn settled(&self, messages: Range<usize>, outcome: Outcome) {
        let mut slots = self.slots.lock();
        let slots = slots[messages].iter_mut().map(|slot| slot.take().expect("a message is settled once"));
        settle_all(slots, outcome, &self.account);
    }
}
