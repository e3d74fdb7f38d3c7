//! Totals of tenants as the segments tell them, oldest first.
//!
//! A run that began while the newest segment was missing did not know what that one had counted, and began
//! at the totals of an older one, or at nothing. Where the segment is there again, its totals are larger
//! than those that the next one begins with. What lies between is added to all that such runs have told. A
//! run that knew all tells totals that are not smaller, and nothing is added to those.

use std::collections::{BTreeMap, HashMap};

use crate::release_marks::LineTotals;

#[derive(Default)]
pub struct RecoveredTotals {
    tenants: BTreeMap<String, Known>,
    /// The highest count of spooled lines in the frames of a tenant.
    spooled: HashMap<String, u64>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    totals: LineTotals,
    /// The part of them that the run did not know whose segments are read.
    unknown: LineTotals,
}

fn each(one: LineTotals, other: LineTotals, join: fn(u64, u64) -> u64) -> LineTotals {
    LineTotals {
        spooled: join(one.spooled, other.spooled),
        written: join(one.written, other.written),
        refused: join(one.refused, other.refused),
        dropped: join(one.dropped, other.dropped),
        damaged: join(one.damaged, other.damaged),
    }
}

impl RecoveredTotals {
    /// Begins a segment; `head` are the totals that it begins with.
    pub fn begin_segment(&mut self, head: &BTreeMap<String, LineTotals>) {
        for (tenant, known) in &mut self.tenants {
            let told = head.get(tenant).copied().unwrap_or_default();
            if told.done() >= known.totals.done() {
                known.unknown = LineTotals::default();
            } else if told.done() + known.unknown.done() < known.totals.done() {
                known.unknown = each(known.totals, told, u64::saturating_sub);
            }
        }
    }

    /// Takes totals that a segment tells.
    pub fn record(&mut self, tenant: String, told: LineTotals) {
        let known = self.tenants.entry(tenant).or_default();
        known.totals = each(told, known.unknown, u64::saturating_add);
    }

    /// Takes the count of spooled lines that a frame tells.
    pub fn record_spooled(&mut self, tenant: &str, told: u64) {
        let unknown = self.tenants.get(tenant).map_or(0, |known| known.unknown.spooled);
        let most = self.spooled.entry(tenant.to_owned()).or_default();
        *most = told.saturating_add(unknown).max(*most);
    }

    pub fn totals(&self) -> impl Iterator<Item = (&str, LineTotals)> {
        self.tenants.iter().map(|(tenant, known)| (tenant.as_str(), known.totals))
    }

    /// The most lines of a tenant that were ever spooled, as far as frames tell.
    pub fn spooled(&self, tenant: &str) -> u64 {
        self.spooled.get(tenant).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spooled: u64, written: u64) -> LineTotals {
        LineTotals { spooled, written, ..LineTotals::default() }
    }

    fn head(totals: LineTotals) -> BTreeMap<String, LineTotals> {
        BTreeMap::from([("acme".to_owned(), totals)])
    }

    fn acme(recovered: &RecoveredTotals) -> LineTotals {
        recovered.totals().next().unwrap().1
    }

    #[test]
    fn a_segment_that_is_there_again_brings_what_it_had_counted() {
        let mut recovered = RecoveredTotals::default();
        recovered.begin_segment(&head(of(100, 90)));
        recovered.record("acme".into(), of(100, 100));
        // It was missing when this one was begun, and the next one goes on from there.
        recovered.begin_segment(&BTreeMap::new());
        recovered.record_spooled("acme", 7);
        recovered.record("acme".into(), of(7, 5));
        assert_eq!((acme(&recovered), recovered.spooled("acme")), (of(107, 105), 107));
        recovered.begin_segment(&head(of(7, 6)));
        recovered.record("acme".into(), of(9, 9));
        assert_eq!(acme(&recovered), of(109, 109));
        // A run that knew all of it.
        recovered.begin_segment(&head(of(109, 109)));
        recovered.record_spooled("acme", 110);
        recovered.record("acme".into(), of(110, 110));
        assert_eq!((acme(&recovered), recovered.spooled("acme")), (of(110, 110), 110));
    }
}
