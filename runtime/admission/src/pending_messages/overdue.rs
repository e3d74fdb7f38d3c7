//! The parking of messages that have waited too long, and of those behind them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;
use crate::pending_messages::{LookupState, PendingMessage, PendingMessages, PendingQueues};
use tidegate_core::ids::TenantId;

impl PendingMessages {
    /// Parks a message. One that was parked before is left where it is stored.
    ///
    /// # Errors
    /// The message, if there is no room.
    pub(super) fn park(
        &self,
        queues: &mut PendingQueues,
        key: u64,
        tenant: &TenantId,
        pending: PendingMessage,
    ) -> Result<(), Box<PendingMessage>> {
        let PendingMessage { message, account, was_parked, over_rate, since, charge } = pending;
        let has_room = queues.parked.contains_key(&key) || queues.parked.len() < limits::PARKED_DEVICES_MAX;
        if was_parked {
            // Counted first: it may be unparked as soon as its guard is dropped.
            account.park(1);
            drop(message);
        } else if !has_room {
            let back = PendingMessage { message, account, was_parked, over_rate, since, charge };
            return Err(Box::new(back));
        } else if let Err(message) = self.parking.park(tenant, &account, message) {
            let message = *message;
            let back = PendingMessage { message, account, was_parked, over_rate, since, charge };
            return Err(Box::new(back));
        }
        *queues.parked.entry(key).or_default() += 1;
        self.count(queues);
        Ok(())
    }

    /// Counts a message of this device that an earlier run has parked.
    pub fn record_parked(&self, key: u64) {
        let mut queues = self.queues.lock();
        *queues.parked.entry(key).or_default() += 1;
        self.count(&queues);
    }

    /// Parks the messages of devices that have waited for `patience` or longer. A message without room
    /// waits on if its sender sends it again or it was parked before. Gives the number of parked
    /// messages, and the others without room.
    pub fn park_overdue(&self, patience: Duration, now: Instant) -> (u64, Vec<PendingMessage>) {
        let mut queues = self.queues.lock();
        let (mut parked, mut left) = (0, Vec::new());
        let overdue = queues.devices.iter().filter(|(_, queue)| {
            let waited = queue.messages.front().map(|first| now.saturating_duration_since(first.since));
            !queue.behind.is_empty() || waited.is_some_and(|waited| waited >= patience)
        });
        let overdue: Vec<u64> = overdue.map(|(key, _)| *key).collect();
        for key in overdue {
            let Some(mut queue) = queues.devices.remove(&key) else { continue };
            let waited = queue.messages.front().map(|first| now.saturating_duration_since(first.since));
            if waited.is_some_and(|waited| waited >= patience) {
                let waiting = std::mem::take(&mut queue.messages);
                let (done, messages) = self.park_all(&mut queues, key, &queue.tenant, waiting);
                parked += done;
                for pending in messages {
                    match pending.was_parked || pending.message.token.is_redelivered() {
                        true => queue.messages.push_back(pending),
                        false => left.push(pending),
                    }
                }
                if queues.parked.contains_key(&key) {
                    // Parked messages come before them.
                    queue.messages.append(&mut queue.behind);
                    std::mem::swap(&mut queue.messages, &mut queue.behind);
                }
            }
            if queue.messages.is_empty() {
                let behind = std::mem::take(&mut queue.behind);
                let (done, behind) = self.park_all(&mut queues, key, &queue.tenant, behind);
                parked += done;
                queue.behind = behind;
                if queue.state == LookupState::Queued {
                    queue.state = LookupState::Behind;
                }
            }
            let rest = !queue.messages.is_empty() || !queue.behind.is_empty();
            if rest || queue.state == LookupState::Asked {
                queues.devices.insert(key, queue);
            }
        }
        self.count(&queues);
        (parked, left)
    }

    /// Parks messages of a device from the first on, until there is no room. A message whose
    /// connection has ended is given up: it is sent again. Gives the number of parked messages, and
    /// the others.
    fn park_all(
        &self,
        queues: &mut PendingQueues,
        key: u64,
        tenant: &TenantId,
        mut messages: VecDeque<PendingMessage>,
    ) -> (u64, VecDeque<PendingMessage>) {
        messages.retain(|pending| {
            let abandoned = pending.message.token.is_abandoned();
            if abandoned {
                pending.account.abandon(1);
            }
            !abandoned
        });
        let mut parked = 0;
        while let Some(pending) = messages.pop_front() {
            match self.park(queues, key, tenant, pending) {
                Ok(()) => parked += 1,
                Err(pending) => {
                    messages.push_front(*pending);
                    break;
                }
            }
        }
        (parked, messages)
    }
}
