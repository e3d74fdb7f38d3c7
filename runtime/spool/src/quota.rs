//! Each tenant's share of the disk. Pure.
//!
//! - A tenant has `tenant_bytes_max`. One that has nothing may take one batch, however large.
//! - From three quarters of `bytes_max` on, only tenants below their even share go on; at seven
//!   eighths nobody does. The last eighth is for copying: it keeps the files within `bytes_max`.
//! - A tenant's bytes are charged to its disk budget, in steps, so that few batches touch that.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{BACKLOG_ROOM_BYTES, QUOTA_CHARGE_BYTES};
use tidegate_core::ids::TenantId;
use tidegate_core::tenant::budget::Charge;
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::OverBudget;
use tidegate_core::tenant::table::Tenants;

/// The room for a tenant's next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaCheck {
    Free,
    /// The tenant's share is full by so many bytes.
    TenantFull(u64),
    /// The disk's is.
    DiskFull(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct QuotaLimits {
    pub bytes_max: u64,
    pub tenant_bytes_max: u64,
}

/// Bytes of frames that are on their way to the disk or open on it, a tenant.
#[derive(Debug)]
pub struct Quotas {
    limits: QuotaLimits,
    tenants: HashMap<TenantId, TenantUse, foldhash::fast::RandomState>,
    /// Tenants that have bytes; entries without any stay for a moment, with their charges.
    holders: u64,
    total: u64,
    /// The tenants whose budgets are charged, and the kind; `None`: none are.
    budgets: Option<(Arc<Tenants>, BudgetKind)>,
}

/// The bytes of one tenant.
#[derive(Debug, Default)]
struct TenantUse {
    bytes: u64,
    /// Bytes that another quota charges.
    charged_elsewhere: u64,
    charge: Option<Charge>,
    /// Memory of the index, in the tenant's memory budget.
    backlog: Option<Charge>,
    /// That budget has no room for more of it.
    backlog_is_full: bool,
    /// It has had no bytes since the last look.
    is_idle: bool,
}

impl TenantUse {
    /// Bytes of the charge that no bytes have yet.
    fn ahead(&self, charge: &Charge) -> u64 {
        charge.bytes().saturating_sub(self.bytes.saturating_sub(self.charged_elsewhere))
    }

    /// The budget that has no room, if one has none.
    fn over_budget(&self, bytes: u64) -> Option<OverBudget> {
        let places = |backlog: &Charge| backlog.budget().check(BudgetKind::Backlog, BACKLOG_ROOM_BYTES).err();
        let charge = self.charge.as_ref()?;
        let more = bytes.saturating_sub(self.ahead(charge));
        let disk = charge.budget().check(charge.kind(), more).err().filter(|_| more > 0);
        disk.or_else(|| self.backlog.as_ref().and_then(places))
    }

    /// True if the tenant's budgets have room, beyond what is charged ahead.
    fn fits_budgets(&self, bytes: u64) -> bool {
        let Some(charge) = &self.charge else { return true };
        let ahead = self.ahead(charge);
        !self.backlog_is_full && (bytes <= ahead || charge.budget().has_room(charge.kind(), bytes - ahead))
    }

    /// Takes bytes; gives 1 if it had none before, else 0.
    fn take(&mut self, bytes: u64, elsewhere: bool) -> u64 {
        let is_first = self.bytes == 0 && bytes > 0;
        self.bytes += bytes;
        self.is_idle = false;
        self.charged_elsewhere += if elsewhere { bytes } else { 0 };
        self.adjust_charge();
        u64::from(is_first)
    }

    /// Has the charge follow the bytes, in steps.
    fn adjust_charge(&mut self) {
        let Some(charge) = &mut self.charge else { return };
        let bytes = self.bytes.saturating_sub(self.charged_elsewhere);
        if bytes > charge.bytes() || bytes + 2 * QUOTA_CHARGE_BYTES <= charge.bytes() {
            charge.resize(bytes.next_multiple_of(QUOTA_CHARGE_BYTES));
        }
    }
}

/// The bytes of all tenants.
struct AllBytes {
    limits: QuotaLimits,
    total: u64,
    holders: u64,
}

impl AllBytes {
    /// The room for a tenant that has `there`.
    fn room(&self, there: Option<&TenantUse>, bytes: u64, own_bytes_max: Option<u64>) -> QuotaCheck {
        let QuotaLimits { bytes_max, tenant_bytes_max } = self.limits;
        let tenant_bytes_max = own_bytes_max.unwrap_or(tenant_bytes_max);
        let before = there.map_or(0, |own| own.bytes);
        let own = before + bytes;
        // One batch fits an empty share, however large it is: it would never get room otherwise.
        if own > tenant_bytes_max && before > 0 {
            return QuotaCheck::TenantFull(own - tenant_bytes_max);
        }
        if before > 0 && there.is_some_and(|own| !own.fits_budgets(bytes)) {
            return QuotaCheck::TenantFull(bytes);
        }
        let all = self.total + bytes;
        let (wide, narrow) = (bytes_max / 4 * 3, bytes_max / 8 * 7);
        let even = wide / self.holders.max(1);
        if all > narrow {
            QuotaCheck::DiskFull(all - narrow)
        } else if all > wide && own > even {
            QuotaCheck::DiskFull(all - wide)
        } else {
            QuotaCheck::Free
        }
    }
}

impl Quotas {
    pub fn new(limits: QuotaLimits) -> Self {
        Self { limits, tenants: HashMap::default(), holders: 0, total: 0, budgets: None }
    }

    /// Charges the tenants' disk budgets from now on, with the bytes that are there too.
    pub fn charge_to(&mut self, tenants: &Arc<Tenants>, kind: BudgetKind) {
        for (tenant, own) in &mut self.tenants {
            own.charge = Some(tenants.budgets_of(tenant.as_str()).disk.empty(kind));
            own.adjust_charge();
        }
        self.budgets = Some((tenants.clone(), kind));
    }

    pub fn used(&self, tenant: &TenantId) -> u64 {
        self.tenants.get(tenant).map_or(0, |own| own.bytes)
    }

    /// `own_bytes_max`: the tenant has a share of its own.
    pub fn room(&self, tenant: &TenantId, bytes: u64, own_bytes_max: Option<u64>) -> QuotaCheck {
        let all = AllBytes { limits: self.limits, total: self.total, holders: self.holders };
        all.room(self.tenants.get(tenant), bytes, own_bytes_max)
    }

    /// Takes bytes if there is room for them; the same as `room` and `take`.
    pub fn try_take(&mut self, tenant: &TenantId, bytes: u64, own_bytes_max: Option<u64>) -> QuotaCheck {
        let all = AllBytes { limits: self.limits, total: self.total, holders: self.holders };
        let own = self.tenants.get_mut(tenant);
        let room = all.room(own.as_deref(), bytes, own_bytes_max);
        match own {
            Some(own) if room == QuotaCheck::Free => {
                self.holders += own.take(bytes, false);
                self.total += bytes;
            }
            None if room == QuotaCheck::Free => self.take(tenant, bytes),
            _ => {}
        }
        room
    }

    /// Forgets tenants that have had nothing since the last call.
    pub fn forget_idle(&mut self) {
        self.tenants.retain(|_, own| own.bytes > 0 || !std::mem::replace(&mut own.is_idle, true));
    }

    /// Charges the memory of the index, bytes a tenant, to the tenants' memory budgets.
    pub fn charge_backlogs(&mut self, bytes: &HashMap<TenantId, u64>) {
        let Some((tenants, _)) = &self.budgets else { return };
        for (tenant, own) in self.tenants.iter_mut().filter(|(_, own)| own.bytes > 0) {
            let empty = || tenants.budgets_of(tenant.as_str()).memory.empty(BudgetKind::Backlog);
            let backlog = own.backlog.get_or_insert_with(empty);
            backlog.resize(bytes.get(tenant).copied().unwrap_or(0));
            own.backlog_is_full = !backlog.budget().has_room(BudgetKind::Backlog, BACKLOG_ROOM_BYTES);
        }
    }

    /// The budget of a tenant that has no room for so many bytes; `None`: they have room.
    pub fn over_budget(&self, tenant: &TenantId, bytes: u64) -> Option<OverBudget> {
        self.tenants.get(tenant)?.over_budget(bytes)
    }

    pub fn take(&mut self, tenant: &TenantId, bytes: u64) {
        self.take_with(tenant, bytes, false);
    }

    /// The same for bytes that another quota charges to the tenant's budget.
    pub fn take_charged(&mut self, tenant: &TenantId, bytes: u64) {
        self.take_with(tenant, bytes, true);
    }

    fn take_with(&mut self, tenant: &TenantId, bytes: u64, elsewhere: bool) {
        self.total += bytes;
        let own = match self.tenants.get_mut(tenant) {
            Some(own) => own,
            None => {
                let empty = |(tenants, kind): &(Arc<Tenants>, BudgetKind)| {
                    tenants.budgets_of(tenant.as_str()).disk.empty(*kind)
                };
                let charge = self.budgets.as_ref().map(empty);
                self.tenants.entry(tenant.clone()).or_insert(TenantUse { charge, ..TenantUse::default() })
            }
        };
        self.holders += own.take(bytes, elsewhere);
    }

    pub fn release(&mut self, tenant: &TenantId, bytes: u64) {
        self.release_with(tenant, bytes, false);
    }

    /// The same for bytes of `take_charged`.
    pub fn release_charged(&mut self, tenant: &TenantId, bytes: u64) {
        self.release_with(tenant, bytes, true);
    }

    fn release_with(&mut self, tenant: &TenantId, bytes: u64, elsewhere: bool) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(own) = self.tenants.get_mut(tenant) {
            let before = own.bytes;
            own.bytes = own.bytes.saturating_sub(bytes);
            self.holders -= u64::from(before > 0 && own.bytes == 0);
            if elsewhere {
                own.charged_elsewhere = own.charged_elsewhere.saturating_sub(bytes);
            }
            own.adjust_charge();
            // Without budgets nobody looks for idle entries.
            if own.bytes == 0 && self.budgets.is_none() {
                self.tenants.remove(tenant);
            }
        }
    }

    /// The tenant that holds most, of those that are asked for.
    pub fn largest(&self, of: impl Fn(&TenantId) -> bool) -> Option<TenantId> {
        let candidates = self.tenants.iter().filter(|(tenant, own)| own.bytes > 0 && of(tenant));
        candidates.max_by_key(|(_, own)| own.bytes).map(|(tenant, _)| tenant.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::ids::TenantId;
    use tidegate_core::tenant::budgets::BudgetLimits;
    use tidegate_core::tenant::database::{DatabaseTemplate, NameRule};
    use tidegate_core::tenant::policy::{TenantPolicies, TenantPolicy};

    #[test]
    fn a_full_tenant_stops_itself_and_a_full_disk_the_large_ones_first() {
        let mut shares = Quotas::new(QuotaLimits { bytes_max: 800, tenant_bytes_max: 500 });
        let (large, small) = (TenantId::new("large"), TenantId::new("small"));
        shares.take(&large, 500);
        assert_eq!(shares.room(&large, 10, None), QuotaCheck::TenantFull(10));
        assert_eq!(shares.room(&small, 10, None), QuotaCheck::Free);
        shares.release(&large, 100);
        shares.take(&small, 190);
        let middle = TenantId::new("middle");
        shares.take(&middle, 10);
        // 600 of 800 are taken, an even share is 200.
        assert_eq!(shares.room(&middle, 50, None), QuotaCheck::Free);
        assert_eq!(shares.room(&small, 20, None), QuotaCheck::DiskFull(20));
        shares.take(&middle, 100);
        assert_eq!(shares.room(&small, 1, None), QuotaCheck::DiskFull(1));
        assert_eq!(shares.largest(|_| true), Some(large.clone()));
        assert_eq!(shares.largest(|tenant| *tenant != large), Some(small.clone()));
        assert_eq!(
            shares.room(&middle, 50, Some(100)),
            QuotaCheck::TenantFull(60),
            "a smaller share of its own"
        );
        shares.release(&large, 400);
        assert_eq!(shares.room(&large, 100, None), QuotaCheck::Free);
    }

    #[test]
    fn bytes_are_charged_to_the_tenants_budget_and_its_bound_holds() {
        let policy = TenantPolicy::plain(DatabaseTemplate::new("x_{tenant}", NameRule::Folder));
        let limits =
            BudgetLimits { tenant_disk_bytes_max: 4 * QUOTA_CHARGE_BYTES, ..BudgetLimits::UNLIMITED };
        let tenants = Tenants::new(TenantPolicies::new(policy), Arc::default()).with_budgets(limits);
        let tenants = Arc::new(tenants);
        let mut shares = Quotas::new(QuotaLimits { bytes_max: 1 << 40, tenant_bytes_max: 1 << 40 });
        let acme = TenantId::new("acme");
        shares.take(&acme, 10);
        shares.charge_to(&tenants, BudgetKind::Spool);
        let disk = tenants.budgets_of("acme").disk;
        assert_eq!(disk.used_by(BudgetKind::Spool), QUOTA_CHARGE_BYTES);
        shares.take(&acme, 3 * QUOTA_CHARGE_BYTES);
        assert_eq!(disk.used(), 4 * QUOTA_CHARGE_BYTES);
        assert_eq!(shares.room(&acme, QUOTA_CHARGE_BYTES - 10, None), QuotaCheck::Free);
        assert_eq!(shares.room(&acme, QUOTA_CHARGE_BYTES, None), QuotaCheck::TenantFull(QUOTA_CHARGE_BYTES));
        let over = shares.over_budget(&acme, QUOTA_CHARGE_BYTES).unwrap().to_string();
        assert!(over.contains("budget.tenant_disk_bytes_max"), "{over}");
        assert_eq!(shares.room(&TenantId::new("globex"), QUOTA_CHARGE_BYTES, None), QuotaCheck::Free);
        // The index takes memory too.
        let memory = tenants.budgets_of("acme").memory;
        shares.charge_backlogs(&[(acme.clone(), 5_000)].into());
        assert_eq!(memory.used_by(BudgetKind::Backlog), 5_000);
        memory.set_max(5_000);
        shares.charge_backlogs(&[(acme.clone(), 5_000)].into());
        assert_eq!(shares.room(&acme, 1, None), QuotaCheck::TenantFull(1));
        shares.charge_backlogs(&HashMap::new());
        assert_eq!(memory.used(), 0);
        // Parked bytes are charged by their own quota.
        shares.take_charged(&acme, 5);
        shares.release(&acme, 3 * QUOTA_CHARGE_BYTES);
        assert_eq!(disk.used(), QUOTA_CHARGE_BYTES);
        shares.release_charged(&acme, 5);
        shares.release(&acme, 10);
        // A step stays charged for a moment: the next batch needs it again.
        shares.forget_idle();
        assert_eq!((disk.used(), shares.used(&acme), shares.holders), (QUOTA_CHARGE_BYTES, 0, 0));
        shares.forget_idle();
        assert_eq!((disk.used(), shares.tenants.len()), (0, 0));
    }

    #[test]
    fn a_batch_larger_than_its_tenants_share_fits_while_that_is_empty() {
        let mut shares = Quotas::new(QuotaLimits { bytes_max: 8_000, tenant_bytes_max: 500 });
        let acme = TenantId::new("acme");
        assert_eq!(shares.room(&acme, 900, None), QuotaCheck::Free);
        shares.take(&acme, 900);
        assert_eq!(shares.room(&acme, 1, None), QuotaCheck::TenantFull(401));
        shares.release(&acme, 900);
        assert_eq!(shares.room(&acme, 900, None), QuotaCheck::Free);
        assert_eq!(shares.room(&acme, 7_001, None), QuotaCheck::DiskFull(1), "what the files may take holds");
    }
}
