//! Durable lines in the writer's hands, and what is known of each message's so far.

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
    /// Messages of which the fate of some lines is known and that of others is not.
    progress: Mutex<BTreeMap<usize, MessageProgress>>,
}

#[derive(Debug, Default)]
struct MessageProgress {
    told: u32,
    refused: Vec<RefusedLine>,
}

/// Where refused lines go: to quarantine.
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

    /// All lines of `messages` are written.
    pub fn written(&self, messages: Range<usize>, lines: u64) {
        self.receipt().lines_written(lines);
        self.receipt().settled(messages);
    }

    /// Some lines of one message are written, others refused.
    pub fn note(
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
            progress.told += written + u32::from(refused.is_some());
            progress.refused.extend(refused);
            if progress.told < lines_all {
                return;
            }
            all.remove(&message).expect("just made").refused
        };
        if refused.is_empty() {
            return self.receipt().settled(message..message + 1);
        }
        let refused_count = refused.len() as u64;
        let load = self.clone();
        sink(RefusedLines {
            database: database.clone(),
            topic: self.messages[message].topic.clone(),
            received_ns: self.messages[message].received_ns,
            tenant: self.tenant.clone(),
            guest: self.guest.clone(),
            account: self.account.clone(),
            lines: refused,
            on_durable: Box::new(move || {
                load.receipt().lines_refused(refused_count);
                load.receipt().settled(message..message + 1);
            }),
        });
    }

    /// These messages are not written from here: they are fetched again. Gives how often lines of their
    /// stream have been given back by now.
    pub fn give_back(&self, messages: Range<usize>) -> u32 {
        self.receipt().returned(messages)
    }
}
