//! A stream as the segments tell it.

use std::collections::BTreeMap;

use crate::frame::FrameHeader;
use crate::ids::FrameLocation;
use crate::range_set::RangeSet;
use crate::recovered_frame::{FrameList, RecoveredFrame};
use crate::release_marks::StreamMark;

#[derive(Default)]
pub struct RecoveredStream {
    pub mark: Option<StreamMark>,
    pub frames: FrameList,
    /// The latest time of any line.
    pub last_ns: i64,
    /// Sequence numbers of frames of parked messages that cannot be read, and their messages.
    pub unreadable: BTreeMap<u64, u16>,
    /// The newest segment that names it.
    pub named_in: u64,
}

impl RecoveredStream {
    /// Takes a mark that the segment tells. It states all that those before it did, but for what its run did not
    /// know of: a frame that was released once stays so.
    pub fn record_mark(&mut self, segment: u64, mut mark: StreamMark) {
        if let Some(before) = &self.mark {
            keep_released(before, &mut mark);
        }
        (self.mark, self.named_in) = (Some(mark), segment);
    }

    pub fn record_frame(&mut self, place: FrameLocation, header: &FrameHeader) {
        self.frames.push(RecoveredFrame::new(place, header));
        self.last_ns = self.last_ns.max(header.last_ns);
        self.named_in = place.segment;
    }

    /// Takes a frame of parked messages whose body cannot be read.
    pub fn record_unreadable(&mut self, segment: u64, header: &FrameHeader) {
        self.unreadable.insert(header.seq, header.messages);
        self.named_in = segment;
    }

    /// True if nothing of it is here, and nothing is lost either.
    pub fn is_empty(&self) -> bool {
        let all_released = self.mark.as_ref().is_none_or(|mark| {
            let mut open = RangeSet::from(mark.base..mark.next_seq);
            mark.holes.iter().for_each(|hole| open.remove_range(hole.clone()));
            open.is_empty() && mark.lost.is_empty()
        });
        self.frames.is_empty() && self.unreadable.is_empty() && all_released
    }

    /// The mark in force, with a number behind all frames that are here. One that no mark speaks of begins at
    /// the first of its frames; if `has_lost`, those before it may be lost.
    pub fn take_mark(&mut self, (tenant, database): (String, String), has_lost: bool) -> StreamMark {
        let numbers = self.frames.numbers().chain(self.unreadable.keys().copied());
        let (first, last) = numbers.fold((None, None), |(first, last): (Option<u64>, Option<u64>), seq| {
            (Some(first.map_or(seq, |first| first.min(seq))), last.max(Some(seq)))
        });
        let first = first.unwrap_or(1);
        let mut mark = self.mark.take().unwrap_or_else(|| StreamMark {
            tenant,
            database,
            next_seq: first,
            base: first,
            holes: Vec::new(),
            lost: if has_lost { std::iter::once(0..first).collect() } else { Vec::new() },
        });
        mark.next_seq = last.map_or(mark.next_seq, |last| mark.next_seq.max(last + 1));
        mark
    }
}

/// Adds to a mark what an earlier one released. Its lines were counted with that one: if they were in force
/// again, they would be written and counted anew.
fn keep_released(before: &StreamMark, mark: &mut StreamMark) {
    let mut released = RangeSet::from_iter(before.holes.iter().cloned());
    released.insert_range(0..before.base);
    before.lost.iter().for_each(|lost| released.remove_range(lost.clone()));
    if !mark.lost.is_empty() {
        let mut lost = RangeSet::from_iter(mark.lost.iter().cloned());
        released.iter().for_each(|range| lost.remove_range(range));
        mark.lost = lost.iter().collect();
    }
    released.cut_below(mark.base);
    if !released.is_empty() {
        mark.holes.iter().for_each(|hole| released.insert_range(hole.clone()));
        mark.holes = released.iter().collect();
    }
    mark.next_seq = mark.next_seq.max(before.next_seq);
}

/// The frames that a mark releases, and those that it calls lost.
pub struct MarkedFrames {
    base: u64,
    holes: RangeSet,
    lost: RangeSet,
}

impl MarkedFrames {
    pub fn of(mark: &StreamMark) -> Self {
        Self {
            base: mark.base,
            holes: RangeSet::from_iter(mark.holes.iter().cloned()),
            lost: RangeSet::from_iter(mark.lost.iter().cloned()),
        }
    }

    pub fn is_lost(&self, seq: u64) -> bool {
        self.lost.contains(seq)
    }

    pub fn is_released(&self, seq: u64) -> bool {
        !self.is_lost(seq) && (seq < self.base || self.holes.contains(seq))
    }
}

/// Sorts frames by number, and leaves one of those that were copied: of a frame that was being copied both
/// copies may be there.
pub fn sort_frames(frames: &mut Vec<RecoveredFrame>) {
    if !frames.is_sorted_by_key(|frame| (frame.seq, frame.place())) {
        frames.sort_unstable_by_key(|frame| (frame.seq, frame.place()));
    }
    frames.dedup_by(|later, first| later.is_copy_of(first));
}

/// Takes out the frames whose number is not theirs alone, in the order of the log.
pub fn take_twins(frames: &mut Vec<RecoveredFrame>) -> Vec<RecoveredFrame> {
    let is_twin = |at: usize, frames: &[RecoveredFrame]| {
        let seq = |at: usize| frames.get(at).map(|frame| frame.seq);
        seq(at + 1) == seq(at) || (at > 0 && seq(at - 1) == seq(at))
    };
    let twin: Vec<bool> = (0..frames.len()).map(|at| is_twin(at, frames)).collect();
    let mut at = 0;
    let mut twins: Vec<_> = frames
        .extract_if(.., |_| {
            at += 1;
            twin[at - 1]
        })
        .collect();
    twins.sort_by_key(RecoveredFrame::place);
    twins
}
