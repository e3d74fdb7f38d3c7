//! Messages that wait for the registry, by device. Each device is asked about once, however many of
//! its messages wait; they are submitted in the order in which they came.
//!
//! A device stays here until the last of its messages was submitted: until then its later messages
//! queue behind. A message that waits for long is parked: then it is durable, and not here. While
//! messages of a device are parked, its later ones are parked behind them, or wait here if there is no
//! room.
//!
//! There is no ceiling here: each message has its place in the receive window, and sources stop when
//! that is full. It is charged to its tenant's memory budget too.

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
use tidegate_core::tenant::budget::Charge;

/// A message that waits.
#[derive(Debug)]
pub struct PendingMessage {
    pub message: Received,
    /// The account that counted it as received.
    pub account: Arc<Account>,
    /// True if it was parked before. It stays parked until it is settled, and no rate limit applies.
    pub was_parked: bool,
    /// True if its device was over its rate when it came: it is refused once the registry has answered.
    pub over_rate: bool,
    pub since: Instant,
    /// Its bytes in its tenant's memory budget; `None`: another bound holds.
    pub charge: Option<Charge>,
}

/// The state of a device's look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookupState {
    /// It is in the queue of devices to look up.
    Queued,
    /// A look-up task has taken it.
    Asked,
    /// All its messages here wait behind parked ones.
    Behind,
}

#[derive(Debug)]
struct PendingDevice {
    tenant: TenantId,
    device: DeviceId,
    messages: VecDeque<PendingMessage>,
    /// Messages that came after parked ones, and found no room to be parked.
    behind: VecDeque<PendingMessage>,
    state: LookupState,
    /// True if the device changed since it was last taken.
    changed: bool,
}

impl PendingDevice {
    fn new(tenant: TenantId, device: DeviceId, state: LookupState) -> Self {
        let (messages, behind) = (VecDeque::new(), VecDeque::new());
        Self { tenant, device, messages, behind, state, changed: false }
    }

    fn matches(&self, tenant: &str, device: &str) -> bool {
        self.tenant.as_str() == tenant && self.device.as_str() == device
    }
}

#[derive(Debug, Default)]
struct PendingQueues {
    devices: HashMap<u64, PendingDevice, foldhash::fast::RandomState>,
    queued: VecDeque<u64>,
    /// Messages of each device that are parked, or unparked and not submitted yet.
    parked: HashMap<u64, u32, foldhash::fast::RandomState>,
}

impl PendingQueues {
    /// Counts one parked message of a device less. True if the device is queued by that.
    fn unpark(&mut self, key: u64) -> bool {
        let Some(count) = self.parked.get_mut(&key) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.parked.remove(&key);
        let Some(queue) = self.devices.get_mut(&key) else { return false };
        queue.messages.append(&mut queue.behind);
        if queue.state != LookupState::Behind {
            return false;
        }
        queue.state = LookupState::Queued;
        self.queued.push_back(key);
        true
    }
}

/// The fate of a message that was to wait.
#[derive(Debug)]
pub enum Enqueued {
    Waits,
    /// It was parked, for messages of its device are.
    Parked,
    /// There was no room: its sender must send it again.
    NoRoom(Box<PendingMessage>),
}

/// The messages that wait.
#[derive(Debug)]
pub struct PendingMessages {
    queues: Mutex<PendingQueues>,
    /// Devices in `queues`, parked or not; the data path reads this before it locks.
    devices: AtomicUsize,
    queued: Notify,
    parking: Arc<dyn ParkingStore>,
}

impl PendingMessages {
    pub fn new(parking: Arc<dyn ParkingStore>) -> Self {
        let (queues, devices) = (Mutex::default(), AtomicUsize::new(0));
        Self { queues, devices, queued: Notify::new(), parking }
    }

    /// Publishes the number of devices.
    fn count(&self, queues: &PendingQueues) {
        self.devices.store(queues.devices.len() + queues.parked.len(), Ordering::Release);
    }

    /// True if messages of this device wait or are parked: later ones must queue behind.
    pub fn contains(&self, key: u64) -> bool {
        self.devices.load(Ordering::Acquire) > 0 && {
            let queues = self.queues.lock();
            queues.devices.contains_key(&key) || queues.parked.contains_key(&key)
        }
    }

    /// True if messages wait for a look-up.
    pub fn has_unparked(&self) -> bool {
        self.devices.load(Ordering::Acquire) > 0
            && self.queues.lock().devices.values().any(|queue| queue.state != LookupState::Behind)
    }

    /// Queues a message, or parks it behind others of its device.
    pub fn add(&self, key: u64, tenant: &str, device: &str, mut pending: PendingMessage) -> Enqueued {
        let mut queues = self.queues.lock();
        let follows = queues.parked.contains_key(&key);
        if follows && queues.devices.get(&key).is_none_or(|queue| queue.behind.is_empty()) {
            match self.park(&mut queues, key, &TenantId::new(tenant), pending) {
                Ok(()) => return Enqueued::Parked,
                Err(back) => pending = *back,
            }
        }
        if follows && !pending.message.token.is_redelivered() {
            return Enqueued::NoRoom(Box::new(pending));
        }
        let PendingQueues { devices, queued, .. } = &mut *queues;
        let state = if follows { LookupState::Behind } else { LookupState::Queued };
        let queue = devices.entry(key).or_insert_with(|| {
            if state == LookupState::Queued {
                queued.push_back(key);
            }
            PendingDevice::new(TenantId::new(tenant), DeviceId::new(device), state)
        });
        // Two devices with one key: the second must not be checked by the row of the first.
        if !queue.matches(tenant, device) {
            return Enqueued::NoRoom(Box::new(pending));
        }
        if follows { &mut queue.behind } else { &mut queue.messages }.push_back(pending);
        let wake = !queued.is_empty();
        self.count(&queues);
        drop(queues);
        if wake {
            self.queued.notify_one();
        }
        Enqueued::Waits
    }

    /// Queues a message that was parked, behind others of its device; with `first`, also if there are
    /// no others.
    ///
    /// # Errors
    /// The message, if there are no others, or if another device has this key.
    pub fn join(
        &self,
        key: u64,
        tenant: &str,
        device: &str,
        pending: PendingMessage,
        first: bool,
    ) -> Result<(), Box<PendingMessage>> {
        let mut queues = self.queues.lock();
        let PendingQueues { devices, queued, .. } = &mut *queues;
        let waits = devices.get(&key).is_some_and(|queue| queue.state != LookupState::Behind);
        if !waits && !first {
            return Err(Box::new(pending));
        }
        let queue = devices.entry(key).or_insert_with(|| {
            PendingDevice::new(TenantId::new(tenant), DeviceId::new(device), LookupState::Behind)
        });
        if !queue.matches(tenant, device) {
            return Err(Box::new(pending));
        }
        queue.messages.push_back(pending);
        if queue.state == LookupState::Behind {
            queue.state = LookupState::Queued;
            queued.push_back(key);
        }
        queues.unpark(key);
        self.count(&queues);
        drop(queues);
        self.queued.notify_one();
        Ok(())
    }

    /// Counts parked messages as submitted, one for each of these keys.
    pub fn finished(&self, devices: &[u64]) {
        let mut queues = self.queues.lock();
        let mut wake = false;
        devices.iter().for_each(|&key| wake |= queues.unpark(key));
        self.count(&queues);
        drop(queues);
        if wake {
            self.queued.notify_one();
        }
    }

    /// Takes at most `most` devices to look up; waits until there is one.
    pub async fn next(&self, most: usize) -> Vec<LookupRequest> {
        loop {
            let taken = self.take(most);
            if !taken.is_empty() {
                return taken;
            }
            self.queued.notified().await;
        }
    }

    /// Takes at most `most` devices to look up, without waiting.
    pub fn take(&self, most: usize) -> Vec<LookupRequest> {
        let mut queues = self.queues.lock();
        let PendingQueues { devices, queued, .. } = &mut *queues;
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(key) = queued.pop_front()
        {
            if let Some(queue) = devices.get_mut(&key).filter(|queue| queue.state == LookupState::Queued) {
                queue.state = LookupState::Asked;
                queue.changed = false;
                taken.push(LookupRequest { key, tenant: queue.tenant.clone(), device: queue.device.clone() });
            }
        }
        if !queued.is_empty() {
            self.queued.notify_one();
        }
        taken
    }

    /// Takes at most `most` messages of a device that a look-up task has.
    pub fn messages(&self, key: u64, most: usize) -> Vec<PendingMessage> {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.devices.get_mut(&key) else { return Vec::new() };
        let count = queue.messages.len().min(most);
        queue.messages.drain(..count).collect()
    }

    /// True if the device changed since it was last taken.
    pub fn has_changed(&self, key: u64) -> bool {
        self.queues.lock().devices.get(&key).is_some_and(|queue| queue.changed)
    }

    /// Removes a device whose messages were all submitted. False if more have come since.
    pub fn finish(&self, key: u64) -> bool {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.devices.get_mut(&key).filter(|queue| queue.state == LookupState::Asked)
        else {
            return true;
        };
        if !queue.messages.is_empty() {
            return false;
        }
        queue.state = LookupState::Behind;
        if queue.behind.is_empty() {
            queues.devices.remove(&key);
        }
        self.count(&queues);
        true
    }

    /// Puts a device back into the queue.
    pub fn requeue(&self, key: u64) {
        if self.finish(key) {
            return;
        }
        let mut queues = self.queues.lock();
        let PendingQueues { devices, queued, .. } = &mut *queues;
        if let Some(queue) = devices.get_mut(&key).filter(|queue| queue.state == LookupState::Asked) {
            queue.state = LookupState::Queued;
            queued.push_back(key);
            drop(queues);
            self.queued.notify_one();
        }
    }

    /// Marks a device as changed: an answer that is on its way may be older.
    pub fn mark_changed(&self, key: u64) {
        if let Some(queue) = self.queues.lock().devices.get_mut(&key) {
            queue.changed = true;
        }
    }

    /// Marks every device as changed.
    pub fn mark_all_changed(&self) {
        self.queues.lock().devices.values_mut().for_each(|queue| queue.changed = true);
    }
}
