//! Families about the spool and quarantine.

use std::collections::BTreeMap;

use super::Family;
use crate::core::books::OTHER_TENANTS;
use crate::limits::METRIC_TENANTS_MAX;
use crate::spool::Spool;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

pub fn families(handles: &Handles) -> Vec<Family> {
    let (spool, ceilings) = (&handles.spool, &handles.spool_ceilings);
    let (syncs, messages) = spool.syncs();
    vec![
        Family::gauge(
            "tidegate_spool_bytes",
            "Bytes of the spool on disk",
            Sample::bare(spool.disk_bytes() as f64),
        ),
        Family::gauge(
            "tidegate_spool_bytes_max",
            "The ceiling of the spool on disk in bytes (spool.bytes_max)",
            Sample::bare(ceilings.bytes_max as f64),
        ),
        Family::gauge(
            "tidegate_spool_tenant_bytes_max",
            "The ceiling of one tenant's backlog in bytes, if it has none of its own (spool.tenant_bytes_max)",
            Sample::bare(ceilings.tenant_bytes_max as f64),
        ),
        Family::gauge(
            "tidegate_spool_parked_bytes",
            "Bytes of parked messages in the spool",
            Sample::bare(spool.parked_bytes() as f64),
        ),
        Family::counter("tidegate_spool_syncs", "fsync calls of the spool", Sample::bare(syncs as f64)),
        Family::counter(
            "tidegate_spool_messages",
            "Messages that the spool made durable",
            Sample::bare(messages as f64),
        ),
        Family::gauge(
            "tidegate_lines_oldest_age_seconds",
            "Age of the oldest line in the spool in seconds, by tenant",
            oldest_ages(spool),
        ),
        Family::gauge(
            "tidegate_quarantine_bytes",
            "Bytes of quarantine on disk",
            Sample::bare(handles.quarantine.bytes() as f64),
        ),
    ]
}

fn oldest_ages(spool: &Spool) -> Vec<Sample> {
    let mut ages: BTreeMap<String, u64> = BTreeMap::new();
    for backlog in spool.status().backlogs {
        let known = ages.contains_key(&backlog.tenant) || ages.len() < METRIC_TENANTS_MAX;
        let label = if known { backlog.tenant } else { OTHER_TENANTS.to_owned() };
        let age = ages.entry(label).or_default();
        *age = backlog.oldest_age_s.max(*age);
    }
    ages.into_iter().map(|(tenant, age)| Sample::new(vec![("tenant", tenant)], age as f64)).collect()
}
