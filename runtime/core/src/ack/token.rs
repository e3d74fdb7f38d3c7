//! A message's claim on its source: held from receipt until the outcome is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ack::in_flight::{InFlight, InFlightGuard};
use crate::ack::ledger::{LedgerIndex, RefusalNotice};
use crate::ack::origin::{ReplayedEntry, UnparkGuard};
use crate::ack::tracker::{AckTracker, RefusalChannel};
use crate::ack::window::ReceiveWindow;
use crate::books::{Account, Outcome};
use crate::detail::Detail;
use crate::limits::REFUSAL_NOTICE_BYTES_MAX;
use crate::reason::Reason;

/// Where a message came from, with what has to be told of its outcome.
#[derive(Debug)]
pub enum Origin {
    Mqtt {
        connection: Arc<AckTracker>,
        /// `None`: QoS 0.
        index: Option<LedgerIndex>,
        packet_id: u16,
        /// It came again, and its session may know it.
        may_be_known: bool,
    },
    /// Out of quarantine.
    Replay { window: Arc<ReceiveWindow>, entry: Arc<ReplayedEntry> },
    /// Out of the spool, which keeps it until it is settled.
    Parked { window: Arc<ReceiveWindow>, release: Box<dyn UnparkGuard>, replay: Option<Arc<ReplayedEntry>> },
    /// Of a trial or a dry run: nobody is told, and it takes no room.
    Trial,
}

/// How far a token is.
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
pub struct AckToken {
    origin: Origin,
    in_flight: Option<InFlightGuard>,
    received_us: u64,
    bytes: u32,
    stage: Stage,
}

impl AckToken {
    pub(crate) fn new(origin: Origin, bytes: usize, received_us: u64) -> Self {
        let bytes = bytes.min(u32::MAX as usize) as u32;
        let token = Self { origin, in_flight: None, received_us, bytes, stage: Stage::Open };
        if let Some(window) = token.window() {
            window.take(u64::from(bytes));
        }
        token
    }

    /// That of a message out of quarantine.
    pub fn replayed(window: &Arc<ReceiveWindow>, entry: Arc<ReplayedEntry>, bytes: usize) -> Self {
        let now_us = window.now_us();
        Self::new(Origin::Replay { window: window.clone(), entry }, bytes, now_us)
    }

    /// That of a message that was parked.
    pub fn parked(
        window: &Arc<ReceiveWindow>,
        release: Box<dyn UnparkGuard>,
        replay: Option<Arc<ReplayedEntry>>,
        bytes: usize,
    ) -> Self {
        let now_us = window.now_us();
        Self::new(Origin::Parked { window: window.clone(), release, replay }, bytes, now_us)
    }

    /// That of a message that nobody sent.
    pub fn trial() -> Self {
        Self::new(Origin::Trial, 0, 0)
    }

    fn window(&self) -> Option<&Arc<ReceiveWindow>> {
        match &self.origin {
            Origin::Mqtt { connection, .. } => Some(&connection.window),
            Origin::Replay { window, .. } | Origin::Parked { window, .. } => Some(window),
            Origin::Trial => None,
        }
    }

    fn mqtt(&self) -> Option<(&Arc<AckTracker>, Option<LedgerIndex>)> {
        match &self.origin {
            Origin::Mqtt { connection, index, .. } => Some((connection, *index)),
            _ => None,
        }
    }

    /// Counts the message in `activity` until it is settled, dropped, or taken out.
    pub fn enter(&mut self, activity: &Arc<InFlight>) {
        self.in_flight = Some(activity.enter());
    }

    /// Takes out what counts the message as on its way.
    pub fn take_in_flight(&mut self) -> Option<InFlightGuard> {
        self.in_flight.take()
    }

    /// What the message comes from, where it came out of quarantine.
    pub fn replay(&self) -> Option<&ReplayedEntry> {
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
    pub fn resume(&mut self) {
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
        if connection.tells != RefusalChannel::Acknowledgement {
            return;
        }
        let detail = detail.shortened(REFUSAL_NOTICE_BYTES_MAX);
        connection.ledger.lock().tell(index, RefusalNotice { reason, detail });
    }

    /// How its sender can be told of a refusal.
    pub fn tells(&self) -> RefusalChannel {
        self.mqtt().map_or(RefusalChannel::Nothing, |(connection, _)| connection.tells)
    }

    /// The message was decoded by a guest that keeps state: if it comes again unacknowledged, it is
    /// known.
    pub fn record_decoded(&self, topic: &str, payload: &[u8], outcome: Outcome) {
        let Origin::Mqtt { connection, index: Some(_), packet_id, .. } = &self.origin else { return };
        if let Some(session) = &connection.session {
            session.record_decoded(*packet_id, topic, payload, outcome);
        }
    }

    /// How the message ended before, where it comes again and there is no doubt that it is the same.
    pub fn earlier_outcome(&self, topic: &str, payload: &[u8]) -> Option<Outcome> {
        match &self.origin {
            Origin::Mqtt { connection, packet_id, may_be_known: true, .. } => {
                connection.session.as_ref()?.decoded(*packet_id, topic, payload)
            }
            _ => None,
        }
    }

    /// Whether its session may know it.
    pub fn may_be_duplicate(&self) -> bool {
        matches!(self.origin, Origin::Mqtt { may_be_known: true, .. })
    }

    /// Whether it stands for an entry of quarantine that is taken up again.
    pub fn is_replay(&self) -> bool {
        self.replay().is_some()
    }

    /// Whether it is still there if it is not settled: its sender sends it again (QoS 1), or it lies
    /// in quarantine.
    pub fn is_redelivered(&self) -> bool {
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
    pub fn is_abandoned(&self) -> bool {
        self.mqtt().is_some_and(|(connection, index)| index.is_some() && connection.has_ended())
    }
}

impl Drop for AckToken {
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

/// Settles many messages of one account with one outcome; tokens of one connection that stand
/// beside each other take its lock once.
pub fn settle_all(tokens: impl IntoIterator<Item = AckToken>, outcome: Outcome, account: &Account) {
    SettleBatch::default().settle_all(tokens, outcome, account);
}

/// Connections of which messages were settled together. Each is woken once, when all of them are:
/// PUBACKs of one group leave in one write.
#[derive(Debug, Default)]
pub struct SettleBatch(Vec<Arc<AckTracker>>);

impl SettleBatch {
    /// As the function of that name, but for the waking.
    pub fn settle_all(
        &mut self,
        tokens: impl IntoIterator<Item = AckToken>,
        outcome: Outcome,
        account: &Account,
    ) {
        settle(tokens, outcome, account, |connection| {
            if self.0.last().is_none_or(|last| !Arc::ptr_eq(last, &connection)) {
                self.0.push(connection);
            }
        });
    }
}

impl Drop for SettleBatch {
    fn drop(&mut self) {
        self.0.sort_unstable_by_key(|connection| Arc::as_ptr(connection) as usize);
        self.0.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for connection in &self.0 {
            connection.settled.notify_one();
        }
    }
}

fn settle(
    tokens: impl IntoIterator<Item = AckToken>,
    outcome: Outcome,
    account: &Account,
    mut settled_of: impl FnMut(Arc<AckTracker>),
) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(first) = tokens.next() {
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
            while let Some(mut token) = next {
                let taken = token.close();
                (all, messages, bytes) = (all + 1, messages + taken.0, bytes + taken.1);
                match token.origin {
                    Origin::Mqtt { index: Some(index), .. } if !ledger.settle(index) => abandoned += 1,
                    _ => settled += 1,
                }
                next =
                    tokens.next_if(|token| token.mqtt().is_some_and(|(of, _)| Arc::ptr_eq(of, &connection)));
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
fn settle_alone(mut token: AckToken, outcome: Outcome, account: &Account) {
    let (messages, bytes) = token.close();
    account.settle(outcome, 1);
    if let Some(window) = token.window() {
        window.give_back(messages, bytes);
        window.observe_latency(token.received_us, 1);
    }
    match &token.origin {
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
    use crate::ack::in_flight::InFlight;
    use crate::ack::origin::UnparkGuard;
    use crate::ack::tracker::AckTracker;
    use crate::ack::window::ReceiveWindow;
    use crate::books::{Account, Outcome};
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn connection() -> (Arc<ReceiveWindow>, Arc<AckTracker>) {
        let window = Arc::new(ReceiveWindow::new(10, 1000));
        (window.clone(), AckTracker::new(window))
    }

    #[test]
    fn settled_messages_give_their_room_back_and_are_acknowledged_in_order() {
        let (window, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(3);
        let tokens: Vec<_> = (1..=3).map(|id| connection.receive(id, 100)).collect();
        assert_eq!((window.messages(), window.bytes()), (3, 300));
        settle_all(tokens, Outcome::Lines, &account);
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
        let token = connection.receive(1, 10);
        connection.end();
        token.settle(Outcome::Lines, &account);
        let books = account.snapshot().messages;
        assert_eq!((books.lines, books.abandoned, books.in_flight), (0, 1, 0));
        assert_eq!(window.messages(), 0);
    }

    #[derive(Debug)]
    struct Told(Arc<Mutex<Vec<&'static str>>>);

    impl UnparkGuard for Told {
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
        let token = || AckToken::parked(&window, Box::new(Told(told.clone())), None, 10);
        let (settled, forgotten) = (token(), token());
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
        let (over, last) = (AckTracker::new(window.clone()), AckTracker::new(window.clone()));
        let token = over.receive(1, 10);
        over.end();
        drop(token);
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
        let mut tokens: Vec<_> = (1..=3).map(|id| connection.receive(id, 100)).collect();
        for token in &mut tokens {
            token.hold(true);
            token.hold(true);
        }
        assert_eq!((window.messages(), window.bytes(), connection.held()), (0, 0, 3));
        assert!(connection.is_stalled());
        // It goes on, it is settled where it waits, it is let go.
        let (mut first, second) = (tokens.remove(0), tokens.remove(0));
        first.resume();
        assert_eq!((window.messages(), window.bytes(), connection.held()), (1, 100, 2));
        second.settle(Outcome::Dropped, &account);
        drop(tokens);
        assert_eq!((window.messages(), connection.held(), connection.is_stalled()), (1, 0, false));
        first.settle(Outcome::Lines, &account);
        assert_eq!((window.messages(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_message_counts_as_on_its_way_until_it_is_settled_dropped_or_handed_on() {
        let (_, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(1);
        let activity = Arc::new(InFlight::default());
        let mut tokens: Vec<_> = (1..=3).map(|id| connection.receive(id, 1)).collect();
        tokens.iter_mut().for_each(|token| token.enter(&activity));
        assert_eq!(activity.count(), 3);
        tokens.remove(0).settle(Outcome::Lines, &account);
        drop(tokens.remove(0));
        assert_eq!(activity.count(), 1);
        let guard = tokens[0].take_in_flight();
        assert_eq!(activity.count(), 1);
        drop(guard);
        assert_eq!(activity.count(), 0);
    }

    #[test]
    fn a_slot_is_small() {
        // Each message on its way has one.
        println!("{} bytes a token, {} its origin", size_of::<AckToken>(), size_of::<Origin>());
        assert!(size_of::<AckToken>() <= 64, "{}", size_of::<AckToken>());
    }

    #[test]
    fn what_is_parked_after_its_connection_ended_is_received_twice() {
        let (_, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(1);
        let token = connection.receive(1, 10);
        connection.end();
        token.settle(Outcome::Parked, &account);
        let books = account.snapshot();
        assert!(books.balanced());
        assert_eq!((books.messages.received, books.messages.abandoned, books.messages.parked), (2, 1, 1));
    }

    #[tokio::test]
    async fn connections_are_woken_once_a_group_and_not_before_its_end() {
        let (window, one) = connection();
        let two = AckTracker::new(window);
        let account = Account::new("acme".into());
        account.receive(4);
        let woken = |connection: &AckTracker| {
            let mut settled = std::pin::pin!(connection.settled.notified());
            settled.as_mut().enable()
        };
        let mut settling = SettleBatch::default();
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
        let window = Arc::new(ReceiveWindow::new(1, 1000));
        let connection = AckTracker::new(window.clone());
        let account = Account::new("acme".into());
        account.receive(1);
        let token = connection.receive(1, 10);
        assert!(window.is_full());
        let waiting = tokio::spawn({
            let window = window.clone();
            async move { window.room().await }
        });
        tokio::task::yield_now().await;
        token.settle(Outcome::Empty, &account);
        waiting.await.unwrap();
    }
}
