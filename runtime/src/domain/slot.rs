//! A message's claim on its source: held from receipt until the outcome is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::acks::{AckLedger, NO_PACKET_ID, SlotIndex, Told};
use super::activity::{Activity, InFlightGuard};
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
    opened: Instant,
    /// The gateway stops: what is let go unsettled now ends no connection.
    stopping: AtomicBool,
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
            opened: Instant::now(),
            stopping: AtomicBool::new(false),
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

    /// The gateway stops. From now on a message that is let go unsettled ends no connection: those in
    /// front of it still get their PUBACKs.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn now_us(&self) -> u64 {
        self.opened.elapsed().as_micros() as u64
    }

    fn observe_latency(&self, received_us: u64, messages: u64) {
        let waited = Duration::from_micros(self.now_us().saturating_sub(received_us));
        self.ack_latency.observe(waited, messages);
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
    /// When the source last read from the socket, in microseconds since the window was opened.
    read_at_us: AtomicU64,
    /// Messages that wait because their tenant's share of the spool is full.
    held: AtomicU64,
    /// The tenant of these has no room for more that wait: its devices are not read.
    stalled: AtomicBool,
    /// A message of it was let go unsettled.
    lost: AtomicBool,
    /// Its peer is a device that connected to us, and no broker.
    is_of_a_device: bool,
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

    /// One of a device that connected to us.
    pub fn of_device(window: Arc<Window>, tells: Tells, session: Option<Arc<Session>>) -> Arc<Self> {
        Self::make(window, tells, session, true)
    }

    /// One whose sender can be told so, of a session or of none.
    pub fn open(window: Arc<Window>, tells: Tells, session: Option<Arc<Session>>) -> Arc<Self> {
        Self::make(window, tells, session, false)
    }

    fn make(
        window: Arc<Window>,
        tells: Tells,
        session: Option<Arc<Session>>,
        is_of_a_device: bool,
    ) -> Arc<Self> {
        let connection = Arc::new(Self {
            ledger: Mutex::default(),
            settled: Notify::new(),
            window,
            tells,
            read_at_us: AtomicU64::new(0),
            held: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            is_of_a_device,
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
        self.read_at_us.store(self.window.now_us(), Ordering::Relaxed);
    }

    /// Notes a QoS 1 PUBLISH of `bytes` and gives the slot that stands for it.
    pub fn receive(self: &Arc<Self>, packet_id: u16, bytes: usize) -> Slot {
        self.receive_publish(packet_id, false, bytes)
    }

    /// As `receive`, of one that may have been sent before (DUP).
    pub fn receive_publish(self: &Arc<Self>, packet_id: u16, dup: bool, bytes: usize) -> Slot {
        let may_be_known = self.session.as_ref().is_some_and(|session| session.receive(packet_id, dup));
        let index = self.ledger.lock().receive(packet_id);
        self.slot(Some(index), packet_id, may_be_known, bytes)
    }

    /// Notes a QoS 0 PUBLISH: nobody waits for its acknowledgement, but it takes room as others do.
    pub fn receive_unacknowledged(self: &Arc<Self>, bytes: usize) -> Slot {
        self.slot(None, NO_PACKET_ID, false, bytes)
    }

    fn slot(
        self: &Arc<Self>,
        index: Option<SlotIndex>,
        packet_id: u16,
        may_be_known: bool,
        bytes: usize,
    ) -> Slot {
        let received_us = self.read_at_us.load(Ordering::Relaxed);
        Slot::new(
            Origin::Mqtt { connection: self.clone(), index, packet_id, may_be_known },
            bytes,
            received_us,
        )
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

    /// Whether the tenant of messages that wait has no room for more of them.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Whether a message of it was let go unsettled while it lived. It is to end, so that the message
    /// comes again: its PUBACK would never come, and none behind it either.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    fn lose(&self) {
        if !self.window.stopping.load(Ordering::Acquire) && !self.has_ended() {
            self.lost.store(true, Ordering::Release);
            self.settled.notify_one();
        }
    }

    fn resume(&self) {
        if self.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stalled.store(false, Ordering::Release);
        }
        self.settled.notify_one();
    }
}

/// Where a message came from, with what has to be told of its outcome.
#[derive(Debug)]
pub enum Origin {
    Mqtt {
        connection: Arc<Connection>,
        /// `None`: QoS 0.
        index: Option<SlotIndex>,
        packet_id: u16,
        /// It came again, and its session may know it.
        may_be_known: bool,
    },
    /// Out of quarantine.
    Replay { window: Arc<Window>, entry: Arc<Replay> },
    /// Out of the spool, which keeps it until it is settled.
    Parked { window: Arc<Window>, release: Box<dyn Release>, replay: Option<Arc<Replay>> },
    /// Of a trial or a dry run: nobody is told, and it takes no room.
    Trial,
}

/// How far a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It takes room in its window.
    Open,
    /// It waits for room in the spool, and takes none in its window.
    Deferred,
    Settled,
}

/// One message's claim on an outcome. It must be settled; one that is dropped unsettled is never
/// acknowledged: its connection ends, so that a forgotten message is sent again rather than lost.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    origin: Origin,
    in_flight: Option<InFlightGuard>,
    received_us: u64,
    bytes: u32,
    stage: Stage,
}

impl Slot {
    fn new(origin: Origin, bytes: usize, received_us: u64) -> Self {
        let bytes = bytes.min(u32::MAX as usize) as u32;
        let slot = Self { origin, in_flight: None, received_us, bytes, stage: Stage::Open };
        if let Some(window) = slot.window() {
            window.take(u64::from(bytes));
        }
        slot
    }

    /// That of a message out of quarantine.
    pub fn replayed(window: &Arc<Window>, entry: Arc<Replay>, bytes: usize) -> Self {
        let now_us = window.now_us();
        Self::new(Origin::Replay { window: window.clone(), entry }, bytes, now_us)
    }

    /// That of a message that was parked.
    pub fn parked(
        window: &Arc<Window>,
        release: Box<dyn Release>,
        replay: Option<Arc<Replay>>,
        bytes: usize,
    ) -> Self {
        let now_us = window.now_us();
        Self::new(Origin::Parked { window: window.clone(), release, replay }, bytes, now_us)
    }

    /// That of a message that nobody sent.
    pub fn trial() -> Self {
        Self::new(Origin::Trial, 0, 0)
    }

    fn window(&self) -> Option<&Arc<Window>> {
        match &self.origin {
            Origin::Mqtt { connection, .. } => Some(&connection.window),
            Origin::Replay { window, .. } | Origin::Parked { window, .. } => Some(window),
            Origin::Trial => None,
        }
    }

    fn mqtt(&self) -> Option<(&Arc<Connection>, Option<SlotIndex>)> {
        match &self.origin {
            Origin::Mqtt { connection, index, .. } => Some((connection, *index)),
            _ => None,
        }
    }

    /// Counts the message in `activity` until it is settled, dropped, or taken out.
    pub fn enter(&mut self, activity: &Arc<Activity>) {
        self.in_flight = Some(activity.enter());
    }

    /// Takes out what counts the message as on its way.
    pub fn take_in_flight(&mut self) -> Option<InFlightGuard> {
        self.in_flight.take()
    }

    /// What the message comes from, where it came out of quarantine.
    pub fn replay(&self) -> Option<&Replay> {
        match &self.origin {
            Origin::Replay { entry, .. } => Some(entry),
            Origin::Parked { replay, .. } => replay.as_deref(),
            Origin::Mqtt { .. } | Origin::Trial => None,
        }
    }

    /// Settles this one message, counted in `account`.
    pub fn settle(self, outcome: Outcome, account: &Account) {
        settle_all(std::iter::once(self), outcome, account);
    }

    /// The message waits for room that others of its tenant take. It leaves the window, so that it
    /// stands in nobody's way; whoever defers it bounds what waits. `stalled`: its tenant has no room
    /// for more that waits, and its source should not read on.
    pub fn hold(&mut self, stalled: bool) {
        if self.stage != Stage::Open {
            return;
        }
        self.stage = Stage::Deferred;
        if let Some(window) = self.window() {
            window.give_back(1, u64::from(self.bytes));
        }
        if let Some((connection, _)) = self.mqtt() {
            connection.held.fetch_add(1, Ordering::AcqRel);
            connection.stalled.fetch_or(stalled, Ordering::AcqRel);
        }
    }

    /// The message goes on, in its window again.
    pub fn unhold(&mut self) {
        if self.stage != Stage::Deferred {
            return;
        }
        self.stage = Stage::Open;
        if let Some(window) = self.window() {
            window.take(u64::from(self.bytes));
        }
        if let Some((connection, _)) = self.mqtt() {
            connection.resume();
        }
    }

    /// Ends its stay, and gives what it took in its window: messages and bytes.
    fn close(&mut self) -> (u64, u64) {
        let before = std::mem::replace(&mut self.stage, Stage::Settled);
        if before == Stage::Deferred
            && let Some((connection, _)) = self.mqtt()
        {
            connection.resume();
        }
        if before == Stage::Open { (1, u64::from(self.bytes)) } else { (0, 0) }
    }

    /// The message is refused, and its sender is to be told why where it can be; to be called before
    /// it is settled.
    pub fn tell(&self, reason: Reason, detail: &Detail) {
        let Some((connection, Some(index))) = self.mqtt() else { return };
        if connection.tells != Tells::Acknowledgement {
            return;
        }
        let detail = detail.shortened(TOLD_BYTES_MAX);
        connection.ledger.lock().tell(index, Told { reason, detail });
    }

    /// How its sender can be told of a refusal.
    pub fn tells(&self) -> Tells {
        self.mqtt().map_or(Tells::Nothing, |(connection, _)| connection.tells)
    }

    /// The message was decoded by a guest that keeps state: if it comes again unacknowledged, it is
    /// known.
    pub fn note_decoded(&self, topic: &str, payload: &[u8], outcome: Outcome) {
        let Origin::Mqtt { connection, index: Some(_), packet_id, .. } = &self.origin else { return };
        if let Some(session) = &connection.session {
            session.note_decoded(*packet_id, topic, payload, outcome);
        }
    }

    /// How the message ended before, where it comes again and there is no doubt that it is the same.
    pub fn decoded_before(&self, topic: &str, payload: &[u8]) -> Option<Outcome> {
        match &self.origin {
            Origin::Mqtt { connection, packet_id, may_be_known: true, .. } => {
                connection.session.as_ref()?.decoded(*packet_id, topic, payload)
            }
            _ => None,
        }
    }

    /// Whether its session may know it.
    pub fn may_be_known(&self) -> bool {
        matches!(self.origin, Origin::Mqtt { may_be_known: true, .. })
    }

    /// Whether it stands for an entry of quarantine that is taken up again.
    pub fn is_replay(&self) -> bool {
        self.replay().is_some()
    }

    /// Whether it is still there if it is not settled: its sender sends it again (QoS 1), or it lies
    /// in quarantine.
    pub fn comes_again(&self) -> bool {
        match &self.origin {
            Origin::Mqtt { index, .. } => index.is_some(),
            Origin::Replay { .. } => true,
            Origin::Parked { .. } | Origin::Trial => false,
        }
    }

    /// Whether it waits for room in the spool. One at QoS 0 does not: nobody could hold back its
    /// sender by it.
    pub fn waits_for_room(&self) -> bool {
        !matches!(self.origin, Origin::Mqtt { index: None, .. })
    }

    /// Whether its connection may be ended to have it sent again, without harm to other devices.
    pub fn is_of_a_device(&self) -> bool {
        self.mqtt().is_some_and(|(connection, index)| index.is_some() && connection.is_of_a_device)
    }

    /// Whether the connection of a QoS 1 message has ended: it comes again whatever becomes of it.
    pub fn is_orphan(&self) -> bool {
        self.mqtt().is_some_and(|(connection, index)| index.is_some() && connection.has_ended())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.stage == Stage::Settled {
            return;
        }
        let (messages, bytes) = self.close();
        if messages > 0
            && let Some(window) = self.window()
        {
            window.give_back(messages, bytes);
        }
        match &self.origin {
            Origin::Mqtt { connection, index: Some(_), .. } => connection.lose(),
            Origin::Parked { release, .. } => release.back(),
            Origin::Mqtt { .. } | Origin::Replay { .. } | Origin::Trial => {}
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
    while let Some(first) = slots.next() {
        let Origin::Mqtt { connection, .. } = &first.origin else {
            settle_alone(first, outcome, account);
            continue;
        };
        let (connection, received_us) = (connection.clone(), first.received_us);
        let (mut all, mut messages, mut bytes) = (0, 0, 0);
        {
            let (mut settled, mut abandoned) = (0, 0);
            let mut ledger = connection.ledger.lock();
            let mut next = Some(first);
            while let Some(mut slot) = next {
                let taken = slot.close();
                (all, messages, bytes) = (all + 1, messages + taken.0, bytes + taken.1);
                match slot.origin {
                    Origin::Mqtt { index: Some(index), .. } if !ledger.settle(index) => abandoned += 1,
                    _ => settled += 1,
                }
                next = slots.next_if(|slot| slot.mqtt().is_some_and(|(of, _)| Arc::ptr_eq(of, &connection)));
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
        connection.window.observe_latency(received_us, all);
        settled_of(connection);
    }
}

/// Settles a message that no connection waits for.
fn settle_alone(mut slot: Slot, outcome: Outcome, account: &Account) {
    let (messages, bytes) = slot.close();
    account.settle(outcome, 1);
    if let Some(window) = slot.window() {
        window.give_back(messages, bytes);
        window.observe_latency(slot.received_us, 1);
    }
    match &slot.origin {
        Origin::Replay { entry, .. } => entry.settle(outcome),
        Origin::Parked { release, replay, .. } => {
            if let Some(replay) = replay {
                replay.settle(outcome);
            }
            release.done();
        }
        Origin::Mqtt { .. } | Origin::Trial => {}
    }
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
        let (window, _) = connection();
        let account = Account::new("acme".into());
        account.receive(2);
        let told = Arc::new(Mutex::new(Vec::new()));
        let slot = || Slot::parked(&window, Box::new(Told(told.clone())), None, 10);
        let (settled, forgotten) = (slot(), slot());
        settled.settle(Outcome::Empty, &account);
        assert_eq!(*told.lock(), ["done"]);
        drop(forgotten);
        assert_eq!(*told.lock(), ["done", "back"]);
        assert_eq!(window.messages(), 0);
    }

    #[test]
    fn what_is_let_go_unsettled_ends_its_connection_unless_the_gateway_stops() {
        let (window, one) = connection();
        drop(one.receive_unacknowledged(10));
        assert!(!one.has_lost(), "nobody sends it again");
        drop(one.receive(1, 10));
        assert!(one.has_lost());
        let (over, last) = (Connection::new(window.clone()), Connection::new(window.clone()));
        let slot = over.receive(1, 10);
        over.end();
        drop(slot);
        assert!(!over.has_lost());
        window.stop();
        drop(last.receive(1, 10));
        assert!(!last.has_lost());
        assert_eq!(window.messages(), 0);
    }

    #[test]
    fn what_waits_for_room_takes_none_in_the_window() {
        let (window, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(3);
        let mut slots: Vec<_> = (1..=3).map(|id| connection.receive(id, 100)).collect();
        for slot in &mut slots {
            slot.hold(true);
            slot.hold(true);
        }
        assert_eq!((window.messages(), window.bytes(), connection.held()), (0, 0, 3));
        assert!(connection.is_stalled());
        // It goes on, it is settled where it waits, it is let go.
        let (mut first, second) = (slots.remove(0), slots.remove(0));
        first.unhold();
        assert_eq!((window.messages(), window.bytes(), connection.held()), (1, 100, 2));
        second.settle(Outcome::Dropped, &account);
        drop(slots);
        assert_eq!((window.messages(), connection.held(), connection.is_stalled()), (1, 0, false));
        first.settle(Outcome::Lines, &account);
        assert_eq!((window.messages(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_message_counts_as_on_its_way_until_it_is_settled_dropped_or_handed_on() {
        let (_, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(1);
        let activity = Arc::new(Activity::default());
        let mut slots: Vec<_> = (1..=3).map(|id| connection.receive(id, 1)).collect();
        slots.iter_mut().for_each(|slot| slot.enter(&activity));
        assert_eq!(activity.undecoded(), 3);
        slots.remove(0).settle(Outcome::Lines, &account);
        drop(slots.remove(0));
        assert_eq!(activity.undecoded(), 1);
        let guard = slots[0].take_in_flight();
        assert_eq!(activity.undecoded(), 1);
        drop(guard);
        assert_eq!(activity.undecoded(), 0);
    }

    #[test]
    fn a_slot_is_small() {
        // Each message on its way has one.
        println!("{} bytes a slot, {} its origin", size_of::<Slot>(), size_of::<Origin>());
        assert!(size_of::<Slot>() <= 64, "{}", size_of::<Slot>());
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
