//! A message's claim on its source: held from receipt until the outcome is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::acks::{AckLedger, NO_PACKET_ID, SlotIndex, Told};
use super::books::{Account, Outcome};
use super::detail::Detail;
use super::histogram::Histogram;
use super::limits::TOLD_BYTES_MAX;
use super::parked::Release;
use super::reason::Reason;
use super::replay::Replay;
use super::session::Session;

/// How many messages and bytes the whole gateway holds unsettled; sources stop reading at the
/// ceilings and go on when there is room again.
#[derive(Debug)]
pub struct Window {
    messages: AtomicU64,
    bytes: AtomicU64,
    messages_max: u64,
    bytes_max: u64,
    room: Notify,
    /// From receipt to settlement; in a group that is settled together, that of its oldest message.
    pub ack_latency: Histogram,
}

impl Window {
    pub fn new(messages_max: u64, bytes_max: u64) -> Self {
        Self {
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            messages_max,
            bytes_max,
            room: Notify::new(),
            ack_latency: Histogram::default(),
        }
    }

    /// Messages received and not yet settled.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }

    /// Payload and topic bytes received and not yet settled.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub fn messages_max(&self) -> u64 {
        self.messages_max
    }

    pub fn is_full(&self) -> bool {
        self.messages() >= self.messages_max || self.bytes() >= self.bytes_max
    }

    /// Whether so much is unsettled that sources are about to stop.
    pub fn is_half_full(&self) -> bool {
        self.messages() * 2 >= self.messages_max || self.bytes() * 2 >= self.bytes_max
    }

    /// Waits until the window is no longer full.
    pub async fn room(&self) {
        loop {
            let notified = self.room.notified();
            if !self.is_full() {
                return;
            }
            notified.await;
        }
    }

    fn take(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn give_back(&self, messages: u64, bytes: u64) {
        let was_full = self.is_full();
        self.messages.fetch_sub(messages, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if was_full && !self.is_full() {
            self.room.notify_waiters();
        }
    }
}

/// How the sender of a refused message can be told why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tells {
    /// Not at all.
    #[default]
    Nothing,
    /// With the acknowledgement (MQTT 5).
    Acknowledgement,
    /// By a message on a topic of its own at the broker.
    Topic,
}

/// One connection's side of the acknowledgements: the source receives and sends, everything
/// downstream settles.
#[derive(Debug)]
pub struct Connection {
    ledger: Mutex<AckLedger>,
    /// Wakes the source's task when PUBACKs may be ready.
    pub settled: Notify,
    window: Arc<Window>,
    tells: Tells,
    opened: Instant,
    /// When the source last read from the socket, in microseconds since `opened`.
    read_at_us: AtomicU64,
    /// Messages that wait because their tenant's share of the spool is full.
    held: AtomicU64,
    /// Where its peer goes on after it.
    session: Option<Arc<Session>>,
}

impl Connection {
    pub fn new(window: Arc<Window>) -> Arc<Self> {
        Self::open(window, Tells::Nothing, None)
    }

    /// A connection whose sender can be told why a message was refused.
    pub fn telling(window: Arc<Window>, tells: Tells) -> Arc<Self> {
        Self::open(window, tells, None)
    }

    /// One of a session, which goes on with it; the session's connection before it ends.
    pub fn of_session(window: Arc<Window>, session: Option<Arc<Session>>) -> Arc<Self> {
        Self::open(window, Tells::Nothing, session)
    }

    /// One whose sender can be told so, of a session or of none.
    pub fn open(window: Arc<Window>, tells: Tells, session: Option<Arc<Session>>) -> Arc<Self> {
        let connection = Arc::new(Self {
            ledger: Mutex::default(),
            settled: Notify::new(),
            window,
            tells,
            opened: Instant::now(),
            read_at_us: AtomicU64::new(0),
            held: AtomicU64::new(0),
            session,
        });
        if let Some(session) = &connection.session {
            session.begin(Arc::downgrade(&connection));
        }
        connection
    }

    /// Notes that the source has read from the socket: what it receives from now on came now. One
    /// reading of the clock serves all messages of a read.
    pub fn note_read(&self) {
        self.read_at_us.store(self.now_us(), Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        self.opened.elapsed().as_micros() as u64
    }

    /// Notes a QoS 1 PUBLISH of `bytes` and gives the slot that stands for it.
    pub fn receive(self: &Arc<Self>, packet_id: u16, bytes: usize) -> Slot {
        self.receive_publish(packet_id, false, bytes)
    }

    /// As `receive`, of one that may have been sent before (DUP).
    pub fn receive_publish(self: &Arc<Self>, packet_id: u16, dup: bool, bytes: usize) -> Slot {
        let may_be_known = self.session.as_ref().is_some_and(|session| session.receive(packet_id, dup));
        let index = self.ledger.lock().receive(packet_id);
        let mut slot = self.slot(Some(index), bytes);
        (slot.packet_id, slot.may_be_known) = (packet_id, may_be_known);
        slot
    }

    /// Notes a QoS 0 PUBLISH of `bytes`: it takes room in the window and wants no PUBACK.
    pub fn receive_unacknowledged(self: &Arc<Self>, bytes: usize) -> Slot {
        self.slot(None, bytes)
    }

    fn slot(self: &Arc<Self>, index: Option<SlotIndex>, bytes: usize) -> Slot {
        let bytes = bytes.min(u32::MAX as usize) as u32;
        self.window.take(u64::from(bytes));
        let received_us = self.read_at_us.load(Ordering::Relaxed);
        Slot {
            connection: self.clone(),
            index,
            received_us,
            bytes,
            packet_id: NO_PACKET_ID,
            may_be_known: false,
            open: true,
            waits: false,
            replay: None,
            release: None,
        }
    }

    /// Takes the packet ids whose PUBACKs may leave now, in order.
    pub fn take_ready(&self, packet_ids: &mut Vec<u16>) {
        self.ledger.lock().take_ready(packet_ids);
        if let Some(session) = &self.session {
            session.acknowledge(packet_ids);
        }
    }

    /// As `take_ready`, each with what its PUBACK is to tell.
    pub fn take_ready_with(&self, mut each: impl FnMut(u16, Option<Told>)) {
        let mut packet_ids = Vec::new();
        self.ledger.lock().take_ready_with(|packet_id, told| {
            if self.session.is_some() {
                packet_ids.push(packet_id);
            }
            each(packet_id, told);
        });
        if let Some(session) = &self.session {
            session.acknowledge(&packet_ids);
        }
    }

    /// How the senders of its messages are told of refusals.
    pub fn tells(&self) -> Tells {
        self.tells
    }

    /// The connection is gone: nothing of it is acknowledged from now on.
    pub fn end(&self) -> usize {
        let mut ledger = self.ledger.lock();
        if let Some(session) = self.session.as_ref().filter(|_| !ledger.has_ended()) {
            session.end(ledger.unacknowledged());
        }
        ledger.end()
    }

    /// Whether nothing of it is acknowledged any more.
    pub fn has_ended(&self) -> bool {
        self.ledger.lock().has_ended()
    }

    /// PUBLISHes of this connection without a PUBACK.
    pub fn outstanding(&self) -> usize {
        self.ledger.lock().outstanding()
    }

    /// Messages of this connection that wait because their tenant's share is full.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }
}

/// One message's claim on an outcome. It must be settled; one that is dropped unsettled is never
/// acknowledged, so a forgotten message is sent again rather than lost.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    connection: Arc<Connection>,
    index: Option<SlotIndex>,
    received_us: u64,
    bytes: u32,
    packet_id: u16,
    /// It came again, and its session may know it.
    may_be_known: bool,
    /// Neither settled nor dropped.
    open: bool,
    /// It is counted in `Connection::held`.
    waits: bool,
    replay: Option<Arc<Replay>>,
    /// Of a message that was parked: what keeps it until it is settled.
    release: Option<Box<dyn Release>>,
}

impl Slot {
    /// The same, of a message that came out of quarantine.
    pub fn replaying(mut self, replay: Arc<Replay>) -> Self {
        self.replay = Some(replay);
        self
    }

    /// The same, of a message that was parked.
    pub fn releasing(mut self, release: Box<dyn Release>) -> Self {
        self.release = Some(release);
        self
    }

    /// Whether the message was parked, and stays so unless it is settled.
    pub fn was_parked(&self) -> bool {
        self.release.is_some()
    }

    /// What the message comes from, where it came out of quarantine.
    pub fn replay(&self) -> Option<&Replay> {
        self.replay.as_deref()
    }

    /// Settles this one message, counted in `account`.
    pub fn settle(self, outcome: Outcome, account: &Account) {
        settle_all(std::iter::once(self), outcome, account);
    }

    /// The message waits for room that others of its tenant take; its source should not read on for
    /// long.
    pub fn hold(&mut self) {
        if !std::mem::replace(&mut self.waits, true) {
            self.connection.held.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The message goes on, or is gone.
    pub fn unhold(&mut self) {
        if std::mem::replace(&mut self.waits, false) {
            self.connection.held.fetch_sub(1, Ordering::AcqRel);
            self.connection.settled.notify_one();
        }
    }

    /// The message is refused, and its sender is to be told why where it can be; to be called before
    /// it is settled.
    pub fn tell(&self, reason: Reason, detail: &Detail) {
        let (Tells::Acknowledgement, Some(index)) = (self.connection.tells, self.index) else { return };
        let detail = detail.shortened(TOLD_BYTES_MAX);
        self.connection.ledger.lock().tell(index, Told { reason, detail });
    }

    /// The message was decoded by a guest that keeps state: if it comes again unacknowledged, it is
    /// known.
    pub fn note_decoded(&self, topic: &str, payload: &[u8], outcome: Outcome) {
        if let Some(session) = self.connection.session.as_ref().filter(|_| self.comes_again()) {
            session.note_decoded(self.packet_id, topic, payload, outcome);
        }
    }

    /// How the message ended before, where it comes again and there is no doubt that it is the same.
    pub fn decoded_before(&self, topic: &str, payload: &[u8]) -> Option<Outcome> {
        let session = self.connection.session.as_ref().filter(|_| self.may_be_known)?;
        session.decoded(self.packet_id, topic, payload)
    }

    /// Whether its session may know it.
    pub fn may_be_known(&self) -> bool {
        self.may_be_known
    }

    /// Whether it stands for an entry of quarantine that is taken up again.
    pub fn is_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether its sender will send it again unless it is acknowledged (QoS 1).
    pub fn comes_again(&self) -> bool {
        self.index.is_some()
    }

    /// Whether the connection of a QoS 1 message has ended: it comes again whatever becomes of it.
    pub fn is_orphan(&self) -> bool {
        self.index.is_some() && self.connection.ledger.lock().has_ended()
    }

    /// The connection that this message came by.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.unhold();
        if self.open {
            self.connection.window.give_back(1, u64::from(self.bytes));
        }
        if let Some(release) = self.release.take() {
            release.back();
        }
    }
}

/// Settles many messages of one account with one outcome; slots of one connection that stand
/// beside each other take its lock once.
pub fn settle_all(slots: impl IntoIterator<Item = Slot>, outcome: Outcome, account: &Account) {
    Settling::default().settle_all(slots, outcome, account);
}

/// Connections of which messages were settled together. Each is woken once, when all of them are:
/// PUBACKs of one group leave in one write.
#[derive(Debug, Default)]
pub struct Settling(Vec<Arc<Connection>>);

impl Settling {
    /// As the function of that name, but for the waking.
    pub fn settle_all(&mut self, slots: impl IntoIterator<Item = Slot>, outcome: Outcome, account: &Account) {
        settle(slots, outcome, account, |connection| {
            if self.0.last().is_none_or(|last| !Arc::ptr_eq(last, &connection)) {
                self.0.push(connection);
            }
        });
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.sort_unstable_by_key(|connection| Arc::as_ptr(connection) as usize);
        self.0.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for connection in &self.0 {
            connection.settled.notify_one();
        }
    }
}

fn settle(
    slots: impl IntoIterator<Item = Slot>,
    outcome: Outcome,
    account: &Account,
    mut settled_of: impl FnMut(Arc<Connection>),
) {
    let mut slots = slots.into_iter().peekable();
    let mut released = Vec::new();
    while let Some(first) = slots.next() {
        let connection = first.connection.clone();
        let (mut messages, mut bytes, received_us) = (0, 0, first.received_us);
        {
            let (mut settled, mut abandoned) = (0, 0);
            let mut ledger = connection.ledger.lock();
            let mut next = Some(first);
            while let Some(mut slot) = next {
                slot.open = false;
                messages += 1;
                bytes += u64::from(slot.bytes);
                if let Some(replay) = &slot.replay {
                    replay.settle(outcome);
                }
                released.extend(slot.release.take());
                match slot.index {
                    Some(index) if !ledger.settle(index) => abandoned += 1,
                    _ => settled += 1,
                }
                next = slots.next_if(|slot| Arc::ptr_eq(&slot.connection, &connection));
            }
            // In the books before its PUBACK can leave.
            if settled > 0 {
                account.settle(outcome, settled);
            }
            if abandoned > 0 {
                account.abandon(abandoned);
                if outcome == Outcome::Parked {
                    // It comes again, and is taken up all the same.
                    account.restore_parked(abandoned);
                }
            }
        }
        connection.window.give_back(messages, bytes);
        let waited = Duration::from_micros(connection.now_us().saturating_sub(received_us));
        connection.window.ack_latency.observe(waited, messages);
        settled_of(connection);
    }
    released.iter().for_each(|release| release.done());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> (Arc<Window>, Arc<Connection>) {
        let window = Arc::new(Window::new(10, 1000));
        (window.clone(), Connection::new(window))
    }

    #[test]
    fn settled_messages_give_their_room_back_and_are_acknowledged_in_order() {
        let (window, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(3);
        let slots: Vec<_> = (1..=3).map(|id| connection.receive(id, 100)).collect();
        assert_eq!((window.messages(), window.bytes()), (3, 300));
        settle_all(slots, Outcome::Lines, &account);
        assert_eq!((window.messages(), window.bytes()), (0, 0));
        let mut ids = Vec::new();
        connection.take_ready(&mut ids);
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(account.snapshot().messages.lines, 3);
    }

    #[test]
    fn what_is_settled_after_the_connection_ended_is_abandoned() {
        let (window, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(1);
        let slot = connection.receive(1, 10);
        connection.end();
        slot.settle(Outcome::Lines, &account);
        let books = account.snapshot().messages;
        assert_eq!((books.lines, books.abandoned, books.in_flight), (0, 1, 0));
        assert_eq!(window.messages(), 0);
    }

    #[derive(Debug)]
    struct Told(Arc<Mutex<Vec<&'static str>>>);

    impl Release for Told {
        fn done(&self) {
            self.0.lock().push("done");
        }

        fn back(&self) {
            self.0.lock().push("back");
        }
    }

    #[test]
    fn what_was_parked_is_released_by_its_settlement_and_by_nothing_else() {
        let (_, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(2);
        let told = Arc::new(Mutex::new(Vec::new()));
        let slot = |id| connection.receive(id, 10).releasing(Box::new(Told(told.clone())));
        let (settled, forgotten) = (slot(1), slot(2));
        assert!(settled.was_parked());
        settled.settle(Outcome::Empty, &account);
        assert_eq!(*told.lock(), ["done"]);
        drop(forgotten);
        assert_eq!(*told.lock(), ["done", "back"]);
    }

    #[test]
    fn what_is_parked_after_its_connection_ended_is_received_twice() {
        let (_, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(1);
        let slot = connection.receive(1, 10);
        connection.end();
        slot.settle(Outcome::Parked, &account);
        let books = account.snapshot();
        assert!(books.balanced());
        assert_eq!((books.messages.received, books.messages.abandoned, books.messages.parked), (2, 1, 1));
    }

    #[tokio::test]
    async fn connections_are_woken_once_a_group_and_not_before_its_end() {
        let (window, one) = connection();
        let two = Connection::new(window);
        let account = Account::new("acme".into());
        account.receive(4);
        let woken = |connection: &Connection| {
            let mut settled = std::pin::pin!(connection.settled.notified());
            settled.as_mut().enable()
        };
        let mut settling = Settling::default();
        for connection in [&one, &two, &one, &two] {
            settling.settle_all([connection.receive(1, 10)], Outcome::Lines, &account);
        }
        assert!(!woken(&one) && !woken(&two));
        drop(settling);
        assert!(woken(&one) && woken(&two));
        assert!(!woken(&one) && !woken(&two));
    }

    #[tokio::test]
    async fn a_full_window_opens_when_messages_are_settled() {
        let window = Arc::new(Window::new(1, 1000));
        let connection = Connection::new(window.clone());
        let account = Account::new("acme".into());
        account.receive(1);
        let slot = connection.receive(1, 10);
        assert!(window.is_full());
        let waiting = tokio::spawn({
            let window = window.clone();
            async move { window.room().await }
        });
        tokio::task::yield_now().await;
        slot.settle(Outcome::Empty, &account);
        waiting.await.unwrap();
    }
}
