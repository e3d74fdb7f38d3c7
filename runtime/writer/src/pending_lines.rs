//! Durable lines that the writer holds, and the progress of each message so far.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use tidegate_core::durable::Durable;
use tidegate_core::ids::DatabaseName;
use tidegate_core::refused_lines::{RefusedLine, RefusedLines};

/// Lines of one tenant for one database.
pub struct PendingLines {
    durable: Durable,
    /// Messages with some lines written or refused, and others not yet.
    progress: Mutex<BTreeMap<usize, MessageProgress>>,
}

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
    pub fn new(durable: Durable) -> Self {
        Self { durable, progress: Mutex::default() }
    }

    /// Records that all lines of `messages` are written.
    pub fn written(&self, messages: Range<usize>, lines: u64) {
        self.receipt().lines_written(lines);
        self.receipt().settled(messages);
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
            self.receipt().lines_written(u64::from(written));
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
            return self.receipt().settled(message..message + 1);
        }
        let refused_count = refused.len() as u64;
        let pending = self.clone();
        sink(RefusedLines {
            database: database.clone(),
            topic: self.messages[message].topic.clone(),
            received_ns: self.messages[message].received_ns,
            tenant: self.tenant.clone(),
            guest: self.guest.clone(),
            account: self.account.clone(),
            lines: refused,
            on_durable: Box::new(move || {
                pending.receipt().lines_refused(refused_count);
                pending.receipt().settled(message..message + 1);
            }),
        });
    }

    /// Returns messages to the store, to be fetched again. Gives the count of returns of their stream by
    /// now.
    pub fn return_messages(&self, messages: Range<usize>) -> u32 {
        self.receipt().returned(messages)
    }
}
