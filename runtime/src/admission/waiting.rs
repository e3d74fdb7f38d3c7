//! Messages that wait for the registry, by device: each device is asked about once however many of
//! its messages wait, and they go on in the order in which they came.
//!
//! A device stays here until the last of its messages was handed on: until then its later messages
//! queue behind. While messages of a device are parked, its later ones are parked behind them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::parking::{Parked, Parking, Room, Shares, bytes_of};
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
    shares: Shares,
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
    pub fn new(room: Room, parking: Arc<dyn Parking>) -> Self {
        let queues =
            Queues { devices: HashMap::default(), queued: VecDeque::new(), shares: Shares::new(room) };
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
        let Queues { devices, queued, shares } = &mut *queues;
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
        } else if shares.take(&pending.tenant, bytes_of(&held.message)) {
            pending.messages.push_back(held);
            Added::Waits
        } else {
            Added::NoRoom(Box::new(held))
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
        let Queues { devices, shares, .. } = &mut *queues;
        let Some(pending) = devices.get_mut(&key) else { return Vec::new() };
        let count = pending.messages.len().min(most);
        let messages: Vec<Held> = pending.messages.drain(..count).collect();
        messages.iter().for_each(|held| shares.give_back(&pending.tenant, bytes_of(&held.message)));
        messages
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
        let Queues { devices, queued, .. } = &mut *queues;
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
        let Queues { devices, shares, .. } = &mut *queues;
        let (mut parked, mut left) = (0, Vec::new());
        for pending in devices.values_mut().filter(|pending| pending.place != Place::Parked) {
            let overdue = pending
                .messages
                .front()
                .is_some_and(|first| now.saturating_duration_since(first.since) >= patience);
            if !overdue {
                continue;
            }
            pending.place = Place::Parked;
            for held in pending.messages.drain(..) {
                shares.give_back(&pending.tenant, bytes_of(&held.message));
                match park(&*self.parking, &pending.tenant, held) {
                    Added::NoRoom(held) => left.push(*held),
                    _ => parked += 1,
                }
            }
        }
        (parked, left)
    }

    /// The registry is back: what was parked waits for it again, before what came later. `key_of`
    /// tells a message's device. Gives how many it were.
    pub fn take_up(&self, key_of: impl Fn(&Received) -> Option<(u64, DeviceId)>) -> u64 {
        let mut queues = self.queues.lock();
        let Queues { devices, queued, shares } = &mut *queues;
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
            // Its room is taken even where that is too much for a moment: it was there before.
            let bytes = bytes_of(&message);
            shares.take_anyway(&tenant, bytes);
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
