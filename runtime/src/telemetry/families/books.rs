//! Families of the tenants' books and budgets.

use super::Family;
use crate::core::books::{Outcome, TenantBooks};
use crate::telemetry::handles::Handles;
use crate::telemetry::sample::Sample;
use crate::telemetry::{budgets, tenant_sums};

/// A metric of every tenant: name, help, and where it stands in the books.
type TenantMetric = (&'static str, &'static str, fn(&TenantBooks) -> u64);

const COUNTERS: [TenantMetric; 6] = [
    ("tidegate_messages_received", "Messages received", |b| b.messages.received),
    ("tidegate_lines_spooled", "Lines stored in the spool", |b| b.lines.spooled),
    ("tidegate_lines_written", "Lines that the database accepted", |b| b.lines.written),
    ("tidegate_lines_refused", "Lines that the database refused", |b| b.lines.refused),
    (
        "tidegate_lines_dropped",
        "Lines that were dropped to make room, where spool.when_full = drop_oldest",
        |b| b.lines.dropped,
    ),
    ("tidegate_lines_damaged", "Lines of the spool that the disk has lost", |b| b.lines.damaged),
];

const GAUGES: [TenantMetric; 4] = [
    ("tidegate_messages_parked", "Messages parked in the spool until the registry can be asked", |b| {
        b.messages.parked
    }),
    ("tidegate_messages_in_flight", "Messages received and without a result yet", |b| b.messages.in_flight),
    ("tidegate_lines_pending", "Lines in the spool that wait for their database", |b| b.lines.pending),
    ("tidegate_quarantine_entries", "Entries in quarantine", |b| b.quarantine.entries),
];

pub fn families(handles: &Handles) -> Vec<Family> {
    let accounts = handles.books.accounts();
    let books = tenant_sums::books(&accounts);
    let by_tenant = |value: fn(&TenantBooks) -> u64| -> Vec<Sample> {
        books.iter().map(|(tenant, books)| of_tenant(tenant, &[], value(books))).collect()
    };
    let mut families: Vec<Family> = COUNTERS
        .into_iter()
        .map(|(name, help, value)| Family::counter(name, help, by_tenant(value)))
        .collect();
    families
        .extend(GAUGES.into_iter().map(|(name, help, value)| Family::gauge(name, help, by_tenant(value))));
    let settled = books.iter().flat_map(|(tenant, books)| settled(tenant, books)).collect();
    let removed = books.iter().flat_map(|(tenant, books)| removed(tenant, books)).collect();
    let dropped = tenant_sums::drops(&accounts).into_iter();
    let dropped = dropped.map(|((tenant, reason), n)| of_tenant(&tenant, &[("reason", reason.code())], n));
    let writes = tenant_sums::writes(&accounts).into_iter();
    let writes = writes.map(|((tenant, outcome), n)| of_tenant(&tenant, &[("outcome", outcome)], n));
    let (messages, lines) = tenant_sums::differences(&accounts);
    let difference = |kind: &str, count: u64| Sample::new(vec![("kind", kind.to_owned())], count as f64);
    families.extend([
        Family::counter("tidegate_messages_settled", "Messages with a result, by outcome", settled),
        Family::counter(
            "tidegate_messages_dropped",
            "Acknowledged messages that are kept nowhere, by reason",
            dropped.collect(),
        ),
        Family::counter("tidegate_writes", "POSTs to databases, by outcome", writes.collect()),
        Family::counter(
            "tidegate_quarantine_removed",
            "Entries that left quarantine: expired at its bounds, replayed, or removed by the operator",
            removed,
        ),
        Family::gauge(
            "tidegate_books_difference",
            "Messages and lines that the books do not account for; 0 is right",
            vec![difference("messages", messages), difference("lines", lines)],
        ),
        Family::gauge(
            "tidegate_budget_bytes",
            "Bytes of memory and disk that are kept, by tenant and kind, and the bound of each budget",
            budgets::samples(handles.tenants.budgets(), &books.keys().cloned().collect()),
        ),
    ]);
    families
}

fn of_tenant(tenant: &str, more: &[(&'static str, &str)], value: u64) -> Sample {
    let more = more.iter().map(|(label, value)| (*label, (*value).to_owned()));
    Sample::new([("tenant", tenant.to_owned())].into_iter().chain(more).collect(), value as f64)
}

/// Messages of a tenant by outcome.
fn settled(tenant: &str, books: &TenantBooks) -> Vec<Sample> {
    let messages = |outcome| match outcome {
        Outcome::Lines => books.messages.lines,
        Outcome::Empty => books.messages.empty,
        Outcome::Quarantined => books.messages.quarantined,
        Outcome::Dropped => books.messages.dropped,
        Outcome::Parked => books.messages.parked,
    };
    let outcomes = Outcome::ALL.into_iter().map(|outcome| (outcome.name(), messages(outcome)));
    outcomes
        .chain([("abandoned", books.messages.abandoned)])
        .map(|(outcome, messages)| of_tenant(tenant, &[("outcome", outcome)], messages))
        .collect()
}

/// Entries of a tenant that left quarantine.
fn removed(tenant: &str, books: &TenantBooks) -> Vec<Sample> {
    let books = &books.quarantine;
    [("expired", books.expired), ("replayed", books.replayed), ("removed", books.removed)]
        .map(|(outcome, entries)| of_tenant(tenant, &[("outcome", outcome)], entries))
        .into()
}
