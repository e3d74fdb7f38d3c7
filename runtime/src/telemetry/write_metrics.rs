//! Outcomes of POSTs for the metrics, counted for each tenant whose lines they carried.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::books::OTHER_TENANTS;
use crate::core::histogram::Histogram;
use crate::core::ids::TenantId;
use crate::limits::METRIC_TENANTS_MAX;
use crate::telemetry::sample::Sample;
use crate::writer::WriteObserver;

/// POSTs by tenant and outcome, and how long they took.
#[derive(Debug, Default)]
pub struct WriteMetrics {
    counts: Mutex<BTreeMap<(TenantId, &'static str), u64>>,
    pub duration: Histogram,
}

impl WriteObserver for WriteMetrics {
    fn write(&self, tenants: &[TenantId], outcome: &'static str, _lines: u64, duration: Duration) {
        self.duration.observe(duration, 1);
        let mut counts = self.counts.lock();
        for tenant in tenants {
            count(&mut counts, tenant, outcome);
        }
    }
}

fn count(counts: &mut BTreeMap<(TenantId, &'static str), u64>, tenant: &TenantId, outcome: &'static str) {
    // A label is a time series for ever; a tenant has a handful of outcomes.
    let room = counts.len() < METRIC_TENANTS_MAX * 8;
    let key = (tenant.clone(), outcome);
    match counts.get_mut(&key) {
        Some(count) => *count += 1,
        None if room => drop(counts.insert(key, 1)),
        None => *counts.entry((OTHER_TENANTS.into(), outcome)).or_default() += 1,
    }
}

impl WriteMetrics {
    pub fn samples(&self) -> Vec<Sample> {
        let counts = self.counts.lock();
        let sample = |((tenant, outcome), count): (&(TenantId, &str), &u64)| {
            let labels = vec![("tenant", tenant.to_string()), ("outcome", (*outcome).to_owned())];
            Sample::new(labels, *count as f64)
        };
        counts.iter().map(sample).collect()
    }
}
