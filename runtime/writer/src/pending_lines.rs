//! Durable lines that the writer holds, and the progress of each message so far.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits;
use crate::lines_budget::{DatabaseShare, LinesCharge};
use tidegate_core::durable::{Durable, DurableMessage};
use tidegate_core::ids::DatabaseName;
use tidegate_core::refused_lines::{RefusedLine, RefusedLines};

/// Lines of one tenant for one database.
pub struct PendingLines {
    durable: Durable,
    /// Messages with some lines written or refused, and others not yet.
    progress: Mutex<BTreeMap<usize, MessageProgress>>,
    is_excerpt: bool,
    /// Its bytes in the writer's budget.
    _charge: LinesCharge,
}

/// A line of a `PendingLines`: its message, and its bytes without the newline.
pub type LinePlace = (usize, Range<usize>);

#[derive(Debug, Default)]
struct MessageProgress {
    known_lines: u32,
    refused: Vec<RefusedLine>,
}

/// Takes refused lines to quarantine.
pub type RefusedLinesSink = Arc<dyn Fn(RefusedLines) + Send + Sync>;

impl Deref for PendingLines {
    type Target = Durable;

    fn deref(&self) -> &Durable {
        &self.durable
    }
}

impl PendingLines {
    pub fn new(durable: Durable, charge: LinesCharge) -> Self {
        Self { durable, progress: Mutex::default(), is_excerpt: false, _charge: charge }
    }

    /// The memory that lines take: they are copied once more into a request's body.
    pub fn memory_bytes(durable: &Durable) -> usize {
        let of = |message: &DurableMessage| size_of::<DurableMessage>() + message.topic.len();
        let messages: usize = durable.messages.iter().map(of).sum();
        limits::PENDING_OVERHEAD_BYTES + 2 * durable.lines.len() + messages
    }

    /// Copies lines out, so that the rest need not stay in memory. All other lines of their messages
    /// have an outcome.
    pub fn excerpt(&self, lines: &[LinePlace], share: &DatabaseShare) -> Self {
        let durable = self.durable.excerpt(lines);
        let mut all = self.progress.lock();
        let mut places: Vec<usize> = lines.iter().map(|(message, _)| *message).collect();
        places.dedup();
        let moved = places.iter().enumerate().filter_map(|(new, old)| Some((new, all.remove(old)?)));
        let progress = Mutex::new(moved.collect());
        let charge = share.charge_apart(Self::memory_bytes(&durable));
        Self { durable, progress, is_excerpt: true, _charge: charge }
    }

    pub fn is_excerpt(&self) -> bool {
        self.is_excerpt
    }

    /// True if no line of a message has an outcome.
    pub fn is_untouched(&self, message: usize) -> bool {
        !self.progress.lock().contains_key(&message)
    }

    /// Records lines of one message as written, or one as refused. A message whose lines are all known is
    /// settled, after its refused lines are durable in quarantine.
    pub fn record(
        self: &Arc<Self>,
        message: usize,
        written: u32,
        refused: Option<RefusedLine>,
        sink: &RefusedLinesSink,
        database: &DatabaseName,
    ) {
        if written > 0 {
            self.record_written(u64::from(written));
        }
        let lines_all = self.messages[message].line_count;
        let refused = {
            let mut all = self.progress.lock();
            let progress = all.entry(message).or_default();
            progress.known_lines += written + u32::from(refused.is_some());
            progress.refused.extend(refused);
            if progress.known_lines < lines_all {
                return;
            }
            all.remove(&message).expect("just made").refused
        };
        if refused.is_empty() {
            return self.settle(message..message + 1);
        }
        let refused_count = refused.len() as u64;
        let pending = self.clone();
        sink(RefusedLines {
            database: database.clone(),
            topic: self.messages[message].topic.clone(),
            received_ns: self.messages[message].received_ns,
            tenant: self.tenant().clone(),
            guest: self.guest.clone(),
            account: self.account.clone(),
            lines: refused,
            on_durable: Box::new(move || {
                pending.record_refused(refused_count);
                pending.settle(message..message + 1);
            }),
        });
    }

    /// Returns messages to the store, to be fetched again. Gives the count of returns of their stream by
    /// now.
    pub fn return_messages(&self, messages: Range<usize>) -> u32 {
        self.give_back(messages)
    }
}
