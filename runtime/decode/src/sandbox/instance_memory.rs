//! The memory of one instance: linear memory and tables at their full size, charged to its tenant.
//!
//! - An instance without room in its tenant's budget may still decode the batch at hand: its call is
//!   charged to the gateway's memory for calls, as whole instances, and it is dropped after the batch.
//!   So a tenant whose budget is full is slower, and refused only what never fits.
//! - Calls are short, so a call that finds that memory in use waits a moment for it.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::{CALL_MEMORY_WAIT_MS, INSTANCE_OVERHEAD_BYTES};
use crate::sandbox::memory::{PoolSlotGuard, SandboxMemory};
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::OverBudget;

/// The memory of one instance.
#[derive(Debug)]
pub struct InstanceMemory {
    charge: Charge,
    memory: Arc<SandboxMemory>,
    /// The most that the instance may come to have, charged to the memory for calls.
    call: Option<Charge>,
    call_bytes: u64,
    /// Bytes that only `call` covers.
    over_bytes: u64,
    _slot: Option<PoolSlotGuard>,
}

impl InstanceMemory {
    /// The memory of an instance that may grow to `bytes_max`. `pooled`: it takes a slot of the pool.
    pub fn new(tenant: &Budget, memory: &Arc<SandboxMemory>, bytes_max: u64, pooled: bool) -> Self {
        Self {
            charge: tenant.empty(BudgetKind::Instances),
            memory: memory.clone(),
            call: None,
            call_bytes: bytes_max.saturating_add(INSTANCE_OVERHEAD_BYTES),
            over_bytes: 0,
            _slot: pooled.then(|| memory.enter()),
        }
    }

    /// Bytes of the instance.
    pub fn bytes(&self) -> u64 {
        self.charge.bytes() + self.over_bytes
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// It would not fit its tenant's budget if it were alone there, or the memory for calls stays in use.
    pub fn grow(&mut self, bytes: u64) -> Result<(), OverBudget> {
        if self.call.is_none() {
            let Err(over) = self.charge.try_grow(bytes) else { return Ok(()) };
            if self.bytes().saturating_add(bytes) > self.charge.budget().max() {
                return Err(over);
            }
            self.call = Some(self.wait_for_call().ok_or(over)?);
        }
        self.over_bytes += bytes;
        Ok(())
    }

    fn wait_for_call(&self) -> Option<Charge> {
        for waited_ms in 0..=CALL_MEMORY_WAIT_MS {
            if waited_ms > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let calls = &self.memory.calls;
            // One instance always fits, however small that memory is.
            let bytes = self.call_bytes.min(calls.max());
            if let Ok(charge) = calls.try_charge(BudgetKind::Instances, bytes) {
                return Some(charge);
            }
        }
        None
    }

    /// Charges to the tenant what is not: then the instance may stay.
    ///
    /// # Errors
    /// There is no room.
    pub fn settle(&mut self) -> Result<(), OverBudget> {
        if self.call.is_some() {
            self.charge.try_grow(self.over_bytes)?;
            (self.call, self.over_bytes) = (None, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::INSTANCE_OVERHEAD_BYTES;
    use crate::sandbox::memory::SandboxMemory;
    use tidegate_core::tenant::budget::Budget;
    use tidegate_core::tenant::budget_kind::{BudgetKind, Resource};

    #[test]
    fn an_instance_without_room_is_charged_to_the_memory_for_calls_and_leaves_it() {
        let gateway = Budget::gateway(Resource::Memory, 10_000);
        let tenant = gateway.of_tenant("acme".into(), 1_000);
        let memory = SandboxMemory::new(&gateway, 2_000 + 2 * INSTANCE_OVERHEAD_BYTES);
        let mut first = InstanceMemory::new(&tenant, &memory, 1_000, false);
        first.grow(600).unwrap();
        let mut second = InstanceMemory::new(&tenant, &memory, 1_000, false);
        second.grow(300).unwrap();
        assert!(first.settle().is_ok() && second.settle().is_ok());
        second.grow(300).unwrap();
        assert_eq!((second.bytes(), tenant.used(), gateway.used()), (600, 900, 900));
        assert_eq!(memory.calls.used(), 1_000 + INSTANCE_OVERHEAD_BYTES);
        assert!(second.settle().is_err(), "there is no room for both");
        drop(first);
        second.settle().unwrap();
        assert_eq!((tenant.used(), memory.calls.used()), (600, 0));
        drop(second);
        assert_eq!(gateway.used(), 0);
    }

    #[test]
    fn what_never_fits_its_tenants_budget_is_refused_with_its_name() {
        let gateway = Budget::gateway(Resource::Memory, 10_000);
        let tenant = gateway.of_tenant("acme".into(), 1_000);
        let memory = SandboxMemory::new(&gateway, 100_000);
        let mut instance = InstanceMemory::new(&tenant, &memory, 5_000, false);
        instance.grow(700).unwrap();
        let text = instance.grow(301).unwrap_err().to_string();
        assert!(text.contains("budget.tenant_memory_bytes_max") && text.contains("301 bytes"), "{text}");
        // Others of the tenant take the room: it fits alone.
        let _state = tenant.try_charge(BudgetKind::State, 200).unwrap();
        instance.grow(300).unwrap();
        assert!(instance.settle().is_err());
    }

    #[test]
    fn a_call_that_never_gets_its_memory_is_refused() {
        let gateway = Budget::gateway(Resource::Memory, 10_000);
        let tenant = gateway.of_tenant("acme".into(), 1_000);
        let memory = SandboxMemory::new(&gateway, 100);
        let _state = tenant.try_charge(BudgetKind::State, 900).unwrap();
        let mut first = InstanceMemory::new(&tenant, &memory, 1_000, false);
        first.grow(500).unwrap();
        let mut second = InstanceMemory::new(&tenant, &memory, 1_000, false);
        assert!(second.grow(500).is_err());
        drop(first);
        second.grow(500).unwrap();
    }
}
