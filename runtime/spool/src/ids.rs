//! Names of frames and their places.

/// Names a frame for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameId {
    pub stream: u32,
    pub seq: u64,
}

/// The place of a frame on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameLocation {
    pub segment: u64,
    pub offset: u64,
    pub len: u32,
}

/// Stands where the database's name does: no output has one without a name.
pub const NO_DATABASE: &str = "";
