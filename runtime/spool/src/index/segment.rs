//! The use of a segment: its length, and how much of it is still needed.

/// The part of a segment that is still needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentUsage {
    pub len: u64,
    pub live_bytes: u64,
    pub live_frames: u64,
    /// The second of the age clock at which the last frame came.
    pub newest_s: u32,
    /// It is never removed, but renamed once it holds nothing any more.
    pub kept: Option<RetainReason>,
}

/// The reason for which a segment is renamed at its end, and not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainReason {
    /// Something in it cannot be read.
    Damaged,
    /// It was missing once, and what was noted meanwhile may be wrong.
    Returned,
}

impl RetainReason {
    /// The extension of the renamed file.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Returned => "returned",
        }
    }
}
