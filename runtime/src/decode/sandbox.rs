//! What guests of one class run in: an engine, its clock, its compiler, and who may be there at once.

use std::sync::Arc;

use wasmtime::Engine;

use super::compile::{Compiler, CompilerSettings};
use super::engine::{self, EpochClock};
use super::guest_log::TenantLogRates;
use super::large::{Class, Places};
use super::{DecodeSettings, GuestError};

/// The sandbox of one class.
#[derive(Clone)]
pub struct Sandbox {
    pub engine: Engine,
    pub clock: Arc<EpochClock>,
    pub compiler: Arc<Compiler>,
    /// None: the engine's pool counts.
    pub places: Option<Arc<Places>>,
    /// One for all classes.
    pub log_rates: Arc<TenantLogRates>,
}

impl Sandbox {
    fn new(
        engine: Engine,
        compiler: CompilerSettings,
        places: Option<usize>,
        log_rates: &Arc<TenantLogRates>,
    ) -> Result<Self, GuestError> {
        Ok(Self {
            clock: EpochClock::start(&engine)?,
            compiler: Arc::new(Compiler::new(compiler, &engine)?),
            engine,
            places: places.map(Places::new),
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
    /// The host gives no engine, no thread, or no folder for what is compiled.
    pub fn new(settings: &DecodeSettings) -> Result<Self, GuestError> {
        let no_engine =
            |error: wasmtime::Error| GuestError::Start(format!("the sandbox cannot be set up: {error:#}"));
        let log_rates = Arc::default();
        let normal = engine::engine(settings).map_err(no_engine)?;
        let large = settings.large.as_ref().map(|large| {
            let compiler = CompilerSettings { limits: large.compiling, ..settings.compiler.clone() };
            Sandbox::new(
                engine::large_engine().map_err(no_engine)?,
                compiler,
                Some(large.instances_max),
                &log_rates,
            )
        });
        Ok(Self {
            normal: Sandbox::new(normal, settings.compiler.clone(), None, &log_rates)?,
            large: large.transpose()?,
        })
    }

    /// The sandbox of a class. Nobody has the large one where it was granted to nobody.
    pub fn of(&self, class: Class) -> &Sandbox {
        match (class, &self.large) {
            (Class::Large, Some(large)) => large,
            _ => &self.normal,
        }
    }
}
