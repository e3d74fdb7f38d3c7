//! Families about the spool and quarantine.

use std::collections::BTreeMap;

use super::Family;
use crate::core::reason::{Reason, RefusalStage};
use crate::quarantine::SeriesBytes;
use crate::spool::Spool;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;
use crate::telemetry::tenant_sums::bounded;

pub fn families(handles: &Handles) -> Vec<Family> {
    let (spool, ceilings) = (&handles.spool, &handles.spool_ceilings);
    let (syncs, messages) = spool.syncs();
    let series = handles.quarantine.bytes_of_series();
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
        Family::gauge(
            "tidegate_spool_waiting_messages",
            "Messages that wait without a PUBACK for room in their tenant's share of the spool",
            by_tenant(bounded(spool.waiting_messages(), u64::saturating_add)),
        ),
        Family::gauge(
            "tidegate_spool_unreadable_files",
            "Files of the spool with lines that the disk does not give back at present",
            Sample::bare(spool.unreadable().len() as f64),
        ),
        Family::gauge(
            "tidegate_disk_free_bytes",
            "Free bytes of the file system of data_dir, for users without privileges",
            handles.disk_reserve.free_bytes().map_or_else(Vec::new, |bytes| Sample::bare(bytes as f64)),
        ),
        Family::gauge(
            "tidegate_disk_reserve_bytes",
            "Free bytes that only the spool may use (spool.reserve_bytes)",
            Sample::bare(handles.disk_reserve.reserve_bytes() as f64),
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
        Family::gauge(
            "tidegate_quarantine_part_bytes",
            "Bytes of quarantine by what the senders had proved: proven, unproven, or unknown to the registry",
            of_series(&series, |one| one.used),
        ),
        Family::gauge(
            "tidegate_quarantine_part_bytes_max",
            "The ceiling of each of these parts; above it the oldest entries go",
            of_series(&series, |one| one.max),
        ),
        Family::counter(
            "tidegate_messages_refused",
            "Refused messages, and lines that a database refused, by reason; also those of which only a sample is kept",
            refusals(handles),
        ),
    ]
}

/// The oldest age of each tenant's backlogs.
fn oldest_ages(spool: &Spool) -> Vec<Sample> {
    let ages = spool.status().backlogs.into_iter().map(|backlog| (backlog.tenant, backlog.oldest_age_s));
    by_tenant(bounded(ages, u64::max))
}

fn by_tenant(figures: BTreeMap<String, u64>) -> Vec<Sample> {
    let sample = |(tenant, figure): (String, u64)| Sample::new(vec![("tenant", tenant)], figure as f64);
    figures.into_iter().map(sample).collect()
}

/// Bytes of the series of quarantine, or their bounds.
fn of_series(series: &[SeriesBytes], bytes: fn(&SeriesBytes) -> u64) -> Vec<Sample> {
    let sample = |one: &SeriesBytes| Sample::new(vec![("kind", one.series.to_owned())], bytes(one) as f64);
    series.iter().map(sample).collect()
}

/// Refusals by reason, also by those of which there was none yet. Strangers do not see them: they would learn
/// from a count why their own guess was refused.
fn refusals(handles: &Handles) -> Vec<Sample> {
    let counts: BTreeMap<Reason, u64> = handles.quarantine.refused_since_start().into_iter().collect();
    let reasons = Reason::ALL.iter().filter(|reason| {
        matches!(reason.stage(), RefusalStage::Admission | RefusalStage::Decode | RefusalStage::Write)
    });
    let sample = |reason: &Reason| {
        let count = counts.get(reason).copied().unwrap_or_default();
        Sample::new(vec![("reason", reason.code().to_owned())], count as f64).confidential()
    };
    reasons.map(sample).collect()
}
