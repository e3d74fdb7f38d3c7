//! Batches that wait for room in their tenant's share, in order, each tenant on its own. Pure.
//!
//! - What waits here takes no room in the gateway's window, so it has ceilings of its own: one a
//!   tenant, and an even share of what all may hold together.
//! - From half of its ceiling on a tenant is stalled: whoever sends for it is not read any more. What
//!   had been read by then still finds room in the other half.

use std::collections::{HashMap, VecDeque};

use crate::commit_queue::DeferredBatch;
use crate::limits;
use tidegate_core::ids::TenantId;
use tidegate_core::tenant::budget::Charge;
use tidegate_core::tenant::budget_kind::BudgetKind;

/// The ceilings of what waits.
#[derive(Clone, Copy, Debug)]
pub struct DeferredLimits {
    pub tenant_messages_max: u64,
    pub tenant_bytes_max: u64,
    /// Bytes of all tenants together; beyond it each has an even share.
    pub bytes_max: u64,
}

impl Default for DeferredLimits {
    fn default() -> Self {
        Self {
            tenant_messages_max: limits::DEFERRED_MESSAGES_A_TENANT_MAX,
            tenant_bytes_max: limits::DEFERRED_BYTES_A_TENANT_MAX,
            bytes_max: limits::DEFERRED_BYTES_MAX,
        }
    }
}

/// The room for more messages of a tenant that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeferredRoom {
    Free,
    /// This, but its sources should not read on.
    Stalled,
    Full,
}

/// The deferred batches of one tenant.
#[derive(Default)]
struct TenantQueue {
    batches: VecDeque<DeferredBatch>,
    messages: u64,
    bytes: u64,
    /// The same bytes, in the tenant's memory budget.
    charge: Option<Charge>,
}

/// The deferred batches of all tenants.
#[derive(Default)]
pub struct DeferredBatches {
    limits: DeferredLimits,
    tenants: HashMap<TenantId, TenantQueue>,
    bytes: u64,
}

impl DeferredBatches {
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// True if a batch of this tenant waits.
    pub fn contains(&self, tenant: &TenantId) -> bool {
        !self.tenants.is_empty() && self.tenants.contains_key(tenant)
    }

    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenants.keys()
    }

    /// Messages that wait, a tenant.
    pub fn messages(&self) -> impl Iterator<Item = (&TenantId, u64)> {
        self.tenants.iter().map(|(tenant, waiting)| (tenant, waiting.messages))
    }

    /// The room for so much more of a tenant.
    pub fn room(&self, tenant: &TenantId, messages: u64, bytes: u64) -> DeferredRoom {
        let waiting = self.tenants.get(tenant);
        let own_messages = waiting.map_or(0, |waiting| waiting.messages) + messages;
        let own_bytes = waiting.map_or(0, |waiting| waiting.bytes) + bytes;
        let others = self.tenants.len() as u64 + u64::from(waiting.is_none());
        let all_full = self.bytes + bytes > self.limits.bytes_max;
        let bytes_max = match all_full {
            true => self.limits.tenant_bytes_max.min(self.limits.bytes_max / others),
            false => self.limits.tenant_bytes_max,
        };
        let over_budget = waiting
            .and_then(|waiting| waiting.charge.as_ref())
            .is_some_and(|charge| !charge.budget().has_room(BudgetKind::Deferred, bytes));
        // One batch may wait of whoever has none: it would never get its turn otherwise.
        if waiting.is_some()
            && (own_messages > self.limits.tenant_messages_max || own_bytes > bytes_max || over_budget)
        {
            DeferredRoom::Full
        } else if own_messages * 2 > self.limits.tenant_messages_max || own_bytes * 2 > bytes_max {
            DeferredRoom::Stalled
        } else {
            DeferredRoom::Free
        }
    }

    pub fn push(&mut self, batch: DeferredBatch) {
        let tenant = &batch.batch.tenant.id;
        let waiting = match self.tenants.get_mut(tenant) {
            Some(waiting) => waiting,
            None => self.tenants.entry(tenant.clone()).or_default(),
        };
        let bytes = batch.memory_bytes();
        let memory = &batch.batch.tenant.memory;
        waiting.charge.get_or_insert_with(|| memory.empty(BudgetKind::Deferred)).grow(bytes);
        waiting.messages += batch.batch.message_count();
        waiting.bytes += bytes;
        self.bytes += bytes;
        waiting.batches.push_back(batch);
    }

    /// The oldest of a tenant.
    pub fn front(&self, tenant: &TenantId) -> Option<&DeferredBatch> {
        self.tenants.get(tenant)?.batches.front()
    }

    pub fn pop_front(&mut self, tenant: &TenantId) -> Option<DeferredBatch> {
        let waiting = self.tenants.get_mut(tenant)?;
        let batch = waiting.batches.pop_front()?;
        let bytes = batch.memory_bytes();
        waiting.messages -= batch.batch.message_count();
        waiting.bytes -= bytes;
        if let Some(charge) = &mut waiting.charge {
            charge.shrink(bytes);
        }
        self.bytes -= bytes;
        if waiting.batches.is_empty() {
            self.tenants.remove(tenant);
        }
        Some(batch)
    }

    /// Takes out all of a tenant, in order.
    pub fn take(&mut self, tenant: &TenantId) -> VecDeque<DeferredBatch> {
        let Some(waiting) = self.tenants.remove(tenant) else { return VecDeque::new() };
        self.bytes -= waiting.bytes;
        waiting.batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_queue::DeferredBatch;
    use std::sync::Arc;
    use tidegate_core::ack::token::AckToken;
    use tidegate_core::books::Account;
    use tidegate_core::ids::TenantId;
    use tidegate_core::message::{CheckedBatch, CheckedMessage};
    use tidegate_core::tenant::Tenant;
    use tidegate_core::tenant::settings::TenantSettings;

    fn batch(tenant: &str, messages: u64) -> DeferredBatch {
        let message = |place| CheckedMessage {
            topic: "t".into(),
            received_ns: 1,
            lines_end: (place as u32 + 1) * 8,
            line_count: 1,
            affinity: 0,
            token: AckToken::trial(),
        };
        let batch = CheckedBatch::new(
            "db".into(),
            Arc::new(Tenant::new(
                tenant.into(),
                Arc::new(Account::new(tenant.into())),
                TenantSettings::plain(Ok("db".into())),
            )),
            "g".into(),
            b"m f=1 1\n".repeat(messages as usize),
            (0..messages).map(message).collect(),
        );
        DeferredBatch::new(batch, 0)
    }

    #[test]
    fn a_tenant_is_stalled_at_half_of_its_ceiling_and_full_at_all_of_it() {
        let limits = DeferredLimits { tenant_messages_max: 10, ..DeferredLimits::default() };
        let mut deferred = DeferredBatches { limits, ..DeferredBatches::default() };
        let acme = TenantId::new("acme");
        assert_eq!(deferred.room(&acme, 5, 1), DeferredRoom::Free);
        assert_eq!(deferred.room(&acme, 64, 1), DeferredRoom::Stalled, "one batch may always wait");
        deferred.push(batch("acme", 5));
        assert_eq!(deferred.room(&acme, 1, 1), DeferredRoom::Stalled);
        assert_eq!(deferred.room(&acme, 6, 1), DeferredRoom::Full);
        assert_eq!(deferred.room(&TenantId::new("globex"), 5, 1), DeferredRoom::Free);
        assert_eq!(deferred.pop_front(&acme).unwrap().batch.message_count(), 5);
        assert!(deferred.is_empty() && deferred.bytes == 0);
    }

    #[test]
    fn beyond_what_all_may_hold_each_has_an_even_share() {
        let one = batch("acme", 8).memory_bytes();
        let limits = DeferredLimits { bytes_max: 4 * one, ..DeferredLimits::default() };
        let mut deferred = DeferredBatches { limits, ..DeferredBatches::default() };
        let (acme, globex) = (TenantId::new("acme"), TenantId::new("globex"));
        for _ in 0..3 {
            deferred.push(batch("acme", 8));
        }
        deferred.push(batch("globex", 8));
        assert_eq!(deferred.room(&acme, 8, one), DeferredRoom::Full);
        assert_ne!(deferred.room(&globex, 8, one), DeferredRoom::Full);
        assert_eq!(deferred.take(&acme).len(), 3);
        assert_eq!(deferred.bytes, one);
        assert!(deferred.contains(&globex) && !deferred.contains(&acme));
    }
}
