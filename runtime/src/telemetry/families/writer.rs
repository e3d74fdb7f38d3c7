//! Families about writes to databases.

use super::Family;
use crate::limits::METRIC_TENANTS_MAX;
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;
use crate::writer::{DatabaseHealth, DatabaseStatus, Writer};

pub fn families(handles: &Handles) -> Vec<Family> {
    let writer = &handles.writer;
    let refusals = writer.stats().refusals().into_iter();
    let refusals =
        refusals.map(|(outcome, lines)| Sample::new(vec![("outcome", outcome.to_owned())], lines as f64));
    vec![
        Family::counter(
            "tidegate_line_refusals",
            "Lines that databases refused, by the outcome of the POST that showed it",
            refusals.collect(),
        ),
        Family::gauge(
            "tidegate_flush_delay_seconds",
            "Time in seconds for which the first line of a batch waits for others: output.flush_interval_ms, or more while the gateway is short of CPU",
            Sample::bare(writer.flush_delay().as_secs_f64()),
        ),
        Family::gauge(
            "tidegate_databases",
            "Databases by state: well, retrying, or paused until a person acts",
            databases_by_state(writer),
        ),
        Family::gauge(
            "tidegate_database_state",
            "State of each database: 0 well, 1 retrying, 2 paused until a person acts",
            database_states(writer),
        ),
    ]
}

fn databases_by_state(writer: &Writer) -> Vec<Sample> {
    let databases = writer.databases();
    let sample = |state: &DatabaseHealth| {
        let count = databases.iter().filter(|database| database.state == *state).count();
        Sample::new(vec![("state", state.name().to_owned())], count as f64)
    };
    DatabaseHealth::ALL.iter().map(sample).collect()
}

/// The states of a bounded number of databases, those that are not well first.
fn database_states(writer: &Writer) -> Vec<Sample> {
    let mut databases = writer.databases();
    databases.sort_by_key(|database| std::cmp::Reverse(database.state as u8));
    let sample = |database: DatabaseStatus| {
        let mut labels = vec![("database", database.database)];
        labels.extend(database.output_of.map(|tenant| ("output_of", tenant)));
        Sample::new(labels, f64::from(database.state as u8))
    };
    databases.into_iter().take(METRIC_TENANTS_MAX).map(sample).collect()
}
