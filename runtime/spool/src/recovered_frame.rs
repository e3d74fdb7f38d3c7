//! Frames that a start has found, kept small: there may be one for each few hundred bytes of the spool, and
//! the machine may have little memory beside a large disk. Pure.

use crate::frame::{FrameHeader, FrameKind};
use crate::ids::FrameLocation;
use tidegate_core::device_hash::SeedTag;

/// A frame of one stream: 40 bytes.
#[derive(Clone, Copy, Debug)]
pub struct RecoveredFrame {
    pub seq: u64,
    segment: u32,
    offset: u32,
    len: u32,
    /// A checksum of the body and of what the header says of it.
    content: u32,
    pub lines: u32,
    kept_s: u32,
    pub messages: u8,
    pub kind: FrameKind,
    seed: u8,
}

impl RecoveredFrame {
    pub fn new(place: FrameLocation, header: &FrameHeader) -> Self {
        let mut content = header.body_crc;
        for number in [header.first_ns as u64, header.last_ns as u64, u64::from(header.kept_s)] {
            content = crc32c::crc32c_append(content, &number.to_le_bytes());
        }
        Self {
            seq: header.seq,
            segment: place.segment as u32,
            offset: place.offset as u32,
            len: place.len,
            content,
            lines: header.lines,
            kept_s: header.kept_s,
            messages: header.messages as u8,
            kind: header.kind,
            seed: header.seed().get(),
        }
    }

    pub fn place(&self) -> FrameLocation {
        FrameLocation { segment: self.segment.into(), offset: self.offset.into(), len: self.len }
    }

    /// True if two frames of a stream are one, which was copied.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        (self.seq, self.len, self.content) == (other.seq, other.len, other.content)
    }

    /// A header with the fields that the index reads. `last_ns`: a time that none of its lines is after.
    pub fn header(&self, last_ns: i64) -> FrameHeader {
        FrameHeader {
            kind: self.kind,
            flags: 0,
            messages: self.messages.into(),
            body_len: 0,
            body_crc: 0,
            seq: self.seq,
            spooled: 0,
            first_ns: i64::MIN,
            last_ns,
            kept_s: self.kept_s,
            lines: self.lines,
            tenant: String::new(),
            database: String::new(),
        }
        .with_seed(SeedTag::new(self.seed))
    }
}

/// The frames of one stream, in pieces: a list that doubles would take twice as much while it grows.
#[derive(Debug, Default)]
pub struct FrameList {
    pieces: Vec<Vec<RecoveredFrame>>,
}

/// Frames in a piece: 160 KiB.
const PIECE_FRAMES: usize = 4_096;

impl FrameList {
    pub fn push(&mut self, frame: RecoveredFrame) {
        match self.pieces.last_mut().filter(|piece| piece.len() < PIECE_FRAMES) {
            Some(piece) => piece.push(frame),
            None => self.pieces.push(vec![frame]),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.pieces.iter().flatten().map(|frame| frame.seq)
    }

    /// The wanted frames, in the order of the log. Each piece goes as it is read.
    pub fn into_frames(self, mut is_wanted: impl FnMut(u64) -> bool) -> Vec<RecoveredFrame> {
        let mut frames = Vec::with_capacity(self.pieces.iter().map(Vec::len).sum());
        for piece in self.pieces {
            frames.extend(piece.into_iter().filter(|frame| is_wanted(frame.seq)));
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_takes_forty_bytes() {
        assert_eq!(size_of::<RecoveredFrame>(), 40);
    }
}
