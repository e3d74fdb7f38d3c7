//! What is parked of what waits: what has waited for too long, and what comes behind that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;
use crate::pending_messages::{LookupState, PendingMessage, PendingMessages, PendingQueues};
use tidegate_core::ids::TenantId;

impl PendingMessages {
    /// Parks a message. One that was parked before goes back to where it lies.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn park(
        &self,
        queues: &mut PendingQueues,
        key: u64,
        tenant: &TenantId,
        held: PendingMessage,
    ) -> Result<(), Box<PendingMessage>> {
        let PendingMessage { message, account, was_parked, since } = held;
        let has_room = queues.parked.contains_key(&key) || queues.parked.len() < limits::PARKED_DEVICES_MAX;
        if was_parked {
            // Counted first: it may be taken up the moment that it lies there.
            account.park(1);
            drop(message);
        } else if !has_room {
            return Err(Box::new(PendingMessage { message, account, was_parked, since }));
        } else if let Err(message) = self.parking.park(tenant, &account, message) {
            return Err(Box::new(PendingMessage { message: *message, account, was_parked, since }));
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

    /// Parks the messages of devices that have waited for longer than `patience`. What there is no
    /// room for waits on; of it, what nobody would send again is given back. Also gives how many were
    /// parked.
    pub fn park_overdue(&self, patience: Duration, now: Instant) -> (u64, Vec<PendingMessage>) {
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
                    match held.was_parked || held.message.token.is_redelivered() {
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
                if pending.place == LookupState::Queued {
                    pending.place = LookupState::Behind;
                }
            }
            let rest = !pending.messages.is_empty() || !pending.behind.is_empty();
            if rest || pending.place == LookupState::Asked {
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
        queues: &mut PendingQueues,
        key: u64,
        tenant: &TenantId,
        mut messages: VecDeque<PendingMessage>,
    ) -> (u64, VecDeque<PendingMessage>) {
        messages.retain(|held| {
            let orphan = held.message.token.is_abandoned();
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
