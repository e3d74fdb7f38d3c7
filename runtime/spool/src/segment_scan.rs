//! A segment read from its bytes: its header, frames, marks, and damage.

use std::ops::Range;

use crate::frame;
use crate::frame::{FrameHeader, FrameKind, HEADER_BYTES, MAGIC};
use crate::ids::FrameLocation;
use crate::release_marks::ReleaseMarks;

/// Bytes of the header that a segment begins with: two copies of it, far enough apart that one
/// damaged block leaves the other.
pub const SEGMENT_HEADER_BYTES: usize = 1024;

pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"TGSPOOL1";

/// The header of a segment.
pub(crate) fn segment_header(segment: u64, salt: u32) -> Vec<u8> {
    let mut copy = Vec::with_capacity(24);
    copy.extend_from_slice(SEGMENT_MAGIC);
    copy.extend_from_slice(&segment.to_le_bytes());
    copy.extend_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&copy);
    copy.extend_from_slice(&crc.to_le_bytes());
    let mut header = vec![0; SEGMENT_HEADER_BYTES];
    for at in [0, SEGMENT_HEADER_BYTES / 2] {
        header[at..at + copy.len()].copy_from_slice(&copy);
    }
    header
}

/// The salt that a segment's header names, if a copy of it is good.
pub fn read_segment_header(segment: u64, bytes: &[u8]) -> Option<u32> {
    [0, SEGMENT_HEADER_BYTES / 2].into_iter().find_map(|at| {
        let copy = bytes.get(at..at + 24)?;
        let crc = u32::from_le_bytes(copy[20..].try_into().ok()?);
        let good = copy.starts_with(SEGMENT_MAGIC)
            && copy[8..16] == segment.to_le_bytes()
            && crc32c::crc32c(&copy[..20]) == crc;
        good.then(|| u32::from_le_bytes(copy[16..20].try_into().expect("four bytes")))
    })
}

/// A part of a segment that holds no good frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    pub offset: u64,
    pub bytes: u64,
    /// It is the beginning of a frame whose end was never written: no message of it was
    /// acknowledged.
    pub torn: bool,
}

/// The contents of a segment.
#[derive(Debug, Default)]
pub struct SegmentScan {
    /// Frames of lines and of parked messages whose header and body are good.
    pub frames: Vec<(FrameLocation, FrameHeader)>,
    /// Frames with a good header and a bad body.
    pub bad_bodies: Vec<(FrameLocation, FrameHeader)>,
    /// In the order of the log.
    pub marks: Vec<ReleaseMarks>,
    /// The other segments in force when this one was begun, as the marks at its beginning list them.
    /// `None`: those marks cannot be read.
    pub others: Option<Vec<u64>>,
    /// Changes of the state: where their frame begins, whose they are, and where they lie. In the order
    /// of the log.
    pub states: Vec<(FrameLocation, String, Range<usize>)>,
    pub gaps: Vec<DamagedRange>,
    /// Its header says that it is no segment, or another one.
    pub is_foreign: bool,
}

/// Reads a segment from its bytes. Pure.
pub fn scan(segment: u64, bytes: &[u8]) -> SegmentScan {
    let mut scan = SegmentScan::default();
    let Some(salt) = read_segment_header(segment, bytes) else {
        scan.is_foreign = true;
        return scan;
    };
    let mut at = SEGMENT_HEADER_BYTES;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let header = FrameHeader::read(salt, rest);
        if let Some(header) = header
            && let Some(frame) = rest.get(..header.frame_len())
        {
            let place = FrameLocation { segment, offset: at as u64, len: frame.len() as u32 };
            let body = &frame[frame.len() - header.body_len as usize..];
            let good = crc32c::crc32c(body) == header.body_crc;
            at += frame.len();
            if let Some(state) = frame::state_of(&header, body).filter(|_| good) {
                scan.states.push((place, header.tenant.clone(), at - state.len()..at));
            }
            match (header.kind, good) {
                (FrameKind::State, true) => {}
                (FrameKind::Lines | FrameKind::Parked, true) => scan.frames.push((place, header)),
                (FrameKind::Lines | FrameKind::Parked, false) => {
                    scan.gaps.push(DamagedRange {
                        offset: place.offset,
                        bytes: frame.len() as u64,
                        torn: false,
                    });
                    scan.bad_bodies.push((place, header));
                }
                (FrameKind::Marks, true) => {
                    let marks = ReleaseMarks::read(body);
                    if place.offset == SEGMENT_HEADER_BYTES as u64 {
                        scan.others = marks.as_ref().map(|marks| marks.segments.clone());
                    }
                    scan.marks.extend(marks);
                }
                // Later marks say the same and more; of the state the changes are lost. Marks at the end were
                // not synced.
                (FrameKind::Marks | FrameKind::State, false) => {
                    scan.gaps.push(DamagedRange {
                        offset: place.offset,
                        bytes: frame.len() as u64,
                        torn: header.kind == FrameKind::Marks && at == bytes.len(),
                    });
                }
            }
            continue;
        }
        let next = memchr::memmem::find_iter(&rest[1..], &MAGIC)
            .map(|found| found + 1)
            .find(|&next| FrameHeader::read(salt, &rest[next..]).is_some());
        let len = next.unwrap_or(rest.len());
        let torn = next.is_none() && is_torn(salt, rest);
        scan.gaps.push(DamagedRange { offset: at as u64, bytes: len as u64, torn });
        at += len;
    }
    scan
}

/// True if the end of a segment is the beginning of a frame whose rest was never written. In doubt it is
/// damage: better a false alarm than a silent loss.
pub(crate) fn is_torn(salt: u32, rest: &[u8]) -> bool {
    match FrameHeader::read(salt, rest) {
        Some(header) => header.frame_len() > rest.len(),
        None => rest.len() < HEADER_BYTES && MAGIC.starts_with(&rest[..rest.len().min(MAGIC.len())]),
    }
}
