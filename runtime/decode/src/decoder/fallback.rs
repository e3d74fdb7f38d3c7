//! Messages that a version on probation failed on, decoded by the version before it.

use std::cell::Cell;
use std::sync::Arc;

use crate::sink::{BirthRequests, DecodeSink};
use tidegate_core::ack::token::AckToken;
use tidegate_core::books::Account;
use tidegate_core::detail::Detail;
use tidegate_core::ids::GuestTag;
use tidegate_core::message::{CheckedBatch, RefusedMessage};
use tidegate_core::reason::Reason;

/// Takes a message that a version on probation failed on: it ends as the version before it says, or, if
/// that fails too, with the first verdict.
pub(super) struct FallbackSink<'a> {
    pub(super) sink: &'a dyn DecodeSink,
    pub(super) verdict: (Reason, &'a Detail, &'a GuestTag),
    pub(super) failed: Cell<bool>,
}

impl DecodeSink for FallbackSink<'_> {
    fn lines(&self, batches: Vec<CheckedBatch>) {
        self.sink.lines(batches);
    }

    fn flush(&self) {
        self.sink.flush();
    }

    fn empty(&self, messages: Vec<AckToken>, account: &Arc<Account>) {
        self.sink.empty(messages, account);
    }

    fn refused(&self, messages: Vec<RefusedMessage>) {
        self.failed.set(true);
        let (reason, detail, tag) = self.verdict;
        let messages =
            messages.into_iter().map(|message| message.with_verdict(reason, detail.clone(), tag.clone()));
        self.sink.refused(messages.collect());
    }

    fn birth_requests(&self) -> Option<&dyn BirthRequests> {
        self.sink.birth_requests()
    }
}
