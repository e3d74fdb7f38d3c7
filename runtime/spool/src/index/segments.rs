//! The segments: the length of each, how much of it is still needed, and the places of frames.

use crate::ids::{FrameId, FrameLocation};
use crate::index::Index;
use crate::index::segment::{RetainReason, SegmentUsage};

impl Index {
    /// Notes how long a segment is.
    pub fn record_segment(&mut self, segment: u64, len: u64) {
        let entry = self.segments.entry(segment).or_default();
        self.disk_bytes = self.disk_bytes - entry.len + len;
        entry.len = len;
    }

    pub fn has_segment(&self, segment: u64) -> bool {
        self.segments.contains_key(&segment)
    }

    /// From now on a segment is not removed. That it was missing once is remembered before all else: later
    /// starts must know it too.
    pub fn keep_segment(&mut self, segment: u64, kept: RetainReason) {
        if let Some(of) = self.segments.get_mut(&segment) {
            of.kept = of.kept.filter(|before| *before == RetainReason::Returned).or(Some(kept));
        }
    }

    /// The reason why a segment is not removed.
    pub fn segment_kept(&self, segment: u64) -> Option<RetainReason> {
        self.segments.get(&segment)?.kept
    }

    /// The newest segment in which nothing is damaged, and how long it is.
    pub fn newest_whole_segment(&self) -> Option<(u64, u64)> {
        let whole = self.segments.iter().rev().find(|(_, of)| of.kept.is_none());
        whole.map(|(&segment, of)| (segment, of.len))
    }

    /// The length of a segment in bytes; 0 if there is none.
    pub fn segment_len(&self, segment: u64) -> u64 {
        self.segments.get(&segment).map_or(0, |of| of.len)
    }

    /// Segments that hold nothing any more, but for `current`.
    pub fn empty_segments(&self, current: Option<u64>) -> Vec<u64> {
        let empty = self.without_frames(current).filter(|(number, _)| !self.state.pins(**number));
        empty.map(|(number, _)| *number).collect()
    }

    fn without_frames(&self, current: Option<u64>) -> impl Iterator<Item = (&u64, &SegmentUsage)> {
        self.segments.iter().filter(move |(number, of)| of.live_frames == 0 && Some(**number) != current)
    }

    /// Bytes of the segments that hold nothing but changes of the state which no checkpoint covers.
    pub fn pinned_bytes(&self, current: Option<u64>) -> u64 {
        let pinned = self.without_frames(current).filter(|(number, _)| self.state.pins(**number));
        pinned.map(|(_, of)| of.len).sum()
    }

    pub fn forget_segment(&mut self, segment: u64) {
        if let Some(of) = self.segments.remove(&segment) {
            debug_assert_eq!(of.live_frames, 0);
            self.disk_bytes -= of.len;
        }
    }

    /// The segment with the smallest part of it alive, but for `current` and those that `is_wanted` leaves
    /// out.
    pub fn emptiest_segment(
        &self,
        current: Option<u64>,
        is_wanted: impl Fn(&SegmentUsage) -> bool,
    ) -> Option<(u64, SegmentUsage)> {
        let others = self
            .segments
            .iter()
            .filter(|(number, of)| Some(**number) != current && of.live_frames > 0 && is_wanted(of));
        let share = |of: &SegmentUsage| of.live_bytes as f64 / of.len.max(1) as f64;
        others.min_by(|a, b| share(a.1).total_cmp(&share(b.1))).map(|(number, of)| (*number, *of))
    }

    /// The frame's id, if exactly this copy of it is the one in force.
    pub fn is_live_at(
        &self,
        tenant: &str,
        database: &str,
        seq: u64,
        place: FrameLocation,
    ) -> Option<FrameId> {
        let stream = self.find_stream(tenant, database)?;
        let frame = self.streams[stream as usize].frame(seq)?;
        (frame.place() == place).then_some(FrameId { stream, seq })
    }

    /// A copy of a frame has become durable elsewhere.
    pub fn relocate(&mut self, id: FrameId, place: FrameLocation) {
        let Some(frame) = self.streams[id.stream as usize].frame_mut(id.seq) else { return };
        let from = u64::from(frame.segment);
        frame.segment = place.segment as u32;
        frame.offset = place.offset as u32;
        let len = u64::from(place.len);
        let old = self.segments.get_mut(&from).expect("it held the frame");
        old.live_bytes -= len;
        old.live_frames -= 1;
        let new = self.segments.entry(place.segment).or_default();
        new.live_bytes += len;
        new.live_frames += 1;
    }

    /// Bytes of all segments on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }
}
