//! The sandbox of each class: an engine, its clock, and a bound on the instances that are there at once.

use std::sync::Arc;

use crate::error::SandboxError;
use crate::route::guest_log::TenantLogRates;
use crate::sandbox::class::{GuestClass, InstanceSlots};
use crate::sandbox::cpu_clock::EpochClock;
use crate::sandbox::engine;
use crate::sandbox::engine::Engine;
use crate::sandbox::memory::SandboxMemory;
use crate::settings::DecodeSettings;

/// The sandbox of one class.
#[derive(Clone)]
pub struct Sandbox {
    pub engine: Engine,
    pub clock: Arc<EpochClock>,
    /// None: the engine's pool counts.
    pub slots: Option<Arc<InstanceSlots>>,
    /// The memory of all classes beside the tenants' budgets.
    pub memory: Arc<SandboxMemory>,
    /// The rate at which each tenant's guests may log, one for all classes.
    pub log_rates: Arc<TenantLogRates>,
}

impl Sandbox {
    fn new(
        engine: Engine,
        slots: Option<usize>,
        memory: &Arc<SandboxMemory>,
        log_rates: &Arc<TenantLogRates>,
    ) -> Result<Self, SandboxError> {
        Ok(Self {
            clock: EpochClock::start(&engine)?,
            engine,
            slots: slots.map(InstanceSlots::new),
            memory: memory.clone(),
            log_rates: log_rates.clone(),
        })
    }
}

/// The sandboxes of all classes.
#[derive(Clone)]
pub struct Sandboxes {
    normal: Sandbox,
    large: Option<Sandbox>,
}

impl Sandboxes {
    /// # Errors
    /// The host gives no engine or no thread.
    pub fn new(settings: &DecodeSettings, memory: &Arc<SandboxMemory>) -> Result<Self, SandboxError> {
        let no_engine = |error: wasmtime::Error| SandboxError::Setup(format!("{error:#}"));
        let log_rates = Arc::default();
        let normal = engine::engine(settings).map_err(no_engine)?;
        let large = settings.large.as_ref().map(|large| {
            let engine = engine::large_engine().map_err(no_engine)?;
            Sandbox::new(engine, Some(large.instances_max), memory, &log_rates)
        });
        Ok(Self { normal: Sandbox::new(normal, None, memory, &log_rates)?, large: large.transpose()? })
    }

    /// The sandbox of a class; without a grant of the class large nobody has the large one.
    pub fn get(&self, class: GuestClass) -> &Sandbox {
        match (class, &self.large) {
            (GuestClass::Large, Some(large)) => large,
            _ => &self.normal,
        }
    }
}
