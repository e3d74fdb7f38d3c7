//! Messages that wait for the registry, by device: each device is asked about once however many of
//! its messages wait, and they go on in the order in which they came.
//!
//! A device stays here until the last of its messages was handed on: until then its later messages
//! queue behind. While messages of a device are parked, its later ones are parked behind them.
//!
//! There is no ceiling here: each message holds a slot of the window, sources stop when that is full,
//! and what waits for long is parked, where there is one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::parking::{Parked, Parking};
use crate::domain::books::Account;
use crate::domain::ids::{DeviceId, TenantId};
use crate::domain::message::Received;

/// A message that waits.
#[derive(Debug)]
pub struct Held {
    pub message: Received,
    /// Where it was counted as received.
    pub account: Arc<Account>,
    /// It was parked before: no rate limit is its business any more.
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
    /// Its messages are parked.
    Parked,
}

#[derive(Debug)]
struct Pending {
    tenant: TenantId,
    device: DeviceId,
    messages: VecDeque<Held>,
    place: Place,
    /// The device changed since it was last asked about.
    changed: bool,
}

#[derive(Debug)]
struct Queues {
    devices: HashMap<u64, Pending, foldhash::fast::RandomState>,
    queued: VecDeque<u64>,
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
    /// Devices in `queues`; the data path looks here first.
    devices: AtomicUsize,
    asked_for: Notify,
    parking: Arc<dyn Parking>,
}

impl Waiting {
    pub fn new(parking: Arc<dyn Parking>) -> Self {
        let queues = Queues { devices: HashMap::default(), queued: VecDeque::new() };
        Self { queues: Mutex::new(queues), devices: AtomicUsize::new(0), asked_for: Notify::new(), parking }
    }

    /// Whether messages of this device wait, so that its later ones must queue behind.
    pub fn holds(&self, key: u64) -> bool {
        self.devices.load(Ordering::Acquire) > 0 && self.queues.lock().devices.contains_key(&key)
    }

    /// Whether there are messages that wait and are not parked.
    pub fn has_unparked(&self) -> bool {
        self.devices.load(Ordering::Acquire) > 0
            && self.queues.lock().devices.values().any(|pending| pending.place != Place::Parked)
    }

    pub fn parked(&self) -> usize {
        self.parking.parked()
    }

    /// Lets a message wait.
    pub fn add(&self, key: u64, tenant: &str, device: &str, held: Held) -> Added {
        let mut queues = self.queues.lock();
        let Queues { devices, queued } = &mut *queues;
        let pending = devices.entry(key).or_insert_with(|| {
            queued.push_back(key);
            Pending {
                tenant: TenantId::new(tenant),
                device: DeviceId::new(device),
                messages: VecDeque::new(),
                place: Place::Queued,
                changed: false,
            }
        });
        // Two devices with one key: the second must not be judged by the row of the first.
        if pending.tenant.as_str() != tenant || pending.device.as_str() != device {
            return Added::NoRoom(Box::new(held));
        }
        let added = if pending.place == Place::Parked {
            park(&*self.parking, &pending.tenant, held)
        } else {
            pending.messages.push_back(held);
            Added::Waits
        };
        let new = devices.len();
        let wake = !queued.is_empty();
        self.devices.store(new, Ordering::Release);
        drop(queues);
        if wake {
            self.asked_for.notify_one();
        }
        added
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
        let Queues { devices, queued } = &mut *queues;
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
        let Some(pending) = queues.devices.get(&key) else { return true };
        if pending.place == Place::Parked {
            return true;
        }
        if !pending.messages.is_empty() {
            return false;
        }
        queues.devices.remove(&key);
        self.devices.store(queues.devices.len(), Ordering::Release);
        true
    }

    /// Puts a device back into the queue: it must be asked about again.
    pub fn ask_again(&self, key: u64) {
        let mut queues = self.queues.lock();
        let Queues { devices, queued } = &mut *queues;
        if let Some(pending) = devices.get_mut(&key).filter(|pending| pending.place == Place::Asked) {
            if pending.messages.is_empty() {
                devices.remove(&key);
                self.devices.store(devices.len(), Ordering::Release);
                return;
            }
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
    /// room for is given back. Also gives how many were parked.
    pub fn park_overdue(&self, patience: Duration, now: Instant) -> (u64, Vec<Held>) {
        let mut queues = self.queues.lock();
        let (mut parked, mut left) = (0, Vec::new());
        queues.devices.retain(|_, pending| {
            let waited = pending.messages.front().map(|first| now.saturating_duration_since(first.since));
            if pending.place == Place::Parked || waited.is_none_or(|waited| waited < patience) {
                return true;
            }
            pending.place = Place::Parked;
            let before = parked;
            for held in pending.messages.drain(..) {
                match park(&*self.parking, &pending.tenant, held) {
                    Added::NoRoom(held) => left.push(*held),
                    Added::Parked | Added::Waits => parked += 1,
                }
            }
            // Of a device without a parked message nothing is to be taken up.
            parked > before
        });
        self.devices.store(queues.devices.len(), Ordering::Release);
        (parked, left)
    }

    /// The registry is back: what was parked waits for it again, before what came later. `key_of`
    /// tells a message's device. Gives how many it were.
    pub fn take_up(&self, key_of: impl Fn(&Received) -> Option<(u64, DeviceId)>) -> u64 {
        let mut queues = self.queues.lock();
        let Queues { devices, queued } = &mut *queues;
        let mut taken = 0;
        for Parked { tenant, message, account } in self.parking.take_parked() {
            let Some((key, device)) = key_of(&message) else { continue };
            account.unpark(1);
            if message.slot.is_orphan() {
                // Its connection has ended: it comes again, or has come.
                account.abandon(1);
                continue;
            }
            taken += 1;
            let pending = devices.entry(key).or_insert_with(|| Pending {
                tenant,
                device,
                messages: VecDeque::new(),
                place: Place::Parked,
                changed: false,
            });
            pending.messages.push_back(Held { message, account, was_parked: true, since: Instant::now() });
        }
        for (key, pending) in devices.iter_mut().filter(|(_, pending)| pending.place == Place::Parked) {
            pending.place = Place::Queued;
            queued.push_back(*key);
        }
        self.devices.store(devices.len(), Ordering::Release);
        drop(queues);
        self.asked_for.notify_one();
        taken
    }
}

fn park(parking: &dyn Parking, tenant: &TenantId, held: Held) -> Added {
    let (was_parked, since) = (held.was_parked, held.since);
    let account = held.account.clone();
    // Counted first: it may be taken up the moment that it lies there.
    account.park(1);
    match parking.park(Parked { tenant: tenant.clone(), message: held.message, account: held.account }) {
        Ok(()) => Added::Parked,
        Err(back) => {
            account.unpark(1);
            Added::NoRoom(Box::new(Held { message: back.message, account: back.account, was_parked, since }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::parking::{HeldParking, Room};
    use crate::domain::message::Via;
    use crate::domain::slot::{Connection, Window};

    fn waiting() -> Waiting {
        let room = Room { messages_max: 100, bytes_max: 100_000 };
        Waiting::new(Arc::new(HeldParking::new(room)))
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
    }

    fn texts(messages: &[Held]) -> Vec<&str> {
        messages.iter().map(|held| std::str::from_utf8(&held.message.payload).unwrap()).collect()
    }

    #[test]
    fn a_device_is_asked_about_once_and_is_held_until_its_last_message_went_on() {
        let (waiting, sender) = (waiting(), Sender::new());
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
    fn what_is_parked_goes_before_what_came_later_and_both_are_counted() {
        let (waiting, sender) = (waiting(), Sender::new());
        let now = Instant::now();
        waiting.add(1, "acme", "d", sender.held("a", now));
        waiting.add(1, "acme", "d", sender.held("b", now));
        let later = now + Duration::from_secs(5);
        assert_eq!(waiting.park_overdue(Duration::from_secs(5), later).0, 2);
        assert!(matches!(waiting.add(1, "acme", "d", sender.held("c", later)), Added::Parked));
        assert_eq!(sender.account.snapshot().messages.parked, 3);
        assert!(waiting.take(10).is_empty(), "parked devices are not asked about");
        assert_eq!(waiting.take_up(|_| Some((1, "d".into()))), 3);
        waiting.add(1, "acme", "d", sender.held("d", later));
        assert_eq!(waiting.take(10).len(), 1);
        let messages = waiting.messages(1, 10);
        assert_eq!(texts(&messages), ["a", "b", "c", "d"]);
        assert!(messages[0].was_parked && !messages[3].was_parked);
        assert_eq!(sender.account.snapshot().messages.parked, 0);
    }

    #[test]
    fn a_change_while_it_is_asked_about_is_noticed() {
        let (waiting, sender) = (waiting(), Sender::new());
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
    fn what_there_is_no_room_for_and_what_comes_again_anyway_is_given_up() {
        let (waiting, sender) = (waiting(), Sender::new());
        let now = Instant::now();
        for _ in 0..80 {
            waiting.add(1, "acme", "d", sender.held("a", now));
        }
        let (parked, left) = waiting.park_overdue(Duration::ZERO, now);
        assert_eq!((parked, left.len(), waiting.parked()), (50, 30, 50));
        sender.connection.end();
        assert_eq!(waiting.take_up(|_| Some((1, "d".into()))), 0);
        let books = sender.account.snapshot();
        assert_eq!((books.messages.parked, books.messages.abandoned), (0, 50));
        assert!(books.balanced());
    }

    #[test]
    fn the_key_of_one_device_is_never_the_answer_for_another() {
        let (waiting, sender) = (waiting(), Sender::new());
        let now = Instant::now();
        waiting.add(1, "acme", "d", sender.held("a", now));
        assert!(matches!(waiting.add(1, "acme", "e", sender.held("b", now)), Added::NoRoom(_)));
    }
}
