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

/// Connections with newly settled messages. Each is woken once, when the batch is dropped: the PUBACKs of
/// one group leave in one write.
#[derive(Debug, Default)]
pub struct SettleBatch(Vec<Arc<AckTracker>>);

impl SettleBatch {
    /// The same as the function `settle_all`, without waking the connections.
    pub fn settle_all(
        &mut self,
        tokens: impl IntoIterator<Item = AckToken>,
        outcome: Outcome,
        account: &Account,
    ) {
        settle(tokens, outcome, account, |tracker| {
            if self.0.last().is_none_or(|last| !Arc::ptr_eq(last, &tracker)) {
                self.0.push(tracker);
            }
        });
    }
}

impl Drop for SettleBatch {
    fn drop(&mut self) {
        self.0.sort_unstable_by_key(|tracker| Arc::as_ptr(tracker) as usize);
        self.0.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for tracker in &self.0 {
            tracker.settled.notify_one();
        }
    }
}

fn settle(
    tokens: impl IntoIterator<Item = AckToken>,
    outcome: Outcome,
    account: &Account,
    mut on_settled: impl FnMut(Arc<AckTracker>),
) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(first) = tokens.next() {
        let Origin::Mqtt { tracker, .. } = &first.origin else {
            settle_alone(first, outcome, account);
            continue;
        };
        let (tracker, received_us) = (tracker.clone(), first.received_us);
        let (mut all, mut messages, mut bytes) = (0, 0, 0);
        {
            let (mut settled, mut abandoned) = (0, 0);
            let mut ledger = tracker.ledger.lock();
            let mut next = Some(first);
            while let Some(mut token) = next {
                let taken = token.close();
                (all, messages, bytes) = (all + 1, messages + taken.0, bytes + taken.1);
                match token.origin {
                    Origin::Mqtt { index: Some(index), .. } if !ledger.settle(index) => abandoned += 1,
                    _ => settled += 1,
                }
                next = tokens.next_if(|token| token.mqtt().is_some_and(|(of, _)| Arc::ptr_eq(of, &tracker)));
            }
            // Booked before its PUBACK can leave.
            if settled > 0 {
                account.settle(outcome, settled);
            }
            if abandoned > 0 {
                account.abandon(abandoned);
                if outcome == Outcome::Parked {
                    // It is sent again, and unparked all the same.
                    account.restore_parked(abandoned);
                }
            }
        }
        tracker.window.release(messages, bytes);
        tracker.window.observe_latency(received_us, all);
        on_settled(tracker);
    }
}

/// Settles a message without a connection.
fn settle_alone(mut token: AckToken, outcome: Outcome, account: &Account) {
    let (messages, bytes) = token.close();
    account.settle(outcome, 1);
    if let Some(window) = token.window() {
        window.release(messages, bytes);
        window.observe_latency(token.received_us, 1);
    }
    match &token.origin {
        Origin::Replay { entry, .. } => entry.settle(outcome),
        Origin::Parked { guard, replay, .. } => {
            if let Some(replay) = replay {
                replay.settle(outcome);
            }
            guard.commit();
        }
        Origin::Mqtt { .. } | Origin::Trial => {}
    }
}
