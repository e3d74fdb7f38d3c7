//! A group of messages on their way through one route.

use std::sync::Arc;
use std::time::Duration;

use crate::decoder::known_routes::RouteId;
use crate::route::table::Route;
use crate::route::version::RouteVersion;
use crate::sandbox::abi::host_state::LogOwner;
use crate::schedule::cpu_quota::TenantCpuUsage;
use crate::schedule::standing::Standing;
use tidegate_core::ids::DatabaseName;
use tidegate_core::message::Admitted;
use tidegate_core::tenant::Tenant;
use tidegate_core::tenant::settings::TenantSettings;

/// The count of tries at a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// With others; if that fails, one by one.
    Batch,
    /// The last.
    Alone,
    /// The last, of messages that are counted already.
    Again,
}

/// The parts that the batches of one group share.
pub(super) struct RouteContext {
    pub(super) id: RouteId,
    pub(super) tenant: Arc<Tenant>,
    pub(super) message_type: Arc<str>,
    pub(super) rules: Arc<TenantSettings>,
    pub(super) database: DatabaseName,
    pub(super) route: Route,
    /// While `route` is on probation, the version before it.
    pub(super) fallback: Option<Arc<RouteVersion>>,
    pub(super) cpu: Option<Arc<TenantCpuUsage>>,
    pub(super) standing: Arc<Standing>,
}

/// Messages of one tenant and type that came together, and their route.
pub(super) struct RouteMessages {
    pub(super) context: RouteContext,
    pub(super) messages: Vec<Admitted>,
}

impl RouteContext {
    /// The same messages at the version before, which decodes those that this one fails on.
    pub(super) fn with_version(&self, version: Arc<RouteVersion>) -> Self {
        Self {
            id: self.id,
            tenant: self.tenant.clone(),
            message_type: self.message_type.clone(),
            rules: self.rules.clone(),
            database: self.database.clone(),
            standing: version.standing.clone(),
            route: Route::new(version),
            fallback: None,
            cpu: self.cpu.clone(),
        }
    }

    /// The owner of the texts that the guest logs.
    pub(super) fn log_owner(&self) -> LogOwner {
        LogOwner { tenant: self.tenant.id.clone(), message_type: self.message_type.clone() }
    }

    /// Messages of this tenant took so much CPU time.
    pub(super) fn record_cost(&self, messages: usize, cpu: Duration) {
        self.standing.cost.record(messages as u64, cpu);
        let of_version = &self.route.version.standing;
        if !Arc::ptr_eq(&self.standing, of_version) {
            of_version.cost.record(messages as u64, cpu);
        }
    }

    /// `messages` are decoded by this version, whatever comes of it.
    pub(super) fn record_messages(&self, messages: usize) {
        self.route.version.activity.stats.record_messages(messages as u64);
        if let Some(probation) = &self.route.probation {
            probation.record_messages(messages as u64);
        }
    }
}
