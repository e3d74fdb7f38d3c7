//! The marks: the part of the index that is written down, and the index made again from it.

use crate::index::Index;
use crate::index::segment::RetainReason;
use crate::range_set::RangeSet;
use crate::release_marks::{LineTotals, ReleaseMarks, StreamMark};
use tidegate_core::ids::{DatabaseName, TenantId};

impl Index {
    /// Marks of what has changed since the last ones; with `all`, of everything.
    pub fn marks(&mut self, all: bool) -> ReleaseMarks {
        let mut marks = ReleaseMarks::default();
        for stream in &mut self.streams {
            if all || std::mem::take(&mut stream.changed) {
                stream.changed = false;
                marks.streams.push(stream.mark());
            }
        }
        for (name, tenant) in self.tenants.iter_mut() {
            if all || std::mem::take(&mut tenant.changed) {
                tenant.changed = false;
                marks.tenants.push((name.to_string(), tenant.totals.plus(tenant.twice)));
            }
        }
        if all {
            // One that was missing is left out of every list from then on: each later start sees by that
            // that it was.
            let listed = self.segments.iter().filter(|(_, of)| of.kept != Some(RetainReason::Returned));
            marks.segments = listed.map(|(&segment, _)| segment).collect();
            marks.epochs = self.epochs.clone();
        }
        marks.has_lost_streams = self.has_lost_streams;
        marks
    }

    /// Marks were not written after all: they are due again.
    pub fn unmark(&mut self, marks: &ReleaseMarks) {
        for mark in &marks.streams {
            if let Some(stream) = self.find_stream(&mark.tenant, &mark.database) {
                self.streams[stream as usize].changed = true;
            }
        }
        for (tenant, _) in &marks.tenants {
            if let Some(tenant) = self.tenants.get_mut(tenant.as_str()) {
                tenant.changed = true;
            }
        }
    }

    /// After recovery: a stream of which `open` frames, ascending, are to be inserted. The
    /// others that are not released are lost.
    pub fn restore_stream(&mut self, mark: &StreamMark, open: impl Iterator<Item = u64> + Clone) -> u32 {
        let stream = self.stream(&TenantId::new(&mark.tenant), &DatabaseName::new(&mark.database));
        let state = &mut self.streams[stream as usize];
        debug_assert!(state.frames.is_empty());
        let mut lost = RangeSet::from(mark.base..mark.next_seq);
        mark.holes.iter().for_each(|hole| lost.remove_range(hole.clone()));
        mark.lost.iter().for_each(|range| lost.insert_range(range.clone()));
        open.clone().for_each(|seq| lost.remove(seq));
        state.base = open.clone().next().unwrap_or(mark.next_seq);
        state.cursor = state.base;
        let mut holes = RangeSet::from(state.base..mark.next_seq);
        lost.iter().for_each(|range| holes.remove_range(range));
        open.for_each(|seq| holes.remove(seq));
        state.changed |= !lost.is_empty() || !mark.lost.is_empty();
        (state.lost, state.holes) = (lost, holes);
        stream
    }

    /// Makes room for so many frames of a stream, and no more.
    pub fn reserve_frames(&mut self, stream: u32, frames: usize) {
        self.streams[stream as usize].frames.reserve_exact(frames);
    }

    /// After recovery, once the frames of a stream are inserted. From `first_new` on numbers are new,
    /// where that is higher; those between may have been those of frames that are lost.
    pub fn restore_next_seq(&mut self, stream: u32, next_seq: u64, first_new: u64) {
        let stream = &mut self.streams[stream as usize];
        if next_seq < first_new {
            stream.lost.insert_range(next_seq..first_new);
            stream.changed = true;
        }
        let next_seq = next_seq.max(first_new).max(stream.next_seq());
        if stream.next_seq() < next_seq {
            stream.skip_to(next_seq);
        }
        stream.cut();
        stream.skip();
    }

    /// A frame that counted as lost stands elsewhere, with another number.
    pub fn forget_lost(&mut self, stream: u32, seq: u64) {
        let stream = &mut self.streams[stream as usize];
        stream.lost.remove(seq);
        stream.holes.insert(seq);
        stream.holes.cut_below(stream.base);
        stream.changed = true;
    }

    /// Frames of streams that are named nowhere may be lost.
    pub fn lose_streams(&mut self) {
        self.has_lost_streams = true;
    }

    /// After recovery: the totals of a tenant, and what the marks tell beside these.
    pub fn restore_totals(&mut self, tenant: &TenantId, totals: LineTotals, twice: LineTotals) {
        let number = self.tenants.number(tenant);
        let tenant = &mut self.tenants[number];
        (tenant.totals, tenant.twice) = (totals, twice);
        tenant.changed = true;
    }
}
