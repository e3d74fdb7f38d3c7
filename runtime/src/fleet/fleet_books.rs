//! The books of a gateway over its starts, and of all gateways together. Both equations of the books hold for each
//! sum, because they hold for each part.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::books::{LineBooks, MessageBooks, OTHER_TENANTS};
use crate::limits::METRIC_TENANTS_MAX;

/// Messages and lines of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetAccount {
    pub messages: MessageBooks,
    pub lines: LineBooks,
}

/// The accounts of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FleetBooks(pub BTreeMap<String, FleetAccount>);

impl FleetBooks {
    /// Adds other accounts. Tenants beyond the ceiling share one.
    pub fn add(&mut self, others: &Self) {
        for (tenant, other) in &others.0 {
            let has_room = self.0.contains_key(tenant) || self.0.len() < METRIC_TENANTS_MAX;
            let sum = self.0.entry(if has_room { tenant } else { OTHER_TENANTS }.to_owned()).or_default();
            let (to, from) = (&mut sum.messages, &other.messages);
            plus(&mut to.received, from.received);
            plus(&mut to.lines, from.lines);
            plus(&mut to.empty, from.empty);
            plus(&mut to.quarantined, from.quarantined);
            plus(&mut to.dropped, from.dropped);
            plus(&mut to.abandoned, from.abandoned);
            plus(&mut to.parked, from.parked);
            plus(&mut to.in_flight, from.in_flight);
            let (to, from) = (&mut sum.lines, &other.lines);
            plus(&mut to.spooled, from.spooled);
            plus(&mut to.written, from.written);
            plus(&mut to.refused, from.refused);
            plus(&mut to.dropped, from.dropped);
            plus(&mut to.damaged, from.damaged);
            plus(&mut to.pending, from.pending);
        }
    }

    /// True if both equations hold for each tenant.
    pub fn balanced(&self) -> bool {
        self.0.values().all(|account| account.messages.balanced() && account.lines.balanced())
    }

    /// Lines that wait for their database.
    pub fn lines_pending(&self) -> u64 {
        self.0.values().fold(0, |sum: u64, account| sum.saturating_add(account.lines.pending))
    }

    /// The books of a start that has ended, as they count from then on beside those of the next one. `same_folder`: the
    /// next start has the same data folder, which brings lines and parked messages along.
    pub fn ended(mut self, same_folder: bool) -> Self {
        for account in self.0.values_mut() {
            // They had no PUBACK, so they came again.
            plus(&mut account.messages.abandoned, std::mem::take(&mut account.messages.in_flight));
            if same_folder {
                let parked = std::mem::take(&mut account.messages.parked);
                account.messages.received = account.messages.received.saturating_sub(parked);
                account.lines = LineBooks::default();
            }
        }
        self
    }
}

/// Adds up to the largest number. A row is what its writer made it, so no number in it may end the reader.
fn plus(to: &mut u64, more: u64) {
    *to = to.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(received: u64) -> FleetBooks {
        let messages =
            MessageBooks { received, lines: received - 5, parked: 2, in_flight: 3, ..Default::default() };
        let lines = LineBooks { spooled: 10, written: 6, pending: 4, ..Default::default() };
        FleetBooks([("acme".to_owned(), FleetAccount { messages, lines })].into())
    }

    #[test]
    fn starts_that_end_and_gateways_that_come_sum_up_to_books_that_balance() {
        let mut all = books(20).ended(true);
        let account = all.0["acme"];
        assert!(all.balanced(), "{all:?}");
        // The next start counts the two parked messages and the lines again.
        assert_eq!(
            (account.messages.received, account.messages.abandoned, account.lines.spooled),
            (18, 3, 0)
        );
        all.add(&books(7));
        assert!(all.balanced());
        assert_eq!((all.0["acme"].messages.received, all.lines_pending()), (25, 4));
        // A lost folder's lines stay in the sum: nobody has written them.
        let mut all = books(20).ended(false);
        all.add(&books(7));
        assert!(all.balanced());
        assert_eq!((all.0["acme"].messages.received, all.lines_pending()), (27, 8));
    }

    #[test]
    fn tenants_beyond_the_ceiling_share_an_account() {
        let mut all = FleetBooks::default();
        for n in 0..METRIC_TENANTS_MAX + 10 {
            let one = FleetBooks([(format!("t{n}"), books(20).0["acme"])].into());
            all.add(&one);
        }
        assert!(all.balanced());
        assert_eq!(all.0[OTHER_TENANTS].messages.received, 200);
        assert_eq!(all.0.len(), METRIC_TENANTS_MAX + 1);
    }

    #[test]
    fn books_of_another_version_are_read_with_what_they_have() {
        let read: FleetBooks = serde_json::from_str(r#"{"a":{"messages":{"received":1,"new":2}}}"#).unwrap();
        assert_eq!(read.0["a"].messages.received, 1);
    }

    #[test]
    fn numbers_of_any_size_make_books_that_do_not_balance_and_no_panic() {
        let most = u64::MAX;
        let row = format!(
            r#"{{"a":{{"messages":{{"received":1,"parked":{most},"in_flight":{most},"abandoned":2}},"lines":{{"pending":{most}}}}},
                "b":{{"lines":{{"spooled":{most},"written":{most},"pending":7}}}}}}"#
        );
        let read: FleetBooks = serde_json::from_str(&row).unwrap();
        assert_eq!(read.lines_pending(), most);
        for same_folder in [true, false] {
            let mut all = read.clone().ended(same_folder);
            assert_eq!(all.0["a"].messages.abandoned, most);
            all.add(&read);
            all.add(&read);
            assert!(!all.balanced(), "{all:?}");
            assert_eq!((all.0["a"].messages.parked, all.0["b"].lines.written), (most, most));
        }
    }
}
