//! The registry in PostgreSQL, in the tables of the Python service.
//!
//! - Tasks of its own look up devices in batches (`registry_tasks`); nothing on the data path waits for
//!   the database.
//! - It is `down` from a failed look-up to the next that succeeds. A fault of the other tables is
//!   reported, and the gateway works on.
//! - NOTIFY brings changes. When that connection was lost, the whole cache is stale.

pub mod connection;
pub mod schema;
pub mod devices;
pub mod app_settings;
pub mod tenant_rows;
mod event;
pub mod refusals;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::registry::postgres::connection::{PgError, PgServer};
use crate::registry::postgres::refusals::RefusalLog;
use crate::registry::postgres::tenant_rows::TenantRowsObserver;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct PgSettings {
    pub settings_poll: Duration,
    pub auto_provision: bool,
    pub counters: bool,
    /// Seconds that an entry of the cache may be used while the registry is down.
    pub stale_max_s: f64,
}

/// A task of the registry; each has a fault of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryTask {
    LookUp,
    Listen,
    Settings,
    Rejects,
}

/// The registry's server, its state, and the refusals for its tables.
#[derive(Debug)]
pub struct PostgresRegistry {
    pub server: PgServer,
    pub settings: PgSettings,
    pub refusals: RefusalLog,
    /// The observer of the table tenants.
    pub tenant_rows: TenantRowsObserver,
    /// The fault of each task, in the order of `RegistryTask`.
    faults: Mutex<[Option<String>; 4]>,
    down: AtomicBool,
    down_since: Mutex<Instant>,
    notifies: AtomicBool,
    queries: AtomicU64,
    provisioned: AtomicU64,
}

impl PostgresRegistry {
    pub fn new(server: PgServer, settings: PgSettings) -> Self {
        let unasked = format!("no connection to the registry's database {} yet", server.at());
        Self {
            refusals: RefusalLog::new(settings.counters),
            tenant_rows: TenantRowsObserver::default(),
            server,
            settings,
            faults: Mutex::new([Some(unasked), None, None, None]),
            // Down until the first answer.
            down: AtomicBool::new(true),
            down_since: Mutex::new(Instant::now()),
            notifies: AtomicBool::new(false),
            queries: AtomicU64::new(0),
            provisioned: AtomicU64::new(0),
        }
    }

    /// True if devices cannot be looked up now.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// The time since the registry went down; zero if it is up.
    pub fn down_for(&self) -> Duration {
        if self.is_down() { self.down_since.lock().elapsed() } else { Duration::ZERO }
    }

    /// True if the registry notifies of changed devices.
    pub fn notifies(&self) -> bool {
        self.notifies.load(Ordering::Acquire)
    }

    pub fn set_notifies(&self, tells: bool) {
        self.notifies.store(tells, Ordering::Release);
    }

    /// Records that a task did its work.
    pub fn record_success(&self, task: RegistryTask) {
        let was = self.faults.lock()[task as usize].take();
        if let Some(was) = was {
            tracing::info!(?task, was, "the registry's database is well again");
        }
        if task == RegistryTask::LookUp {
            self.down.store(false, Ordering::Release);
        }
    }

    /// Records the fault of a task. A new one is logged.
    pub fn record_fault(&self, task: RegistryTask, error: &PgError) {
        let text = error.to_string();
        if task == RegistryTask::LookUp && !self.is_down() {
            *self.down_since.lock() = Instant::now();
            self.down.store(true, Ordering::Release);
        }
        let mut faults = self.faults.lock();
        if faults[task as usize].as_ref() != Some(&text) {
            tracing::error!(?task, error = text, "the registry's database is not as it should be");
            faults[task as usize] = Some(text);
        }
    }

    /// Records advice for the operator, logged as a warning.
    pub fn record_advice(&self, task: RegistryTask, advice: &str) {
        let mut faults = self.faults.lock();
        if faults[task as usize].as_deref() != Some(advice) {
            tracing::warn!(?task, "{advice}");
            faults[task as usize] = Some(advice.to_owned());
        }
    }

    /// True if devices can be looked up; and all faults.
    pub fn health(&self) -> (bool, Option<String>) {
        let faults = self.faults.lock();
        let mut all: Vec<&str> = faults.iter().flatten().map(String::as_str).collect();
        all.dedup();
        let usable = faults[RegistryTask::LookUp as usize].is_none();
        (usable, (!all.is_empty()).then(|| all.join("; ")))
    }

    pub fn record_query(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    /// Look-up queries since the start, each of one or more devices.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    pub fn record_provisioned(&self, devices: u64) {
        self.provisioned.fetch_add(devices, Ordering::Relaxed);
    }

    /// Devices that were added because they sent a message.
    pub fn provisioned(&self) -> u64 {
        self.provisioned.load(Ordering::Relaxed)
    }
}
