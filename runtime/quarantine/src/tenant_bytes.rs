//! The bytes of each tenant's entries, charged to its disk budget.

use std::collections::HashMap;
use std::sync::Arc;

use crate::segment::Series;
use tidegate_core::tenant::budget::{Budget, Charge};
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::over_budget::{BudgetBound, OverBudget};
use tidegate_core::tenant::table::Tenants;

/// The bytes of entries on disk. Those of messages that were refused before anybody was authenticated
/// belong to the gateway.
#[derive(Debug)]
pub struct TenantBytes {
    tenants: Option<Arc<Tenants>>,
    charges: HashMap<String, Charge>,
    strangers: Option<Charge>,
}

impl TenantBytes {
    /// `None`: no budget is charged.
    pub fn new(tenants: Option<Arc<Tenants>>) -> Self {
        let gateway = tenants.as_ref().map(|tenants| tenants.budgets().gateway().disk.clone());
        let strangers = gateway.map(|disk: Budget| disk.empty(BudgetKind::Quarantine));
        Self { tenants, charges: HashMap::new(), strangers }
    }

    /// Counts bytes that are on disk.
    pub fn add(&mut self, series: Series, tenant: &str, bytes: u64) {
        let Some(tenants) = &self.tenants else { return };
        match (series, &mut self.strangers) {
            (Series::Strangers | Series::Unproven, Some(charge)) => charge.grow(bytes),
            (Series::Strangers | Series::Unproven, None) => {}
            (Series::Known, _) => match self.charges.get_mut(tenant) {
                Some(charge) => charge.grow(bytes),
                None => {
                    let charge = tenants.budgets_of(tenant).disk.charge(BudgetKind::Quarantine, bytes);
                    self.charges.insert(tenant.to_owned(), charge);
                }
            },
        }
    }

    /// Counts bytes that are gone.
    pub fn subtract(&mut self, series: Series, tenant: &str, bytes: u64) {
        match series {
            Series::Strangers | Series::Unproven => {
                if let Some(charge) = &mut self.strangers {
                    charge.shrink(bytes);
                }
            }
            Series::Known => {
                if let Some(charge) = self.charges.get_mut(tenant) {
                    charge.shrink(bytes);
                    if charge.bytes() == 0 {
                        self.charges.remove(tenant);
                    }
                }
            }
        }
    }

    /// The bytes that a tenant's oldest entries are to free, and why, if its budget is full. Some more than
    /// it is over, so that not every entry costs one.
    pub fn excess(&self, tenant: &str) -> Option<(u64, OverBudget)> {
        let charge = self.charges.get(tenant)?;
        let over = charge.budget().check(BudgetKind::Quarantine, 0).err()?;
        let excess = match over.bound {
            // Others fill it.
            BudgetBound::Gateway => 0,
            _ => over.used.saturating_sub(over.max),
        };
        Some(((excess + charge.bytes() / 8 + 1).min(charge.bytes()), over))
    }
}
