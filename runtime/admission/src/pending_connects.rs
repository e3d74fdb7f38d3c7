//! Devices that connect and wait for the registry: each is asked about once, however many connections
//! come under its name, and many at once.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::auth_cache::CachedDevice;
use crate::limits::CONNECTS_WAITING_MAX;
use crate::lookup_request::LookupRequest;
use tidegate_core::identity::Identity;

/// What the registry said: the device, or that there is none. None: it could not be asked.
pub type ConnectLookup = Option<Option<CachedDevice>>;

#[derive(Debug)]
struct PendingConnect {
    identity: Identity,
    waiting: Vec<oneshot::Sender<ConnectLookup>>,
    /// The device changed since it was last asked about.
    changed: bool,
}

#[derive(Debug, Default)]
struct ConnectQueue {
    devices: HashMap<u64, PendingConnect, foldhash::fast::RandomState>,
    queued: VecDeque<u64>,
    waiting: usize,
}

/// The connections that wait.
#[derive(Debug, Default)]
pub struct PendingConnects {
    queue: Mutex<ConnectQueue>,
    asked_for: Notify,
}

impl PendingConnects {
    /// Lets a connection wait; None where too many do.
    pub fn call(&self, key: u64, identity: &Identity) -> Option<oneshot::Receiver<ConnectLookup>> {
        let mut queue = self.queue.lock();
        let ConnectQueue { devices, queued, waiting } = &mut *queue;
        if *waiting >= CONNECTS_WAITING_MAX {
            return None;
        }
        let caller = devices.entry(key).or_insert_with(|| {
            queued.push_back(key);
            PendingConnect { identity: identity.clone(), waiting: Vec::new(), changed: false }
        });
        // Two devices with one key: the second must not be judged by the row of the first.
        if caller.identity != *identity {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        caller.waiting.push(sender);
        *waiting += 1;
        drop(queue);
        self.asked_for.notify_one();
        Some(receiver)
    }

    /// Takes devices to ask about, at most so many; waits until there is one.
    pub async fn next(&self, most: usize) -> Vec<LookupRequest> {
        loop {
            {
                let mut queue = self.queue.lock();
                let ConnectQueue { devices, queued, .. } = &mut *queue;
                let count = queued.len().min(most);
                let taken: Vec<LookupRequest> = queued
                    .drain(..count)
                    .filter_map(|key| {
                        let caller = devices.get_mut(&key)?;
                        caller.changed = false;
                        let Identity { tenant, device } = caller.identity.clone();
                        Some(LookupRequest { key, tenant, device })
                    })
                    .collect();
                if !taken.is_empty() {
                    return taken;
                }
            }
            self.asked_for.notified().await;
        }
    }

    /// Answers all connections that wait for this device.
    pub fn answer(&self, key: u64, answer: ConnectLookup) {
        let mut queue = self.queue.lock();
        let Some(caller) = queue.devices.remove(&key) else { return };
        queue.waiting -= caller.waiting.len();
        drop(queue);
        // Who has gone meanwhile hears nothing.
        caller.waiting.into_iter().for_each(|waits| drop(waits.send(answer.clone())));
    }

    /// Whether the device changed since it was last asked about.
    pub fn has_changed(&self, key: u64) -> bool {
        self.queue.lock().devices.get(&key).is_some_and(|caller| caller.changed)
    }

    /// Puts a device back into the queue, unless all who asked about it have gone.
    pub fn requeue(&self, key: u64) {
        let mut queue = self.queue.lock();
        let ConnectQueue { devices, queued, waiting } = &mut *queue;
        let Some(caller) = devices.get_mut(&key) else { return };
        let before = caller.waiting.len();
        caller.waiting.retain(|waits| !waits.is_closed());
        *waiting -= before - caller.waiting.len();
        if caller.waiting.is_empty() {
            devices.remove(&key);
            return;
        }
        queued.push_back(key);
        drop(queue);
        self.asked_for.notify_one();
    }

    /// A device has changed: an answer that is under way may be from before.
    pub fn mark_changed(&self, key: u64) {
        if let Some(caller) = self.queue.lock().devices.get_mut(&key) {
            caller.changed = true;
        }
    }

    /// Every device may have changed.
    pub fn note_all_changed(&self) {
        self.queue.lock().devices.values_mut().for_each(|caller| caller.changed = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::identity::Identity;

    fn identity(device: &str) -> Identity {
        Identity { tenant: "acme".into(), device: device.into() }
    }

    #[tokio::test]
    async fn a_device_is_asked_about_once_and_all_who_wait_are_answered() {
        let callers = PendingConnects::default();
        let first = callers.call(1, &identity("d")).unwrap();
        let asking = callers.next(10).await;
        assert_eq!((asking.len(), asking[0].key), (1, 1));
        // One that comes while it is asked about gets the same answer.
        let second = callers.call(1, &identity("d")).unwrap();
        assert!(callers.call(1, &identity("e")).is_none(), "another device of the same key");
        callers.answer(1, Some(None));
        assert!(matches!((first.await, second.await), (Ok(Some(None)), Ok(Some(None)))));
        assert_eq!(callers.queue.lock().waiting, 0);
    }

    #[tokio::test]
    async fn what_changed_while_it_was_asked_about_is_asked_about_again() {
        let callers = PendingConnects::default();
        let waits = callers.call(1, &identity("d")).unwrap();
        callers.mark_changed(1);
        callers.next(10).await;
        assert!(!callers.has_changed(1), "what changed before it was asked is no matter");
        callers.note_all_changed();
        assert!(callers.has_changed(1));
        callers.requeue(1);
        assert_eq!(callers.next(10).await.len(), 1);
        drop(waits);
        callers.requeue(1);
        assert!(callers.queue.lock().devices.is_empty(), "asked about for nobody");
        assert_eq!(callers.queue.lock().waiting, 0);
    }
}
