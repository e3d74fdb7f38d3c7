//! The end of decoding: where messages go once they are decoded.

use std::sync::Arc;

use crate::domain::books::Account;
use crate::domain::message::{CheckedBatch, Refused};
use crate::domain::slot::Slot;

/// Takes decoded messages. Called on decode threads; must not block.
pub trait DecodeSink {
    /// Lines that may stand beside others, and what a route that keeps state leaves with them, be it
    /// without lines.
    fn lines(&self, batch: CheckedBatch);
    /// Several such batches, in their order.
    fn lines_of_many(&self, batches: Vec<CheckedBatch>) {
        batches.into_iter().for_each(|batch| self.lines(batch));
    }
    /// Sends at once what was buffered to go together: what comes behind it goes another way.
    fn flush(&self) {}
    /// Messages that no line was made of, on purpose, of a route that keeps no state.
    fn empty(&self, messages: Vec<Slot>, account: &Arc<Account>);
    /// Messages for quarantine.
    fn refused(&self, messages: Vec<Refused>);
}
