//! The way back to the store: lines of a database in trouble, and of tenants that get other outputs.

use std::collections::HashSet;

use super::{InflightRequest, WriteQueue};
use crate::batch::Batch;
use tidegate_core::ids::TenantId;

impl WriteQueue {
    /// Returns the lines that wait, but no batch that is under way or between two tries.
    pub fn evict(&mut self) {
        for part in self.backlog.evict().into_iter().chain(self.live.evict()) {
            self.return_messages(&part.pending, part.messages);
        }
        for pending in std::mem::take(&mut self.while_fetching) {
            self.return_all(&pending);
        }
    }

    /// True if it has lines of one of these tenants.
    pub fn carries(&self, tenants: &HashSet<TenantId>) -> bool {
        let batches = self.inflight.iter().map(|request| &request.batch);
        let mut parts = batches.flat_map(Batch::parts).chain(self.backlog.parts()).chain(self.live.parts());
        parts.any(|part| tenants.contains(part.pending.tenant()))
            || self.delayed.iter().any(|line| tenants.contains(line.pending.tenant()))
            || self.while_fetching.iter().any(|pending| tenants.contains(pending.tenant()))
    }

    /// Returns the lines that wait and batches between two tries; those under way follow when they fail.
    /// Batches with some lines written and others not stay.
    pub fn take_back(&mut self) {
        self.evict();
        self.return_failed();
        self.taking_back = self.inflight.iter().any(|request| request.under_way);
    }

    /// Returns batches between two tries of which nothing is written.
    fn return_failed(&mut self) {
        let mut kept = Vec::new();
        for request in std::mem::take(&mut self.inflight) {
            if request.under_way || !request.batch.is_untouched() {
                kept.push(request);
                continue;
            }
            self.queue(request.queue).release(request.shards);
            for part in request.batch.parts() {
                self.return_messages(&part.pending, part.messages.clone());
            }
        }
        self.inflight = kept;
    }

    /// Returns batches that have just failed, if `take_back` waits for them.
    pub fn take_back_failed(&mut self) {
        if self.taking_back {
            self.take_back();
        }
    }

    /// True if it is in trouble and holds more than `bytes_max` that is not under way.
    pub fn holds_over(&self, bytes_max: usize) -> bool {
        let of_failed = |request: &&InflightRequest| !request.under_way && request.batch.is_untouched();
        let failed = self.inflight.iter().filter(of_failed).map(|request| request.batch.bytes());
        self.failures() > 0 && self.waiting_bytes() + failed.sum::<usize>() > bytes_max
    }

    /// Returns the lines that wait and batches between two tries of which nothing is written: the next try
    /// fetches what it needs.
    pub fn return_all_it_can(&mut self) {
        self.evict();
        self.return_failed();
    }
}
