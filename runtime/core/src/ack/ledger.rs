//! The ledger of one connection: its PUBLISHes, and the PUBACKs that may leave.
//!
//! A pure state machine, one a connection generation. PUBACKs leave in the order of the PUBLISHes
//! [MQTT-4.6.0-2], so `ready` gives only the longest settled prefix. When the connection ends the
//! ledger ends with it: later settlements have no effect, because the broker will send those messages
//! again and the same packet id will mean another message.

use std::collections::{HashMap, VecDeque};

use crate::detail::Detail;
use crate::reason::Reason;

/// The packet id of a message that wants no PUBACK (QoS 0).
pub const NO_PACKET_ID: u16 = 0;

/// A position in one ledger. Never reused within a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerIndex(pub u64);

/// The reason of a refusal, for the message's sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalNotice {
    pub reason: Reason,
    /// Empty: there is no text for the sender.
    pub detail: Detail,
}

#[derive(Debug)]
struct LedgerEntry {
    packet_id: u16,
    settled: bool,
    /// `AckLedger::notices` has a notice for it.
    has_notice: bool,
}

/// The PUBLISHes of one connection that have no PUBACK yet, oldest first.
#[derive(Debug, Default)]
pub struct AckLedger {
    entries: VecDeque<LedgerEntry>,
    /// The index of `entries[0]`.
    first: u64,
    /// Notices that leave with PUBACKs; empty where the protocol carries none.
    notices: HashMap<u64, RefusalNotice>,
    ended: bool,
}

impl AckLedger {
    /// Records a QoS 1 PUBLISH in the order of the wire.
    #[inline]
    pub fn receive(&mut self, packet_id: u16) -> LedgerIndex {
        let index = LedgerIndex(self.first + self.entries.len() as u64);
        self.entries.push_back(LedgerEntry { packet_id, settled: false, has_notice: false });
        index
    }

    /// Settles a message. False if that has no effect: the connection has ended.
    ///
    /// # Panics
    /// If a token is settled twice or was never given out: both would acknowledge a message that
    /// nobody has made durable.
    #[inline]
    pub fn settle(&mut self, index: LedgerIndex) -> bool {
        if self.ended {
            return false;
        }
        let position = index.0.checked_sub(self.first).expect("a token that left the ledger was settled");
        let entry = &mut self.entries[position as usize];
        assert!(!entry.settled, "a token was settled twice");
        entry.settled = true;
        true
    }

    /// Attaches the reason of a refusal to the PUBACK of an unsettled message.
    pub fn attach_notice(&mut self, index: LedgerIndex, notice: RefusalNotice) {
        if self.ended {
            return;
        }
        let position = index.0.checked_sub(self.first).and_then(|position| usize::try_from(position).ok());
        if let Some(entry) = position.and_then(|position| self.entries.get_mut(position)) {
            entry.has_notice = true;
            self.notices.insert(index.0, notice);
        }
    }

    /// Takes the packet ids whose PUBACKs may leave now, in order, into `packet_ids`.
    #[inline]
    pub fn take_ready(&mut self, packet_ids: &mut Vec<u16>) {
        self.take_ready_with(|packet_id, _| packet_ids.push(packet_id));
    }

    /// Takes the PUBACKs that may leave now, in order, each with its notice.
    #[inline]
    pub fn take_ready_with(&mut self, mut each: impl FnMut(u16, Option<RefusalNotice>)) {
        while self.entries.front().is_some_and(|entry| entry.settled) {
            let entry = self.entries.pop_front().expect("just seen");
            let notice = if entry.has_notice { self.notices.remove(&self.first) } else { None };
            self.first += 1;
            each(entry.packet_id, notice);
        }
    }

    /// Ends the ledger with its connection: no message is acknowledged any more. Gives how many were
    /// unsettled.
    pub fn end(&mut self) -> usize {
        self.ended = true;
        let unsettled = self.entries.iter().filter(|entry| !entry.settled).count();
        self.entries.clear();
        self.notices.clear();
        unsettled
    }

    /// Packet ids of PUBLISHes without a PUBACK, oldest first.
    pub fn unacknowledged(&self) -> impl Iterator<Item = u16> {
        self.entries.iter().map(|entry| entry.packet_id)
    }

    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// PUBLISHes without a PUBACK, settled or not.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use proptest::prelude::*;

    fn ready(ledger: &mut AckLedger) -> Vec<u16> {
        let mut ids = Vec::new();
        ledger.take_ready(&mut ids);
        ids
    }

    #[test]
    fn a_late_first_message_holds_back_those_behind_it() {
        let mut ledger = AckLedger::default();
        let first = ledger.receive(7);
        let second = ledger.receive(9);
        assert!(ledger.settle(second));
        assert!(ready(&mut ledger).is_empty());
        assert!(ledger.settle(first));
        assert_eq!(ready(&mut ledger), [7, 9]);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn what_is_to_be_told_leaves_with_its_own_puback_and_with_no_other() {
        let mut ledger = AckLedger::default();
        let tokens: Vec<_> = (1..=3).map(|id| ledger.receive(id)).collect();
        let notice = RefusalNotice { reason: Reason::BadPayload, detail: "no JSON".into() };
        ledger.attach_notice(tokens[1], notice.clone());
        tokens.iter().rev().for_each(|&token| assert!(ledger.settle(token)));
        let mut left = Vec::new();
        ledger.take_ready_with(|id, notice| left.push((id, notice)));
        assert_eq!(left, [(1, None), (2, Some(notice.clone())), (3, None)]);
        // A message that left, or whose connection ended, gets no notice any more.
        ledger.attach_notice(tokens[1], notice.clone());
        let last = ledger.receive(4);
        ledger.end();
        ledger.attach_notice(last, notice);
        assert!(ledger.notices.is_empty());
    }

    #[test]
    fn nothing_is_acknowledged_after_the_connection_ended() {
        let mut ledger = AckLedger::default();
        let first = ledger.receive(1);
        let second = ledger.receive(2);
        ledger.settle(first);
        assert_eq!(ledger.end(), 1);
        assert!(!ledger.settle(second));
        assert!(ready(&mut ledger).is_empty());
    }

    #[test]
    #[should_panic(expected = "settled twice")]
    fn settling_twice_is_a_broken_invariant() {
        let mut ledger = AckLedger::default();
        let blocker = ledger.receive(1);
        let token = ledger.receive(2);
        let _ = blocker;
        ledger.settle(token);
        ledger.settle(token);
    }

    proptest! {
        /// Whatever the order of settling, PUBACKs leave in the order of the PUBLISHes and never
        /// before their own message is settled.
        #[test]
        fn acknowledgements_are_a_settled_prefix_in_order(
            order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(),
            takes in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let mut ledger = AckLedger::default();
            let tokens: Vec<_> = (0..40u16).map(|id| ledger.receive(id + 1)).collect();
            let mut settled = [false; 40];
            let mut sent = Vec::new();
            for (&place, &take) in order.iter().zip(&takes) {
                ledger.settle(tokens[place]);
                settled[place] = true;
                if take {
                    ledger.take_ready(&mut sent);
                    let prefix = settled.iter().take_while(|&&done| done).count();
                    prop_assert_eq!(sent.len(), prefix);
                }
            }
            ledger.take_ready(&mut sent);
            prop_assert_eq!(sent, (1..=40u16).collect::<Vec<_>>());
        }
    }
}
