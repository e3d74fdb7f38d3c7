//! Figures of tenants added up by the label that each has in the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::books::{Account, NO_TENANT, OTHER_TENANTS, TenantBooks};
use crate::core::reason::Reason;
use crate::limits::METRIC_TENANTS_MAX;

/// The reason for which good messages of a tenant are given up: they came at QoS 0, and nobody sends them again.
const DROP_SHOWN: Reason = Reason::Overload;

/// The label of a tenant: its own once it was admitted, while there are not too many.
fn labels(accounts: &[Arc<Account>]) -> impl Iterator<Item = (&str, &Arc<Account>)> {
    let mut own = 0;
    accounts.iter().map(move |account| {
        let name = account.tenant().as_str();
        let label = if name == NO_TENANT {
            NO_TENANT
        } else if account.was_admitted() && own < METRIC_TENANTS_MAX {
            own += 1;
            name
        } else {
            OTHER_TENANTS
        };
        (label, account)
    })
}

/// The books by label.
pub(crate) fn books(accounts: &[Arc<Account>]) -> BTreeMap<String, TenantBooks> {
    let mut sums: BTreeMap<String, TenantBooks> = BTreeMap::new();
    for (label, account) in labels(accounts) {
        let books = account.snapshot();
        let sum = sums.entry(label.to_owned()).or_default();
        sum.messages.received += books.messages.received;
        sum.messages.lines += books.messages.lines;
        sum.messages.empty += books.messages.empty;
        sum.messages.quarantined += books.messages.quarantined;
        sum.messages.dropped += books.messages.dropped;
        sum.messages.abandoned += books.messages.abandoned;
        sum.messages.parked += books.messages.parked;
        sum.messages.in_flight += books.messages.in_flight;
        sum.lines.spooled += books.lines.spooled;
        sum.lines.written += books.lines.written;
        sum.lines.refused += books.lines.refused;
        sum.lines.dropped += books.lines.dropped;
        sum.lines.damaged += books.lines.damaged;
        sum.lines.pending += books.lines.pending;
        sum.quarantine.entries += books.quarantine.entries;
        sum.quarantine.expired += books.quarantine.expired;
        sum.quarantine.replayed += books.quarantine.replayed;
        sum.quarantine.removed += books.quarantine.removed;
    }
    sums
}

/// Messages and lines that the books do not account for. They are added up account by account, so that one
/// that is missing and one that is too much do not make it right.
pub(crate) fn differences(accounts: &[Arc<Account>]) -> (u64, u64) {
    accounts.iter().fold((0, 0), |(messages, lines), account| {
        let books = account.snapshot();
        (messages + books.messages.difference(), lines + books.lines.difference())
    })
}

/// Dropped messages by label of their tenant and by reason. A tenant has `DROP_SHOWN` from its first
/// message on, at 0: monitoring sees the first drop only as a change of a series that was there.
pub(crate) fn drops(accounts: &[Arc<Account>]) -> BTreeMap<(String, Reason), u64> {
    let mut sums = BTreeMap::new();
    for (label, account) in labels(accounts) {
        if account.was_admitted() {
            sums.entry((label.to_owned(), DROP_SHOWN)).or_default();
        }
        for (reason, count) in account.drops() {
            *sums.entry((label.to_owned(), reason)).or_default() += count;
        }
    }
    sums
}

/// POSTs by label of the tenants whose lines they carried, and by outcome.
pub(crate) fn writes(accounts: &[Arc<Account>]) -> BTreeMap<(String, &'static str), u64> {
    let mut sums = BTreeMap::new();
    for (label, account) in labels(accounts) {
        for (outcome, count) in account.writes() {
            *sums.entry((label.to_owned(), outcome)).or_default() += count;
        }
    }
    sums
}

/// Figures by tenant, of at most so many tenants; the others are one, by `add`.
pub(crate) fn bounded(
    figures: impl IntoIterator<Item = (String, u64)>,
    add: fn(u64, u64) -> u64,
) -> BTreeMap<String, u64> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (tenant, figure) in figures {
        let is_shown = sums.contains_key(&tenant) || sums.len() < METRIC_TENANTS_MAX;
        let label = if is_shown { tenant } else { OTHER_TENANTS.to_owned() };
        let sum = sums.entry(label).or_default();
        *sum = add(*sum, figure);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::books::LineBooks;

    #[test]
    fn a_book_that_does_not_balance_is_told_though_another_is_wrong_the_other_way() {
        let account = |name: &str, spooled, written| {
            let account = Arc::new(Account::new(name.into()));
            account.restore_lines(LineBooks { spooled, written, ..LineBooks::default() });
            account
        };
        assert_eq!(differences(&[account("right", 7, 7)]), (0, 0));
        assert_eq!(differences(&[account("missing", 7, 5), account("too-much", 5, 7)]), (0, 4));
    }

    #[test]
    fn the_drops_of_good_messages_are_there_before_the_first() {
        let account = Arc::new(Account::new("acme".into()));
        assert_eq!(drops(std::slice::from_ref(&account)).len(), 0, "a stranger has no series of its own");
        account.mark_admitted();
        assert_eq!(drops(std::slice::from_ref(&account)).into_values().collect::<Vec<_>>(), [0]);
        account.record_drops(Reason::Overload, 3);
        account.record_drops(Reason::Retained, 1);
        let shown: Vec<(&str, u64)> =
            drops(&[account]).iter().map(|((_, reason), count)| (reason.code(), *count)).collect();
        assert_eq!(shown, [("OVERLOAD", 3), ("RETAINED", 1)]);
    }

    #[test]
    fn tenants_beyond_the_ceiling_are_one() {
        let many = (0..METRIC_TENANTS_MAX + 3).map(|n| (format!("t{n:05}"), 2));
        let sums = bounded(many, |sum, one| sum + one);
        assert_eq!((sums.len(), sums[OTHER_TENANTS]), (METRIC_TENANTS_MAX + 1, 6));
    }
}
