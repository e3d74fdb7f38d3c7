//! Marks: what is released, and the accounts of lines that go with it, as the body of a frame.
//! Pure.
//!
//! Each entry states the whole of its stream or tenant, so the last one read is the one in force.
//!
//! # Epochs
//!
//! A run that begins while the end of the log is missing does not know what was counted there. It counts in
//! an epoch of its own, which has the number of its first segment; so do later runs, until the end is
//! missing again. A segment is in the epoch of its run. Its totals include those of earlier epochs as far as
//! its run knew them, and the marks that it begins with tell these apart: where a segment of an earlier epoch
//! comes back, its part is replaced, and nothing is counted twice or left out.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::codec::ByteReader;
use crate::frame::{FrameHeader, FrameKind};
use crate::limits::{SPOOL_FRAME_NUMBER_MAX, SPOOL_LINES_MAX, SPOOL_SEGMENT_NUMBER_MAX};

/// The released frames of one stream: all below `base`, and `holes`, but for those that are `lost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMark {
    pub tenant: String,
    pub database: String,
    pub next_seq: u64,
    pub base: u64,
    pub holes: Vec<Range<u64>>,
    /// Frames that could not be found or read, and numbers that they may have had. They are not
    /// released: where they come back they are in force again.
    pub lost: Vec<Range<u64>>,
}

/// The lines of one tenant, as far as their frames are done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineTotals {
    pub spooled: u64,
    pub written: u64,
    pub refused: u64,
    pub dropped: u64,
    pub damaged: u64,
}

impl LineTotals {
    /// Lines that are done with.
    pub fn done(&self) -> u64 {
        self.written + self.refused + self.dropped + self.damaged
    }

    fn numbers(self) -> [u64; 5] {
        let Self { spooled, written, refused, dropped, damaged } = self;
        [spooled, written, refused, dropped, damaged]
    }

    fn of([spooled, written, refused, dropped, damaged]: [u64; 5]) -> Self {
        Self { spooled, written, refused, dropped, damaged }
    }

    /// The sum with another part. A part may be below zero: lines of one epoch that count as damaged may be
    /// found in a later one.
    pub fn plus(self, part: Self) -> Self {
        let (all, parts) = (self.numbers(), part.numbers());
        Self::of(std::array::from_fn(|at| all[at].wrapping_add(parts[at])))
    }

    /// The rest beside another part; it may be below zero, as that may.
    pub fn minus(self, part: Self) -> Self {
        let (all, parts) = (self.numbers(), part.numbers());
        Self::of(std::array::from_fn(|at| all[at].wrapping_sub(parts[at])))
    }

    /// Takes off lines that count twice.
    pub fn count_once(&mut self, mut lines: u64) {
        for done in [&mut self.written, &mut self.dropped, &mut self.refused] {
            let less = lines.min(*done);
            *done -= less;
            lines -= less;
        }
    }

    /// The same, with 0 for each number that nothing comes to.
    pub fn clamped(self) -> Self {
        Self::of(self.numbers().map(|number| if number > SPOOL_LINES_MAX { 0 } else { number }))
    }
}

/// The lines of tenants that were counted in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochTotals {
    pub epoch: u64,
    /// The newest segment of that epoch that was known.
    pub until_segment: u64,
    /// Each the part of this epoch alone; see `LineTotals::plus`.
    pub tenants: BTreeMap<String, LineTotals>,
}

/// The epoch of a segment, and the earlier ones that its totals include.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// 0 until the end of the log was missing once.
    pub current: u64,
    /// Epochs below this one are part of others by now.
    pub first: u64,
    /// In ascending order.
    pub earlier: Vec<EpochTotals>,
}

/// Marks of streams and tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleaseMarks {
    pub streams: Vec<StreamMark>,
    pub tenants: Vec<(String, LineTotals)>,
    /// In the marks that a segment begins with: the other segments in force, without those that were
    /// missing once.
    pub segments: Vec<u64>,
    /// Frames may be lost of streams that are named nowhere: in a stream that begins, all numbers below
    /// its first one are.
    pub has_lost_streams: bool,
    /// In the marks that a segment begins with.
    pub epochs: Epochs,
}

impl ReleaseMarks {
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.tenants.is_empty() && self.segments.is_empty()
    }

    /// The marks as a frame.
    pub fn put(&self, salt: u32, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let number = |body: &mut Vec<u8>, number: u64| body.extend_from_slice(&number.to_le_bytes());
        let text = |body: &mut Vec<u8>, text: &str| {
            body.extend_from_slice(&(text.len() as u16).to_le_bytes());
            body.extend_from_slice(text.as_bytes());
        };
        number(&mut body, self.streams.len() as u64);
        for stream in &self.streams {
            text(&mut body, &stream.tenant);
            text(&mut body, &stream.database);
            number(&mut body, stream.next_seq);
            number(&mut body, stream.base);
            number(&mut body, stream.holes.len() as u64);
            for hole in &stream.holes {
                number(&mut body, hole.start);
                number(&mut body, hole.end);
            }
        }
        number(&mut body, self.tenants.len() as u64);
        for (tenant, totals) in &self.tenants {
            text(&mut body, tenant);
            totals.numbers().into_iter().for_each(|total| number(&mut body, total));
        }
        number(&mut body, self.segments.len() as u64);
        for &segment in &self.segments {
            number(&mut body, segment);
        }
        // Only where something is lost: older versions read marks without this, and no others.
        let has_epochs = self.epochs != Epochs::default();
        if has_epochs || self.has_lost_streams || self.streams.iter().any(|stream| !stream.lost.is_empty()) {
            number(&mut body, u64::from(self.has_lost_streams));
            for stream in &self.streams {
                number(&mut body, stream.lost.len() as u64);
                for lost in &stream.lost {
                    number(&mut body, lost.start);
                    number(&mut body, lost.end);
                }
            }
        }
        if has_epochs {
            number(&mut body, self.epochs.current);
            number(&mut body, self.epochs.first);
            number(&mut body, self.epochs.earlier.len() as u64);
            for epoch in &self.epochs.earlier {
                number(&mut body, epoch.epoch);
                number(&mut body, epoch.until_segment);
                number(&mut body, epoch.tenants.len() as u64);
                for (tenant, part) in &epoch.tenants {
                    text(&mut body, tenant);
                    part.numbers().into_iter().for_each(|part| number(&mut body, part));
                }
            }
        }
        let header = FrameHeader {
            kind: FrameKind::Marks,
            flags: 0,
            messages: 0,
            body_len: body.len() as u32,
            body_crc: crc32c::crc32c(&body),
            seq: 0,
            spooled: 0,
            first_ns: 0,
            last_ns: 0,
            kept_s: 0,
            lines: 0,
            tenant: String::new(),
            database: String::new(),
        };
        header.put(salt, out);
        out.extend_from_slice(&body);
    }

    /// Reads a body whose CRC was good. `None` where it does not hold what a body of marks holds.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut reader = ByteReader(body);
        let mut marks = Self::default();
        for _ in 0..reader.u64()? {
            let (tenant, database) = (reader.text()?, reader.text()?);
            let (next_seq, base) = (frame_number(&mut reader)?, frame_number(&mut reader)?);
            let mut holes = Vec::new();
            for _ in 0..reader.u64()? {
                holes.push(frame_number(&mut reader)?..frame_number(&mut reader)?);
            }
            let lost = Vec::new();
            marks.streams.push(StreamMark { tenant, database, next_seq, base, holes, lost });
        }
        for _ in 0..reader.u64()? {
            let tenant = reader.text()?;
            let totals = LineTotals {
                spooled: reader.u64_to(SPOOL_LINES_MAX)?,
                written: reader.u64_to(SPOOL_LINES_MAX)?,
                refused: reader.u64_to(SPOOL_LINES_MAX)?,
                dropped: reader.u64_to(SPOOL_LINES_MAX)?,
                damaged: reader.u64_to(SPOOL_LINES_MAX)?,
            };
            marks.tenants.push((tenant, totals));
        }
        for _ in 0..reader.u64()? {
            marks.segments.push(reader.u64()?);
        }
        if !reader.0.is_empty() {
            marks.has_lost_streams = reader.u64()? != 0;
            for stream in &mut marks.streams {
                for _ in 0..reader.u64()? {
                    stream.lost.push(frame_number(&mut reader)?..frame_number(&mut reader)?);
                }
            }
        }
        if !reader.0.is_empty() {
            marks.epochs = epochs(&mut reader)?;
        }
        reader.0.is_empty().then_some(marks)
    }
}

/// The number of a frame, or the one behind the last.
fn frame_number(reader: &mut ByteReader<'_>) -> Option<u64> {
    reader.u64_to(SPOOL_FRAME_NUMBER_MAX)
}

fn epochs(reader: &mut ByteReader<'_>) -> Option<Epochs> {
    let mut epochs = Epochs {
        current: reader.u64_to(SPOOL_SEGMENT_NUMBER_MAX)?,
        first: reader.u64_to(SPOOL_SEGMENT_NUMBER_MAX)?,
        earlier: Vec::new(),
    };
    for _ in 0..reader.u64()? {
        let mut epoch = EpochTotals {
            epoch: reader.u64_to(SPOOL_SEGMENT_NUMBER_MAX)?,
            until_segment: reader.u64_to(SPOOL_SEGMENT_NUMBER_MAX)?,
            tenants: BTreeMap::new(),
        };
        for _ in 0..reader.u64()? {
            let tenant = reader.text()?;
            let mut part = [0; 5];
            for number in &mut part {
                *number = reader.u64()?;
            }
            epoch.tenants.insert(tenant, LineTotals::of(part));
        }
        epochs.earlier.push(epoch);
    }
    Some(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_BYTES;

    #[test]
    fn numbers_that_nothing_comes_to_are_no_marks() {
        let mut marks =
            ReleaseMarks { tenants: vec![("a".into(), LineTotals::default())], ..Default::default() };
        let mut body = |totals| {
            marks.tenants[0].1 = totals;
            let mut out = Vec::new();
            marks.put(1, &mut out);
            out.split_off(HEADER_BYTES)
        };
        let good = body(LineTotals { written: SPOOL_LINES_MAX, ..LineTotals::default() });
        assert!(ReleaseMarks::read(&good).is_some());
        let bad = body(LineTotals { written: u64::MAX, refused: 1, ..LineTotals::default() });
        assert_eq!(ReleaseMarks::read(&bad), None);
    }

    #[test]
    fn marks_are_read_back_as_they_were_written() {
        let stream = StreamMark {
            tenant: "a".into(),
            database: "d".into(),
            next_seq: 9,
            base: 3,
            holes: vec![4..5, 7..9],
            lost: Vec::new(),
        };
        let totals = LineTotals { spooled: 10, written: 4, refused: 3, dropped: 2, damaged: 1 };
        let mut marks = ReleaseMarks {
            streams: vec![stream],
            tenants: vec![("a".into(), totals)],
            segments: vec![1, 2],
            has_lost_streams: false,
            epochs: Epochs::default(),
        };
        let mut lens = Vec::new();
        for lost in [vec![], vec![1..2, 5..6]] {
            marks.has_lost_streams = !lost.is_empty();
            marks.streams[0].lost = lost;
            let mut bytes = Vec::new();
            marks.put(1, &mut bytes);
            assert_eq!(ReleaseMarks::read(&bytes[HEADER_BYTES..]), Some(marks.clone()));
            assert_eq!(ReleaseMarks::read(&bytes[HEADER_BYTES..bytes.len() - 1]), None);
            lens.push(bytes.len());
        }
        assert_eq!(lens[1] - lens[0], 8 + 8 + 2 * 16, "where nothing is lost there is nothing of it");
        // A part may be below zero.
        let part = LineTotals { written: 1, ..LineTotals::default() }.minus(totals);
        let earlier = vec![EpochTotals { epoch: 0, until_segment: 3, tenants: [("a".into(), part)].into() }];
        marks.epochs = Epochs { current: 4, first: 0, earlier };
        let mut bytes = Vec::new();
        marks.put(1, &mut bytes);
        assert_eq!(ReleaseMarks::read(&bytes[HEADER_BYTES..]), Some(marks));
        assert_eq!(part.plus(totals).written, 1);
    }
}
