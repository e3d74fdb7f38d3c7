//! Each tenant's share of the disk. Pure.
//!
//! - A tenant has `tenant_bytes_max`. One that has nothing may take one batch, however large.
//! - From three quarters of `bytes_max` on, only tenants below their even share go on; at seven
//!   eighths nobody does. The last eighth is for copying: it keeps the files within `bytes_max`.

use std::collections::HashMap;

use tidegate_core::ids::TenantId;

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
    tenants: HashMap<TenantId, u64, foldhash::fast::RandomState>,
    total: u64,
}

impl Quotas {
    pub fn new(limits: QuotaLimits) -> Self {
        Self { limits, tenants: HashMap::default(), total: 0 }
    }

    pub fn used(&self, tenant: &TenantId) -> u64 {
        self.tenants.get(tenant).copied().unwrap_or(0)
    }

    /// `own_bytes_max`: the tenant has a share of its own.
    pub fn room(&self, tenant: &TenantId, bytes: u64, own_bytes_max: Option<u64>) -> QuotaCheck {
        let QuotaLimits { bytes_max, tenant_bytes_max } = self.limits;
        let tenant_bytes_max = own_bytes_max.unwrap_or(tenant_bytes_max);
        let before = self.used(tenant);
        let own = before + bytes;
        // One batch fits an empty share, however large it is: it would never get room otherwise.
        if own > tenant_bytes_max && before > 0 {
            return QuotaCheck::TenantFull(own - tenant_bytes_max);
        }
        let all = self.total + bytes;
        let (wide, narrow) = (bytes_max / 4 * 3, bytes_max / 8 * 7);
        let even = wide / (self.tenants.len() as u64).max(1);
        if all > narrow {
            QuotaCheck::DiskFull(all - narrow)
        } else if all > wide && own > even {
            QuotaCheck::DiskFull(all - wide)
        } else {
            QuotaCheck::Free
        }
    }

    pub fn take(&mut self, tenant: &TenantId, bytes: u64) {
        self.total += bytes;
        match self.tenants.get_mut(tenant) {
            Some(share) => *share += bytes,
            None => drop(self.tenants.insert(tenant.clone(), bytes)),
        }
    }

    pub fn release(&mut self, tenant: &TenantId, bytes: u64) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(share) = self.tenants.get_mut(tenant) {
            *share = share.saturating_sub(bytes);
            if *share == 0 {
                self.tenants.remove(tenant);
            }
        }
    }

    /// The tenant that holds most, of those that are asked for.
    pub fn largest(&self, of: impl Fn(&TenantId) -> bool) -> Option<TenantId> {
        let candidates = self.tenants.iter().filter(|(tenant, _)| of(tenant));
        candidates.max_by_key(|(_, bytes)| **bytes).map(|(tenant, _)| tenant.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::ids::TenantId;

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
