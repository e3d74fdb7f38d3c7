//! The return of parked messages. A message is parked if the registry could not be asked in time: it is
//! durable and acknowledged, not refused. The spool stores it; a task of the gateway brings it back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::admission::Admission;
use crate::outcome::{LookupSource, NotAdmitted, RateLimitMode};
use crate::pending_messages::PendingMessage;
use crate::registry::Registry;
use tidegate_core::books::Account;
use tidegate_core::ids::TenantId;
use tidegate_core::message::{Admitted, Received, RefusedMessage};
use tidegate_json::TapeWriter;

/// A parked message that returns, and the account that counts it as parked.
#[derive(Debug)]
pub struct UnparkRequest {
    pub tenant: TenantId,
    pub message: Received,
    pub account: Arc<Account>,
}

/// The returned messages that were checked, in order. The others wait for the registry.
#[derive(Debug, Default)]
pub struct UnparkResult {
    pub admitted: Vec<Admitted>,
    pub refused: Vec<RefusedMessage>,
    /// The keys of their devices, one for each message here; for `finished`.
    devices: Vec<u64>,
}

impl Admission {
    /// Counts a message of this topic that an earlier run has parked: later ones of its device queue
    /// behind it.
    pub fn record_parked(&self, topic: &str) {
        if let Some(names) = self.names_of(topic) {
            self.pending.record_parked(self.device_key(names.tenant.of(topic), names.device.of(topic)));
        }
    }

    /// True if parked messages can be checked now.
    pub fn can_unpark(&self) -> bool {
        match &self.registry {
            Registry::Postgres(registry) => !registry.is_down(),
            Registry::File(_) | Registry::Open(_) => true,
        }
    }

    /// Checks returned messages, as many of `requests` as are submitted together. They take no rate
    /// token.
    pub fn unpark(&self, requests: &mut VecDeque<UnparkRequest>) -> UnparkResult {
        let mut result = UnparkResult::default();
        while let Some(UnparkRequest { tenant, message, account }) = requests.pop_front() {
            account.unpark(1);
            let topic = message.topic.clone();
            let names = self.names_of(&topic);
            let device_key = names.as_ref().map(|names| {
                let (tenant, device) = (names.tenant.of(&topic), names.device.of(&topic));
                (self.device_key(tenant, device), tenant, device)
            });
            let mut pending = PendingMessage {
                message,
                account,
                was_parked: true,
                over_rate: false,
                since: Instant::now(),
                charge: None,
            };
            if let Some((key, tenant, device)) = device_key {
                // Others of its device may wait for a look-up: then it waits behind them.
                match self.pending.join(key, tenant, device, pending, false) {
                    Ok(()) => continue,
                    Err(back) => pending = *back,
                }
            }
            let source = LookupSource::Unparked;
            let checked = self.check_at(
                &self.snapshot(),
                &pending.message,
                source,
                RateLimitMode::Off,
                &mut TapeWriter::default(),
            );
            if let (Err(NotAdmitted::Cold { .. }), Some((key, name, device))) = (&checked, device_key) {
                let follows = result.devices.contains(&key);
                if !follows {
                    match self.pending.join(key, name, device, pending, true) {
                        Ok(()) => continue,
                        Err(back) => pending = *back,
                    }
                }
                let PendingMessage { message, account, .. } = pending;
                account.park(1);
                if follows {
                    // Those before it are submitted first.
                    requests.push_front(UnparkRequest { tenant, message, account });
                    break;
                }
                continue;
            }
            let own = self.account_of(&topic, &checked);
            let PendingMessage { message, account, .. } = pending;
            if !Arc::ptr_eq(&own, &account) {
                own.receive(1);
                account.withdraw(1);
            }
            match checked {
                Ok(sender) => result.admitted.push(sender.admit(message)),
                Err(NotAdmitted::Refused(error)) => result.refused.push(self.refuse(message, error, own)),
                Err(NotAdmitted::Cold { .. }) => unreachable!("it names a device"),
                Err(NotAdmitted::OverRate(_)) => unreachable!("no rate holds for it"),
            }
            result.devices.extend(device_key.map(|(key, ..)| key));
        }
        result
    }

    /// Counts returned messages as submitted: later messages of their devices need not queue behind.
    pub fn finished(&self, devices: &[u64]) {
        self.pending.finished(devices);
    }
}

impl UnparkResult {
    /// The messages, and the keys of their devices for `finished`.
    pub fn into_parts(self) -> (Vec<Admitted>, Vec<RefusedMessage>, Vec<u64>) {
        (self.admitted, self.refused, self.devices)
    }
}
