//! What waits, what is parked, and in which order it goes on.

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

/// Has room for so many messages, and keeps their payloads.
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

fn waiting(messages_max: usize) -> (PendingMessages, Arc<Room>) {
    let room = Arc::new(Room { messages_max, parked: Mutex::default() });
    (PendingMessages::new(room.clone()), room)
}

struct Sender {
    connection: Arc<AckTracker>,
    account: Arc<Account>,
}

impl Sender {
    fn new() -> Self {
        let connection = AckTracker::new(Arc::new(ReceiveWindow::new(1_000, 1_000_000)));
        Self { connection, account: Arc::new(Account::new("acme".into())) }
    }

    fn held(&self, text: &'static str, since: Instant) -> PendingMessage {
        self.account.receive(1);
        let message = Received {
            topic: "t".into(),
            payload: text.into(),
            payload_bytes: text.len(),
            received_ns: 0,
            via: Via::Broker,
            token: self.connection.receive(1, text.len()),
        };
        PendingMessage { message, account: self.account.clone(), was_parked: false, since }
    }

    /// As `held`, of a message that was parked and is taken up.
    fn taken_up(&self, text: &'static str, back: &Arc<AtomicUsize>) -> PendingMessage {
        let mut held = self.held(text, Instant::now());
        held.was_parked = true;
        held.message.token =
            AckToken::parked(self.connection.window(), Box::new(Told(back.clone())), None, text.len());
        held
    }
}

#[derive(Debug)]
struct Told(Arc<AtomicUsize>);

impl UnparkGuard for Told {
    fn commit(&self) {}

    fn abort(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn text(message: &Received) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

fn texts(messages: &[PendingMessage]) -> Vec<&str> {
    messages.iter().map(|held| text(&held.message)).collect()
}

#[test]
fn a_device_is_asked_about_once_and_is_held_until_its_last_message_went_on() {
    let ((waiting, _), sender) = (waiting(100), Sender::new());
    let now = Instant::now();
    for text in ["a", "b"] {
        assert!(matches!(waiting.add(1, "acme", "d", sender.held(text, now)), Enqueued::Waits));
    }
    assert_eq!(waiting.take(10).len(), 1);
    assert!(waiting.take(10).is_empty(), "it is asked about already");
    assert_eq!(texts(&waiting.messages(1, 10)), ["a", "b"]);
    waiting.add(1, "acme", "d", sender.held("c", now));
    assert!(!waiting.finish(1) && waiting.holds(1), "one more came meanwhile");
    assert_eq!(texts(&waiting.messages(1, 10)), ["c"]);
    assert!(waiting.finish(1) && !waiting.holds(1));
}

#[test]
fn later_messages_of_a_device_are_parked_behind_until_all_were_handed_on() {
    let ((waiting, room), sender) = (waiting(100), Sender::new());
    let now = Instant::now();
    waiting.add(1, "acme", "d", sender.held("a", now));
    waiting.add(1, "acme", "d", sender.held("b", now));
    let later = now + Duration::from_secs(5);
    assert_eq!(waiting.park_overdue(Duration::from_secs(5), later).0, 2);
    assert!(waiting.take(10).is_empty(), "parked devices are not asked about");
    assert!(matches!(waiting.add(1, "acme", "d", sender.held("c", later)), Enqueued::Parked));
    assert_eq!(room.texts(), ["a", "b", "c"]);
    // Two of them are known by then and go on, the third is asked about.
    waiting.finished(&[1, 1]);
    assert!(waiting.holds(1), "one is still parked");
    let back = Arc::new(AtomicUsize::new(0));
    waiting.join(1, "acme", "d", sender.taken_up("c", &back), true).unwrap();
    waiting.add(1, "acme", "d", sender.held("d", later));
    assert_eq!(waiting.take(10).len(), 1);
    assert_eq!(texts(&waiting.messages(1, 10)), ["c", "d"]);
    assert!(waiting.finish(1) && !waiting.holds(1));
}

#[test]
fn what_was_taken_up_in_vain_goes_back_to_where_it_lies_before_what_came_later() {
    let ((waiting, room), sender) = (waiting(100), Sender::new());
    let back = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        waiting.note_parked(1);
    }
    waiting.join(1, "acme", "d", sender.taken_up("a", &back), true).unwrap();
    assert!(waiting.join(2, "acme", "e", sender.taken_up("x", &back), false).is_err(), "none waits");
    waiting.join(1, "acme", "d", sender.taken_up("b", &back), false).unwrap();
    waiting.add(1, "acme", "d", sender.held("c", Instant::now()));
    back.store(0, Ordering::Relaxed);
    assert_eq!(waiting.park_overdue(Duration::ZERO, Instant::now()).0, 3);
    assert_eq!((back.load(Ordering::Relaxed), room.texts()), (2, vec!["c".to_owned()]));
    assert_eq!(sender.account.snapshot().messages.parked, 3);
    waiting.finished(&[1, 1]);
    assert!(waiting.holds(1));
    waiting.finished(&[1]);
    assert!(!waiting.holds(1));
}

#[test]
fn what_finds_no_room_waits_behind_what_did_and_goes_on_in_order() {
    let ((waiting, room), sender) = (waiting(2), Sender::new());
    let now = Instant::now();
    for text in ["a", "b", "c", "d"] {
        waiting.add(1, "acme", "d", sender.held(text, now));
    }
    let (parked, left) = waiting.park_overdue(Duration::ZERO, now);
    assert_eq!((parked, left.len(), room.texts()), (2, 0, vec!["a".to_owned(), "b".into()]));
    assert!(matches!(waiting.add(1, "acme", "d", sender.held("e", now)), Enqueued::Waits));
    assert!(waiting.take(10).is_empty(), "what is parked goes first");
    // Room for one: the first of those that wait takes it.
    room.parked.lock().remove(0);
    waiting.finished(&[1]);
    assert_eq!(waiting.park_overdue(Duration::ZERO, now).0, 1);
    assert_eq!(room.texts(), ["b", "c"]);
    waiting.finished(&[1, 1]);
    assert_eq!(waiting.take(10).len(), 1);
    assert_eq!(texts(&waiting.messages(1, 10)), ["d", "e"]);
    // Without room for any, they wait as before.
    waiting.add(2, "acme", "e", sender.held("x", now));
    assert_eq!(waiting.park_overdue(Duration::ZERO, now).0, 0);
    assert_eq!(waiting.take(10).len(), 1);
}

#[test]
fn what_comes_again_anyway_is_given_up_and_what_nobody_sends_again_is_given_back() {
    let ((waiting, _), sender) = (waiting(0), Sender::new());
    let now = Instant::now();
    let mut once = sender.held("once", now);
    once.message.token = sender.connection.receive_unacknowledged(4);
    waiting.add(1, "acme", "d", sender.held("a", now));
    waiting.add(1, "acme", "d", once);
    let (parked, left) = waiting.park_overdue(Duration::ZERO, now);
    assert_eq!((parked, texts(&left)), (0, vec!["once"]));
    sender.connection.end();
    assert_eq!(waiting.park_overdue(Duration::ZERO, now).0, 0);
    assert!(!waiting.holds(1));
    let books = sender.account.snapshot();
    assert_eq!((books.messages.in_flight, books.messages.abandoned), (1, 1));
    assert!(books.balanced());
}

#[test]
fn a_change_while_it_is_asked_about_is_noticed() {
    let ((waiting, _), sender) = (waiting(100), Sender::new());
    waiting.add(1, "acme", "d", sender.held("a", Instant::now()));
    waiting.mark_changed(1);
    waiting.take(10);
    assert!(!waiting.has_changed(1), "what changed before it was asked is no matter");
    waiting.mark_changed(1);
    assert!(waiting.has_changed(1));
    waiting.requeue(1);
    assert_eq!(waiting.take(10).len(), 1);
}

#[test]
fn the_key_of_one_device_is_never_the_answer_for_another() {
    let ((waiting, _), sender) = (waiting(100), Sender::new());
    let now = Instant::now();
    waiting.add(1, "acme", "d", sender.held("a", now));
    assert!(matches!(waiting.add(1, "acme", "e", sender.held("b", now)), Enqueued::NoRoom(_)));
}
