//! Memory of the sandboxes beside the tenants' budgets: of calls that run, and of slots of the pool that
//! are free again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::INSTANCE_KEPT_BYTES;
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::{BudgetKind, Resource};

/// The memory of one gateway's sandboxes.
#[derive(Debug)]
pub struct SandboxMemory {
    /// Room for the calls of instances that have none in their tenant's budget.
    pub calls: Budget,
    /// The gateway's budget, to which instances of shared decoders are charged.
    pub shared: Budget,
    slots: Mutex<PoolSlots>,
}

#[derive(Debug)]
struct PoolSlots {
    live: u64,
    /// The most that were live at once: so many slots of the pool were ever used.
    used: u64,
    /// The pages that the pool keeps of free slots.
    idle: Charge,
}

impl SandboxMemory {
    /// The memory within the gateway's budget. `call_bytes_max`: bytes for calls, which the budget leaves out.
    pub fn new(gateway: &Budget, call_bytes_max: u64) -> Arc<Self> {
        let idle = gateway.empty(BudgetKind::Instances);
        Arc::new(Self {
            calls: Budget::gateway(Resource::Memory, call_bytes_max),
            shared: gateway.clone(),
            slots: Mutex::new(PoolSlots { live: 0, used: 0, idle }),
        })
    }

    /// Memory without bounds.
    pub fn unlimited() -> Arc<Self> {
        Self::new(&Budget::unlimited(Resource::Memory), u64::MAX)
    }

    /// Counts an instance of the pool until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> PoolSlotGuard {
        self.count(|slots| {
            slots.live += 1;
            slots.used = slots.used.max(slots.live);
        });
        PoolSlotGuard(self.clone())
    }

    fn count(&self, change: impl FnOnce(&mut PoolSlots)) {
        let mut slots = self.slots.lock();
        change(&mut slots);
        let free = slots.used - slots.live;
        slots.idle.resize(free * INSTANCE_KEPT_BYTES as u64);
    }
}

/// One instance of the pool.
#[derive(Debug)]
pub(super) struct PoolSlotGuard(Arc<SandboxMemory>);

impl Drop for PoolSlotGuard {
    fn drop(&mut self) {
        self.0.count(|slots| slots.live -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::INSTANCE_KEPT_BYTES;
    use tidegate_core::tenant::budget::Budget;
    use tidegate_core::tenant::budget_kind::Resource;

    #[test]
    fn a_slot_that_is_free_again_counts_with_the_pages_that_the_pool_keeps() {
        let gateway = Budget::gateway(Resource::Memory, 1 << 30);
        let memory = SandboxMemory::new(&gateway, 1);
        let kept = INSTANCE_KEPT_BYTES as u64;
        let (one, two) = (memory.enter(), memory.enter());
        assert_eq!(gateway.used(), 0);
        drop(one);
        assert_eq!(gateway.used(), kept);
        let three = memory.enter();
        assert_eq!(gateway.used(), 0);
        drop((two, three));
        assert_eq!(gateway.used(), 2 * kept);
    }
}
