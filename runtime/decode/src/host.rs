//! The parts that decode threads share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::error::SandboxError;
use crate::route::table::{Route, RoutingTable};
use crate::route::version::RouteVersion;
use crate::sandbox::class::GuestClass;
use crate::sandbox::instance::{CallFault, Instance};
use crate::sandbox::memory::SandboxMemory;
use crate::sandbox::sandboxes::{Sandbox, Sandboxes};
use crate::schedule::standing::Standings;
use crate::settings::{DecodeSettings, LargeClassSettings};
use crate::state::StateStore;
use tidegate_core::route_key::RouteKey;
use tidegate_core::tenant::budget::Budget;

/// Settings, sandboxes, routing table and decoder state.
pub struct DecodeHost {
    settings: RwLock<Arc<DecodeSettings>>,
    sandboxes: Sandboxes,
    state: Arc<StateStore>,
    standings: Arc<Standings>,
    table: RwLock<Arc<RoutingTable>>,
    /// Grows with each new table.
    generation: AtomicU64,
}

impl DecodeHost {
    /// A host without routes, whose memory has no bound.
    ///
    /// # Errors
    /// The machine gives no engine or no thread.
    pub fn new(settings: DecodeSettings, state: Arc<StateStore>) -> Result<Self, SandboxError> {
        Self::with_memory(settings, state, &SandboxMemory::unlimited())
    }

    /// A host without routes.
    ///
    /// # Errors
    /// The machine gives no engine or no thread.
    pub fn with_memory(
        settings: DecodeSettings,
        state: Arc<StateStore>,
        memory: &Arc<SandboxMemory>,
    ) -> Result<Self, SandboxError> {
        let sandboxes = Sandboxes::new(&settings, memory)?;
        let settings = RwLock::new(Arc::new(settings));
        let (table, generation) = (RwLock::default(), AtomicU64::new(1));
        Ok(Self { settings, sandboxes, state, standings: Arc::default(), table, generation })
    }

    /// A host of one route, to try it out: it shares the sandboxes and nothing else. Its state begins as
    /// `state`.
    pub fn single_route(
        &self,
        route_key: &RouteKey,
        version: Arc<RouteVersion>,
        state: Arc<StateStore>,
    ) -> Self {
        let table = std::iter::once((route_key.clone(), Route::new(version))).collect();
        Self {
            settings: RwLock::new(Arc::new(DecodeSettings { threads: 1, ..(*self.settings()).clone() })),
            sandboxes: self.sandboxes.clone(),
            state,
            standings: Arc::default(),
            table: RwLock::new(Arc::new(table)),
            generation: AtomicU64::new(1),
        }
    }

    /// A new instance of a version's guest for one tenant, whose budget is charged; the inner error is the
    /// guest's refusal.
    ///
    /// # Errors
    /// The guest faults while it starts, or no instance is free.
    pub fn start(
        &self,
        version: &RouteVersion,
        tenant: (&str, &Budget),
        message_type: &str,
    ) -> Result<Result<Instance, String>, CallFault> {
        Instance::new(self.sandbox(version.rules.class), &self.state, version, tenant, message_type)
    }

    /// Tells whether another thread waits for an instance of the class large; true once for each time
    /// that one was not to be had.
    pub fn wants_large_back(&self) -> bool {
        self.sandbox(GuestClass::Large).slots.as_ref().is_some_and(|slots| slots.are_wanted())
    }

    pub fn sandbox(&self, class: GuestClass) -> &Sandbox {
        self.sandboxes.get(class)
    }

    /// The values that guests keep between messages.
    pub fn state(&self) -> &Arc<StateStore> {
        &self.state
    }

    /// The standings of tenants at routes of `_default`.
    pub fn standings(&self) -> &Standings {
        &self.standings
    }

    /// The settings of this moment.
    pub fn settings(&self) -> Arc<DecodeSettings> {
        self.settings.read().clone()
    }

    /// Applies the limits of other settings; the number of threads and of instances stays. False: they are
    /// the same.
    pub fn apply_settings(&self, settings: DecodeSettings) -> bool {
        let mut current = self.settings.write();
        let mut next = DecodeSettings { threads: current.threads, dialect: current.dialect, ..settings };
        next.large = match (&current.large, next.large) {
            (Some(current), Some(next)) => {
                Some(LargeClassSettings { instances_max: current.instances_max, ..next })
            }
            (current, _) => current.clone(),
        };
        let is_new = next != **current;
        *current = Arc::new(next);
        is_new
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn table(&self) -> Arc<RoutingTable> {
        self.table.read().clone()
    }

    /// Replaces the routing table; each thread takes the new one between two batches.
    pub fn publish(&self, table: RoutingTable) {
        *self.table.write() = Arc::new(table);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}
