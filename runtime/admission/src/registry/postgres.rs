//! The registry in PostgreSQL, in the tables of the Python service.
//!
//! - Look-ups are asked in batches by tasks of their own (`admission/resolver.rs`); nothing on the
//!   data path waits for the database.
//! - It is `down` from a look-up that failed to the next that does not. Nothing else depends on the
//!   other tables: what is wrong with them is said, and the gateway goes on.
//! - Changes are told by NOTIFY; whenever that connection was lost, nothing that is cached is
//!   believed before it was asked about anew.

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

/// What the operator says of it.
#[derive(Clone, Debug)]
pub struct PgSettings {
    pub settings_poll: Duration,
    pub auto_provision: bool,
    pub counters: bool,
    /// How old what was known may be and still serve while the registry is down.
    pub stale_max_s: f64,
}

/// What can be wrong, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryTask {
    LookUp,
    Listen,
    Settings,
    Rejects,
}

/// The registry.
#[derive(Debug)]
pub struct PostgresRegistry {
    pub server: PgServer,
    pub settings: PgSettings,
    pub rejects: RefusalLog,
    /// Who is told what the table of tenants says.
    pub tenants: TenantRowsObserver,
    /// Why a task cannot do its work, in the order of `RegistryTask`.
    faults: Mutex<[Option<String>; 4]>,
    down: AtomicBool,
    down_since: Mutex<Instant>,
    tells_changes: AtomicBool,
    queries: AtomicU64,
    provisioned: AtomicU64,
}

impl PostgresRegistry {
    pub fn new(server: PgServer, settings: PgSettings) -> Self {
        let unasked = format!("no connection to the registry's database {} yet", server.at());
        Self {
            rejects: RefusalLog::new(settings.counters),
            tenants: TenantRowsObserver::default(),
            server,
            settings,
            faults: Mutex::new([Some(unasked), None, None, None]),
            // Until the first answer.
            down: AtomicBool::new(true),
            down_since: Mutex::new(Instant::now()),
            tells_changes: AtomicBool::new(false),
            queries: AtomicU64::new(0),
            provisioned: AtomicU64::new(0),
        }
    }

    /// Whether devices cannot be looked up now.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// For how long devices could not be looked up; zero where they can.
    pub fn down_for(&self) -> Duration {
        if self.is_down() { self.down_since.lock().elapsed() } else { Duration::ZERO }
    }

    /// Whether changes of devices are told to us.
    pub fn tells_changes(&self) -> bool {
        self.tells_changes.load(Ordering::Acquire)
    }

    pub fn note_telling(&self, tells: bool) {
        self.tells_changes.store(tells, Ordering::Release);
    }

    /// A task did its work.
    pub fn note_good(&self, task: RegistryTask) {
        let was = self.faults.lock()[task as usize].take();
        if let Some(was) = was {
            tracing::info!(?task, was, "the registry's database is well again");
        }
        if task == RegistryTask::LookUp {
            self.down.store(false, Ordering::Release);
        }
    }

    /// A task could not do its work. What is new is logged.
    pub fn note_fault(&self, task: RegistryTask, error: &PgError) {
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

    /// What is wrong in words for the log, without being worth a fault of `/readyz`.
    pub fn note_wish(&self, task: RegistryTask, wish: &str) {
        let mut faults = self.faults.lock();
        if faults[task as usize].as_deref() != Some(wish) {
            tracing::warn!(?task, "{wish}");
            faults[task as usize] = Some(wish.to_owned());
        }
    }

    /// Whether devices can be looked up, and all that is wrong.
    pub fn health(&self) -> (bool, Option<String>) {
        let faults = self.faults.lock();
        let mut all: Vec<&str> = faults.iter().flatten().map(String::as_str).collect();
        all.dedup();
        let usable = faults[RegistryTask::LookUp as usize].is_none();
        (usable, (!all.is_empty()).then(|| all.join("; ")))
    }

    pub fn note_query(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    /// Look-ups asked since the start, however many devices each was about.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    pub fn note_provisioned(&self, devices: u64) {
        self.provisioned.fetch_add(devices, Ordering::Relaxed);
    }

    /// Devices that were added because they sent something.
    pub fn provisioned(&self) -> u64 {
        self.provisioned.load(Ordering::Relaxed)
    }
}
