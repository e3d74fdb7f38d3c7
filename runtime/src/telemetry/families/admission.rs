//! Families about the cache of devices and a PostgreSQL registry.

use super::Family;
use crate::admission::registry::Registry;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;

pub fn families(handles: &Handles) -> Vec<Family> {
    let cache = handles.admission.cache();
    let lookups = [
        ("hit", cache.hits()),
        ("miss", cache.misses()),
        ("absent", cache.absent_hits()),
        ("stale", cache.stale_hits()),
    ]
    .map(|(result, count)| Sample::new(vec![("result", result.to_owned())], count as f64));
    let (mut queries, mut provisioned, mut dropped) = (0, 0, 0);
    if let Registry::Postgres(registry) = handles.admission.registry() {
        queries = registry.queries();
        provisioned = registry.provisioned();
        dropped = registry.refusals.dropped();
    }
    vec![
        Family::gauge(
            "tidegate_auth_cache_entries",
            "Devices in the cache",
            Sample::bare(cache.entries() as f64),
        ),
        Family::counter(
            "tidegate_auth_cache_lookups",
            "Look-ups in the cache of devices, by result",
            lookups.to_vec(),
        ),
        Family::counter(
            "tidegate_registry_queries",
            "Queries to a PostgreSQL registry, each for many devices",
            Sample::bare(queries as f64),
        ),
        Family::counter(
            "tidegate_registry_provisioned",
            "Devices that the gateway added to a PostgreSQL registry",
            Sample::bare(provisioned as f64),
        ),
        Family::counter(
            "tidegate_registry_rejects_dropped",
            "Counters and rows of refused messages that were not written to PostgreSQL",
            Sample::bare(dropped as f64),
        ),
    ]
}
