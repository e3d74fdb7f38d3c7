//! Messages that wait for the registry, by device: each device is asked about once however many of
//! its messages wait, and they go on in the order in which they came.
//!
//! A device stays here until the last of its messages was handed on: until then its later messages
//! queue behind. What waits for long is parked: it is durable then, and not here. While messages of a
//! device are parked, its later ones are parked behind them, or wait here where there is no room.
//!
//! There is no ceiling here: each message holds a slot of the window, and sources stop when that is
//! full.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::parking::Parking;
use crate::domain::books::Account;
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::limits;
use crate::domain::message::Received;

/// A message that waits.
#[derive(Debug)]
pub struct Held {
    pub message: Received,
    /// Where it was counted as received.
    pub account: Arc<Account>,
    /// It was parked before, and still is unless it is settled: no rate limit is its business any
    /// more.
    pub was_parked: bool,
    pub since: Instant,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the queue of those to be asked about.
    Queued,
    /// In the hands of the resolver.
    Asked,
    /// All that is here of it waits behind what is parked.
    Behind,
}

#[derive(Debug)]
struct Pending {
    tenant: TenantId,
    device: DeviceId,
    messages: VecDeque<Held>,
    /// What came after messages that are parked, and found no room there.
    behind: VecDeque<Held>,
    place: Place,
    /// The device changed since it was last asked about.
    changed: bool,
}

impl Pending {
    fn new(tenant: TenantId, device: DeviceId, place: Place) -> Self {
        let (messages, behind) = (VecDeque::new(), VecDeque::new());
        Self { tenant, device, messages, behind, place, changed: false }
    }

    fn is_of(&self, tenant: &str, device: &str) -> bool {
        self.tenant.as_str() == tenant && self.device.as_str() == device
    }
}

#[derive(Debug, Default)]
struct Queues {
    devices: HashMap<u64, Pending, foldhash::fast::RandomState>,
    queued: VecDeque<u64>,
    /// Messages a device that are parked, or were taken up and are not handed on.
    parked: HashMap<u64, u32, foldhash::fast::RandomState>,
}

impl Queues {
    /// One message less of a device is parked. True: it is to be asked about now.
    fn unpark(&mut self, key: u64) -> bool {
        let Some(count) = self.parked.get_mut(&key) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.parked.remove(&key);
        let Some(pending) = self.devices.get_mut(&key) else { return false };
        pending.messages.append(&mut pending.behind);
        if pending.place != Place::Behind {
            return false;
        }
        pending.place = Place::Queued;
        self.queued.push_back(key);
        true
    }
}

/// A device in the hands of the resolver.
#[derive(Clone, Debug)]
pub struct Asking {
    pub key: u64,
    pub tenant: TenantId,
    pub device: DeviceId,
}

/// What became of a message that was to wait.
#[derive(Debug)]
pub enum Added {
    Waits,
    /// Its device's messages are parked, and so is it.
    Parked,
    /// There is no room: whoever sent it must send it again.
    NoRoom(Box<Held>),
}

/// The messages that wait.
#[derive(Debug)]
pub struct Waiting {
    queues: Mutex<Queues>,
    /// Devices in `queues`, parked or not; the data path looks here first.
    devices: AtomicUsize,
    asked_for: Notify,
    parking: Arc<dyn Parking>,
}

impl Waiting {
    pub fn new(parking: Arc<dyn Parking>) -> Self {
        let (queues, devices) = (Mutex::default(), AtomicUsize::new(0));
        Self { queues, devices, asked_for: Notify::new(), parking }
    }

    /// Notes how many devices there are now.
    fn count(&self, queues: &Queues) {
        self.devices.store(queues.devices.len() + queues.parked.len(), Ordering::Release);
    }

    /// Whether messages of this device wait, so that its later ones must queue behind.
    pub fn holds(&self, key: u64) -> bool {
        self.devices.load(Ordering::Acquire) > 0 && {
            let queues = self.queues.lock();
            queues.devices.contains_key(&key) || queues.parked.contains_key(&key)
        }
    }

    /// Whether there are messages that wait for an answer.
    pub fn has_unparked(&self) -> bool {
        self.devices.load(Ordering::Acquire) > 0
            && self.queues.lock().devices.values().any(|pending| pending.place != Place::Behind)
    }

    /// Lets a message wait.
    pub fn add(&self, key: u64, tenant: &str, device: &str, mut held: Held) -> Added {
        let mut queues = self.queues.lock();
        let follows = queues.parked.contains_key(&key);
        if follows && queues.devices.get(&key).is_none_or(|pending| pending.behind.is_empty()) {
            match self.park(&mut queues, key, &TenantId::new(tenant), held) {
                Ok(()) => return Added::Parked,
                Err(back) => held = *back,
            }
        }
        if follows && !held.message.slot.comes_again() {
            return Added::NoRoom(Box::new(held));
        }
        let Queues { devices, queued, .. } = &mut *queues;
        let place = if follows { Place::Behind } else { Place::Queued };
        let pending = devices.entry(key).or_insert_with(|| {
            if place == Place::Queued {
                queued.push_back(key);
            }
            Pending::new(TenantId::new(tenant), DeviceId::new(device), place)
        });
        // Two devices with one key: the second must not be judged by the row of the first.
        if !pending.is_of(tenant, device) {
            return Added::NoRoom(Box::new(held));
        }
        if follows { &mut pending.behind } else { &mut pending.messages }.push_back(held);
        let wake = !queued.is_empty();
        self.count(&queues);
        drop(queues);
        if wake {
            self.asked_for.notify_one();
        }
        Added::Waits
    }

    /// Parks a message. One that was parked before goes back to where it lies.
    ///
    /// # Errors
    /// There is no room for it.
    fn park(&self, queues: &mut Queues, key: u64, tenant: &TenantId, held: Held) -> Result<(), Box<Held>> {
        let Held { message, account, was_parked, since } = held;
        let has_room = queues.parked.contains_key(&key) || queues.parked.len() < limits::PARKED_DEVICES_MAX;
        if was_parked {
            // Counted first: it may be taken up the moment that it lies there.
            account.park(1);
            drop(message);
        } else if !has_room {
            return Err(Box::new(Held { message, account, was_parked, since }));
        } else if let Err(message) = self.parking.park(tenant, &account, message) {
            return Err(Box::new(Held { message: *message, account, was_parked, since }));
        }
        *queues.parked.entry(key).or_default() += 1;
        self.count(queues);
        Ok(())
    }

    /// An earlier run has left a parked message of this device.
    pub fn note_parked(&self, key: u64) {
        let mut queues = self.queues.lock();
        *queues.parked.entry(key).or_default() += 1;
        self.count(&queues);
    }

    /// A message that was parked waits for the registry again, behind those of its device that do;
    /// with `first`, also where there are none.
    ///
    /// # Errors
    /// The message, where there are none, or those of another device are in its way.
    pub fn join(
        &self,
        key: u64,
        tenant: &str,
        device: &str,
        held: Held,
        first: bool,
    ) -> Result<(), Box<Held>> {
        let mut queues = self.queues.lock();
        let Queues { devices, queued, .. } = &mut *queues;
        let waits = devices.get(&key).is_some_and(|pending| pending.place != Place::Behind);
        if !waits && !first {
            return Err(Box::new(held));
        }
        let pending = devices
            .entry(key)
            .or_insert_with(|| Pending::new(TenantId::new(tenant), DeviceId::new(device), Place::Behind));
        if !pending.is_of(tenant, device) {
            return Err(Box::new(held));
        }
        pending.messages.push_back(held);
        if pending.place == Place::Behind {
            pending.place = Place::Queued;
            queued.push_back(key);
        }
        queues.unpark(key);
        self.count(&queues);
        drop(queues);
        self.asked_for.notify_one();
        Ok(())
    }

    /// Messages that were parked are on their way, one of each of these devices.
    pub fn handed_on(&self, devices: &[u64]) {
        let mut queues = self.queues.lock();
        let mut wake = false;
        devices.iter().for_each(|&key| wake |= queues.unpark(key));
        self.count(&queues);
        drop(queues);
        if wake {
            self.asked_for.notify_one();
        }
    }

    /// Takes devices to ask about, at most so many; waits until there is one.
    pub async fn next(&self, most: usize) -> Vec<Asking> {
        loop {
            let taken = self.take(most);
            if !taken.is_empty() {
                return taken;
            }
            self.asked_for.notified().await;
        }
    }

    /// Takes devices to ask about, if there are any.
    pub fn take(&self, most: usize) -> Vec<Asking> {
        let mut queues = self.queues.lock();
        let Queues { devices, queued, .. } = &mut *queues;
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(key) = queued.pop_front()
        {
            if let Some(pending) = devices.get_mut(&key).filter(|pending| pending.place == Place::Queued) {
                pending.place = Place::Asked;
                pending.changed = false;
                taken.push(Asking { key, tenant: pending.tenant.clone(), device: pending.device.clone() });
            }
        }
        if !queued.is_empty() {
            self.asked_for.notify_one();
        }
        taken
    }

    /// Takes messages of a device in the resolver's hands, at most so many.
    pub fn messages(&self, key: u64, most: usize) -> Vec<Held> {
        let mut queues = self.queues.lock();
        let Some(pending) = queues.devices.get_mut(&key) else { return Vec::new() };
        let count = pending.messages.len().min(most);
        pending.messages.drain(..count).collect()
    }

    /// Whether the device changed since it was last asked about.
    pub fn has_changed(&self, key: u64) -> bool {
        self.queues.lock().devices.get(&key).is_some_and(|pending| pending.changed)
    }

    /// Lets a device go whose messages were all handed on. False: more have come since.
    pub fn finish(&self, key: u64) -> bool {
        let mut queues = self.queues.lock();
        let Some(pending) = queues.devices.get_mut(&key).filter(|pending| pending.place == Place::Asked)
        else {
            return true;
        };
        if !pending.messages.is_empty() {
            return false;
        }
        pending.place = Place::Behind;
        if pending.behind.is_empty() {
            queues.devices.remove(&key);
        }
        self.count(&queues);
        true
    }

    /// Puts a device back into the queue: it must be asked about again.
    pub fn ask_again(&self, key: u64) {
        if self.finish(key) {
            return;
        }
        let mut queues = self.queues.lock();
        let Queues { devices, queued, .. } = &mut *queues;
        if let Some(pending) = devices.get_mut(&key).filter(|pending| pending.place == Place::Asked) {
            pending.place = Place::Queued;
            queued.push_back(key);
            drop(queues);
            self.asked_for.notify_one();
        }
    }

    /// A device has changed: an answer that is under way may be from before.
    pub fn note_changed(&self, key: u64) {
        if let Some(pending) = self.queues.lock().devices.get_mut(&key) {
            pending.changed = true;
        }
    }

    /// Every device may have changed.
    pub fn note_all_changed(&self) {
        self.queues.lock().devices.values_mut().for_each(|pending| pending.changed = true);
    }

    /// Parks the messages of devices that have waited for longer than `patience`. What there is no
    /// room for waits on; of it, what nobody would send again is given back. Also gives how many were
    /// parked.
    pub fn park_overdue(&self, patience: Duration, now: Instant) -> (u64, Vec<Held>) {
        let mut queues = self.queues.lock();
        let (mut parked, mut left) = (0, Vec::new());
        let overdue = queues.devices.iter().filter(|(_, pending)| {
            let waited = pending.messages.front().map(|first| now.saturating_duration_since(first.since));
            !pending.behind.is_empty() || waited.is_some_and(|waited| waited >= patience)
        });
        let overdue: Vec<u64> = overdue.map(|(key, _)| *key).collect();
        for key in overdue {
            let Some(mut pending) = queues.devices.remove(&key) else { continue };
            let waited = pending.messages.front().map(|first| now.saturating_duration_since(first.since));
            if waited.is_some_and(|waited| waited >= patience) {
                let waiting = std::mem::take(&mut pending.messages);
                let (done, messages) = self.park_all(&mut queues, key, &pending.tenant, waiting);
                parked += done;
                for held in messages {
                    match held.was_parked || held.message.slot.comes_again() {
                        true => pending.messages.push_back(held),
                        false => left.push(held),
                    }
                }
                if queues.parked.contains_key(&key) {
                    // What is parked goes before them.
                    pending.messages.append(&mut pending.behind);
                    std::mem::swap(&mut pending.messages, &mut pending.behind);
                }
            }
            if pending.messages.is_empty() {
                let behind = std::mem::take(&mut pending.behind);
                let (done, behind) = self.park_all(&mut queues, key, &pending.tenant, behind);
                parked += done;
                pending.behind = behind;
                if pending.place == Place::Queued {
                    pending.place = Place::Behind;
                }
            }
            let rest = !pending.messages.is_empty() || !pending.behind.is_empty();
            if rest || pending.place == Place::Asked {
                queues.devices.insert(key, pending);
            }
        }
        self.count(&queues);
        (parked, left)
    }

    /// Parks messages of a device from the first on, as far as there is room. What comes again anyway,
    /// because its connection has ended, is given up. Gives how many were parked, and the others.
    fn park_all(
        &self,
        queues: &mut Queues,
        key: u64,
        tenant: &TenantId,
        mut messages: VecDeque<Held>,
    ) -> (u64, VecDeque<Held>) {
        messages.retain(|held| {
            let orphan = held.message.slot.is_orphan();
            if orphan {
                held.account.abandon(1);
            }
            !orphan
        });
        let mut parked = 0;
        while let Some(held) = messages.pop_front() {
            match self.park(queues, key, tenant, held) {
                Ok(()) => parked += 1,
                Err(held) => {
                    messages.push_front(*held);
                    break;
                }
            }
        }
        (parked, messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Via;
    use crate::domain::parked::Release;
    use crate::domain::slot::{Connection, Window};

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

    impl Parking for Room {
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

    fn waiting(messages_max: usize) -> (Waiting, Arc<Room>) {
        let room = Arc::new(Room { messages_max, parked: Mutex::default() });
        (Waiting::new(room.clone()), room)
    }

    struct Sender {
        connection: Arc<Connection>,
        account: Arc<Account>,
    }

    impl Sender {
        fn new() -> Self {
            let connection = Connection::new(Arc::new(Window::new(1_000, 1_000_000)));
            Self { connection, account: Arc::new(Account::new("acme".into())) }
        }

        fn held(&self, text: &'static str, since: Instant) -> Held {
            self.account.receive(1);
            let message = Received {
                topic: "t".into(),
                payload: text.into(),
                payload_bytes: text.len(),
                received_ns: 0,
                via: Via::Broker,
                slot: self.connection.receive(1, text.len()),
            };
            Held { message, account: self.account.clone(), was_parked: false, since }
        }

        /// As `held`, of a message that was parked and is taken up.
        fn taken_up(&self, text: &'static str, back: &Arc<AtomicUsize>) -> Held {
            let mut held = self.held(text, Instant::now());
            held.was_parked = true;
            held.message.slot = held.message.slot.releasing(Box::new(Told(back.clone())));
            held
        }
    }

    #[derive(Debug)]
    struct Told(Arc<AtomicUsize>);

    impl Release for Told {
        fn done(&self) {}

        fn back(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn text(message: &Received) -> &str {
        std::str::from_utf8(&message.payload).unwrap()
    }

    fn texts(messages: &[Held]) -> Vec<&str> {
        messages.iter().map(|held| text(&held.message)).collect()
    }

    #[test]
    fn a_device_is_asked_about_once_and_is_held_until_its_last_message_went_on() {
        let ((waiting, _), sender) = (waiting(100), Sender::new());
        let now = Instant::now();
        for text in ["a", "b"] {
            assert!(matches!(waiting.add(1, "acme", "d", sender.held(text, now)), Added::Waits));
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
        assert!(matches!(waiting.add(1, "acme", "d", sender.held("c", later)), Added::Parked));
        assert_eq!(room.texts(), ["a", "b", "c"]);
        // Two of them are known by then and go on, the third is asked about.
        waiting.handed_on(&[1, 1]);
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
        waiting.handed_on(&[1, 1]);
        assert!(waiting.holds(1));
        waiting.handed_on(&[1]);
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
        assert!(matches!(waiting.add(1, "acme", "d", sender.held("e", now)), Added::Waits));
        assert!(waiting.take(10).is_empty(), "what is parked goes first");
        // Room for one: the first of those that wait takes it.
        room.parked.lock().remove(0);
        waiting.handed_on(&[1]);
        assert_eq!(waiting.park_overdue(Duration::ZERO, now).0, 1);
        assert_eq!(room.texts(), ["b", "c"]);
        waiting.handed_on(&[1, 1]);
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
        once.message.slot = sender.connection.receive_unacknowledged(4);
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
        waiting.note_changed(1);
        waiting.take(10);
        assert!(!waiting.has_changed(1), "what changed before it was asked is no matter");
        waiting.note_changed(1);
        assert!(waiting.has_changed(1));
        waiting.ask_again(1);
        assert_eq!(waiting.take(10).len(), 1);
    }

    #[test]
    fn the_key_of_one_device_is_never_the_answer_for_another() {
        let ((waiting, _), sender) = (waiting(100), Sender::new());
        let now = Instant::now();
        waiting.add(1, "acme", "d", sender.held("a", now));
        assert!(matches!(waiting.add(1, "acme", "e", sender.held("b", now)), Added::NoRoom(_)));
    }
}
