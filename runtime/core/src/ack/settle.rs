//! The settling of tokens: the outcome of their messages is durable, so it is booked, and their PUBACKs may leave.

use std::sync::Arc;

use crate::ack::origin::Origin;
use crate::ack::token::AckToken;
use crate::ack::tracker::AckTracker;
use crate::books::{Account, Outcome};
use crate::reason::Reason;

impl AckToken {
    /// Settles this one message, counted in `account`.
    pub fn settle(self, outcome: Outcome, account: &Account) {
        settle_all(std::iter::once(self), outcome, account);
    }

    /// Settles this message as dropped, counted by its reason.
    pub fn drop_for(self, reason: Reason, account: &Account) {
        account.record_drops(reason, 1);
        self.settle(Outcome::Dropped, account);
    }
}

/// Settles many messages of one account with one outcome. Neighbouring tokens of one connection take its
/// lock once.
pub fn settle_all(tokens: impl IntoIterator<Item = AckToken>, outcome: Outcome, account: &Account) {
    SettleBatch::default().settle_all(tokens, outcome, account);
}

/// A message that has ended, with its outcome and the account that it is counted in.
type Ended<'a> = (AckToken, Outcome, &'a Account);

/// Messages of a connection that are settled under one lock: what a read brings at most, so that the
/// connection's reader waits for no more.
const LOCKED_MESSAGES_MAX: u64 = 64;

/// Messages of one group, and connections with newly settled ones. When it is dropped, the messages are settled
/// connection by connection, whatever their tenants, and each connection is woken once: the PUBACKs of one group
/// leave in one write.
#[derive(Debug, Default)]
pub struct SettleBatch {
    tokens: Vec<Option<AckToken>>,
    /// Tokens that follow each other in `tokens`: their account and outcome, and the end of them.
    runs: Vec<(Arc<Account>, Outcome, usize)>,
    settled: Vec<Arc<AckTracker>>,
}

impl SettleBatch {
    /// Adds messages that are settled when the batch is dropped.
    pub fn add(
        &mut self,
        tokens: impl IntoIterator<Item = AckToken>,
        outcome: Outcome,
        account: Arc<Account>,
    ) {
        self.tokens.extend(tokens.into_iter().map(Some));
        self.runs.push((account, outcome, self.tokens.len()));
    }

    /// Adds messages, and gives what `split` leaves of each.
    pub fn add_tokens_of<M, R>(
        &mut self,
        messages: Vec<M>,
        outcome: Outcome,
        account: Arc<Account>,
        split: impl Fn(M) -> (AckToken, R),
    ) -> Vec<R> {
        let rest = messages.into_iter().map(|message| {
            let (token, rest) = split(message);
            self.tokens.push(Some(token));
            rest
        });
        let rest = rest.collect();
        self.runs.push((account, outcome, self.tokens.len()));
        rest
    }

    /// The same as the function `settle_all`, without waking the connections.
    pub fn settle_all(
        &mut self,
        tokens: impl IntoIterator<Item = AckToken>,
        outcome: Outcome,
        account: &Account,
    ) {
        let ended = tokens.into_iter().map(|token| (token, outcome, account));
        settle(ended, |tracker| self.settled.push(tracker));
    }

    fn settle_added(&mut self) {
        // By connection; those of one connection stay in their order, so neighbours of one account too.
        let mut order: Vec<(usize, u32, u32)> = Vec::with_capacity(self.tokens.len());
        let mut begin = 0;
        for (run, (_, _, end)) in self.runs.iter().enumerate() {
            for (place, token) in self.tokens[begin..*end].iter().enumerate() {
                let connection = token.as_ref().and_then(AckToken::mqtt);
                let address = connection.map_or(0, |(tracker, _)| Arc::as_ptr(tracker).addr());
                order.push((address, (begin + place) as u32, run as u32));
            }
            begin = *end;
        }
        order.sort_unstable();
        let (tokens, runs) = (&mut self.tokens, &self.runs);
        let ended = order.into_iter().filter_map(|(_, place, run)| {
            let (account, outcome, _) = &runs[run as usize];
            Some((tokens[place as usize].take()?, *outcome, &**account))
        });
        settle(ended, |tracker| self.settled.push(tracker));
    }
}

impl Drop for SettleBatch {
    fn drop(&mut self) {
        self.settle_added();
        self.settled.sort_unstable_by_key(|tracker| Arc::as_ptr(tracker).addr());
        self.settled.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for tracker in &self.settled {
            tracker.settled.notify_one();
        }
    }
}

/// Messages of one account with one outcome that are not booked yet.
struct Booking<'a> {
    outcome: Outcome,
    account: &'a Account,
    settled: u64,
    abandoned: u64,
}

impl<'a> Booking<'a> {
    fn new(outcome: Outcome, account: &'a Account) -> Self {
        Self { outcome, account, settled: 0, abandoned: 0 }
    }

    fn is_of(&self, outcome: Outcome, account: &Account) -> bool {
        self.outcome == outcome && std::ptr::eq(self.account, account)
    }

    fn book(self) {
        if self.settled > 0 {
            self.account.settle(self.outcome, self.settled);
        }
        if self.abandoned > 0 {
            self.account.abandon(self.abandoned);
            if self.outcome == Outcome::Parked {
                // It is sent again, and unparked all the same.
                self.account.restore_parked(self.abandoned);
            }
        }
    }
}

/// Settles messages; neighbours of one connection take its lock once.
fn settle<'a>(ended: impl IntoIterator<Item = Ended<'a>>, mut on_settled: impl FnMut(Arc<AckTracker>)) {
    let mut ended = ended.into_iter().peekable();
    let mut last: Option<Arc<AckTracker>> = None;
    while let Some(first) = ended.next() {
        let Origin::Mqtt { tracker, .. } = &first.0.origin else {
            settle_alone(first);
            continue;
        };
        let tracker = tracker.clone();
        let (mut all, mut messages, mut bytes, mut received_us) = (0, 0, 0, u64::MAX);
        {
            let mut ledger = tracker.ledger.lock();
            let mut booking = Booking::new(first.1, first.2);
            let mut next = Some(first);
            while let Some((mut token, outcome, account)) = next {
                if !booking.is_of(outcome, account) {
                    std::mem::replace(&mut booking, Booking::new(outcome, account)).book();
                }
                let taken = token.close();
                (all, messages, bytes) = (all + 1, messages + taken.0, bytes + taken.1);
                received_us = received_us.min(token.received_us);
                match token.origin {
                    Origin::Mqtt { index: Some(index), .. } if !ledger.settle(index) => {
                        booking.abandoned += 1;
                    }
                    _ => booking.settled += 1,
                }
                next = ended.next_if(|(token, ..)| {
                    let same = token.mqtt().is_some_and(|(of, _)| Arc::ptr_eq(of, &tracker));
                    same && all < LOCKED_MESSAGES_MAX
                });
            }
            // Booked before its PUBACK can leave.
            booking.book();
        }
        tracker.window.release(messages, bytes);
        tracker.window.observe_latency(received_us, all);
        if let Some(before) = last.replace(tracker)
            && last.as_ref().is_some_and(|now| !Arc::ptr_eq(now, &before))
        {
            on_settled(before);
        }
    }
    last.into_iter().for_each(on_settled);
}

/// Settles a message without a connection.
fn settle_alone((mut token, outcome, account): Ended<'_>) {
    let (messages, bytes) = token.close();
    account.settle(outcome, 1);
    if let Some(window) = token.window() {
        window.release(messages, bytes);
        window.observe_latency(token.received_us, 1);
    }
    match &token.origin {
        Origin::Replay { entry, .. } => entry.settle(outcome),
        Origin::Parked(parked) => {
            if let Some(replay) = &parked.replay {
                replay.settle(outcome);
            }
            parked.guard.commit();
        }
        Origin::Mqtt { .. } | Origin::Trial => {}
    }
}
