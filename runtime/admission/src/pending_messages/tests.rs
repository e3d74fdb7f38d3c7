//! The order of messages that wait and of messages that are parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::pending_messages::{Enqueued, PendingMessage, PendingMessages};
use tidegate_core::ack::origin::UnparkGuard;
use tidegate_core::ack::token::AckToken;
use tidegate_core::ack::tracker::AckTracker;
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::books::Account;
use tidegate_core::ids::TenantId;
use tidegate_core::message::{Received, Via};
use tidegate_core::parked::ParkingStore;

/// A store with room for `messages_max` messages.
#[derive(Debug)]
struct Room {
    messages_max: usize,
    parked: Mutex<Vec<Received>>,
}

impl Room {
    fn texts(&self) -> Vec<String> {
        self.parked.lock().iter().map(|message| text(message).to_owned()).collect()
    }
}

impl ParkingStore for Room {
    fn park(&self, _: &TenantId, account: &Arc<Account>, message: Received) -> Result<(), Box<Received>> {
        let mut parked = self.parked.lock();
        if parked.len() == self.messages_max {
            return Err(Box::new(message));
        }
        account.park(1);
        parked.push(message);
        Ok(())
    }
}

fn pending_messages(messages_max: usize) -> (PendingMessages, Arc<Room>) {
    let room = Arc::new(Room { messages_max, parked: Mutex::default() });
    (PendingMessages::new(room.clone()), room)
}

struct Sender {
    tracker: Arc<AckTracker>,
    account: Arc<Account>,
}

impl Sender {
    fn new() -> Self {
        let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(1_000, 1_000_000)));
        Self { tracker, account: Arc::new(Account::new("acme".into())) }
    }

    fn pending(&self, text: &'static str, since: Instant) -> PendingMessage {
        self.account.receive(1);
        let message = Received {
            topic: "t".into(),
            payload: text.into(),
            payload_bytes: text.len(),
            received_ns: 0,
            via: Via::Broker,
            token: self.tracker.receive(1, text.len()),
        };
        PendingMessage {
            message,
            account: self.account.clone(),
            was_parked: false,
            over_rate: false,
            since,
            charge: None,
        }
    }

    /// A message that was parked and is unparked.
    fn unparked(&self, text: &'static str, back: &Arc<AtomicUsize>) -> PendingMessage {
        let mut pending = self.pending(text, Instant::now());
        pending.was_parked = true;
        pending.message.token =
            AckToken::parked(self.tracker.window(), Box::new(FakeGuard(back.clone())), None, text.len());
        pending
    }
}

#[derive(Debug)]
struct FakeGuard(Arc<AtomicUsize>);

impl UnparkGuard for FakeGuard {
    fn commit(&self) {}

    fn abort(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn text(message: &Received) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

fn texts(messages: &[PendingMessage]) -> Vec<&str> {
    messages.iter().map(|pending| text(&pending.message)).collect()
}

#[test]
fn a_device_is_asked_about_once_and_is_held_until_its_last_message_went_on() {
    let ((pending, _), sender) = (pending_messages(100), Sender::new());
    let now = Instant::now();
    for text in ["a", "b"] {
        assert!(matches!(pending.add(1, "acme", "d", sender.pending(text, now)), Enqueued::Waits));
    }
    assert_eq!(pending.take(10).len(), 1);
    assert!(pending.take(10).is_empty(), "it is asked about already");
    assert_eq!(texts(&pending.messages(1, 10)), ["a", "b"]);
    pending.add(1, "acme", "d", sender.pending("c", now));
    assert!(!pending.finish(1) && pending.contains(1), "one more came meanwhile");
    assert_eq!(texts(&pending.messages(1, 10)), ["c"]);
    assert!(pending.finish(1) && !pending.contains(1));
}

#[test]
fn later_messages_of_a_device_are_parked_behind_until_all_were_handed_on() {
    let ((pending, room), sender) = (pending_messages(100), Sender::new());
    let now = Instant::now();
    pending.add(1, "acme", "d", sender.pending("a", now));
    pending.add(1, "acme", "d", sender.pending("b", now));
    let later = now + Duration::from_secs(5);
    assert_eq!(pending.park_overdue(Duration::from_secs(5), later).0, 2);
    assert!(pending.take(10).is_empty(), "parked devices are not asked about");
    assert!(matches!(pending.add(1, "acme", "d", sender.pending("c", later)), Enqueued::Parked));
    assert_eq!(room.texts(), ["a", "b", "c"]);
    // Two of them are admitted from the cache, the third waits for a look-up.
    pending.finished(&[1, 1]);
    assert!(pending.contains(1), "one is still parked");
    let back = Arc::new(AtomicUsize::new(0));
    pending.join(1, "acme", "d", sender.unparked("c", &back), true).unwrap();
    pending.add(1, "acme", "d", sender.pending("d", later));
    assert_eq!(pending.take(10).len(), 1);
    assert_eq!(texts(&pending.messages(1, 10)), ["c", "d"]);
    assert!(pending.finish(1) && !pending.contains(1));
}

#[test]
fn what_was_taken_up_in_vain_goes_back_to_where_it_lies_before_what_came_later() {
    let ((pending, room), sender) = (pending_messages(100), Sender::new());
    let back = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        pending.record_parked(1);
    }
    pending.join(1, "acme", "d", sender.unparked("a", &back), true).unwrap();
    assert!(pending.join(2, "acme", "e", sender.unparked("x", &back), false).is_err(), "none waits");
    pending.join(1, "acme", "d", sender.unparked("b", &back), false).unwrap();
    pending.add(1, "acme", "d", sender.pending("c", Instant::now()));
    back.store(0, Ordering::Relaxed);
    assert_eq!(pending.park_overdue(Duration::ZERO, Instant::now()).0, 3);
    assert_eq!((back.load(Ordering::Relaxed), room.texts()), (2, vec!["c".to_owned()]));
    assert_eq!(sender.account.snapshot().messages.parked, 3);
    pending.finished(&[1, 1]);
    assert!(pending.contains(1));
    pending.finished(&[1]);
    assert!(!pending.contains(1));
}

#[test]
fn what_finds_no_room_waits_behind_what_did_and_goes_on_in_order() {
    let ((pending, room), sender) = (pending_messages(2), Sender::new());
    let now = Instant::now();
    for text in ["a", "b", "c", "d"] {
        pending.add(1, "acme", "d", sender.pending(text, now));
    }
    let (parked, left) = pending.park_overdue(Duration::ZERO, now);
    assert_eq!((parked, left.len(), room.texts()), (2, 0, vec!["a".to_owned(), "b".into()]));
    assert!(matches!(pending.add(1, "acme", "d", sender.pending("e", now)), Enqueued::Waits));
    assert!(pending.take(10).is_empty(), "what is parked goes first");
    // There is room for one: the first message that waits is parked.
    room.parked.lock().remove(0);
    pending.finished(&[1]);
    assert_eq!(pending.park_overdue(Duration::ZERO, now).0, 1);
    assert_eq!(room.texts(), ["b", "c"]);
    pending.finished(&[1, 1]);
    assert_eq!(pending.take(10).len(), 1);
    assert_eq!(texts(&pending.messages(1, 10)), ["d", "e"]);
    // Without room for any, they wait as before.
    pending.add(2, "acme", "e", sender.pending("x", now));
    assert_eq!(pending.park_overdue(Duration::ZERO, now).0, 0);
    assert_eq!(pending.take(10).len(), 1);
}

#[test]
fn what_comes_again_anyway_is_given_up_and_what_nobody_sends_again_is_given_back() {
    let ((pending, _), sender) = (pending_messages(0), Sender::new());
    let now = Instant::now();
    let mut once = sender.pending("once", now);
    once.message.token = sender.tracker.receive_unacknowledged(4);
    pending.add(1, "acme", "d", sender.pending("a", now));
    pending.add(1, "acme", "d", once);
    let (parked, left) = pending.park_overdue(Duration::ZERO, now);
    assert_eq!((parked, texts(&left)), (0, vec!["once"]));
    sender.tracker.end();
    assert_eq!(pending.park_overdue(Duration::ZERO, now).0, 0);
    assert!(!pending.contains(1));
    let books = sender.account.snapshot();
    assert_eq!((books.messages.in_flight, books.messages.abandoned), (1, 1));
    assert!(books.balanced());
}

#[test]
fn a_change_while_it_is_asked_about_is_noticed() {
    let ((pending, _), sender) = (pending_messages(100), Sender::new());
    pending.add(1, "acme", "d", sender.pending("a", Instant::now()));
    pending.mark_changed(1);
    pending.take(10);
    assert!(!pending.has_changed(1), "what changed before it was asked is no matter");
    pending.mark_changed(1);
    assert!(pending.has_changed(1));
    pending.requeue(1);
    assert_eq!(pending.take(10).len(), 1);
}

#[test]
fn the_key_of_one_device_is_never_the_answer_for_another() {
    let ((pending, _), sender) = (pending_messages(100), Sender::new());
    let now = Instant::now();
    pending.add(1, "acme", "d", sender.pending("a", now));
    assert!(matches!(pending.add(1, "acme", "e", sender.pending("b", now)), Enqueued::NoRoom(_)));
}
