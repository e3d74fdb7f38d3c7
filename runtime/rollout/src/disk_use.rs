//! The bytes of decoders on disk, charged to the tenants of their folders: files in the guests folder,
//! copies and histories. Compiled components and the folder `_default` belong to the gateway.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::DISK_USE_INTERVAL_S;
use tidegate_core::route_key::{DEFAULT, name_of};
use tidegate_core::tenant::budget::Charge;
use tidegate_core::tenant::budget_kind::BudgetKind;
use tidegate_core::tenant::budgets::BudgetPair;
use tidegate_core::tenant::over_budget::OverBudget;
use tidegate_core::tenant::table::Tenants;

/// The use of the disk by decoders.
#[derive(Debug)]
pub struct DiskUse {
    tenants: Option<Arc<Tenants>>,
    /// Folders that have one folder a tenant.
    folders: Vec<PathBuf>,
    /// Folders of the gateway's own: compiled components, and copies of built-in decoders.
    gateways_own: Vec<PathBuf>,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    /// By the name of the tenant's folder.
    charges: HashMap<String, Charge>,
    gateways_own: Option<Charge>,
    all_at: Option<Instant>,
}

impl DiskUse {
    /// `tenants`: those whose budgets are charged; `None`: none are.
    pub fn new(tenants: Option<Arc<Tenants>>, folders: Vec<PathBuf>, gateways_own: Vec<PathBuf>) -> Self {
        Self { tenants, folders, gateways_own, measured: Mutex::default() }
    }

    /// Measures one tenant's folders.
    pub fn measure(&self, folder: &str) {
        if self.tenants.is_some() {
            let bytes = self.folders.iter().map(|of| bytes_in(&of.join(folder))).sum();
            self.charge(&mut self.measured.lock(), folder, bytes);
        }
    }

    /// Measures everything, if that was some time ago.
    pub fn measure_all(&self) {
        let Some(tenants) = &self.tenants else { return };
        let interval = Duration::from_secs(DISK_USE_INTERVAL_S);
        if self.measured.lock().all_at.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        let mut bytes: HashMap<String, u64> = HashMap::new();
        for tenant in self.folders.iter().flat_map(fs::read_dir).flatten().flatten() {
            if let Some(name) = tenant.file_name().to_str() {
                *bytes.entry(name.to_owned()).or_default() += bytes_in(&tenant.path());
            }
        }
        let own_bytes = self.gateways_own.iter().map(|folder| bytes_in(folder)).sum();
        let mut measured = self.measured.lock();
        measured.charges.retain(|folder, _| bytes.contains_key(folder));
        for (folder, bytes) in bytes {
            self.charge(&mut measured, &folder, bytes);
        }
        let disk = &tenants.budgets().gateway().disk;
        measured.gateways_own.get_or_insert_with(|| disk.empty(BudgetKind::Guests)).resize(own_bytes);
        measured.all_at = Some(Instant::now());
    }

    fn charge(&self, measured: &mut Measured, folder: &str, bytes: u64) {
        let Some(budgets) = self.budgets(folder) else { return };
        let charge = measured.charges.entry(folder.to_owned());
        charge.or_insert_with(|| budgets.disk.empty(BudgetKind::Guests)).resize(bytes);
    }

    /// The budgets that a folder is charged to; `None`: no budget is charged.
    pub fn budgets(&self, folder: &str) -> Option<BudgetPair> {
        let tenants = self.tenants.as_ref()?;
        match folder {
            DEFAULT => Some(tenants.budgets().gateway().clone()),
            folder => Some(tenants.budgets_of(&name_of(folder)?)),
        }
    }

    /// Checks that there is room for a component and its copy.
    ///
    /// # Errors
    /// There is none.
    pub fn check(&self, folder: &str, component_bytes: u64) -> Result<(), OverBudget> {
        match self.budgets(folder) {
            Some(budgets) => {
                budgets.disk.check(BudgetKind::Guests, component_bytes * self.folders.len() as u64)
            }
            None => Ok(()),
        }
    }
}

/// Bytes of the files in a folder and the folders in it. Links are not followed.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::Arc;
    use tidegate_core::tenant::budget_kind::BudgetKind;
    use tidegate_core::tenant::budgets::BudgetLimits;
    use tidegate_core::tenant::database::{DatabaseTemplate, NameRule};
    use tidegate_core::tenant::policy::{TenantPolicies, TenantPolicy};
    use tidegate_core::tenant::table::Tenants;

    #[test]
    fn files_copies_and_histories_are_charged_to_their_tenant_and_the_rest_to_the_gateway() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (file, bytes) in [
            ("guests/acme/a.wasm", 1_000),
            ("routes/acme/a/history.json", 10),
            ("routes/acme/a/1.wasm", 1_000),
            ("guests/%C3%BC/b.wasm", 7),
            ("guests/_default/c.wasm", 500),
            ("cache/x", 2_000),
        ] {
            fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            fs::write(path(file), vec![0; bytes]).unwrap();
        }
        let policy = TenantPolicy::plain(DatabaseTemplate::new("x_{tenant}", NameRule::Folder));
        let limits = BudgetLimits { tenant_disk_bytes_max: 3_000, ..BudgetLimits::UNLIMITED };
        let tenants =
            Arc::new(Tenants::new(TenantPolicies::new(policy), Arc::default()).with_budgets(limits));
        let disk_use =
            DiskUse::new(Some(tenants.clone()), vec![path("guests"), path("routes")], vec![path("cache")]);
        disk_use.measure_all();
        let used = |tenant: &str| tenants.budgets_of(tenant).disk.used_by(BudgetKind::Guests);
        assert_eq!((used("acme"), used("ü"), tenants.budgets().gateway().disk.used()), (2_010, 7, 4_517));
        disk_use.check("acme", 400).unwrap();
        let over = disk_use.check("acme", 500).unwrap_err().to_string();
        assert!(
            over.contains("budget.tenant_disk_bytes_max") && over.contains("1000 bytes of guests"),
            "{over}"
        );
        fs::remove_file(path("guests/acme/a.wasm")).unwrap();
        disk_use.measure("acme");
        assert_eq!(used("acme"), 1_010);
        disk_use.check("acme", 500).unwrap();
        drop(disk_use);
        assert_eq!(tenants.budgets().gateway().disk.used(), 0);
    }
}
