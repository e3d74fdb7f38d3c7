//! The room of all tenants: the shares that are taken, and the batches that wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deferred::DeferredBatches;
use crate::limits;
use crate::quota::{QuotaCheck, Quotas};
use tidegate_core::ids::TenantId;
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::settings::SpoolShare;
use tidegate_core::tenant::table::Tenants;

/// Guarded by one lock of `Shared`.
pub struct QuotaState {
    pub shares: Quotas,
    /// Bytes of parked frames, which are in `shares` too.
    pub parked: Quotas,
    /// Tenants with their shares; `None`: all have the common one.
    pub tenants: Option<Arc<Tenants>>,
    /// Batches of tenants whose share is full.
    pub held: DeferredBatches,
    /// Tenants whose waiting or loss was logged, and when.
    pub logged: HashMap<TenantId, Instant>,
}

impl QuotaState {
    /// A tenant's own settings; most have none.
    pub fn own_share(&self, tenant: &TenantId) -> SpoolShare {
        self.tenants.as_ref().map_or_else(SpoolShare::default, |tenants| tenants.spool_share(tenant))
    }

    pub fn room(&self, tenant: &TenantId, bytes: u64) -> QuotaCheck {
        self.shares.room(tenant, bytes, self.own_share(tenant).bytes_max)
    }

    /// Takes room for a tenant's bytes, if there is room.
    pub fn try_take(&mut self, tenant: &TenantId, bytes: u64) -> QuotaCheck {
        let own_bytes_max = self.own_share(tenant).bytes_max;
        self.shares.try_take(tenant, bytes, own_bytes_max)
    }

    /// Charges all that is there, and comes, to the tenants' budgets.
    pub fn charge_budgets(&mut self, tenants: &Arc<Tenants>) {
        self.shares.charge_to(tenants, BudgetKind::Spool);
        self.parked.charge_to(tenants, BudgetKind::Parked);
    }

    /// True if it may be logged that the tenant's share is full: once a minute.
    pub fn may_log(&mut self, tenant: &TenantId) -> bool {
        let now = Instant::now();
        if self
            .logged
            .get(tenant)
            .is_some_and(|logged| now.duration_since(*logged) <= Duration::from_secs(60))
        {
            return false;
        }
        self.logged.insert(tenant.clone(), now);
        true
    }

    /// The room for a tenant's parked messages.
    pub fn room_to_park(&self, tenant: &TenantId, bytes: u64) -> QuotaCheck {
        let own_bytes_max = self.own_share(tenant).bytes_max;
        self.parked.room(tenant, bytes, own_bytes_max.map(|most| most / limits::PARKED_TENANT_SHARE))
    }
}
