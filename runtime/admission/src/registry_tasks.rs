//! The tasks of a PostgreSQL registry: look-ups for messages that wait, changes that are told,
//! settings, refusals. They end when their `JoinSet` is dropped.

pub(crate) mod lookup;
pub(crate) mod app_settings;
pub(crate) mod refusals;
pub(crate) mod notifications;

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::limits;
use crate::registry::Registry;
use crate::registry_tasks::app_settings::follow_settings;
use crate::registry_tasks::lookup::{LookupTask, park_overdue};
use crate::registry_tasks::notifications::listen;
use crate::registry_tasks::refusals::write_rejects;
use tidegate_core::worker::vital;

pub use crate::registry_tasks::app_settings::first_settings;
pub use crate::registry_tasks::app_settings::first_tenants;
pub use crate::registry_tasks::lookup::AdmittedSink;
pub use crate::registry_tasks::refusals::finish;

/// Starts the tasks where the registry is one that needs them.
pub fn start<O: AdmittedSink>(admission: &Arc<Admission>, onward: &Arc<O>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Registry::Postgres(registry) = &admission.registry else { return tasks };
    let resolver =
        LookupTask { admission: admission.clone(), registry: registry.clone(), onward: onward.clone() };
    for number in 0..limits::LOOKUPS_AT_ONCE {
        tasks.spawn(vital("registry-lookup", resolver.clone().look_up(number == 0)));
    }
    tasks.spawn(vital("registry-connects", resolver.clone().answer_callers()));
    tasks.spawn(vital("registry-parking", park_overdue(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-listen", listen(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-settings", follow_settings(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-rejects", write_rejects(registry.clone())));
    tasks
}
