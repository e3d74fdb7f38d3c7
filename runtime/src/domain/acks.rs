//! The ledger of one connection: which PUBLISHes came, which are settled, which PUBACKs may leave.
//!
//! A pure state machine, one a connection generation. PUBACKs leave in the order of the PUBLISHes
//! [MQTT-4.6.0-2], so `ready` gives only the longest settled prefix. When the connection ends the
//! ledger ends with it: what is settled later settles into nothing, because the broker will send
//! those messages again and the same packet id will mean another message.

use std::collections::VecDeque;

/// Stands in for the packet id of a message that wants no PUBACK (QoS 0).
pub const NO_PACKET_ID: u16 = 0;

/// A place in one ledger. Never reused within a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotIndex(pub u64);

#[derive(Debug)]
struct Entry {
    packet_id: u16,
    settled: bool,
}

/// The PUBLISHes of one connection that have no PUBACK yet, oldest first.
#[derive(Debug, Default)]
pub struct AckLedger {
    entries: VecDeque<Entry>,
    /// The index of `entries[0]`.
    first: u64,
    ended: bool,
}

impl AckLedger {
    /// Notes a QoS 1 PUBLISH as it comes from the wire.
    pub fn receive(&mut self, packet_id: u16) -> SlotIndex {
        let index = SlotIndex(self.first + self.entries.len() as u64);
        self.entries.push_back(Entry { packet_id, settled: false });
        index
    }

    /// Notes that the outcome of a message is settled. False when it counts for nothing: the
    /// connection has ended.
    ///
    /// # Panics
    /// When a slot is settled twice or was never given out: both would acknowledge a message that
    /// nobody has made durable.
    pub fn settle(&mut self, index: SlotIndex) -> bool {
        if self.ended {
            return false;
        }
        let place = index.0.checked_sub(self.first).expect("a slot that left the ledger was settled");
        let entry = &mut self.entries[place as usize];
        assert!(!entry.settled, "a slot was settled twice");
        entry.settled = true;
        true
    }

    /// Takes the packet ids whose PUBACKs may leave now, in order, into `packet_ids`.
    pub fn take_ready(&mut self, packet_ids: &mut Vec<u16>) {
        while self.entries.front().is_some_and(|entry| entry.settled) {
            let entry = self.entries.pop_front().expect("just seen");
            self.first += 1;
            packet_ids.push(entry.packet_id);
        }
    }

    /// The connection is gone: nothing of it will be acknowledged any more. Gives how many
    /// messages were unsettled.
    pub fn end(&mut self) -> usize {
        self.ended = true;
        let unsettled = self.entries.iter().filter(|entry| !entry.settled).count();
        self.entries.clear();
        unsettled
    }

    /// Packet ids of PUBLISHes without a PUBACK, oldest first.
    pub fn unacknowledged(&self) -> impl Iterator<Item = u16> {
        self.entries.iter().map(|entry| entry.packet_id)
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// PUBLISHes without a PUBACK, settled or not.
    pub fn outstanding(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let slot = ledger.receive(2);
        let _ = blocker;
        ledger.settle(slot);
        ledger.settle(slot);
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
            let slots: Vec<_> = (0..40u16).map(|id| ledger.receive(id + 1)).collect();
            let mut settled = [false; 40];
            let mut sent = Vec::new();
            for (&place, &take) in order.iter().zip(&takes) {
                ledger.settle(slots[place]);
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
