//! Tenants: the settings that hold for each, and the table that has each of them once.

pub mod database;
pub mod policy;
pub mod collisions;
pub mod settings;
pub mod rates;
pub mod table;

use std::sync::Arc;

use parking_lot::RwLock;

use crate::books::Account;
use crate::ids::{DatabaseName, TenantId};
use crate::tenant::settings::TenantSettings;

/// A tenant as the pipeline knows it. It stays the same while its rules change.
#[derive(Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub account: Arc<Account>,
    rules: RwLock<Arc<TenantSettings>>,
}

impl Tenant {
    pub fn new(id: TenantId, account: Arc<Account>, rules: TenantSettings) -> Self {
        Self { id, account, rules: RwLock::new(Arc::new(rules)) }
    }

    /// What holds for it now.
    pub fn rules(&self) -> Arc<TenantSettings> {
        self.rules.read().clone()
    }

    /// Where its lines go now; `Err` says what is wrong with a name that the output could never take.
    pub fn database(&self) -> Result<DatabaseName, String> {
        self.rules.read().database.clone()
    }

    /// Its part of the decode threads' CPU time; `None`: an even one.
    pub fn cpu_share(&self) -> Option<f64> {
        self.rules.read().cpu_share
    }

    /// From now on these hold.
    pub fn set_rules(&self, rules: TenantSettings) {
        if **self.rules.read() != rules {
            *self.rules.write() = Arc::new(rules);
        }
    }
}
