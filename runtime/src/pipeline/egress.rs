//! The joint from the decode threads to spool and quarantine.

use std::sync::Arc;

use crate::core::ack::in_flight::{InFlight, InFlightGuards};
use crate::core::ack::settle::settle_all;
use crate::core::ack::token::AckToken;
use crate::core::books::{Account, Outcome};
use crate::core::message::{CheckedBatch, RefusedMessage};
use crate::decode::{BirthRequests, DecodeSink};
use crate::pipeline::birth_requester::BirthRequester;
use crate::pipeline::tap::Tap;
use crate::quarantine::Quarantine;
use crate::spool::Spool;

/// The exit of the stream: to the spool, to quarantine, or to nowhere for a message without lines.
pub struct Egress {
    spool: Spool,
    quarantine: Quarantine,
    pub(super) in_flight: Arc<InFlight>,
    tap: Arc<Tap>,
    births: Option<Arc<BirthRequester>>,
}

impl Egress {
    pub fn new(spool: Spool, quarantine: Quarantine, in_flight: Arc<InFlight>, tap: Arc<Tap>) -> Self {
        Self { spool, quarantine, in_flight, tap, births: None }
    }

    /// Adds the requester of births; None: nobody allows any.
    pub fn with_births(self, births: Option<Arc<BirthRequester>>) -> Self {
        Self { births, ..self }
    }
}

impl DecodeSink for Egress {
    fn lines(&self, mut batches: Vec<CheckedBatch>) {
        if self.tap.is_watched() {
            self.tap.lines(&mut batches);
        }
        let messages = batches.iter_mut().flat_map(CheckedBatch::tokens_mut);
        let on_their_way: InFlightGuards = messages.filter_map(AckToken::take_in_flight).collect();
        let more_follows = self.in_flight.count() > on_their_way.count();
        self.spool.append(batches, more_follows);
        // Not before they are in the queue: a stop waits for both, one after the other.
        drop(on_their_way);
    }

    fn empty(&self, mut messages: Vec<AckToken>, account: &Arc<Account>) {
        if self.tap.is_watched() {
            messages.iter_mut().for_each(|token| self.tap.without_lines(token));
        }
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, mut messages: Vec<RefusedMessage>) {
        if self.tap.is_watched() {
            self.tap.refused(&mut messages);
        }
        let messages_in = messages.iter_mut().filter_map(|message| message.token.take_in_flight());
        let on_their_way: InFlightGuards = messages_in.collect();
        self.quarantine.store_many(messages);
        drop(on_their_way);
    }

    fn birth_requests(&self) -> Option<&dyn BirthRequests> {
        self.births.as_deref().map(|births| births as &dyn BirthRequests)
    }
}
