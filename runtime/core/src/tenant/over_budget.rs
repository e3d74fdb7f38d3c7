//! A refusal by a budget.

use crate::ids::TenantId;
use crate::tenant::budget_kind::{BudgetKind, Resource};

/// The bound that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetBound {
    /// All of a tenant's budget.
    Tenant(TenantId),
    /// The part of a tenant's budget that one kind may fill.
    Kind(TenantId),
    /// The gateway's budget.
    Gateway,
    /// A tenant's even part of the gateway's budget, which holds while that is nearly full.
    EvenPart(TenantId),
}

/// A budget has no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {asked} bytes of {kind}: {} has {max} bytes, {used} of them in use ({})",
        self.budget(), self.key())]
pub struct OverBudget {
    pub bound: BudgetBound,
    pub resource: Resource,
    pub kind: BudgetKind,
    /// Bytes of the bound.
    pub max: u64,
    /// Bytes in use when room was asked for.
    pub used: u64,
    pub asked: u64,
}

impl OverBudget {
    /// The budget, in words.
    fn budget(&self) -> String {
        let (resource, kind) = (self.resource, self.kind);
        match &self.bound {
            BudgetBound::Tenant(_) => format!("the tenant's {resource} budget"),
            BudgetBound::Kind(_) => format!("the part of the tenant's {resource} budget for {kind}"),
            BudgetBound::Gateway => format!("the gateway's {resource} budget"),
            BudgetBound::EvenPart(_) => {
                format!("the tenant's part of the gateway's {resource} budget, which is nearly full,")
            }
        }
    }

    /// The key of the configuration that sets the bound.
    pub fn key(&self) -> String {
        match &self.bound {
            BudgetBound::Tenant(_) | BudgetBound::Kind(_) => {
                format!("budget.tenant_{}_bytes_max", self.resource)
            }
            BudgetBound::Gateway | BudgetBound::EvenPart(_) => format!("budget.{}_bytes_max", self.resource),
        }
    }
}
