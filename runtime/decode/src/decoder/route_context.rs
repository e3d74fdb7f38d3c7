//! A group of messages on their way through one route.

use std::sync::Arc;

use crate::route::table::Route;
use crate::route::version::RouteVersion;
use crate::schedule::cpu_quota::TenantCpuUsage;
use tidegate_core::ids::DatabaseName;
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
    pub(super) tenant: Arc<Tenant>,
    pub(super) message_type: Box<str>,
    pub(super) rules: Arc<TenantSettings>,
    pub(super) database: DatabaseName,
    pub(super) route: Route,
    /// While `route` is on probation, the version before it.
    pub(super) fallback: Option<Arc<RouteVersion>>,
    pub(super) cpu: Option<Arc<TenantCpuUsage>>,
}

impl RouteContext {
    /// `messages` are decoded by this version, whatever comes of it.
    pub(super) fn record_messages(&self, messages: usize) {
        self.route.version.activity.stats.record_messages(messages as u64);
        if let Some(probation) = &self.route.probation {
            probation.record_messages(messages as u64);
        }
    }
}
