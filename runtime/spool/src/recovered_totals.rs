//! Totals of tenants as the segments tell them, oldest first: the sum of all epochs (`release_marks`).
//!
//! The part of each epoch is the one that its newest segment tells. Where that segment is not here, a later
//! epoch may tell more than the segments that are.

use std::collections::BTreeMap;

use crate::limits::SPOOL_EPOCHS_MAX;
use crate::release_marks::{EpochTotals, Epochs, LineTotals};

#[derive(Default)]
pub struct RecoveredTotals {
    epochs: BTreeMap<u64, EpochTotals>,
    /// Epochs below this one are part of others.
    first: u64,
    /// The segment that is read, and its epoch.
    segment: u64,
    current: u64,
    /// The part of earlier epochs in the totals that the segment tells.
    earlier: BTreeMap<String, LineTotals>,
}

impl RecoveredTotals {
    /// Begins a segment. `epochs`: those that it begins with; none if they cannot be read, and it goes on like
    /// the one before.
    pub fn begin_segment(&mut self, segment: u64, epochs: Option<Epochs>) {
        self.segment = segment;
        let Some(epochs) = epochs else { return };
        self.current = epochs.current;
        self.first = self.first.max(epochs.first);
        self.earlier.clear();
        for epoch in epochs.earlier {
            for (tenant, part) in &epoch.tenants {
                let sum = self.earlier.entry(tenant.clone()).or_default();
                *sum = sum.plus(*part);
            }
            let known = self.epochs.get(&epoch.epoch);
            if known.is_none_or(|known| known.until_segment < epoch.until_segment) {
                self.epochs.insert(epoch.epoch, epoch);
            }
        }
    }

    fn own(&mut self, tenant: &str) -> (&mut LineTotals, LineTotals) {
        let epoch = self.epochs.entry(self.current).or_default();
        (epoch.epoch, epoch.until_segment) = (self.current, self.segment);
        let earlier = self.earlier.get(tenant).copied().unwrap_or_default();
        (epoch.tenants.entry(tenant.to_owned()).or_default(), earlier)
    }

    /// Takes totals that the segment tells.
    pub fn record(&mut self, tenant: &str, told: LineTotals) {
        let (own, earlier) = self.own(tenant);
        *own = told.minus(earlier);
    }

    /// Takes the count of spooled lines that a frame of the segment tells, after all totals that the segment
    /// tells.
    pub fn record_spooled(&mut self, tenant: &str, told: u64) {
        let (own, earlier) = self.own(tenant);
        let told = LineTotals { spooled: told, ..LineTotals::default() }.minus(earlier).clamped();
        own.spooled = own.clamped().spooled.max(told.spooled);
    }

    /// All lines of each tenant.
    pub fn totals(&self) -> BTreeMap<&str, LineTotals> {
        let mut totals: BTreeMap<&str, LineTotals> = BTreeMap::new();
        for epoch in self.epochs.range(self.first..).map(|(_, epoch)| epoch) {
            for (tenant, part) in &epoch.tenants {
                let sum = totals.entry(tenant).or_default();
                *sum = sum.plus(*part);
            }
        }
        totals.values_mut().for_each(|totals| *totals = totals.clamped());
        totals
    }

    /// The epochs of the run that begins: one of its own, `anew`, if the end of the log is missing.
    pub fn epochs(self, anew: Option<u64>) -> Epochs {
        let current = anew.unwrap_or(self.current);
        let all = self.epochs.into_values();
        let mut earlier: Vec<EpochTotals> =
            all.filter(|epoch| epoch.epoch >= self.first && epoch.epoch < current).collect();
        let mut first = self.first;
        if anew.is_some() && earlier.len() > SPOOL_EPOCHS_MAX {
            earlier.drain(..earlier.len() - SPOOL_EPOCHS_MAX);
            first = earlier[0].epoch;
        }
        Epochs { current, first, earlier }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spooled: u64, written: u64) -> LineTotals {
        LineTotals { spooled, written, ..LineTotals::default() }
    }

    fn acme(recovered: &RecoveredTotals) -> LineTotals {
        recovered.totals()["acme"]
    }

    #[test]
    fn a_segment_that_is_there_again_brings_what_it_had_counted() {
        let older = |recovered: &mut RecoveredTotals| {
            recovered.begin_segment(1, Some(Epochs::default()));
            recovered.record("acme", of(90, 90));
        };
        // A run that began while segment 2 was missing.
        let mut recovered = RecoveredTotals::default();
        older(&mut recovered);
        let without = recovered.epochs(Some(3));
        let mut recovered = RecoveredTotals::default();
        older(&mut recovered);
        recovered.begin_segment(2, Some(Epochs::default()));
        recovered.record("acme", of(100, 95));
        recovered.record_spooled("acme", 101);
        recovered.begin_segment(3, Some(without));
        recovered.record("acme", of(97, 92));
        assert_eq!(acme(&recovered), of(101 + 7, 95 + 2));
        // A run that knew all of it, and nothing is here but its own segment.
        let with = recovered.epochs(None);
        assert_eq!((with.current, with.earlier[0].until_segment), (3, 2));
        let mut recovered = RecoveredTotals::default();
        recovered.begin_segment(4, Some(with));
        recovered.record("acme", of(110, 110));
        assert_eq!(acme(&recovered), of(110, 110));
    }

    #[test]
    fn the_oldest_epochs_become_part_of_a_new_one() {
        let mut epochs = Epochs::default();
        for segment in 1..=40 {
            let mut recovered = RecoveredTotals::default();
            recovered.begin_segment(segment, Some(epochs));
            recovered.record("acme", of(segment, segment));
            assert_eq!(acme(&recovered), of(segment, segment));
            epochs = recovered.epochs(Some(segment + 1));
            assert!(epochs.earlier.len() <= SPOOL_EPOCHS_MAX);
        }
    }
}
