//! Where messages stay that the registry could not be asked about in time: not refused, not settled,
//! and taken up again by themselves.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::books::Account;
use crate::domain::ids::TenantId;
use crate::domain::message::Received;

/// A message on its way back, and the account that it was received in.
#[derive(Debug)]
pub struct Parked {
    pub tenant: TenantId,
    pub message: Received,
    pub account: Arc<Account>,
}

/// Where messages are parked. A store that makes them durable settles their slots.
pub trait Parking: Send + Sync + fmt::Debug {
    /// Takes a message, or gives it back when there is no room for its tenant.
    ///
    /// # Errors
    /// The message.
    fn park(&self, parked: Parked) -> Result<(), Box<Parked>>;

    /// All that is parked, in the order in which it came.
    fn take_parked(&self) -> Vec<Parked>;

    /// How many are parked.
    fn parked(&self) -> usize;
}

/// Messages and bytes that may be parked, of all tenants; one tenant takes half at most.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub messages_max: u64,
    pub bytes_max: u64,
}

/// What is taken of a `Room`, by tenant.
#[derive(Debug)]
struct Shares {
    room: Room,
    all: (u64, u64),
    tenants: HashMap<TenantId, (u64, u64)>,
}

impl Shares {
    fn new(room: Room) -> Self {
        Self { room, all: (0, 0), tenants: HashMap::new() }
    }

    /// Takes room for a message of so many bytes, if there is some.
    fn take(&mut self, tenant: &TenantId, bytes: u64) -> bool {
        let fits = |(messages, taken): (u64, u64), part: u64| {
            messages < (self.room.messages_max / part).max(1)
                && taken + bytes <= (self.room.bytes_max / part).max(1)
        };
        let own = self.tenants.get(tenant).copied().unwrap_or_default();
        if !fits(self.all, 1) || !fits(own, 2) {
            return false;
        }
        self.all = (self.all.0 + 1, self.all.1 + bytes);
        self.tenants.insert(tenant.clone(), (own.0 + 1, own.1 + bytes));
        true
    }

    fn give_back(&mut self, tenant: &TenantId, bytes: u64) {
        self.all = (self.all.0 - 1, self.all.1 - bytes);
        if let Some(own) = self.tenants.get_mut(tenant) {
            *own = (own.0 - 1, own.1 - bytes);
            if own.0 == 0 {
                self.tenants.remove(tenant);
            }
        }
    }
}

fn bytes_of(message: &Received) -> u64 {
    (message.topic.len() + message.payload.len()) as u64
}

/// Parked in memory, unsettled: whoever sent it has it still.
#[derive(Debug)]
pub struct HeldParking {
    held: Mutex<(VecDeque<Parked>, Shares)>,
}

impl HeldParking {
    pub fn new(room: Room) -> Self {
        Self { held: Mutex::new((VecDeque::new(), Shares::new(room))) }
    }
}

impl Parking for HeldParking {
    fn park(&self, parked: Parked) -> Result<(), Box<Parked>> {
        let (held, shares) = &mut *self.held.lock();
        let bytes = bytes_of(&parked.message);
        if !shares.take(&parked.tenant, bytes) {
            // What its sender has sent again since makes room.
            let before = held.len();
            held.retain(|parked| {
                let orphan = parked.message.slot.is_orphan();
                if orphan {
                    parked.account.unpark(1);
                    parked.account.abandon(1);
                    shares.give_back(&parked.tenant, bytes_of(&parked.message));
                }
                !orphan
            });
            if held.len() == before || !shares.take(&parked.tenant, bytes) {
                return Err(Box::new(parked));
            }
        }
        held.push_back(parked);
        Ok(())
    }

    fn take_parked(&self) -> Vec<Parked> {
        let (held, shares) = &mut *self.held.lock();
        *shares = Shares::new(shares.room);
        std::mem::take(held).into()
    }

    fn parked(&self) -> usize {
        self.held.lock().0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_takes_half_of_the_room_and_leaves_the_rest() {
        let mut shares = Shares::new(Room { messages_max: 10, bytes_max: 1_000 });
        let (acme, globex) = (TenantId::new("acme"), TenantId::new("globex"));
        assert_eq!((0..10).filter(|_| shares.take(&acme, 1)).count(), 5);
        assert!(!shares.take(&globex, 501), "more bytes than its half");
        assert_eq!((0..10).filter(|_| shares.take(&globex, 1)).count(), 5);
        shares.give_back(&acme, 1);
        assert!(shares.take(&acme, 1) && !shares.take(&acme, 1));
    }
}
