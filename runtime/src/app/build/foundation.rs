//! The things that all parts have in common: the data folder, tenants with their settings and budgets, clocks, and
//! the window of unsettled messages.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::admission::registry::Registry;
use crate::admission::registry_tasks;
use crate::app::open_files::OpenFiles;
use crate::config::budget_plan::BudgetPlan;
use crate::config::checks::files;
use crate::config::settings::registry::registry;
use crate::config::tenant_config::TenantConfig;
use crate::config::{Config, settings};
use crate::core::ack::in_flight::InFlight;
use crate::core::ack::window::ReceiveWindow;
use crate::core::age_clock::AgeClock;
use crate::core::books::Books;
use crate::core::device_hash::DeviceHasher;
use crate::core::disk_reserve::DiskReserve;
use crate::core::tenant::budgets::BudgetLimits;
use crate::core::tenant::table::Tenants;
use crate::data_dir;

pub(super) struct Foundation {
    /// Held for its lock on the data folder.
    pub lock: File,
    pub open_files: OpenFiles,
    pub registry: Registry,
    pub tenant_config: TenantConfig,
    pub devices: DeviceHasher,
    pub books: Arc<Books>,
    pub age_clock: Arc<AgeClock>,
    pub disk_reserve: Arc<DiskReserve>,
    pub plan: BudgetPlan,
    pub tenants: Arc<Tenants>,
    pub window: Arc<ReceiveWindow>,
    pub in_flight: Arc<InFlight>,
}

impl Foundation {
    /// Takes the data folder and reads the settings of tenants, which say where lines go.
    ///
    /// # Errors
    /// The data folder is taken, or a file or folder is invalid.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        if let Some(fault) = files::faults(config).into_iter().next() {
            return Err(fault.into());
        }
        let open_files = OpenFiles::raise()?;
        let data_dir = Path::new(&config.data_dir);
        let lock = data_dir::lock(data_dir)?;
        let registry = registry(config)?;
        let tenant_config = tenant_config(config, &registry).await;
        let config = tenant_config.current().get();
        let devices = DeviceHasher::new(data_dir::device_seed(data_dir)?);
        let books = Arc::new(Books::default());
        let age_clock = Arc::new(AgeClock::open(data_dir));
        age_clock.persist();
        let disk_reserve = Arc::new(DiskReserve::new(data_dir, config.spool.reserve_bytes));
        let plan = budget_plan(&config);
        let tenants = settings::tenants(&config, &books, plan.limits);
        let limits = &config.admission;
        let window = Arc::new(ReceiveWindow::new(limits.unsettled_messages_max, limits.unsettled_bytes_max));
        let in_flight = Arc::default();
        Ok(Self {
            lock,
            open_files,
            registry,
            tenant_config,
            devices,
            books,
            age_clock,
            disk_reserve,
            plan,
            tenants,
            window,
            in_flight,
        })
    }
}

/// The bytes of memory and disk that this machine has for each purpose.
fn budget_plan(config: &Config) -> BudgetPlan {
    let plan = BudgetPlan::measure(config);
    let BudgetLimits { memory_bytes_max, tenant_memory_bytes_max, disk_bytes_max, tenant_disk_bytes_max } =
        plan.limits;
    tracing::info!(
        gateway_memory_bytes = plan.memory_bytes_max,
        memory_bytes = memory_bytes_max,
        tenant_memory_bytes = tenant_memory_bytes_max,
        disk_bytes = disk_bytes_max,
        tenant_disk_bytes = tenant_disk_bytes_max,
        "budgets of all tenants and of each"
    );
    for note in &plan.notes {
        tracing::warn!("{note}");
    }
    plan
}

/// The configuration with the registry's table of tenants, as far as it can be read now.
async fn tenant_config(config: &Config, registry: &Registry) -> TenantConfig {
    let mut tenant_config = TenantConfig::new(config);
    if let Some(table) = registry_tasks::first_tenants(registry).await
        && tenant_config.update(table)
    {
        tenant_config.persist();
    }
    tenant_config
}
