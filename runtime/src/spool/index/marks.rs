//! The marks: what is written down of the index, and how it is made again from that.

use crate::domain::ids::{DatabaseName, TenantId};
use crate::spool::marks::{LineTotals, Marks, StreamMark};
use crate::spool::ranges::RangeSet;

use super::Index;
use super::stream::Frame;

impl Index {
    /// Marks of what has changed since the last ones; with `all`, of everything.
    pub fn marks(&mut self, all: bool) -> Marks {
        let mut marks = Marks::default();
        for stream in &mut self.streams {
            if all || std::mem::take(&mut stream.changed) {
                stream.changed = false;
                marks.streams.push(stream.mark());
            }
        }
        for (name, tenant) in &mut self.tenants {
            if all || std::mem::take(&mut tenant.changed) {
                tenant.changed = false;
                marks.tenants.push((name.to_string(), tenant.totals));
            }
        }
        if all {
            marks.segments = self.segments.keys().copied().collect();
        }
        marks
    }

    /// Marks were not written after all: they are due again.
    pub fn unmark(&mut self, marks: &Marks) {
        for mark in &marks.streams {
            let key = (TenantId::new(&mark.tenant), DatabaseName::new(&mark.database));
            if let Some(&stream) = self.by_name.get(&key) {
                self.streams[stream as usize].changed = true;
            }
        }
        for (tenant, _) in &marks.tenants {
            if let Some(tenant) = self.tenants.get_mut(tenant.as_str()) {
                tenant.changed = true;
            }
        }
    }

    /// After recovery: everything waits to be fetched, and released frames are as the marks say.
    pub fn restore_stream(&mut self, mark: &StreamMark) -> u32 {
        let stream = self.stream(&TenantId::new(&mark.tenant), &DatabaseName::new(&mark.database));
        let state = &mut self.streams[stream as usize];
        debug_assert!(state.frames.is_empty());
        state.base = mark.base;
        state.cursor = mark.base;
        stream
    }

    pub fn restore_next_seq(&mut self, stream: u32, next_seq: u64) {
        let stream = &mut self.streams[stream as usize];
        if stream.frames.is_empty() {
            stream.base = stream.base.max(next_seq);
            stream.cursor = stream.base;
            stream.holes = RangeSet::default();
            return;
        }
        while stream.next_seq() < next_seq {
            stream.holes.insert(stream.next_seq());
            stream.frames.push_back(Frame::GONE);
        }
        while stream.frames.front().is_some_and(|frame| frame.open == 0) {
            stream.frames.pop_front();
            stream.base += 1;
        }
        stream.holes.cut_below(stream.base);
        stream.skip();
    }

    pub fn restore_totals(&mut self, tenant: &TenantId, totals: LineTotals) {
        let tenant = self.tenants.entry(tenant.clone()).or_default();
        tenant.totals = totals;
        tenant.changed = true;
    }
}
