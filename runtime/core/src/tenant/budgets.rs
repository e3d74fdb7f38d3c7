//! The budgets of the gateway, and of each tenant by name.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::ids::TenantId;
use crate::limits::BUDGETS_MIN;
use crate::tenant::budget::Budget;
use crate::tenant::budget_kind::Resource;

/// Bytes of memory and of disk. `None`: the common ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetShare {
    pub memory_bytes_max: Option<u64>,
    pub disk_bytes_max: Option<u64>,
}

/// The bounds of the gateway, and of a tenant that has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Bytes of memory of all tenants.
    pub memory_bytes_max: u64,
    pub tenant_memory_bytes_max: u64,
    /// Bytes of disk of all tenants.
    pub disk_bytes_max: u64,
    pub tenant_disk_bytes_max: u64,
}

impl BudgetLimits {
    /// No bounds.
    pub const UNLIMITED: Self = Self {
        memory_bytes_max: u64::MAX,
        tenant_memory_bytes_max: u64::MAX,
        disk_bytes_max: u64::MAX,
        tenant_disk_bytes_max: u64::MAX,
    };
}

/// Two budgets of one owner.
#[derive(Clone, Debug)]
pub struct BudgetPair {
    pub memory: Budget,
    pub disk: Budget,
}

impl BudgetPair {
    /// Budgets that refuse nothing.
    pub fn unlimited() -> Self {
        Self { memory: Budget::unlimited(Resource::Memory), disk: Budget::unlimited(Resource::Disk) }
    }

    pub fn of(&self, resource: Resource) -> &Budget {
        match resource {
            Resource::Memory => &self.memory,
            Resource::Disk => &self.disk,
        }
    }
}

/// The budgets of all tenants that hold something or that a part knows.
#[derive(Debug)]
pub struct Budgets {
    limits: BudgetLimits,
    gateway: BudgetPair,
    tenants: DashMap<TenantId, BudgetPair, foldhash::fast::RandomState>,
    /// Entries at which unused ones are forgotten.
    prune_at: AtomicUsize,
}

impl Budgets {
    pub fn new(limits: BudgetLimits) -> Self {
        let gateway = BudgetPair {
            memory: Budget::gateway(Resource::Memory, limits.memory_bytes_max),
            disk: Budget::gateway(Resource::Disk, limits.disk_bytes_max),
        };
        Self { limits, gateway, tenants: DashMap::default(), prune_at: AtomicUsize::new(BUDGETS_MIN) }
    }

    /// The gateway's budgets.
    pub fn gateway(&self) -> &BudgetPair {
        &self.gateway
    }

    /// The budgets of a tenant; `share` gives the bounds of new ones.
    pub fn get(&self, tenant: &str, share: impl FnOnce() -> BudgetShare) -> BudgetPair {
        if let Some(pair) = self.tenants.get(tenant) {
            return pair.clone();
        }
        let count = self.tenants.len();
        if count >= self.prune_at.load(Ordering::Relaxed) {
            // Senders choose the names of tenants.
            self.tenants.retain(|_, pair| pair.memory.is_shared() || pair.disk.is_shared());
            self.prune_at.store((self.tenants.len() * 2).max(BUDGETS_MIN), Ordering::Relaxed);
        }
        let id = TenantId::new(tenant);
        let make = || {
            let share = share();
            let memory_max = share.memory_bytes_max.unwrap_or(self.limits.tenant_memory_bytes_max);
            let disk_max = share.disk_bytes_max.unwrap_or(self.limits.tenant_disk_bytes_max);
            BudgetPair {
                memory: self.gateway.memory.of_tenant(id.clone(), memory_max),
                disk: self.gateway.disk.of_tenant(id.clone(), disk_max),
            }
        };
        self.tenants.entry(id.clone()).or_insert_with(make).clone()
    }

    /// The budgets of a tenant that has some.
    pub fn known(&self, tenant: &str) -> Option<BudgetPair> {
        self.tenants.get(tenant).map(|pair| pair.clone())
    }

    /// All tenants' budgets.
    pub fn all(&self) -> Vec<(TenantId, BudgetPair)> {
        self.tenants.iter().map(|entry| (entry.key().clone(), entry.value().clone())).collect()
    }

    /// Sets the bounds of all known tenants anew.
    pub fn apply(&self, share_of: impl Fn(&str) -> BudgetShare) {
        for entry in &self.tenants {
            let share = share_of(entry.key().as_str());
            entry.memory.set_max(share.memory_bytes_max.unwrap_or(self.limits.tenant_memory_bytes_max));
            entry.disk.set_max(share.disk_bytes_max.unwrap_or(self.limits.tenant_disk_bytes_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BUDGETS_MIN;
    use crate::tenant::budget_kind::BudgetKind::State;

    fn budgets() -> Budgets {
        Budgets::new(BudgetLimits { tenant_memory_bytes_max: 10, ..BudgetLimits::UNLIMITED })
    }

    #[test]
    fn a_tenant_has_one_budget_under_its_name_and_its_own_bounds() {
        let budgets = budgets();
        let own = || BudgetShare { memory_bytes_max: Some(20), disk_bytes_max: None };
        let acme = budgets.get("acme", own);
        let _charge = acme.memory.try_charge(State, 15).unwrap();
        assert!(budgets.get("acme", BudgetShare::default).memory.try_charge(State, 6).is_err());
        assert!(budgets.get("globex", BudgetShare::default).memory.try_charge(State, 11).is_err());
        assert_eq!((budgets.gateway().memory.used(), acme.disk.max()), (15, u64::MAX));
        budgets.apply(|_| BudgetShare { memory_bytes_max: Some(30), disk_bytes_max: Some(1) });
        assert_eq!((acme.memory.max(), acme.disk.max()), (30, 1));
    }

    #[test]
    fn names_that_hold_nothing_are_forgotten() {
        let budgets = budgets();
        let held = budgets.get("held", BudgetShare::default).memory.try_charge(State, 1).unwrap();
        for n in 0..3 * BUDGETS_MIN {
            budgets.get(&n.to_string(), BudgetShare::default);
        }
        assert!(budgets.all().len() <= BUDGETS_MIN, "{}", budgets.all().len());
        assert_eq!(budgets.known("held").unwrap().memory.used(), 1);
        drop(held);
        assert_eq!(budgets.gateway().memory.used(), 0);
    }
}
