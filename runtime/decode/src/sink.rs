//! `DecodeSink`: takes decoded messages, at the end of decoding.

use std::sync::Arc;

use tidegate_core::ack::token::AckToken;
use tidegate_core::books::Account;
use tidegate_core::message::{CheckedBatch, RefusedMessage};

/// Takes decoded messages. Called on decode threads; must not block.
pub trait DecodeSink {
    /// Batches of lines in their order, with the changes of routes that keep state, be it without lines.
    fn lines(&self, batches: Vec<CheckedBatch>);
    /// Sends buffered batches at once: later messages of the same devices take another way.
    fn flush(&self) {}
    /// Messages that no line was made of, on purpose, of a route that keeps no state.
    fn empty(&self, messages: Vec<AckToken>, account: &Arc<Account>);
    /// Messages for quarantine.
    fn refused(&self, messages: Vec<RefusedMessage>);
    /// The part that requests births; None: nothing is requested, as in a trial.
    fn birth_requests(&self) -> Option<&dyn BirthRequests> {
        None
    }
}

/// Requests that edge nodes of Sparkplug send their births again. Called on decode threads; must not block.
pub trait BirthRequests {
    /// Requests the births of the edge node that published to a topic, if the operator allows it there, and unless
    /// that was done a short while ago.
    fn request(&self, topic: &str);
}
