//! Devices that connect and wait for the registry. Each is looked up once, however many connections
//! come under its name, and many are looked up together.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::auth_cache::CachedDevice;
use crate::limits::CONNECTS_WAITING_MAX;
use crate::lookup_request::LookupRequest;
use tidegate_core::identity::Identity;

/// The registry's answer: the device, or that there is none. None: it could not be asked.
pub type ConnectLookup = Option<Option<CachedDevice>>;

#[derive(Debug)]
struct PendingConnect {
    identity: Identity,
    waiting: Vec<oneshot::Sender<ConnectLookup>>,
    /// True if the device changed since it was last taken.
    changed: bool,
}

#[derive(Debug, Default)]
struct ConnectQueue {
    devices: HashMap<u64, PendingConnect, foldhash::fast::RandomState>,
    queued: VecDeque<u64>,
    waiting: usize,
}

/// The connections that wait for the registry.
#[derive(Debug, Default)]
pub struct PendingConnects {
    queue: Mutex<ConnectQueue>,
    queued_device: Notify,
}

impl PendingConnects {
    /// Queues a connection; None if too many wait, or another device has this key.
    pub fn enqueue(&self, key: u64, identity: &Identity) -> Option<oneshot::Receiver<ConnectLookup>> {
        let mut queue = self.queue.lock();
        let ConnectQueue { devices, queued, waiting } = &mut *queue;
        if *waiting >= CONNECTS_WAITING_MAX {
            return None;
        }
        let connect = devices.entry(key).or_insert_with(|| {
            queued.push_back(key);
            PendingConnect { identity: identity.clone(), waiting: Vec::new(), changed: false }
        });
        // Two devices with one key: the second must not be checked by the row of the first.
        if connect.identity != *identity {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        connect.waiting.push(sender);
        *waiting += 1;
        drop(queue);
        self.queued_device.notify_one();
        Some(receiver)
    }

    /// Takes at most `most` devices to look up; waits until there is one.
    pub async fn next(&self, most: usize) -> Vec<LookupRequest> {
        loop {
            {
                let mut queue = self.queue.lock();
                let ConnectQueue { devices, queued, .. } = &mut *queue;
                let count = queued.len().min(most);
                let taken: Vec<LookupRequest> = queued
                    .drain(..count)
                    .filter_map(|key| {
                        let connect = devices.get_mut(&key)?;
                        connect.changed = false;
                        let Identity { tenant, device } = connect.identity.clone();
                        Some(LookupRequest { key, tenant, device })
                    })
                    .collect();
                if !taken.is_empty() {
                    return taken;
                }
            }
            self.queued_device.notified().await;
        }
    }

    /// Answers all connections that wait for this device.
    pub fn answer(&self, key: u64, answer: ConnectLookup) {
        let mut queue = self.queue.lock();
        let Some(connect) = queue.devices.remove(&key) else { return };
        queue.waiting -= connect.waiting.len();
        drop(queue);
        // A connection that has ended meanwhile gets no answer.
        connect.waiting.into_iter().for_each(|waits| drop(waits.send(answer.clone())));
    }

    /// True if the device changed since it was last taken.
    pub fn has_changed(&self, key: u64) -> bool {
        self.queue.lock().devices.get(&key).is_some_and(|connect| connect.changed)
    }

    /// Puts a device back into the queue, unless all its connections have ended.
    pub fn requeue(&self, key: u64) {
        let mut queue = self.queue.lock();
        let ConnectQueue { devices, queued, waiting } = &mut *queue;
        let Some(connect) = devices.get_mut(&key) else { return };
        let before = connect.waiting.len();
        connect.waiting.retain(|waits| !waits.is_closed());
        *waiting -= before - connect.waiting.len();
        if connect.waiting.is_empty() {
            devices.remove(&key);
            return;
        }
        queued.push_back(key);
        drop(queue);
        self.queued_device.notify_one();
    }

    /// Marks a device as changed: an answer that is on its way may be older.
    pub fn mark_changed(&self, key: u64) {
        if let Some(connect) = self.queue.lock().devices.get_mut(&key) {
            connect.changed = true;
        }
    }

    /// Marks every device as changed.
    pub fn mark_all_changed(&self) {
        self.queue.lock().devices.values_mut().for_each(|connect| connect.changed = true);
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
        let connects = PendingConnects::default();
        let first = connects.enqueue(1, &identity("d")).unwrap();
        let requests = connects.next(10).await;
        assert_eq!((requests.len(), requests[0].key), (1, 1));
        // A connection that comes during the look-up gets the same answer.
        let second = connects.enqueue(1, &identity("d")).unwrap();
        assert!(connects.enqueue(1, &identity("e")).is_none(), "another device of the same key");
        connects.answer(1, Some(None));
        assert!(matches!((first.await, second.await), (Ok(Some(None)), Ok(Some(None)))));
        assert_eq!(connects.queue.lock().waiting, 0);
    }

    #[tokio::test]
    async fn what_changed_while_it_was_asked_about_is_asked_about_again() {
        let connects = PendingConnects::default();
        let waits = connects.enqueue(1, &identity("d")).unwrap();
        connects.mark_changed(1);
        connects.next(10).await;
        assert!(!connects.has_changed(1), "what changed before it was asked is no matter");
        connects.mark_all_changed();
        assert!(connects.has_changed(1));
        connects.requeue(1);
        assert_eq!(connects.next(10).await.len(), 1);
        drop(waits);
        connects.requeue(1);
        assert!(connects.queue.lock().devices.is_empty(), "asked about for nobody");
        assert_eq!(connects.queue.lock().waiting, 0);
    }
}
