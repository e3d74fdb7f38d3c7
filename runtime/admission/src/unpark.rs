//! Where messages stay that the registry could not be asked about in time: not refused, durable and
//! acknowledged, and taken up again by themselves. What does it is no part of admission.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::admission::Admission;
use crate::outcome::{LookupSource, NotAdmitted, RateLimitMode, admit, question};
use crate::pending_messages::PendingMessage;
use crate::registry::Registry;
use tidegate_core::books::Account;
use tidegate_core::ids::TenantId;
use tidegate_core::message::{Admitted, Received, RefusedMessage};

/// A parked message as it comes back, and the account that it is parked in.
#[derive(Debug)]
pub struct UnparkRequest {
    pub tenant: TenantId,
    pub message: Received,
    pub account: Arc<Account>,
}

/// Messages that were parked and go on now, in order. The others wait for the registry.
#[derive(Debug, Default)]
pub struct UnparkResult {
    pub admitted: Vec<Admitted>,
    pub refused: Vec<RefusedMessage>,
    /// Their devices, each as often as it has messages here. To be told by `handed_on`.
    devices: Vec<u64>,
}

impl Admission {
    /// An earlier run has left a parked message of this topic: later ones of its device queue behind.
    pub fn note_parked(&self, topic: &str) {
        if let Some((tenant, device)) = self.device_of(topic) {
            self.waiting.note_parked(self.device_key(tenant, device));
        }
    }

    /// Whether what is parked can be admitted now.
    pub fn can_unpark(&self) -> bool {
        match &self.registry {
            Registry::Postgres(registry) => !registry.is_down(),
            Registry::File(_) | Registry::Open(_) => true,
        }
    }

    /// Judges messages that were parked, as many of `returning` as go on together. They take no token of
    /// the rate limit.
    pub fn take_up(&self, returning: &mut VecDeque<UnparkRequest>) -> UnparkResult {
        let mut taken = UnparkResult::default();
        while let Some(UnparkRequest { tenant, message, account }) = returning.pop_front() {
            account.unpark(1);
            let topic = message.topic.clone();
            let of = self.device_of(&topic).map(|(tenant, device)| {
                let key = self.device_key(tenant, device);
                (key, tenant, device)
            });
            let mut held = PendingMessage { message, account, was_parked: true, since: Instant::now() };
            if let Some((key, tenant, device)) = of {
                // Others of its device wait for an answer.
                match self.waiting.join(key, tenant, device, held, false) {
                    Ok(()) => continue,
                    Err(back) => held = *back,
                }
            }
            let judged = self.check_at(
                &self.snapshot(),
                question(&held.message),
                LookupSource::TakenUp,
                RateLimitMode::Off,
            );
            if let (Err(NotAdmitted::Cold(_)), Some((key, name, device))) = (&judged, of) {
                let follows = taken.devices.contains(&key);
                if !follows {
                    match self.waiting.join(key, name, device, held, true) {
                        Ok(()) => continue,
                        Err(back) => held = *back,
                    }
                }
                let PendingMessage { message, account, .. } = held;
                account.park(1);
                if follows {
                    // Those in front of it are handed on first.
                    returning.push_front(UnparkRequest { tenant, message, account });
                    break;
                }
                continue;
            }
            let own = self.account_of(&topic, &judged);
            let PendingMessage { message, account, .. } = held;
            if !Arc::ptr_eq(&own, &account) {
                own.receive(1);
                account.withdraw(1);
            }
            match judged {
                Ok(judged) => taken.admitted.push(admit(message, judged)),
                Err(NotAdmitted::Refused(refusal)) => taken.refused.push(self.refuse(message, refusal, own)),
                Err(NotAdmitted::Cold(_)) => unreachable!("it names a device"),
            }
            taken.devices.extend(of.map(|(key, ..)| key));
        }
        taken
    }

    /// What was taken up is on its way: later messages of its devices need not queue behind it.
    pub fn finished(&self, devices: &[u64]) {
        self.waiting.finished(devices);
    }
}

impl UnparkResult {
    /// The messages, and their devices for `handed_on`.
    pub fn into_parts(self) -> (Vec<Admitted>, Vec<RefusedMessage>, Vec<u64>) {
        (self.admitted, self.refused, self.devices)
    }
}
