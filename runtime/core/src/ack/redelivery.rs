//! The redelivery filter of one MQTT session: it recognises messages that were decoded on an earlier
//! connection.
//!
//! Only for routes that keep state: decoded again, a message would be counted twice. A message is skipped
//! only if all of this holds: the same session, the same packet id, DUP set, the same digest, no PUBACK
//! of it written to a socket, and no later PUBLISH with that id. In doubt a message is decoded again. A
//! record that is forgotten, or lost with the process, may lead to a double count and never to a loss.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::ack::ledger::AckLedger;
use crate::books::Outcome;

/// A message that was decoded and has no PUBACK.
#[derive(Clone, Copy, Debug)]
struct DecodedRecord {
    digest: u64,
    outcome: Outcome,
}

#[derive(Debug, Default)]
struct FilterState {
    /// Ids whose last PUBLISH has no PUBACK and whose connection has ended.
    unacknowledged: HashSet<u16, foldhash::fast::RandomState>,
    decoded: HashMap<u16, DecodedRecord, foldhash::fast::RandomState>,
    /// The ledger of the session's present connection.
    ledger: Weak<Mutex<AckLedger>>,
}

/// The unacknowledged messages of one session, over its connections.
#[derive(Debug)]
pub struct RedeliveryFilter {
    inner: Mutex<FilterState>,
    ids_max: usize,
    /// Seeded at random, so that nobody can make two messages with one digest.
    hasher: foldhash::quality::RandomState,
    /// `unacknowledged` is not empty. Sessions without any take no lock.
    has_unacknowledged: AtomicBool,
    /// `decoded` is not empty.
    has_decoded: AtomicBool,
}

impl RedeliveryFilter {
    /// Remembers at most `ids_max` unacknowledged messages of one connection.
    pub fn new(ids_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            ids_max,
            hasher: foldhash::quality::RandomState::default(),
            has_unacknowledged: AtomicBool::new(false),
            has_decoded: AtomicBool::new(false),
        }
    }

    /// Resumes the session on the connection of `ledger`; the connection before it ends.
    pub(super) fn begin(&self, ledger: &Arc<Mutex<AckLedger>>) {
        let before = std::mem::replace(&mut self.inner.lock().ledger, Arc::downgrade(ledger));
        if let Some(before) = before.upgrade() {
            self.end(&before);
        }
    }

    /// Records a PUBLISH. True: it may be one that was received before.
    pub(super) fn receive(&self, packet_id: u16, dup: bool) -> bool {
        if !self.has_unacknowledged.load(Ordering::Acquire) {
            return false;
        }
        let mut inner = self.inner.lock();
        let awaited = inner.unacknowledged.remove(&packet_id);
        self.has_unacknowledged.store(!inner.unacknowledged.is_empty(), Ordering::Release);
        awaited && dup
    }

    /// Forgets messages whose PUBACKs are about to be written.
    pub(super) fn acknowledge(&self, packet_ids: &[u16]) {
        if packet_ids.is_empty() || !self.has_decoded.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.inner.lock();
        for packet_id in packet_ids {
            inner.decoded.remove(packet_id);
        }
        self.has_decoded.store(!inner.decoded.is_empty(), Ordering::Release);
    }

    /// Ends the ledger of a connection and remembers its messages without a PUBACK. Gives how many were
    /// unsettled.
    pub(super) fn end(&self, ledger: &Mutex<AckLedger>) -> usize {
        let mut ledger = ledger.lock();
        if !ledger.has_ended() {
            self.await_again(ledger.unacknowledged());
        }
        ledger.end()
    }

    fn await_again(&self, packet_ids: impl Iterator<Item = u16>) {
        let mut inner = self.inner.lock();
        // Ids of earlier connections that were not received since are still awaited.
        let room = self.ids_max.saturating_sub(inner.unacknowledged.len());
        inner.unacknowledged.extend(packet_ids.take(room));
        self.has_unacknowledged.store(!inner.unacknowledged.is_empty(), Ordering::Release);
    }

    /// True if none of its messages can be sent again.
    pub fn is_over(&self) -> bool {
        !self.has_unacknowledged.load(Ordering::Acquire)
    }

    pub(super) fn record_decoded(&self, packet_id: u16, topic: &str, payload: &[u8], outcome: Outcome) {
        let decoded = DecodedRecord { digest: self.digest(topic, payload), outcome };
        let mut inner = self.inner.lock();
        inner.decoded.insert(packet_id, decoded);
        self.has_decoded.store(true, Ordering::Release);
    }

    /// The outcome of an earlier message with the same id, topic and payload.
    pub(super) fn decoded(&self, packet_id: u16, topic: &str, payload: &[u8]) -> Option<Outcome> {
        let known = *self.inner.lock().decoded.get(&packet_id)?;
        (known.digest == self.digest(topic, payload)).then_some(known.outcome)
    }

    fn digest(&self, topic: &str, payload: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_usize(topic.len());
        hasher.write(topic.as_bytes());
        hasher.write(payload);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::token::AckToken;
    use crate::ack::tracker::AckTracker;
    use crate::ack::window::ReceiveWindow;
    use crate::books::{Account, Outcome};
    use std::sync::Arc;

    struct Rig {
        session: Arc<RedeliveryFilter>,
        window: Arc<ReceiveWindow>,
        connection: Arc<AckTracker>,
    }

    impl Rig {
        fn new() -> Self {
            let window = Arc::new(ReceiveWindow::new(100, 10_000));
            let session = Arc::new(RedeliveryFilter::new(10));
            let connection = AckTracker::builder(window.clone()).session(Some(session.clone())).build();
            Self { session, window, connection }
        }

        /// The connection is lost, and another made.
        fn reconnect(&mut self) {
            self.connection.end();
            self.connection =
                AckTracker::builder(self.window.clone()).session(Some(self.session.clone())).build();
        }

        fn decode(&self, packet_id: u16, dup: bool, payload: &[u8]) -> (AckToken, Option<Outcome>) {
            let token = self.connection.receive_publish(packet_id, dup, 1);
            let before = token.earlier_outcome("t", payload);
            if before.is_none() {
                token.record_decoded("t", payload, Outcome::Lines);
            }
            (token, before)
        }

        fn acknowledge(&self, token: AckToken) {
            let account = Account::new("acme".into());
            account.receive(1);
            token.settle(Outcome::Lines, &account);
            self.connection.take_ready(&mut Vec::new());
        }
    }

    #[test]
    fn what_was_decoded_and_not_acknowledged_is_known_when_it_comes_again() {
        let mut rig = Rig::new();
        let first = rig.decode(7, false, b"x");
        assert_eq!(first.1, None);
        for _ in 0..3 {
            rig.reconnect();
            assert_eq!(rig.decode(7, true, b"x").1, Some(Outcome::Lines));
        }
        // A connection that was lost before anything came changes nothing.
        rig.reconnect();
        rig.reconnect();
        assert_eq!(rig.decode(7, true, b"x").1, Some(Outcome::Lines));
    }

    #[test]
    fn whatever_is_in_doubt_is_decoded_again() {
        // No DUP.
        let mut rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        rig.reconnect();
        assert_eq!(rig.decode(7, false, b"x").1, None);
        // Another digest.
        let mut rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        rig.reconnect();
        assert_eq!(rig.decode(7, true, b"y").1, None);
        // Another packet id.
        let mut rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        rig.reconnect();
        assert_eq!(rig.decode(8, true, b"x").1, None);
        // A PUBACK was written.
        let mut rig = Rig::new();
        rig.acknowledge(rig.decode(7, false, b"x").0);
        rig.reconnect();
        assert_eq!(rig.decode(7, true, b"x").1, None);
        // A later PUBLISH had that id.
        let mut rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        rig.reconnect();
        let _other = rig.connection.receive_publish(7, false, 1);
        assert_eq!(rig.decode(7, true, b"x").1, None);
        // The same connection: its sender has lost patience, and nobody knows what it thinks.
        let rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        assert_eq!(rig.decode(7, true, b"x").1, None);
        // Another session.
        let mut rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        rig.session = Arc::new(RedeliveryFilter::new(10));
        rig.reconnect();
        assert_eq!(rig.decode(7, true, b"x").1, None);
        // No session.
        let connection = AckTracker::new(rig.window.clone());
        let token = connection.receive_publish(7, true, 1);
        token.record_decoded("t", b"x", Outcome::Lines);
        assert_eq!(token.earlier_outcome("t", b"x"), None);
    }

    #[test]
    fn an_id_is_awaited_once_a_connection() {
        let mut rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        rig.reconnect();
        let (again, known) = rig.decode(7, true, b"x");
        assert_eq!(known, Some(Outcome::Lines));
        rig.acknowledge(again);
        assert_eq!(rig.decode(7, true, b"x").1, None);
        assert!(rig.session.is_over());
    }

    #[test]
    fn a_connection_that_lingers_ends_when_its_session_goes_on() {
        let mut rig = Rig::new();
        let _first = rig.decode(7, false, b"x");
        let lingering = rig.connection.clone();
        rig.connection = AckTracker::builder(rig.window.clone()).session(Some(rig.session.clone())).build();
        assert!(lingering.has_ended());
        assert_eq!(rig.decode(7, true, b"x").1, Some(Outcome::Lines));
        // What it says of its end later changes nothing.
        lingering.end();
        assert!(rig.session.is_over());
    }

    #[test]
    fn what_is_over_the_bound_is_forgotten() {
        let mut rig = Rig::new();
        let _all: Vec<_> = (1..=20).map(|id| rig.decode(id, false, b"x")).collect();
        rig.reconnect();
        let known = (1..=20).filter(|&id| rig.decode(id, true, b"x").1.is_some()).count();
        assert_eq!(known, 10);
    }
}
