//! The tasks of a PostgreSQL registry: look-ups for messages and devices that wait, notifications of
//! changes, settings, refusals. They end when their `JoinSet` is dropped.

mod lookup;
mod notifications;
mod app_settings;
mod refusals;

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::limits;
use crate::registry::Registry;
use crate::registry_tasks::app_settings::follow_settings;
use crate::registry_tasks::lookup::{LookupTask, park_overdue};
use crate::registry_tasks::notifications::listen;
use crate::registry_tasks::refusals::write_refusals;
use tidegate_core::worker::vital;

pub use crate::registry_tasks::app_settings::first_settings;
pub use crate::registry_tasks::app_settings::first_tenants;
pub use crate::registry_tasks::lookup::AdmittedSink;
pub use crate::registry_tasks::refusals::finish;

/// Starts the tasks if the registry is PostgreSQL; otherwise there are none.
pub fn start<S: AdmittedSink>(admission: &Arc<Admission>, sink: &Arc<S>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Registry::Postgres(registry) = &admission.registry else { return tasks };
    let lookup = LookupTask { admission: admission.clone(), registry: registry.clone(), sink: sink.clone() };
    for number in 0..limits::LOOKUPS_AT_ONCE {
        tasks.spawn(vital("registry-lookup", lookup.clone().answer_messages(number == 0)));
    }
    tasks.spawn(vital("registry-connects", lookup.clone().answer_connects()));
    tasks.spawn(vital("registry-parking", park_overdue(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-listen", listen(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-settings", follow_settings(admission.clone(), registry.clone())));
    tasks.spawn(vital("registry-rejects", write_refusals(registry.clone())));
    tasks
}
