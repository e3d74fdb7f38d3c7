//! Tenants: the settings of each, and the table that has each of them once.

pub mod table;
pub mod settings;
pub mod policy;
pub mod collisions;
pub mod database;
pub mod rates;
pub mod budget_kind;
pub mod over_budget;
pub mod budget;
pub mod budgets;

use std::sync::Arc;

use parking_lot::RwLock;

use crate::books::Account;
use crate::ids::{DatabaseName, TenantId};
use crate::tenant::budget::Budget;
use crate::tenant::budgets::BudgetPair;
use crate::tenant::settings::TenantSettings;

/// A tenant as the pipeline knows it. It stays the same while its settings change.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub account: Arc<Account>,
    /// Everything of it that is kept in memory.
    pub memory: Budget,
    /// Everything of it that is kept on disk.
    pub disk: Budget,
    settings: RwLock<Arc<TenantSettings>>,
}

impl Tenant {
    /// A tenant whose budgets refuse nothing.
    pub fn new(id: TenantId, account: Arc<Account>, settings: TenantSettings) -> Self {
        let BudgetPair { memory, disk } = BudgetPair::unlimited();
        Self { id, account, memory, disk, settings: RwLock::new(Arc::new(settings)) }
    }

    /// Sets its budgets.
    pub fn with_budgets(self, BudgetPair { memory, disk }: BudgetPair) -> Self {
        Self { memory, disk, ..self }
    }

    /// Its present settings; to be read once for each group of messages.
    #[inline]
    pub fn settings(&self) -> Arc<TenantSettings> {
        self.settings.read().clone()
    }

    /// The present database of its lines; `Err` gives the fault of a name that the output never accepts.
    pub fn database(&self) -> Result<DatabaseName, String> {
        self.settings.read().database.clone()
    }

    /// Its share of the decode threads' CPU time; `None`: an even one.
    pub fn cpu_share(&self) -> Option<f64> {
        self.settings.read().cpu_share
    }

    /// Replaces its settings.
    pub fn set_settings(&self, settings: TenantSettings) {
        if **self.settings.read() != settings {
            *self.settings.write() = Arc::new(settings);
        }
    }
}
