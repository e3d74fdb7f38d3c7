//! Messages that wait for the registry, by device: each device is asked about once however many of
//! its messages wait, and they go on in the order in which they came.
//!
//! A device stays here until the last of its messages was handed on: until then its later messages
//! queue behind. What waits for long is parked: it is durable then, and not here. While messages of a
//! device are parked, its later ones are parked behind them, or wait here where there is no room.
//!
//! There is no ceiling here: each message holds a token of the window, and sources stop when that is
//! full.

mod overdue;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lookup_request::LookupRequest;
use tidegate_core::books::Account;
use tidegate_core::ids::{DeviceId, TenantId};
use tidegate_core::message::Received;
use tidegate_core::parked::ParkingStore;

/// A message that waits.
#[derive(Debug)]
pub struct PendingMessage {
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
enum LookupState {
    /// In the queue of those to be asked about.
    Queued,
    /// In the hands of the resolver.
    Asked,
    /// All that is here of it waits behind what is parked.
    Behind,
}

#[derive(Debug)]
struct PendingDevice {
    tenant: TenantId,
    device: DeviceId,
    messages: VecDeque<PendingMessage>,
    /// What came after messages that are parked, and found no room there.
    behind: VecDeque<PendingMessage>,
    place: LookupState,
    /// The device changed since it was last asked about.
    changed: bool,
}

impl PendingDevice {
    fn new(tenant: TenantId, device: DeviceId, place: LookupState) -> Self {
        let (messages, behind) = (VecDeque::new(), VecDeque::new());
        Self { tenant, device, messages, behind, place, changed: false }
    }

    fn is_of(&self, tenant: &str, device: &str) -> bool {
        self.tenant.as_str() == tenant && self.device.as_str() == device
    }
}

#[derive(Debug, Default)]
struct PendingQueues {
    devices: HashMap<u64, PendingDevice, foldhash::fast::RandomState>,
    queued: VecDeque<u64>,
    /// Messages a device that are parked, or were taken up and are not handed on.
    parked: HashMap<u64, u32, foldhash::fast::RandomState>,
}

impl PendingQueues {
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
        if pending.place != LookupState::Behind {
            return false;
        }
        pending.place = LookupState::Queued;
        self.queued.push_back(key);
        true
    }
}

/// What became of a message that was to wait.
#[derive(Debug)]
pub enum Enqueued {
    Waits,
    /// Its device's messages are parked, and so is it.
    Parked,
    /// There is no room: whoever sent it must send it again.
    NoRoom(Box<PendingMessage>),
}

/// The messages that wait.
#[derive(Debug)]
pub struct PendingMessages {
    queues: Mutex<PendingQueues>,
    /// Devices in `queues`, parked or not; the data path looks here first.
    devices: AtomicUsize,
    asked_for: Notify,
    parking: Arc<dyn ParkingStore>,
}

impl PendingMessages {
    pub fn new(parking: Arc<dyn ParkingStore>) -> Self {
        let (queues, devices) = (Mutex::default(), AtomicUsize::new(0));
        Self { queues, devices, asked_for: Notify::new(), parking }
    }

    /// Notes how many devices there are now.
    fn count(&self, queues: &PendingQueues) {
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
            && self.queues.lock().devices.values().any(|pending| pending.place != LookupState::Behind)
    }

    /// Lets a message wait.
    pub fn add(&self, key: u64, tenant: &str, device: &str, mut held: PendingMessage) -> Enqueued {
        let mut queues = self.queues.lock();
        let follows = queues.parked.contains_key(&key);
        if follows && queues.devices.get(&key).is_none_or(|pending| pending.behind.is_empty()) {
            match self.park(&mut queues, key, &TenantId::new(tenant), held) {
                Ok(()) => return Enqueued::Parked,
                Err(back) => held = *back,
            }
        }
        if follows && !held.message.token.is_redelivered() {
            return Enqueued::NoRoom(Box::new(held));
        }
        let PendingQueues { devices, queued, .. } = &mut *queues;
        let place = if follows { LookupState::Behind } else { LookupState::Queued };
        let pending = devices.entry(key).or_insert_with(|| {
            if place == LookupState::Queued {
                queued.push_back(key);
            }
            PendingDevice::new(TenantId::new(tenant), DeviceId::new(device), place)
        });
        // Two devices with one key: the second must not be judged by the row of the first.
        if !pending.is_of(tenant, device) {
            return Enqueued::NoRoom(Box::new(held));
        }
        if follows { &mut pending.behind } else { &mut pending.messages }.push_back(held);
        let wake = !queued.is_empty();
        self.count(&queues);
        drop(queues);
        if wake {
            self.asked_for.notify_one();
        }
        Enqueued::Waits
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
        held: PendingMessage,
        first: bool,
    ) -> Result<(), Box<PendingMessage>> {
        let mut queues = self.queues.lock();
        let PendingQueues { devices, queued, .. } = &mut *queues;
        let waits = devices.get(&key).is_some_and(|pending| pending.place != LookupState::Behind);
        if !waits && !first {
            return Err(Box::new(held));
        }
        let pending = devices.entry(key).or_insert_with(|| {
            PendingDevice::new(TenantId::new(tenant), DeviceId::new(device), LookupState::Behind)
        });
        if !pending.is_of(tenant, device) {
            return Err(Box::new(held));
        }
        pending.messages.push_back(held);
        if pending.place == LookupState::Behind {
            pending.place = LookupState::Queued;
            queued.push_back(key);
        }
        queues.unpark(key);
        self.count(&queues);
        drop(queues);
        self.asked_for.notify_one();
        Ok(())
    }

    /// Messages that were parked are on their way, one of each of these devices.
    pub fn finished(&self, devices: &[u64]) {
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
    pub async fn next(&self, most: usize) -> Vec<LookupRequest> {
        loop {
            let taken = self.take(most);
            if !taken.is_empty() {
                return taken;
            }
            self.asked_for.notified().await;
        }
    }

    /// Takes devices to ask about, if there are any.
    pub fn take(&self, most: usize) -> Vec<LookupRequest> {
        let mut queues = self.queues.lock();
        let PendingQueues { devices, queued, .. } = &mut *queues;
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(key) = queued.pop_front()
        {
            if let Some(pending) =
                devices.get_mut(&key).filter(|pending| pending.place == LookupState::Queued)
            {
                pending.place = LookupState::Asked;
                pending.changed = false;
                taken.push(LookupRequest {
                    key,
                    tenant: pending.tenant.clone(),
                    device: pending.device.clone(),
                });
            }
        }
        if !queued.is_empty() {
            self.asked_for.notify_one();
        }
        taken
    }

    /// Takes messages of a device in the resolver's hands, at most so many.
    pub fn messages(&self, key: u64, most: usize) -> Vec<PendingMessage> {
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
        let Some(pending) =
            queues.devices.get_mut(&key).filter(|pending| pending.place == LookupState::Asked)
        else {
            return true;
        };
        if !pending.messages.is_empty() {
            return false;
        }
        pending.place = LookupState::Behind;
        if pending.behind.is_empty() {
            queues.devices.remove(&key);
        }
        self.count(&queues);
        true
    }

    /// Puts a device back into the queue: it must be asked about again.
    pub fn requeue(&self, key: u64) {
        if self.finish(key) {
            return;
        }
        let mut queues = self.queues.lock();
        let PendingQueues { devices, queued, .. } = &mut *queues;
        if let Some(pending) = devices.get_mut(&key).filter(|pending| pending.place == LookupState::Asked) {
            pending.place = LookupState::Queued;
            queued.push_back(key);
            drop(queues);
            self.asked_for.notify_one();
        }
    }

    /// A device has changed: an answer that is under way may be from before.
    pub fn mark_changed(&self, key: u64) {
        if let Some(pending) = self.queues.lock().devices.get_mut(&key) {
            pending.changed = true;
        }
    }

    /// Every device may have changed.
    pub fn note_all_changed(&self) {
        self.queues.lock().devices.values_mut().for_each(|pending| pending.changed = true);
    }
}
