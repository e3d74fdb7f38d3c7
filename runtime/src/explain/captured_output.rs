//! The end of messages that are only tried.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::ack::settle::settle_all;
use crate::core::ack::token::AckToken;
use crate::core::books::{Account, Outcome};
use crate::core::line_protocol::split_checked;
use crate::core::message::{CheckedBatch, RefusedMessage};
use crate::core::reason::Reason;
use crate::decode::DecodeSink;

/// Keeps the lines of a message, or its refusal.
#[derive(Default)]
pub(crate) struct CapturingSink(Mutex<CapturedOutput>);

impl CapturingSink {
    pub(crate) fn into_output(self) -> CapturedOutput {
        self.0.into_inner()
    }
}

/// The lines of a message, or its refusal.
#[derive(Default)]
pub(crate) struct CapturedOutput {
    pub(crate) lines: Vec<String>,
    pub(crate) refused: Option<(Reason, String)>,
}

impl DecodeSink for CapturingSink {
    fn lines(&self, batches: Vec<CheckedBatch>) {
        for batch in batches {
            self.0.lock().lines =
                split_checked(&batch.lines).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            batch.settle();
        }
    }

    fn empty(&self, messages: Vec<AckToken>, account: &Arc<Account>) {
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, messages: Vec<RefusedMessage>) {
        for message in messages {
            self.0.lock().refused = Some((message.reason, message.detail.into()));
            message.token.settle(Outcome::Quarantined, &message.account);
        }
    }
}
