//! What one thread makes of the messages that it took at once, handed on together: the spool is
//! locked and woken once for all of their tenants.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DecodeSink;
use crate::domain::books::Account;
use crate::domain::message::{CheckedBatch, Refused};
use crate::domain::pacing::LARGE_GROUP;
use crate::domain::slot::Slot;

/// Batches do not wait for longer than this for those of other tenants.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// Keeps batches until they are many, or the first has waited; the rest goes on when it is dropped.
pub struct Together<'a> {
    sink: &'a dyn DecodeSink,
    kept: RefCell<Kept>,
}

#[derive(Default)]
struct Kept {
    batches: Vec<CheckedBatch>,
    messages: usize,
    since: Option<Instant>,
}

impl<'a> Together<'a> {
    pub fn new(sink: &'a dyn DecodeSink) -> Self {
        Self { sink, kept: RefCell::default() }
    }

    fn hand_on(&self) {
        let kept = self.kept.take();
        if !kept.batches.is_empty() {
            self.sink.lines_of_many(kept.batches);
        }
    }
}

impl DecodeSink for Together<'_> {
    fn lines(&self, batch: CheckedBatch) {
        let enough = {
            let mut kept = self.kept.borrow_mut();
            kept.messages += batch.messages.len();
            kept.batches.push(batch);
            let since = *kept.since.get_or_insert_with(Instant::now);
            kept.messages >= LARGE_GROUP || since.elapsed() >= WAIT_MAX
        };
        if enough {
            self.hand_on();
        }
    }

    fn empty(&self, messages: Vec<Slot>, account: &Arc<Account>) {
        self.sink.empty(messages, account);
    }

    fn refused(&self, messages: Vec<Refused>) {
        self.sink.refused(messages);
    }
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        self.hand_on();
    }
}
