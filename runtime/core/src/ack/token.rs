//! The acknowledgement token of a message, held from receipt until the outcome is durable.

use std::sync::Arc;

use crate::ack::in_flight::{InFlight, InFlightGuard};
use crate::ack::ledger::{LedgerIndex, NO_PACKET_ID, RefusalNotice};
use crate::ack::origin::{Origin, ParkedOrigin, ReplayedEntry, UnparkGuard};
use crate::ack::tap_probe::TapProbe;
use crate::ack::tracker::{AckTracker, RefusalChannel};
use crate::ack::window::ReceiveWindow;
use crate::books::Outcome;
use crate::detail::Detail;
use crate::limits::REFUSAL_NOTICE_BYTES_MAX;
use crate::reason::Reason;

/// The life of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenState {
    /// Charged to its window.
    Open,
    /// Waits for its tenant's share of the spool, outside of its window.
    Deferred,
    Settled,
}

/// One message's claim on an outcome. It must be settled. A token that is dropped unsettled is never
/// acknowledged and ends its connection, so that the message is sent again rather than lost.
#[derive(Debug)]
#[must_use]
pub struct AckToken {
    pub(super) origin: Origin,
    in_flight: Option<InFlightGuard>,
    pub(super) received_us: u64,
    bytes: u32,
    state: TokenState,
    /// Boxed: nearly no message has one.
    probe: Option<Box<TapProbe>>,
}

impl AckTracker {
    /// Records a QoS 1 PUBLISH of `bytes` and gives its token.
    pub fn receive(self: &Arc<Self>, packet_id: u16, bytes: usize) -> AckToken {
        self.receive_publish(packet_id, false, bytes)
    }

    /// The same as `receive`, for a PUBLISH that may have been sent before (DUP).
    pub fn receive_publish(self: &Arc<Self>, packet_id: u16, dup: bool, bytes: usize) -> AckToken {
        let may_be_duplicate = self.session.as_ref().is_some_and(|session| session.receive(packet_id, dup));
        let index = Some(self.ledger.lock().receive(packet_id));
        let origin = Origin::Mqtt { tracker: self.clone(), index, packet_id, may_be_duplicate };
        AckToken::new(origin, bytes, self.read_at_us())
    }

    /// Records a QoS 0 PUBLISH: it takes room in the window and is never acknowledged.
    pub fn receive_unacknowledged(self: &Arc<Self>, bytes: usize) -> AckToken {
        let origin = Origin::Mqtt {
            tracker: self.clone(),
            index: None,
            packet_id: NO_PACKET_ID,
            may_be_duplicate: false,
        };
        AckToken::new(origin, bytes, self.read_at_us())
    }
}

impl AckToken {
    #[inline]
    fn new(origin: Origin, bytes: usize, received_us: u64) -> Self {
        let bytes = bytes.min(u32::MAX as usize) as u32;
        let token =
            Self { origin, in_flight: None, received_us, bytes, state: TokenState::Open, probe: None };
        if let Some(window) = token.window() {
            window.charge(u64::from(bytes));
        }
        token
    }

    /// The token of a message out of quarantine.
    pub fn replayed(window: &Arc<ReceiveWindow>, entry: Arc<ReplayedEntry>, bytes: usize) -> Self {
        let now_us = window.now_us();
        Self::new(Origin::Replay { window: window.clone(), entry }, bytes, now_us)
    }

    /// The token of a message that is unparked; `replay` if it was parked during a replay.
    pub fn parked(
        window: &Arc<ReceiveWindow>,
        guard: Box<dyn UnparkGuard>,
        replay: Option<Arc<ReplayedEntry>>,
        bytes: usize,
    ) -> Self {
        let now_us = window.now_us();
        let parked = ParkedOrigin { window: window.clone(), guard, replay };
        Self::new(Origin::Parked(Box::new(parked)), bytes, now_us)
    }

    /// The token of a trial's or a dry run's message.
    pub fn trial() -> Self {
        Self::new(Origin::Trial, 0, 0)
    }

    #[inline]
    pub(super) fn window(&self) -> Option<&Arc<ReceiveWindow>> {
        match &self.origin {
            Origin::Mqtt { tracker, .. } => Some(&tracker.window),
            Origin::Replay { window, .. } => Some(window),
            Origin::Parked(parked) => Some(&parked.window),
            Origin::Trial => None,
        }
    }

    #[inline]
    pub(super) fn mqtt(&self) -> Option<(&Arc<AckTracker>, Option<LedgerIndex>)> {
        match &self.origin {
            Origin::Mqtt { tracker, index, .. } => Some((tracker, *index)),
            _ => None,
        }
    }

    /// Counts the message in `in_flight` until it is settled, dropped, or the guard is taken.
    #[inline]
    pub fn enter(&mut self, in_flight: &InFlight) {
        self.in_flight = Some(in_flight.enter());
    }

    /// The same for one of many messages that were counted at once.
    #[inline]
    pub fn set_in_flight(&mut self, guard: Option<InFlightGuard>) {
        self.in_flight = guard;
    }

    /// Takes the guard that counts the message as in flight.
    #[inline]
    pub fn take_in_flight(&mut self) -> Option<InFlightGuard> {
        self.in_flight.take()
    }

    /// Puts a probe of a tap on the message.
    pub fn set_probe(&mut self, probe: TapProbe) {
        self.probe = Some(Box::new(probe));
    }

    /// The probe on the message.
    pub fn probe_mut(&mut self) -> Option<&mut TapProbe> {
        self.probe.as_deref_mut()
    }

    /// Takes the probe off the message.
    #[inline]
    pub fn take_probe(&mut self) -> Option<TapProbe> {
        self.probe.take().map(|probe| *probe)
    }

    /// The entry of quarantine that the message comes from.
    #[inline]
    pub fn replay(&self) -> Option<&ReplayedEntry> {
        match &self.origin {
            Origin::Replay { entry, .. } => Some(entry),
            Origin::Parked(parked) => parked.replay.as_deref(),
            Origin::Mqtt { .. } | Origin::Trial => None,
        }
    }

    /// Charges the window for `bytes` more, which the message came to take; they are given back with the rest.
    pub fn grow(&mut self, bytes: usize) {
        let room = u32::MAX - self.bytes;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(room);
        if self.state == TokenState::Open
            && let Some(window) = self.window()
        {
            window.grow(u64::from(bytes));
            self.bytes += bytes;
        }
    }

    /// Takes the message out of the window while it waits for its tenant's share of the spool, so that it
    /// delays no other tenant. The caller bounds the deferred messages. `stalled`: the tenant has no room
    /// for more of them, and the source should stop reading.
    pub fn defer(&mut self, stalled: bool) {
        if self.state != TokenState::Open {
            return;
        }
        self.state = TokenState::Deferred;
        if let Some(window) = self.window() {
            window.release(1, u64::from(self.bytes));
        }
        if let Some((tracker, _)) = self.mqtt() {
            tracker.defer(stalled);
        }
    }

    /// Returns a deferred message to its window.
    pub fn resume(&mut self) {
        if self.state != TokenState::Deferred {
            return;
        }
        self.state = TokenState::Open;
        if let Some(window) = self.window() {
            window.charge(u64::from(self.bytes));
        }
        if let Some((tracker, _)) = self.mqtt() {
            tracker.resume();
        }
    }

    /// Marks the token as settled, and gives its charge to the window: messages and bytes.
    #[inline]
    pub(super) fn close(&mut self) -> (u64, u64) {
        let before = std::mem::replace(&mut self.state, TokenState::Settled);
        if before == TokenState::Deferred
            && let Some((tracker, _)) = self.mqtt()
        {
            tracker.resume();
        }
        if before == TokenState::Open { (1, u64::from(self.bytes)) } else { (0, 0) }
    }

    /// Attaches the reason of a refusal to the PUBACK, if the protocol carries one. To be called before
    /// the token is settled.
    pub fn notify_refused(&self, reason: Reason, detail: &Detail) {
        let Some((tracker, Some(index))) = self.mqtt() else { return };
        if tracker.refusal_channel() != RefusalChannel::Acknowledgement {
            return;
        }
        let detail = detail.shortened(REFUSAL_NOTICE_BYTES_MAX);
        tracker.ledger.lock().attach_notice(index, RefusalNotice { reason, detail });
    }

    /// The way in which its sender can learn of a refusal.
    pub fn refusal_channel(&self) -> RefusalChannel {
        self.mqtt().map_or(RefusalChannel::Nothing, |(tracker, _)| tracker.refusal_channel())
    }

    /// Records that a guest with state decoded the message, so that its session recognises it if it
    /// is sent again.
    pub fn record_decoded(&self, topic: &str, payload: &[u8], outcome: Outcome) {
        let Origin::Mqtt { tracker, index: Some(_), packet_id, .. } = &self.origin else { return };
        if let Some(session) = &tracker.session {
            session.record_decoded(*packet_id, topic, payload, outcome);
        }
    }

    /// The outcome of the message when it was received before, if it is the same beyond doubt.
    pub fn earlier_outcome(&self, topic: &str, payload: &[u8]) -> Option<Outcome> {
        match &self.origin {
            Origin::Mqtt { tracker, packet_id, may_be_duplicate: true, .. } => {
                tracker.session.as_ref()?.decoded(*packet_id, topic, payload)
            }
            _ => None,
        }
    }

    /// True if its session may have received it before.
    #[inline]
    pub fn may_be_duplicate(&self) -> bool {
        matches!(self.origin, Origin::Mqtt { may_be_duplicate: true, .. })
    }

    /// True for a replayed entry of quarantine.
    #[inline]
    pub fn is_replay(&self) -> bool {
        self.replay().is_some()
    }

    /// True if the message survives without being settled: its sender sends it again (QoS 1), or it lies
    /// in quarantine.
    #[inline]
    pub fn is_redelivered(&self) -> bool {
        match &self.origin {
            Origin::Mqtt { index, .. } => index.is_some(),
            Origin::Replay { .. } => true,
            Origin::Parked(_) | Origin::Trial => false,
        }
    }

    /// True if it may wait for its tenant's share of the spool. A QoS 0 message may not: no unacknowledged
    /// message would slow its sender down.
    #[inline]
    pub fn can_be_deferred(&self) -> bool {
        !matches!(self.origin, Origin::Mqtt { index: None, .. })
    }

    /// True for a QoS 1 message of a device that connected to us: its connection may be ended to have it
    /// sent again, without harm to other devices.
    #[inline]
    pub fn is_from_device(&self) -> bool {
        self.mqtt().is_some_and(|(tracker, index)| index.is_some() && tracker.is_from_device())
    }

    /// True if the connection of a QoS 1 message has ended: it is sent again whatever its outcome.
    #[inline]
    pub fn is_abandoned(&self) -> bool {
        self.mqtt().is_some_and(|(tracker, index)| index.is_some() && tracker.has_ended())
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        if self.state == TokenState::Settled {
            return;
        }
        let (messages, bytes) = self.close();
        if messages > 0
            && let Some(window) = self.window()
        {
            window.release(messages, bytes);
        }
        match &self.origin {
            Origin::Mqtt { tracker, index: Some(_), .. } => tracker.record_lost(),
            Origin::Parked(parked) => parked.guard.abort(),
            Origin::Mqtt { .. } | Origin::Replay { .. } | Origin::Trial => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ack::in_flight::InFlight;
    use crate::ack::origin::UnparkGuard;
    use crate::ack::settle::{SettleBatch, settle_all};
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
    struct RecordingGuard(Arc<Mutex<Vec<&'static str>>>);

    impl UnparkGuard for RecordingGuard {
        fn commit(&self) {
            self.0.lock().push("done");
        }

        fn abort(&self) {
            self.0.lock().push("back");
        }
    }

    #[test]
    fn what_was_parked_is_released_by_its_settlement_and_by_nothing_else() {
        let (window, _) = connection();
        let account = Account::new("acme".into());
        account.receive(2);
        let told = Arc::new(Mutex::new(Vec::new()));
        let token = || AckToken::parked(&window, Box::new(RecordingGuard(told.clone())), None, 10);
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
            token.defer(true);
            token.defer(true);
        }
        assert_eq!((window.messages(), window.bytes(), connection.deferred()), (0, 0, 3));
        assert!(connection.is_stalled());
        // One resumes, one is settled while deferred, one is dropped.
        let (mut first, second) = (tokens.remove(0), tokens.remove(0));
        first.resume();
        assert_eq!((window.messages(), window.bytes(), connection.deferred()), (1, 100, 2));
        second.settle(Outcome::Dropped, &account);
        drop(tokens);
        assert_eq!((window.messages(), connection.deferred(), connection.is_stalled()), (1, 0, false));
        first.settle(Outcome::Lines, &account);
        assert_eq!((window.messages(), window.bytes()), (0, 0));
    }

    #[test]
    fn a_message_counts_as_on_its_way_until_it_is_settled_dropped_or_handed_on() {
        let (_, connection) = connection();
        let account = Account::new("acme".into());
        account.receive(1);
        let activity = InFlight::default();
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
    fn a_token_is_small() {
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

    #[test]
    fn what_is_added_to_a_batch_is_settled_at_its_end_in_the_account_of_each() {
        let (window, one) = connection();
        let (two, ended) = (AckTracker::new(window.clone()), AckTracker::new(window.clone()));
        let accounts: [_; 3] =
            std::array::from_fn(|n| Arc::new(Account::new(format!("t{n}").as_str().into())));
        accounts.iter().for_each(|account| account.receive(4));
        let mut batch = SettleBatch::default();
        for (n, account) in accounts.iter().enumerate() {
            let id = n as u16 + 1;
            let tokens = [two.receive(id, 10), one.receive(id, 10), ended.receive(id, 10)];
            batch.add(tokens, Outcome::Lines, account.clone());
            batch.add([AckToken::trial()], Outcome::Empty, account.clone());
        }
        ended.end();
        let ready = |connection: &AckTracker| {
            let mut ids = Vec::new();
            connection.take_ready(&mut ids);
            ids
        };
        assert!(ready(&one).is_empty() && ready(&two).is_empty());
        assert_eq!(window.messages(), 9);
        drop(batch);
        assert_eq!((ready(&one), ready(&two)), (vec![1, 2, 3], vec![1, 2, 3]));
        assert_eq!((window.messages(), window.bytes()), (0, 0));
        for account in &accounts {
            let books = account.snapshot().messages;
            assert_eq!((books.lines, books.empty, books.abandoned, books.in_flight), (2, 1, 1, 0));
        }
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
            async move { window.until_not_full().await }
        });
        tokio::task::yield_now().await;
        token.settle(Outcome::Empty, &account);
        waiting.await.unwrap();
    }
}
